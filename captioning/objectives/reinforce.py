"""Compute the score-function (REINFORCE) gradient of the locations that hard attention sampled, with its baselines."""

import torch
from torch import Tensor, nn

from captioning.errors import must_be
from captioning.models import Glimpse, StepState


class Reinforce(nn.Module):
    """REINFORCE gradient of the locations that hard attention sampled: Show, Attend and Tell section 4.1.

    With return R_t and baseline b_t, the terms are −λ_r Σ_t (R_t − b_t) log α_{t,s_t} − λ_e Σ_t H[α_t], summed over a
    caption's steps. For cross-entropy of words, R is log p(y | s, a), or minus the loss if the loss is different (label
    smoothing, soft targets, the doubly stochastic term).

    With λ_r = 1 and λ_e = 0, the expected gradient is exactly that of the expected loss Σ_s p(s | a) L(s). For plain
    cross-entropy this is the lower bound Σ_s p(s | a) log p(y | s, a) (eq. 10). With another λ_r it is biased, as in
    the paper. With λ_e > 0 it is biased too: the entropy term of the paper differentiates H[α_t] only along the sampled
    path, and so does this one.

    Args:
        scale: λ_r.
        entropy: λ_e.
        baseline: `MovingAverage` (the paper's, the default) or `LeaveOneOut`.
        reward_to_go: Whether R_t sums only the rewards of the words from t on, the only ones that s_t can change,
            instead of the rewards of the full caption.

    Raises:
        ConfigError: `scale` or `entropy` is negative.
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
        """Repeat each caption in the n consecutive rows that the baseline needs: [B, K, T] -> [B, K · n, T]."""
        return tokens.repeat_interleave(self.baseline.samples, 1) if self.baseline.samples > 1 else tokens

    def forward(
        self, rewards: Tensor, glimpse: Glimpse, real: Tensor, *, whole: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the terms of the loss, summed over captions, and values to log.

        Args:
            rewards: Reward of each word, [B, K, T], without gradient.
            glimpse: The glimpses of all steps, [B, K, T, …].
            real: [B, K, T] bool, True at real words.
            whole: Reward of a caption's full path of locations, [B, K]. It is part of the return of every step, because
                each location may change it through the states that follow.

        Returns:
            The terms by name and the values to log by name.
        """
        left = _to_go(real.to(rewards.dtype))  # number of words from each step on
        returns = _to_go(rewards) if whole is None else _to_go(rewards) + whole[..., None]
        if not self.reward_to_go:
            returns, left = returns[..., :1], left[..., :1]  # those of the full caption, at every step
        baseline = self.baseline(returns, left, real)
        figures = {"location_return": returns[..., 0].sum() / real[..., 0].sum().clamp(min=1)}
        return self.terms((returns - baseline) * real, glimpse, real), figures

    def terms(self, advantage: Tensor, glimpse: Glimpse, real: Tensor) -> dict[str, Tensor]:
        """Compute the two terms for a given advantage, summed over captions.

        Args:
            advantage: R_t − b_t, [B, K, T].
            glimpse: The glimpses of all steps, [B, K, T, …].
            real: [B, K, T] bool, True at real words.

        Returns:
            The terms by name.
        """
        assert glimpse.log_prob is not None and glimpse.entropy is not None
        return {
            "location": -self.scale * (advantage.detach() * glimpse.log_prob).sum(),
            "location_entropy": -self.entropy * (glimpse.entropy * real).sum(),
        }


class MovingAverage(StepState):
    """Moving-average baseline: b ← decay · b + (1 − decay) · mean log p(y | s, a), after its use.

    This is the baseline of Show, Attend and Tell, section 4.1 (decay 0.9). The mean is over all captions of an
    optimizer step, over all processes and micro-batches; b is constant during a step. A return over fewer words, as
    with reward-to-go, is compared with the same share of b.

    Args:
        decay: Share of the old value.

    Raises:
        ConfigError: `decay` is not between 0 and 1.
    """

    samples = 1
    value: Tensor

    def __init__(self, *, decay: float = 0.9):
        super().__init__()
        must_be("objective.location_loss.baseline.decay", decay, least=0, most=1)
        self.decay = decay
        self.register_buffer("value", torch.zeros(()))

    def forward(self, returns: Tensor, left: Tensor, real: Tensor) -> Tensor:
        """Return the baseline of each step, and in training record the returns for the next update.

        Args:
            returns: [B, K, T].
            left: Number of words that each return covers, [B, K, T].
            real: [B, K, T] bool, True at real words.

        Returns:
            b [B, K, T].
        """
        share = left / real.sum(-1, keepdim=True).clamp(min=1)
        baseline = self.value.to(returns.dtype) * share
        if self.training:
            self.note(torch.stack((returns[..., 0].sum(), real[..., 0].sum().to(returns.dtype))))
        return baseline

    @torch.no_grad()
    def take(self, sums: Tensor) -> None:
        """Update b at the end of an optimizer step.

        Args:
            sums: Sum of the captions' returns, and their number.
        """
        mean = sums[0] / sums[1].clamp(min=1)
        after = self.decay * self.value + ((1 - self.decay) * mean).to(self.value.dtype)
        self.value.copy_(torch.where(sums[1] > 0, after, self.value))  # an `if` would wait for the device


class LeaveOneOut(nn.Module):
    """Leave-one-out baseline: the mean return of the other paths sampled for the same caption of the same image.

    Args:
        samples: Number of paths sampled per caption; the time of a step grows with it.

    Raises:
        ConfigError: `samples` is less than 2.
    """

    def __init__(self, *, samples: int = 2):
        super().__init__()
        must_be("objective.location_loss.baseline.samples", samples, least=2)
        self.samples = samples

    def forward(self, returns: Tensor, left: Tensor, real: Tensor) -> Tensor:
        """Return the baseline of each step.

        Args:
            returns: [B, K · n, T], the n paths of a caption in consecutive rows.
            left: Not used.
            real: Not used.

        Returns:
            b [B, K · n, T].
        """
        groups = returns.unflatten(1, (-1, self.samples))
        return ((groups.sum(2, keepdim=True) - groups) / (self.samples - 1)).flatten(1, 2)


def _to_go(values: Tensor) -> Tensor:
    """Compute Σ_{t' ≥ t} along the last dimension."""
    return values.flip(-1).cumsum(-1).flip(-1)
