"""Score the next word from the previous word, the state and the context; all readouts share one signature.

`read` computes everything except the product with the vocabulary matrix, for callers that compute the logits of a few
words at a time (`LazyLogits`).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError, must_be
from captioning.models.ops import Dropout


class LazyLogits(NamedTuple):
    """Logits W f + b of N words that are not computed yet: [N, V] would be the largest tensor of a training step.

    Attributes:
        features: f, [N, F].
        output: Linear layer with W and b.
    """

    features: Tensor
    output: nn.Linear

    def compute(self) -> Tensor:
        """Compute all logits, [N, V]."""
        return self.output(self.features)


class Readout(nn.Module):
    """Base of the output layers.

    Attributes:
        output: Linear layer from the readout's features to the V words of the vocabulary.
    """

    output: nn.Linear

    def read(self, word: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """Compute the input of the output layer.

        Args:
            word: Embedding of the previous word, [N, E], with any leading dimensions.
            hidden: Hidden state, [N, H].
            context: Context vector, [N, D].

        Returns:
            Features [N, F].
        """
        raise NotImplementedError

    def forward(self, word: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """Compute the logits of the next word.

        Args:
            word: Embedding of the previous word, [N, E], with any leading dimensions.
            hidden: Hidden state, [N, H].
            context: Context vector, [N, D].

        Returns:
            Logits [N, V].
        """
        return self.output(self.read(word, hidden, context))

    def scores(self, word: Tensor, hidden: Tensor, context: Tensor) -> LazyLogits:
        """Return the logits of `forward` as `LazyLogits`, which compute them on demand."""
        return LazyLogits(self.read(word, hidden, context), self.output)


class LinearReadout(Readout):
    """Linear output layer: logits = W h_t + b, over state and context (Show and Tell, neuraltalk2).

    Args:
        embedding_size: Not used.
        state_size: H.
        context_size: D; 0 without a context.
        vocabulary_size: V.
        dropout: On state and context.

    Raises:
        ConfigError: `dropout` is not at least 0 and below 1.
    """

    def __init__(
        self, embedding_size: int, state_size: int, *, context_size: int, vocabulary_size: int, dropout: float = 0.5
    ):
        super().__init__()
        self.dropout = _dropout(dropout)
        self.output = nn.Linear(state_size + context_size, vocabulary_size)

    def read(self, word, hidden, context):
        """Concatenate state and context, with dropout: -> [N, H + D]."""
        return self.dropout(torch.cat((hidden, context), -1))


class SumReadout(Readout):
    """Output layer over a sum: logits = W (z_t + h_t) + b, Knowing When to Look (Lu et al. 2017) eq. 13.

    Args:
        embedding_size: Not used.
        state_size: H.
        context_size: D, which must equal H.
        vocabulary_size: V.
        dropout: On the sum.

    Raises:
        ConfigError: There is no context, its width is not H, or `dropout` is not at least 0 and below 1.
    """

    def __init__(
        self, embedding_size: int, state_size: int, *, context_size: int, vocabulary_size: int, dropout: float = 0.5
    ):
        super().__init__()
        if not context_size:
            raise ConfigError(
                "model/readout=sum adds context and state, but there is no context with model/attention=none or with "
                "model/recurrence=up_down, whose cell uses it. Set model/readout=deep or model/readout=linear"
            )
        if context_size != state_size:
            raise ConfigError(
                f"model/readout=sum adds context ({context_size}) and state ({state_size}), "
                f"so their widths must agree. Set model.feature_width={state_size}, or model/readout=deep, or "
                "model/readout=linear"
            )
        self.dropout = _dropout(dropout)
        self.output = nn.Linear(state_size, vocabulary_size)

    def read(self, word, hidden, context):
        """Add state and context, with dropout: -> [N, H]."""
        return self.dropout(hidden + context)


class DeepReadout(Readout):
    """Deep output layer: p(y_t) ∝ exp L_o(E y_{t-1} + L_h h_t + L_z z_t), Show, Attend and Tell eq. 7.

    As in the code of the paper, there is dropout on h_t, a tanh over the sum, and dropout again before L_o. Without
    attention there is no context, and no L_z.

    Args:
        embedding_size: E.
        state_size: H.
        context_size: D; 0 without a context.
        vocabulary_size: V.
        dropout: On h_t and before L_o.

    Raises:
        ConfigError: `dropout` is not at least 0 and below 1.
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
        """Compute tanh(E y_{t-1} + L_h h_t + L_z z_t), with dropout: -> [N, E]."""
        total = word + self.hidden(self.dropout(hidden))
        if self.context is not None:
            total = total + self.context(context)
        return self.dropout(torch.tanh(total))


def _dropout(share: float) -> Dropout:
    must_be("model.readout.dropout", share, least=0, below=1)
    return Dropout(share)
