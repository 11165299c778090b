"""Train by self-critical sequence training: sample captions, and reward each by a score of the whole caption."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from captioning.decoding import greedy_search
from captioning.errors import ConfigError, must_be
from captioning.objectives.chunked_cross_entropy import wide
from captioning.objectives.cross_entropy import CrossEntropy
from captioning.objectives.loss import Loss, make_loss
from captioning.objectives.reinforce import Reinforce
from captioning.objectives.rollout import draw_ids, roll_out


class SelfCritical(nn.Module):
    """Self-critical sequence training (Rennie et al. 2017): −E_y[r(y)], by REINFORCE over sampled captions.

    The gradient is −(r(y) − b) ∇ log p(y), summed over a caption's words, <end> among them, and averaged over the
    samples of the batch, of all processes together. Captions are sampled from the model as it trains, dropout included,
    so that the gradient is that of the very distribution sampled from; words come from torch's global generator. In
    eval mode (the validation loss) it is the cross-entropy.

    Args:
        reward: (image ids, captions as id lists, with <end> where it was written) -> one number a caption.
        start, end: token ids. forbidden: ids that are never written; the others' probabilities are normalized.
        samples: captions an image.
        baseline: leave_one_out or greedy.
        max_length: words a caption, <end> included.
        location_loss: Reinforce; a place's return is its caption's r(y) − b.
        doubly_stochastic, label_smoothing: of the cross-entropy that is the validation loss, so that it can be held
            against that of the run that this one goes on from.
    """

    of_task: ClassVar = "image_captioning"  # see captioning.tasks

    def __init__(
        self,
        reward: Callable[[Sequence[int], Sequence[Sequence[int]]], Sequence[float]],
        *,
        start: int,
        end: int,
        forbidden: tuple[int, ...] = (),
        samples: int = 5,
        baseline: Callable | None = None,
        max_length: int = 20,
        location_loss: Reinforce | None = None,
        doubly_stochastic: float = 1.0,
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        must_be("objective.samples", samples, least=1)
        must_be("objective.max_length", max_length, least=1)
        baseline = baseline or leave_one_out
        if samples < 2 and getattr(baseline, "func", baseline) is leave_one_out:
            raise ConfigError(f"objective.samples ({samples}) must be at least 2: each sample's baseline is the others")
        self.reward, self.start, self.end, self.forbidden = reward, start, end, tuple(forbidden)
        self.samples, self.baseline, self.max_length = samples, baseline, max_length
        self.location_loss = location_loss or Reinforce()
        self.teacher = CrossEntropy(doubly_stochastic=doubly_stochastic, label_smoothing=label_smoothing)

    def forward(self, model, batch) -> Loss:
        """Loss of `model` (a `CaptionModel`) on the images of `batch` (CaptionBatch)."""
        if not model.training:
            return self.teacher(model, batch)
        tokens, log_probs, glimpse = self._sample(model, batch)
        real = tokens != model.pad
        rewards = self._rewards(batch.image_ids, tokens, model.pad, like=log_probs)
        advantage = rewards - self.baseline(rewards, partial(self._greedy, model, batch, like=log_probs))
        sums = {"self_critical": -(advantage * (log_probs * real).sum(-1)).sum()}
        if glimpse.log_prob is not None:
            sums |= self.location_loss.terms(advantage[..., None] * real, glimpse, real)
        samples, words = rewards.numel(), real.sum()
        stats = {"reward": rewards.mean(), "words_a_caption": words / samples}
        return make_loss(sums, words.new_tensor(samples), words=words, stats=stats, training=True)

    def _sample(self, model, batch):
        """Tokens and their log-probabilities [B, n, T], and the glimpses [B, n, T, …]; <pad> after <end>."""
        log_probs, done = [], []
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
            stop=lambda: bool(done[-1].all()),  # the one transfer from the device a step
        )  # fmt: skip
        return tokens, torch.stack(log_probs, -1), glimpse

    def _greedy(self, model, batch, *, like: Tensor) -> Tensor:
        """Rewards [B] of the captions that greedy decoding writes, without dropout."""
        with _evaluating(model), torch.no_grad():
            state, memory = model.begin(batch.images, batch.mask)
            found = greedy_search(
                partial(model.step, memory=memory), state, batch=len(batch.image_ids), start=self.start, end=self.end,
                forbidden=self.forbidden, max_length=self.max_length,
            )  # fmt: skip
        return like.new_tensor(self.reward(batch.image_ids.tolist(), [best.tokens for best, *_ in found]))

    def _rewards(self, image_ids: Tensor, tokens: Tensor, pad: int, *, like: Tensor) -> Tensor:
        """[B, n]."""
        ids = image_ids.repeat_interleave(tokens.shape[1]).tolist()
        captions = [[token for token in caption if token != pad] for caption in tokens.flatten(0, 1).tolist()]
        return like.new_tensor(self.reward(ids, captions)).view(tokens.shape[:2])


def leave_one_out(rewards: Tensor, greedy: Callable[[], Tensor]) -> Tensor:
    """Baseline of a sample: the mean reward of its image's other samples; [B, n] -> [B, n]. Unbiased."""
    return (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)


def greedy(rewards: Tensor, greedy: Callable[[], Tensor]) -> Tensor:
    """Baseline of a sample: the reward of its image's greedy caption, as Rennie et al.; [B, n] -> [B, 1]. Unbiased."""
    return greedy()[:, None]


@contextmanager
def _evaluating(model):
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
