"""Train a language model on running text by truncated backpropagation through time."""

import math
from typing import ClassVar

import torch
from torch import nn

from captioning.objectives.loss import Loss, make_loss
from captioning.objectives.word_loss import WordLoss


class TruncatedBackpropagation(nn.Module):
    """Negative log-likelihood of one window of B streams, the state carried over from the window before.

    L = −Σ_t log p(y_t | y_1 … y_{t−1}), in nats. Reduction: summed over the window's steps, averaged over the B streams
    (of the last window of a text some steps of the last stream may be padding, which is in no sum). The state that a
    window begins with has no history: gradients go back to the window's first step and no further (Williams and Peng
    1990), while the loss itself is exact.

    The state is what this objective remembers, and it travels in checkpoints: a run that goes on inside an epoch goes
    on with it. Validation has a state of its own, so that looking at a model between two steps changes nothing.

    Args:
        zeros: the model's state before a text, models.state.State of [layers, B, 1, H].
    """

    of_task: ClassVar = "language_model"  # see captioning.tasks

    def __init__(self, *, zeros):
        super().__init__()
        self.kind, self.looking, self.words = type(zeros), None, WordLoss()
        for name, part in zip(zeros._fields, zeros, strict=True):
            self.register_buffer(name, torch.zeros_like(part))

    def forward(self, model, batch) -> Loss:
        """Loss of `model` (a `CaptionModel` without an image) on `batch` (TextBatch), window after window in order."""
        streams = len(batch.tokens)
        state, memory = model.begin(batch.tokens.new_zeros(streams, 0))
        carried = self._carried() if model.training else self.looking or state
        fresh = batch.fresh[:, None, None]  # of [layers, B, 1, H]
        state = self.kind(*(torch.where(fresh, new, old) for new, old in zip(state, carried, strict=True)))
        decoded = model.teacher_force(batch.tokens, state, memory, carry=True)
        self._carry(decoded.state.detach(), model.training)
        targets = batch.tokens[..., 1:].flatten()[decoded.index]
        nats, _ = self.words(decoded.scores, targets)
        told = nats.detach()
        stats = {
            "nats": told / len(targets),
            "bits_per_character": told / batch.characters / math.log(2),
            "perplexity": (told / len(targets)).exp(),
        }
        words, streams = batch.positions.new_tensor(len(targets)), batch.positions.new_tensor(streams)
        return make_loss({"sequence": nats}, streams, words=words, stats=stats, training=model.training)

    def _carried(self):
        return self.kind(*(getattr(self, name) for name in self.kind._fields))

    def _carry(self, state, training: bool) -> None:
        if not training:
            self.looking = state
            return
        for name, part in zip(state._fields, state, strict=True):
            setattr(self, name, part.to(getattr(self, name).dtype))
