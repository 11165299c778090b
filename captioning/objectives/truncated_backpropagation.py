"""Train a language model on running text by truncated backpropagation through time."""

import math
from typing import Any, ClassVar

import torch
from torch import nn

from captioning.models import CaptionModel
from captioning.objectives.loss import Loss, make_loss
from captioning.objectives.word_loss import WordLoss


class TruncatedBackpropagation(nn.Module):
    """Negative log-likelihood of one window of B streams; the state is carried over from the window before.

    L = −Σ_t log p(y_t | y_1 … y_{t−1}), in nats. Reduction: summed over the window's steps, averaged over the B
    streams. (In the last window of a text, some steps of the last stream may be padding, which counts in no sum.) The
    state at the start of a window has no gradient history: gradients stop at the window's first step (Williams and Peng
    1990), but the loss is exact.

    The state is the memory of this objective and is saved in checkpoints, so that a run that resumes inside an epoch
    continues with it. Validation has its own state, so that validating between two steps changes nothing.

    Args:
        zeros: The model's state before a text, a `models.State` of tensors [layers, B, 1, H].
    """

    of_task: ClassVar = "language_model"  # the task in captioning.tasks that this objective belongs to

    def __init__(self, *, zeros: Any):
        super().__init__()
        self.kind, self.looking, self.words = type(zeros), None, WordLoss()
        for name, part in zip(zeros._fields, zeros, strict=True):
            self.register_buffer(name, torch.zeros_like(part))

    def forward(self, model: CaptionModel, batch: Any) -> Loss:
        """Compute the loss of a `CaptionModel` without an image on a `TextBatch`; windows must come in order."""
        streams = len(batch.tokens)
        state, memory = model.begin(batch.tokens.new_zeros(streams, 0))
        carried = self._carried() if model.training else self.looking or state
        fresh = batch.fresh[:, None, None]  # of [layers, B, 1, H]
        state = self.kind(*(torch.where(fresh, new, old) for new, old in zip(state, carried, strict=True)))
        decoded = model.teacher_force(batch.tokens, state, memory, carry=True)
        assert decoded.state is not None
        self._carry(decoded.state.detach(), model.training)
        targets = batch.tokens[..., 1:].flatten()[decoded.index]
        nats, _ = self.words(decoded.scores, targets)
        total = nats.detach()
        stats = {
            "nats": total / len(targets),
            "bits_per_character": total / batch.characters / math.log(2),
            "perplexity": (total / len(targets)).exp(),
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
