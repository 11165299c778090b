"""Feed the image vector into the recurrence: as initial state, as first input, at every step, or several of these.

A conditioning answers three questions about the image vector v [B, F] (an fc vector, or the mean over a grid's
places); each part below answers one of them, and leaves the others at "nothing".
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError, must_be
from captioning.models.ops import Dropout
from captioning.models.state import RecurrentState


class Conditioning(nn.Module):
    """Nothing enters; the base of the parts below.

    Attributes:
        input_size: width of what joins the word at every step.
    """

    input_size = 0

    def initial_state(self, vector: Tensor, zeros: RecurrentState) -> RecurrentState:
        """RecurrentState before the first word, from zeros of its shape [layers, B, 1, H]."""
        return zeros

    def first_input(self, vector: Tensor) -> Tensor | None:
        """A word-like input [B, E] for an extra step before <start>, or None."""
        return None

    def every_input(self, vector: Tensor) -> Tensor:
        """What joins the word at every step: [B, input_size]."""
        return vector.new_zeros(len(vector), 0)


class NoConditioning(Conditioning):
    """The recurrence knows nothing but its words: a language model, where there is no attention either."""

    def __init__(self, feature_size: int, embedding_size: int, *, zeros: RecurrentState):
        super().__init__()


class InitialState(Conditioning):
    """h_0 = f_h(v), c_0 = f_c(v) as Show, Attend and Tell computes them (section 3.1.2).

    The paper says two perceptrons; its code shares a ReLU layer with dropout below two tanh layers, and so does this.

    Args:
        zeros: a RecurrentState of the recurrence, for its layers, its width, and whether it has a cell state.
        dropout: on the shared layer.
    """

    def __init__(self, feature_size: int, embedding_size: int, *, zeros: RecurrentState, dropout: float = 0.5):
        super().__init__()
        must_be("model.conditioning.dropout", dropout, least=0, below=1)
        self.layers, size = len(zeros.hidden), zeros.hidden.shape[-1]
        self.shared = nn.Sequential(nn.Linear(feature_size, size), nn.ReLU(), Dropout(dropout))
        self.hidden = nn.Linear(size, self.layers * size)
        self.cell = nn.Linear(size, self.layers * size) if zeros.cell.shape[-1] else None

    def initial_state(self, vector: Tensor, zeros: RecurrentState) -> RecurrentState:
        shared = self.shared(vector)
        hidden = self._layers_first(torch.tanh(self.hidden(shared)))
        return RecurrentState(
            hidden, zeros.cell if self.cell is None else self._layers_first(torch.tanh(self.cell(shared)))
        )

    def _layers_first(self, flat: Tensor) -> Tensor:
        """[B, layers · H] -> [layers, B, 1, H]."""
        return flat.unflatten(-1, (self.layers, -1)).transpose(0, 1).unsqueeze(2)


class FirstStep(Conditioning):
    """The image is the input of one step before <start>: x_{-1} = W_I v (Show and Tell, eqs. 10–12)."""

    def __init__(self, feature_size: int, embedding_size: int, *, zeros: RecurrentState):
        super().__init__()
        self.image = nn.Linear(feature_size, embedding_size)

    def first_input(self, vector: Tensor) -> Tensor:
        return self.image(vector)


class EveryStep(Conditioning):
    """The image joins every step: h_t = f(W_xh x_t + W_hh h_{t-1} + W_ih v), the lecture's captioner.

    v is first brought to the width of a word, so W_ih is a product of two matrices; the cell multiplies the second
    with all its other inputs.
    """

    def __init__(self, feature_size: int, embedding_size: int, *, zeros: RecurrentState):
        super().__init__()
        self.image = nn.Linear(feature_size, embedding_size)
        self.input_size = embedding_size

    def every_input(self, vector: Tensor) -> Tensor:
        return self.image(vector)


class Several(Conditioning):
    """Parts together, each answering its own question: the image enters in two places, or in all three.

    Args:
        parts: conditionings of different kinds.

    Raises:
        ConfigError: two parts would both set the initial state, or both be the first step's input.
    """

    def __init__(self, feature_size: int, embedding_size: int, *, zeros: RecurrentState, parts: Sequence[Callable]):
        super().__init__()
        self.parts = nn.ModuleList(part(feature_size, embedding_size, zeros=zeros) for part in parts)
        kinds = [type(part) for part in self.parts]
        if len(set(kinds)) < len(kinds):
            names = ", ".join(kind.__name__ for kind in kinds)
            raise ConfigError(f"model.conditioning.parts must be of different kinds, not {names}")
        self.input_size = sum(part.input_size for part in self.parts)

    def initial_state(self, vector: Tensor, zeros: RecurrentState) -> RecurrentState:
        for part in self.parts:
            zeros = part.initial_state(vector, zeros)
        return zeros

    def first_input(self, vector: Tensor) -> Tensor | None:
        return next((first for part in self.parts if (first := part.first_input(vector)) is not None), None)

    def every_input(self, vector: Tensor) -> Tensor:
        return torch.cat([part.every_input(vector) for part in self.parts], -1)
