"""Order one step of the decoder: attend before the cell, after it, or between two cells.

    state, glimpse = recurrence.step(projected, state, look)

`look(query, sentinel=None) -> Glimpse` is the attention over the images at hand; `projected` is `project` of what is
known before the loop (the word, the image). Each recurrence is made of the same cells, and keeps all their layers in
one RecurrentState.

Attributes of each: context_size, of the context that the readout sees; loops, whether a step needs the glimpse or the
cells of the one before, so that no fused kernel can run the sequence.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError
from captioning.models.attention import Sentinel
from captioning.models.cells import Cell
from captioning.models.interface import Glimpse
from captioning.models.ops import linear
from captioning.models.state import RecurrentState

Look = Callable[..., Glimpse]


class LookFirst(nn.Module):
    """Show, Attend and Tell, section 3.1.2: h_{t-1} looks, and what it sees enters the cell with the word.

    z_t = β_t φ(a, α_t) with the scalar gate β_t = σ(w · h_{t-1} + b) of section 4.2.1; h_t = cell(x_t, z_t, h_{t-1}).
    Without attention this is the plain recurrence of Show and Tell and of the lecture.

    Args:
        input_size: of the word with what joins it.
        context_size, key_size: of attention; 0 without.
        cell: (input_size, feedback_size, state_size=, layers=, dropout=) -> Cell.
        state_size, layers, dropout: of the cell.
        gate: whether β scales the context.
        word: whether x_t joins the query, h_{t-1} + W x_t. The paper's query knows the words up to y_{t-2}: after "a
            red" the look for the noun cannot seek the red thing. Off in the paper.
    """

    def __init__(
        self,
        input_size: int,
        *,
        context_size: int,
        key_size: int,
        cell: Callable[..., Cell],
        state_size: int,
        layers: int = 1,
        dropout: float = 0.0,
        gate: bool = True,
        word: bool = False,
    ):
        super().__init__()
        self.cell = cell(input_size, context_size, state_size=state_size, layers=layers, dropout=dropout)
        self.gate = nn.Linear(state_size, 1) if gate and context_size else None
        self.word = nn.Linear(input_size, state_size, bias=False) if word and context_size else None
        self.context_size, self.loops = context_size, context_size > 0

    def zero_state(self, batch: int, *, like: Tensor) -> RecurrentState:
        """All zeros for `batch` images, one row each."""
        return self.cell.zero_state(batch, like=like)

    def project(self, inputs: Tensor) -> Tensor:
        """The known input's share of the cell's sums, and of the query: [..., I] -> [..., X]."""
        projected = self.cell.project(inputs)
        return projected if self.word is None else torch.cat((projected, self.word(inputs)), -1)

    def step(self, projected: Tensor, state: RecurrentState, look: Look) -> tuple[RecurrentState, Glimpse]:
        query = state.top
        if self.word is not None:
            projected, word = projected.split((self.cell.projected_size, query.shape[-1]), -1)
            query = query + word
        glimpse = look(query)
        if self.gate is not None:
            glimpse = glimpse._replace(
                context=torch.sigmoid(linear(query, self.gate.weight, self.gate.bias)) * glimpse.context
            )
        return self.cell.step(projected, glimpse.context, state), glimpse

    def sequence(self, inputs: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Without attention: [T, B, K, I] -> all outputs [T, B, K, H] and the last state, by torch's fused
        kernel."""
        return self.cell.sequence(inputs, state)


