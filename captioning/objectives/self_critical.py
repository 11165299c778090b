"""Train by self-critical sequence training: sample captions, and reward each one by a score of the full caption."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from captioning.decoding import MAX_LENGTH, greedy_search
from captioning.errors import ConfigError, must_be
from captioning.models import CaptionModel, Glimpse
from captioning.objectives.chunked_cross_entropy import wide
from captioning.objectives.cross_entropy import CrossEntropy
from captioning.objectives.loss import Loss, make_loss
from captioning.objectives.reinforce import Reinforce
from captioning.objectives.rollout import draw_ids, roll_out
from captioning.objectives.start_model import StartModel


class SelfCritical(nn.Module):
    """Self-critical sequence training (Rennie et al. 2017): minimize −E_y[r(y)] by REINFORCE over sampled captions.

    The gradient is −(r(y) − b) ∇ log p(y), summed over a caption's words, `<end>` included, and averaged over the
    samples of the batch, of all processes together. Captions are sampled from the model in training mode, dropout
    included, so that the gradient is that of the sampled distribution. Words are sampled with torch's global generator.
    In eval mode (validation loss) the loss is the cross-entropy.

    With `kl`, the loss is −E_y[r(y)] + kl · KL(p ‖ p_0): the captions should stay probable under the model p_0 that the
    run starts from (Jaques et al. 2017). Then r(y) − kl · (log p(y) − log p_0(y)) replaces r(y) above. Its expected
    gradient is that of this loss, because E_y[∇ log p(y)] = 0.

    Args:
        reward: (image ids, captions as lists of ids, with `<end>` if it was generated) -> one number per caption.
        start: Id of `<start>`.
        end: Id of `<end>`.
        forbidden: Ids that are never generated; the probabilities of the others are normalized.
        samples: Number of captions per image.
        baseline: `leave_one_out` (the default) or `greedy`.
        max_length: Greatest number of words per sampled caption, `<end>` included; None is 20.
        location_loss: Gradient of the locations that hard attention samples; the return of a location is r(y) − b of
            its caption. None: `Reinforce()`.
        doubly_stochastic: α_c of the cross-entropy that is the validation loss, so that the loss is comparable with
            that of the run that this one starts from.
        label_smoothing: Label smoothing of that cross-entropy.
        kl: Weight of the divergence from the start; `remember` must have been called if it is above 0.

    Raises:
        ConfigError: An argument is out of range.
    """

    of_task: ClassVar = "image_captioning"  # the task in captioning.tasks that this objective belongs to

    def __init__(
        self,
        reward: Callable[[Sequence[int], Sequence[Sequence[int]]], Sequence[float]],
        *,
        start: int,
        end: int,
        forbidden: tuple[int, ...] = (),
        samples: int = 5,
        baseline: Callable | None = None,
        max_length: int | None = None,
        location_loss: Reinforce | None = None,
        doubly_stochastic: float = 1.0,
        label_smoothing: float = 0.0,
        kl: float = 0.0,
    ):
        super().__init__()
        must_be("objective.kl", kl, least=0)
        must_be("objective.samples", samples, least=1)
        must_be("objective.max_length", max_length, least=1)
        baseline = baseline or leave_one_out
        if samples < 2 and getattr(baseline, "func", baseline) is leave_one_out:
            raise ConfigError(
                f"objective.samples ({samples}) must be at least 2, because a baseline is the mean of the others"
            )
        self.reward, self.start, self.end, self.forbidden = reward, start, end, tuple(forbidden)
        self.samples, self.baseline = samples, baseline
        self.max_length = MAX_LENGTH if max_length is None else max_length
        self.location_loss = location_loss or Reinforce()
        self.kl = kl
        self.start_model: StartModel | None = None
        self.teacher = CrossEntropy(doubly_stochastic=doubly_stochastic, label_smoothing=label_smoothing)

    def remember(self, model: CaptionModel) -> None:
        """Keep a copy of the model that the run starts from, if `kl` needs one.

        Raises:
            ConfigError: the model has hard attention, whose captions have no single probability.
        """
        if not self.kl:
            return
        if model.hard_attention is not None:
            raise ConfigError(
                "objective.kl needs the probability of a caption, which hard attention would have to sum over all "
                "paths of locations: set objective.kl=0, or use soft attention"
            )
        self.start_model = StartModel(model)

    def forward(self, model: CaptionModel, batch: Any) -> Loss:
        """Compute the loss of `model` (a `CaptionModel`) on the images of `batch` (a `CaptionBatch`)."""
        if not model.training:
            return self.teacher(model, batch)
        tokens, log_probs, glimpse = self._sample(model, batch)
        real = tokens != model.pad
        rewards = self._rewards(batch.image_ids, tokens, model.pad, like=log_probs)
        log_p = log_probs.where(real, 0.0).sum(-1)
        stats = {"reward": rewards.mean()}
        if self.kl:
            divergence = log_p.detach() - self._start_log_probs(model, batch, tokens).to(log_p)
            stats["kl"] = divergence.mean()
            rewards = rewards - self.kl * divergence
        advantage = rewards - self.baseline(rewards, partial(self._greedy, model, batch, like=log_probs))
        sums = {"self_critical": -(advantage * log_p).sum()}
        if glimpse.log_prob is not None:
            sums |= self.location_loss.terms(advantage[..., None] * real, glimpse, real)
        samples, words = rewards.numel(), real.sum()
        stats["words_a_caption"] = words / samples
        return make_loss(sums, words.new_tensor(samples), words=words, stats=stats, training=True)

    def _sample(self, model: CaptionModel, batch: Any) -> tuple[Tensor, Tensor, Glimpse]:
        """Sample captions: tokens and log-probabilities [B, n, T], and glimpses [B, n, T, …]; <pad> after <end>."""
        log_probs: list[Tensor] = []
        done: list[Tensor] = []
        forbidden = torch.tensor(self.forbidden, dtype=torch.int64, device=batch.image_ids.device)

        def choose(t: int, logits: Tensor) -> Tensor:
            scores = wide(logits).index_fill(-1, forbidden, -torch.inf).log_softmax(-1)
            token = draw_ids(scores.detach().exp())
            log_probs.append(scores.gather(-1, token[..., None]).squeeze(-1))
            token = token.masked_fill(done[-1], model.pad) if done else token
            done.append((token == self.end) | (token == model.pad))
            return token

        tokens, _, glimpse = roll_out(
            model, batch, rows=self.samples, length=self.max_length, start=self.start, choose=choose,
            stop=lambda: bool(done[-1].all()),  # the only transfer from the device per step
        )  # fmt: skip
        return tokens, torch.stack(log_probs, -1), glimpse

    def _start_log_probs(self, model: CaptionModel, batch: Any, tokens: Tensor) -> Tensor:
        """Compute log p_0 of sampled captions, [B, n]."""
        if self.start_model is None:
            raise ConfigError("objective.kl needs the model that the run starts from: set start_from=CHECKPOINT")
        if any(parameter.requires_grad for parameter in model.encoder.parameters()):
            raise ConfigError("objective.kl needs a frozen encoder: set encoder.unfreeze_from=null, or objective.kl=0")
        with torch.no_grad():
            features = model.encoder(batch.images)
        forbidden = torch.tensor(self.forbidden, dtype=torch.int64, device=tokens.device)
        return self.start_model.log_probs(features, batch.mask, tokens, start=self.start, forbidden=forbidden)

    def _greedy(self, model: CaptionModel, batch: Any, *, like: Tensor) -> Tensor:
        """Compute the rewards [B] of the captions from greedy decoding, without dropout."""
        with _evaluating(model), torch.no_grad():
            state, memory = model.begin(batch.images, batch.mask)
            found = greedy_search(
                partial(model.step, memory=memory), state, batch=len(batch.image_ids), start=self.start, end=self.end,
                forbidden=self.forbidden, max_length=self.max_length,
            )  # fmt: skip
        return like.new_tensor(self.reward(batch.image_ids.tolist(), [best.tokens for best, *_ in found]))

    def _rewards(self, image_ids: Tensor, tokens: Tensor, pad: int, *, like: Tensor) -> Tensor:
        """Compute the rewards [B, n] of sampled captions."""
        ids = image_ids.repeat_interleave(tokens.shape[1]).tolist()
        captions = [[token for token in caption if token != pad] for caption in tokens.flatten(0, 1).tolist()]
        return like.new_tensor(self.reward(ids, captions)).view(tokens.shape[:2])


def leave_one_out(rewards: Tensor, greedy: Callable[[], Tensor]) -> Tensor:
    """Return the mean reward of the other samples of the same image as each sample's baseline; it is unbiased.

    Args:
        rewards: [B, n].
        greedy: Not used.

    Returns:
        b [B, n].
    """
    return (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)


def greedy(rewards: Tensor, greedy: Callable[[], Tensor]) -> Tensor:
    """Return the reward of the image's greedy caption as the baseline of its samples (Rennie et al. 2017).

    It is unbiased.

    Args:
        rewards: Not used.
        greedy: () -> rewards of the greedy captions, [B].

    Returns:
        b [B, 1].
    """
    return greedy()[:, None]


@contextmanager
def _evaluating(model):
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
