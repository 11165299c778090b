"""Score the next word from the last word, the state and the context; all readouts share one signature.

`read` computes everything but the product with the vocabulary's matrix, for callers that compute a few words' logits at
a time (`LazyLogits`).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError, must_be
from captioning.models.ops import Dropout


class LazyLogits(NamedTuple):
    """Word scores W f + b of N words that are not made yet: [N, V] would be the largest tensor of a training step.

    features: f, [N, F]. output: W and b.
    """

    features: Tensor
    output: nn.Linear

    def compute(self) -> Tensor:
        """All of them, [N, V]."""
        return self.output(self.features)


class Readout(nn.Module):
    """Common to all: what is read goes through one matrix of V rows, `output`."""

    output: nn.Linear

    def read(self, word: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """word [N, E], hidden [N, H], context [N, D] -> what the output layer takes, [N, F]; any leading dimensions."""
        raise NotImplementedError

    def forward(self, word: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """word [N, E], hidden [N, H], context [N, D] -> logits [N, V]; any leading dimensions."""
        return self.output(self.read(word, hidden, context))

    def scores(self, word: Tensor, hidden: Tensor, context: Tensor) -> LazyLogits:
        """The same, not made yet."""
        return LazyLogits(self.read(word, hidden, context), self.output)


class LinearReadout(Readout):
    """logits = W h_t + b over the state, and over the context where there is one (Show and Tell, neuraltalk2)."""

    def __init__(
        self, embedding_size: int, state_size: int, *, context_size: int, vocabulary_size: int, dropout: float = 0.5
    ):
        super().__init__()
        self.dropout = _dropout(dropout)
        self.output = nn.Linear(state_size + context_size, vocabulary_size)

    def read(self, word, hidden, context):
        return self.dropout(torch.cat((hidden, context), -1))


class SumReadout(Readout):
    """logits = W (z_t + h_t) + b, Knowing When to Look (Lu et al. 2017) eq. 13; context and state share one width."""

    def __init__(
        self, embedding_size: int, state_size: int, *, context_size: int, vocabulary_size: int, dropout: float = 0.5
    ):
        super().__init__()
        if not context_size:
            raise ConfigError(
                "model/readout=sum adds context and state, and there is no context: not with model/attention=none, nor "
                "with model/recurrence=up_down, whose cell takes it in; set model/readout=deep or linear"
            )
        if context_size != state_size:
            raise ConfigError(
                f"model/readout=sum adds context ({context_size}) and state ({state_size}): their widths must agree; "
                f"set model.feature_width={state_size}, or model/readout=deep or linear"
            )
        self.dropout = _dropout(dropout)
        self.output = nn.Linear(state_size, vocabulary_size)

    def read(self, word, hidden, context):
        return self.dropout(hidden + context)


class DeepReadout(Readout):
    """Deep output layer: p(y_t) ∝ exp L_o(E y_{t-1} + L_h h_t + L_z z_t), Show, Attend and Tell eq. 7.

    As in the paper's code, dropout on h_t, a tanh over the sum, and dropout again before L_o. Without attention the
    context has width zero and L_z drops out.
    """

    def __init__(
        self, embedding_size: int, state_size: int, *, context_size: int, vocabulary_size: int, dropout: float = 0.5
    ):
        super().__init__()
        self.dropout = _dropout(dropout)
        self.hidden = nn.Linear(state_size, embedding_size)
        self.context = nn.Linear(context_size, embedding_size, bias=False) if context_size else None
        self.output = nn.Linear(embedding_size, vocabulary_size)

    def read(self, word, hidden, context):
        total = word + self.hidden(self.dropout(hidden))
        if self.context is not None:
            total = total + self.context(context)
        return self.dropout(torch.tanh(total))


def _dropout(share: float) -> Dropout:
    must_be("model.readout.dropout", share, least=0, below=1)
    return Dropout(share)
