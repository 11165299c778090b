"""Where the image enters the recurrence: its initial state, its first step, or every step.

A conditioning answers three questions about the image vector v [B, F] (an fc vector, or the mean over a grid's
places); each part below answers one of them, and leaves the others at "nothing".
"""

import torch
from torch import Tensor, nn

from captioning.models.state import State


class Conditioning(nn.Module):
    """Nothing enters; the base of the parts below.

    Attributes:
        input_size: width of what joins the word at every step.
    """

    input_size = 0

    def initial_state(self, vector: Tensor, zeros: State) -> State:
        """State before the first word, from zeros of its shape [layers, B, 1, H]."""
        return zeros

    def first_input(self, vector: Tensor) -> Tensor | None:
        """A word-like input [B, E] for an extra step before <start>, or None."""
        return None

    def every_input(self, vector: Tensor) -> Tensor:
        """What joins the word at every step: [B, input_size]."""
        return vector.new_zeros(len(vector), 0)


class InitialState(Conditioning):
    """h_0 = f_h(v), c_0 = f_c(v) as Show, Attend and Tell computes them (section 3.1.2).

    The paper says two perceptrons; its code shares a ReLU layer with dropout below two tanh layers, and so does this.
    """

    def __init__(self, feature_size: int, embedding_size: int, *, layers: int, state_size: int, dropout: float = 0.5):
        super().__init__()
        self.layers = layers
        self.shared = nn.Sequential(nn.Linear(feature_size, state_size), nn.ReLU(), nn.Dropout(dropout))
        self.hidden = nn.Linear(state_size, layers * state_size)
        self.cell = nn.Linear(state_size, layers * state_size)

    def initial_state(self, vector: Tensor, zeros: State) -> State:
        shared = self.shared(vector)
        parts = [self._layers_first(torch.tanh(part(shared))) for part in (self.hidden, self.cell)]
        # A recurrence without a cell state has width 0 there: it takes the hidden part only.
        return State(*(new if old.shape[-1] else old for new, old in zip(parts, zeros, strict=True)))

    def _layers_first(self, flat: Tensor) -> Tensor:
        """[B, layers · H] -> [layers, B, 1, H]."""
        return flat.unflatten(-1, (self.layers, -1)).transpose(0, 1).unsqueeze(2)


class FirstStep(Conditioning):
    """The image is the input of one step before <start>: x_{-1} = W_I v (Show and Tell, eqs. 10–12)."""

    def __init__(self, feature_size: int, embedding_size: int, *, layers: int, state_size: int):
        super().__init__()
        self.image = nn.Linear(feature_size, embedding_size)

    def first_input(self, vector: Tensor) -> Tensor:
        return self.image(vector)


class EveryStep(Conditioning):
    """The image joins every step: h_t = f(W_xh x_t + W_hh h_{t-1} + W_ih v), the lecture's captioner.

    v is first brought to the width of a word, so W_ih is a product of two matrices; the cell multiplies the second
    with all its other inputs.
    """

    def __init__(self, feature_size: int, embedding_size: int, *, layers: int, state_size: int):
        super().__init__()
        self.image = nn.Linear(feature_size, embedding_size)
        self.input_size = embedding_size

    def every_input(self, vector: Tensor) -> Tensor:
        return self.image(vector)