class LookAfter(nn.Module):
    """Knowing When to Look (Lu et al. 2017), section 2: h_t = cell(x_t, h_{t-1}), and h_t looks for the word to come.

    With the visual sentinel (eqs. 8–13) there is one more place, s_t = σ(W_x x_t + W_h h_{t-1}) ∘ tanh(m_t), of the
    cell's memory m_t (h_t where a cell has none), and the share that α gives it is β. Nothing feeds back, so without
    the sentinel the cell runs in its fused kernel; the sentinel needs every m_t, which that does not give.

    Args:
        as for LookFirst; sentinel: whether there is one. Its s_t lies among the features, so their width (see
            `feature_width` of the captioner) must be that of the state.
    """

    def __init__(
        self,
        input_size: int,
        *,
        context_size: int,
        key_size: int,
        cell: Callable[..., Cell],
        state_size: int,
        layers: int = 1,
        dropout: float = 0.0,
        sentinel: bool = False,
    ):
        super().__init__()
        if not context_size:
            raise ConfigError(
                "model/recurrence=look_after and adaptive need attention: set model/attention=soft (over a grid, "
                "encoder.output=grid), or model/recurrence=look_first"
            )
        if sentinel and context_size != state_size:
            raise ConfigError(
                f"the sentinel stands among features of the state's width ({state_size}), not {context_size}: "
                f"set model.feature_width={state_size}"
            )
        self.cell = cell(input_size, 0, state_size=state_size, layers=layers, dropout=dropout)
        self.context_size, self.loops = context_size, sentinel
        self.sentinel_input = nn.Linear(input_size, state_size) if sentinel else None
        self.sentinel_state = nn.Linear(state_size, state_size, bias=False) if sentinel else None
        self.sentinel_key = nn.Linear(state_size, key_size, bias=False) if sentinel else None

    def zero_state(self, batch: int, *, like: Tensor) -> RecurrentState:
        """All zeros for `batch` images, one row each."""
        return self.cell.zero_state(batch, like=like)

    def project(self, inputs: Tensor) -> Tensor:
        """The known input's share of the cell's sums and of the sentinel's gate: [..., I] -> [..., X]."""
        projected = self.cell.project(inputs)
        if self.sentinel_input is None:
            return projected
        return torch.cat((projected, self.sentinel_input(inputs)), -1)

    def step(self, projected: Tensor, state: RecurrentState, look: Look) -> tuple[RecurrentState, Glimpse]:
        size = self.cell.projected_size
        new = self.cell.step(projected[..., :size], projected[..., :0], state)
        if self.sentinel_state is None:
            return new, look(new.top)
        gate = torch.sigmoid(projected[..., size:] + linear(state.top, self.sentinel_state.weight))
        vector = gate * torch.tanh(new.cell[-1] if self.cell.has_cell else new.top)
        return new, look(new.top, sentinel=Sentinel(vector, linear(vector, self.sentinel_key.weight)))

    def sequence(self, inputs: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Without a sentinel: [T, B, K, I] -> all outputs [T, B, K, H] and the last state, by torch's fused
        kernel."""
        return self.cell.sequence(inputs, state)


class UpDown(nn.Module):
    """Bottom-Up and Top-Down Attention (Anderson et al. 2018), section 3.2: two cells, the look between them.

    h¹_t = cell(h²_{t-1}, x_t; h¹_{t-1}); h¹_t looks; h²_t = cell(v̂_t, h¹_t; h²_{t-1}), from which alone the words
    are read. The paper's v̄ in x_t is model/conditioning=every_step.

    Args:
        as for LookFirst; layers: of the second (language) cell.
    """

    context_size = 0  # of what the readout sees beside the state
    loops = True

    def __init__(
        self,
        input_size: int,
        *,
        context_size: int,
        key_size: int,
        cell: Callable[..., Cell],
        state_size: int,
        layers: int = 1,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.attention_cell = cell(input_size, state_size, state_size=state_size)
        self.language_cell = cell(state_size, context_size, state_size=state_size, layers=layers, dropout=dropout)

    def zero_state(self, batch: int, *, like: Tensor) -> RecurrentState:
        """All zeros for `batch` images, one row each; the attention cell's layer first."""
        attention, language = (c.zero_state(batch, like=like) for c in (self.attention_cell, self.language_cell))
        return attention.below(language)

    def project(self, inputs: Tensor) -> Tensor:
        """The known input's share of the attention cell's sums: [..., I] -> [..., X]."""
        return self.attention_cell.project(inputs)

    def step(self, projected: Tensor, state: RecurrentState, look: Look) -> tuple[RecurrentState, Glimpse]:
        attention = self.attention_cell.step(projected, state.top, state.layers(0, 1))
        glimpse = look(attention.top)
        known = self.language_cell.project(attention.top)
        language = self.language_cell.step(known, glimpse.context, state.layers(1))
        return attention.below(language), glimpse._replace(context=glimpse.context[..., :0])
