"""Compute the score-function (REINFORCE) gradient of the locations that hard attention drew, with its baselines."""

import torch
from torch import Tensor, nn

from captioning.errors import must_be
from captioning.models import StepState


class Reinforce(nn.Module):
    """Gradient of the places that hard attention drew: Show, Attend and Tell section 4.1.

    With return R_t and baseline b the terms are −λ_r Σ_t (R_t − b_t) log α_{t,s_t} − λ_e Σ_t H[α_t], summed over a
    caption's steps. For words by cross-entropy R is log p(y | s, a), or minus the loss where that is another (label
    smoothing, soft targets, the doubly stochastic term). With λ_r = 1 and λ_e = 0 the expected gradient is then exactly
    that of Σ_s p(s | a) L(s), the expected loss: of the lower bound Σ_s p(s | a) log p(y | s, a) (eq. 10) by plain
    cross-entropy. With other λ_r it is biased, as in the paper. So it is with λ_e > 0: the paper's entropy term
    differentiates H[α_t] along the drawn path only, and so does this.

    Args:
        scale: λ_r. entropy: λ_e.
        baseline: MovingAverage (the paper's) or LeaveOneOut.
        reward_to_go: R_t sums the rewards of the words from t on, which alone s_t can change, instead of the whole
            caption's.
    """

    def __init__(
        self,
        *,
        scale: float = 0.1,
        entropy: float = 0.002,
        baseline: "MovingAverage | LeaveOneOut | None" = None,
        reward_to_go: bool = False,
    ):
        super().__init__()
        must_be("objective.location_loss.scale", scale, least=0)
        must_be("objective.location_loss.entropy", entropy, least=0)
        self.scale, self.entropy, self.reward_to_go = scale, entropy, reward_to_go
        self.baseline = baseline or MovingAverage()

    def repeat(self, tokens: Tensor) -> Tensor:
        """[B, K, T] -> [B, K · n, T]: a caption in the n rows that the baseline wants, one after the other."""
        return tokens.repeat_interleave(self.baseline.samples, 1) if self.baseline.samples > 1 else tokens

    def forward(
        self, rewards: Tensor, glimpse, real: Tensor, *, whole: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Terms of the loss, summed over captions, and figures to log.

        Args:
            rewards: of each word, [B, K, T], without gradient. real: [B, K, T], where there are words.
            whole: [B, K], a reward of the whole path of a caption, which is part of the return of every step: by the
                states that follow, each location may change it.
        """
        left = _to_go(real.to(rewards.dtype))  # words from each step on
        returns = _to_go(rewards) if whole is None else _to_go(rewards) + whole[..., None]
        if not self.reward_to_go:
            returns, left = returns[..., :1], left[..., :1]  # of the whole caption, at every step
        baseline = self.baseline(returns, left, real)
        figures = {"location_return": returns[..., 0].sum() / real[..., 0].sum().clamp(min=1)}
        return self.terms((returns - baseline) * real, glimpse, real), figures

    def terms(self, advantage: Tensor, glimpse, real: Tensor) -> dict[str, Tensor]:
        """The two terms for a given advantage [B, K, T], summed over captions."""
        return {
            "location": -self.scale * (advantage.detach() * glimpse.log_prob).sum(),
            "location_entropy": -self.entropy * (glimpse.entropy * real).sum(),
        }


class MovingAverage(StepState):
    """b ← decay · b + (1 − decay) · mean log p(y | s, a), after its use (Show, Attend and Tell, section 4.1; 0.9).

    The mean is over all captions of an optimizer step, of all its processes and micro-batches; b is constant during a
    step. A return over fewer words, as reward-to-go has, is compared with that share of b.
    """

    samples = 1

    def __init__(self, *, decay: float = 0.9):
        super().__init__()
        must_be("objective.location_loss.baseline.decay", decay, least=0, most=1)
        self.decay = decay
        self.register_buffer("value", torch.zeros(()))

    def forward(self, returns: Tensor, left: Tensor, real: Tensor) -> Tensor:
        """returns, left (words that each return covers), real: [B, K, T] -> b [B, K, T]."""
        share = left / real.sum(-1, keepdim=True).clamp(min=1)
        baseline = self.value.to(returns.dtype) * share
        if self.training:
            self.note(torch.stack((returns[..., 0].sum(), real[..., 0].sum().to(returns.dtype))))
        return baseline

    @torch.no_grad()
    def take(self, sums: Tensor) -> None:
        """The sum of the captions' returns, and their number."""
        mean = sums[0] / sums[1].clamp(min=1)
        after = self.decay * self.value + ((1 - self.decay) * mean).to(self.value.dtype)
        self.value.copy_(torch.where(sums[1] > 0, after, self.value))  # no `if`, which would wait for the device


class LeaveOneOut(nn.Module):
    """b of a path of places: the mean return of the other paths drawn for the same caption of the same image.

    Args:
        samples: paths drawn for each caption; the time of a step grows with it.
    """

    def __init__(self, *, samples: int = 2):
        super().__init__()
        must_be("objective.location_loss.baseline.samples", samples, least=2)
        self.samples = samples

    def forward(self, returns: Tensor, left: Tensor, real: Tensor) -> Tensor:
        """[B, K · n, T] -> b [B, K · n, T]."""
        groups = returns.unflatten(1, (-1, self.samples))
        return ((groups.sum(2, keepdim=True) - groups) / (self.samples - 1)).flatten(1, 2)


def _to_go(values: Tensor) -> Tensor:
    """Σ_{t' ≥ t} along the last dimension."""
    return values.flip(-1).cumsum(-1).flip(-1)
