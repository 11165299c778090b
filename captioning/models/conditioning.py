"""Feed the image vector into the recurrence: as initial state, as first input, at every step, or several of these.

A conditioning has one method per way in which the image vector v [B, F] (an fc vector, or the mean over the grid's
locations) can enter. Each part below implements one of them. The base class implements all three as "the image does not
enter".
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError, must_be
from captioning.models.ops import Dropout
from captioning.models.state import RecurrentState


class Conditioning(nn.Module):
    """Base of the conditionings: the image vector does not enter.

    Attributes:
        input_size: Width of the image input that joins the word at every step.
    """

    input_size = 0

    def initial_state(self, vector: Tensor, zeros: RecurrentState) -> RecurrentState:
        """Return the state before the first word.

        Args:
            vector: Image vectors [B, F].
            zeros: A zero state [layers, B, 1, H].
        """
        return zeros

    def first_input(self, vector: Tensor) -> Tensor | None:
        """Return the input [B, E] of an extra step before `<start>`, or None for no such step."""
        return None

    def every_input(self, vector: Tensor) -> Tensor:
        """Return the image input [B, input_size] that joins the word at every step."""
        return vector.new_zeros(len(vector), 0)


class NoConditioning(Conditioning):
    """No conditioning: the recurrence gets only words. Without attention this is a language model.

    Args:
        feature_size: Not used.
        embedding_size: Not used.
        zeros: Not used.
    """

    def __init__(self, feature_size: int, embedding_size: int, *, zeros: RecurrentState):
        super().__init__()


class InitialState(Conditioning):
    """Compute the initial state from the image: h_0 = f_h(v), c_0 = f_c(v), Show, Attend and Tell section 3.1.2.

    The paper describes two perceptrons. Its code has one shared ReLU layer with dropout below two tanh layers, and so
    has this class.

    Args:
        feature_size: F, the size of the image vector.
        embedding_size: Not used.
        zeros: A state of the recurrence; it defines the number of layers, the width, and whether there is a cell state.
        dropout: On the shared layer.

    Raises:
        ConfigError: `dropout` is not at least 0 and below 1.
    """

    def __init__(self, feature_size: int, embedding_size: int, *, zeros: RecurrentState, dropout: float = 0.5):
        super().__init__()
        must_be("model.conditioning.dropout", dropout, least=0, below=1)
        self.layers, size = len(zeros.hidden), zeros.hidden.shape[-1]
        self.shared = nn.Sequential(nn.Linear(feature_size, size), nn.ReLU(), Dropout(dropout))
        self.hidden = nn.Linear(size, self.layers * size)
        self.cell = nn.Linear(size, self.layers * size) if zeros.cell.shape[-1] else None

    def initial_state(self, vector: Tensor, zeros: RecurrentState) -> RecurrentState:
        """Compute the initial state from image vectors [B, F]."""
        shared = self.shared(vector)
        hidden = self._layers_first(torch.tanh(self.hidden(shared)))
        return RecurrentState(
            hidden, zeros.cell if self.cell is None else self._layers_first(torch.tanh(self.cell(shared)))
        )

    def _layers_first(self, flat: Tensor) -> Tensor:
        """Reshape [B, layers · H] to [layers, B, 1, H]."""
        return flat.unflatten(-1, (self.layers, -1)).transpose(0, 1).unsqueeze(2)


class FirstStep(Conditioning):
    """Make the image the input of one step before `<start>`: x_{-1} = W_I v (Show and Tell, eqs. 10–12).

    Args:
        feature_size: F, the size of the image vector.
        embedding_size: E, the size of a word vector.
        zeros: Not used.
    """

    def __init__(self, feature_size: int, embedding_size: int, *, zeros: RecurrentState):
        super().__init__()
        self.image = nn.Linear(feature_size, embedding_size)

    def first_input(self, vector: Tensor) -> Tensor:
        """Compute x_{-1} = W_I v: [B, F] -> [B, E]."""
        return self.image(vector)


class EveryStep(Conditioning):
    """Add the image to every step: h_t = f(W_xh x_t + W_hh h_{t-1} + W_ih v), the captioner of the lecture.

    v is first brought to the width of a word. W_ih is therefore a product of two matrices; the cell applies the second
    one, as part of its input matrix.

    Args:
        feature_size: F, the size of the image vector.
        embedding_size: E, the size of a word vector.
        zeros: Not used.
    """

    def __init__(self, feature_size: int, embedding_size: int, *, zeros: RecurrentState):
        super().__init__()
        self.image = nn.Linear(feature_size, embedding_size)
        self.input_size = embedding_size

    def every_input(self, vector: Tensor) -> Tensor:
        """Compute the image input of every step: [B, F] -> [B, E]."""
        return self.image(vector)


class Several(Conditioning):
    """Combine parts of different kinds: the image enters in two or all three ways.

    Args:
        feature_size: F, the size of the image vector.
        embedding_size: E, the size of a word vector.
        zeros: A state of the recurrence.
        parts: Classes of conditionings of different kinds.

    Raises:
        ConfigError: Two parts are of the same kind, so that both would set the same input.
    """

    def __init__(self, feature_size: int, embedding_size: int, *, zeros: RecurrentState, parts: Sequence[Callable]):
        super().__init__()
        built = nn.ModuleList(part(feature_size, embedding_size, zeros=zeros) for part in parts)
        self.parts = cast("Sequence[Conditioning]", built)
        kinds = [type(part) for part in self.parts]
        if len(set(kinds)) < len(kinds):
            names = ", ".join(kind.__name__ for kind in kinds)
            raise ConfigError(
                f"model.conditioning.parts must be of different kinds, not {names}. Remove the repeated one"
            )
        self.input_size = sum(part.input_size for part in self.parts)

    def initial_state(self, vector: Tensor, zeros: RecurrentState) -> RecurrentState:
        """Return the initial state of the part that sets one, or `zeros`."""
        for part in self.parts:
            zeros = part.initial_state(vector, zeros)
        return zeros

    def first_input(self, vector: Tensor) -> Tensor | None:
        """Return the first input [B, E] of the part that has one, or None."""
        return next((first for part in self.parts if (first := part.first_input(vector)) is not None), None)

    def every_input(self, vector: Tensor) -> Tensor:
        """Concatenate the image inputs of all parts, [B, input_size]."""
        return torch.cat([part.every_input(vector) for part in self.parts], -1)
