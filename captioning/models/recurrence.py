"""Order the operations of one decoder step: attend before the cell, after it, or between two cells.

    state, glimpse = recurrence.step(projected, state, look)

`look(query, sentinel=None) -> Glimpse` is the attention over the current images. `projected` is the result of `project`
on the input that is known before the loop (the word, the image). All recurrences use the same cells and keep the layers
of all their cells in one RecurrentState.

Every recurrence has two attributes. `context_size` is the size of the context that the readout gets. `loops` is whether
a step needs the glimpse or the cells of the step before, so that no fused kernel can run the sequence.
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
    """Attend before the cell: Show, Attend and Tell, section 3.1.2.

    h_{t-1} is the query, and the context enters the cell with the word: h_t = cell(x_t, z_t, h_{t-1}). The context is
    z_t = β_t φ(a, α_t) with the scalar gate β_t = σ(w · h_{t-1} + b) of section 4.2.1. Without attention this is the
    plain recurrence of Show and Tell and of the lecture.

    Args:
        input_size: Size of the word together with the image input that joins it.
        context_size: Size of the attention's context; 0 without attention.
        key_size: Size of the attention's keys; 0 without attention.
        cell: (input_size, feedback_size, state_size=, layers=, dropout=) -> Cell.
        state_size: H.
        layers: Number of stacked layers of the cell.
        dropout: Between the layers of the cell.
        gate: Whether the gate β scales the context.
        word: Whether x_t is added to the query: h_{t-1} + W x_t. The query of the paper contains only the words up to
            y_{t-2}; after "a red", the attention for the noun cannot search for the red object. The paper has no such
            term.
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
        """Return zeros for `batch` images, one row per image."""
        return self.cell.zero_state(batch, like=like)

    def project(self, inputs: Tensor) -> Tensor:
        """Compute the known input's share of the cell's sums and of the query: [..., I] -> [..., X]."""
        projected = self.cell.project(inputs)
        return projected if self.word is None else torch.cat((projected, self.word(inputs)), -1)

    def step(self, projected: Tensor, state: RecurrentState, look: Look) -> tuple[RecurrentState, Glimpse]:
        """Attend with the state before the step, then step the cell.

        Args:
            projected: [B, K, X] from `project`.
            state: The state before the step.
            look: Attention over the current images.

        Returns:
            The new state and the glimpse, whose context is scaled by β.
        """
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
        """Run all steps in torch's fused kernel; only without attention.

        Args:
            inputs: [T, B, K, I].
            state: The state before the first step.

        Returns:
            All outputs [T, B, K, H] and the last state.
        """
        return self.cell.sequence(inputs, state)


class LookAfter(nn.Module):
    """Attend after the cell: Knowing When to Look (Lu et al. 2017), section 2.

    h_t = cell(x_t, h_{t-1}), and h_t is the query of the attention for the next word. With the visual sentinel (eqs.
    8–13) there is one more location s_t = σ(W_x x_t + W_h h_{t-1}) ∘ tanh(m_t), where m_t is the cell state (h_t for a
    cell without one). Its attention weight is β. No step needs the context of another one, so without the sentinel the
    cell runs in its fused kernel. With the sentinel it cannot, because that kernel does not return every m_t.

    Args:
        input_size: Size of the word together with the image input that joins it.
        context_size: Size of the attention's context; it must be `state_size` with a sentinel.
        key_size: Size of the attention's keys.
        cell: (input_size, feedback_size, state_size=, layers=, dropout=) -> Cell.
        state_size: H.
        layers: Number of stacked layers of the cell.
        dropout: Between the layers of the cell.
        sentinel: Whether there is a visual sentinel.

    Raises:
        ConfigError: There is no attention, or features and state have different widths beside a sentinel (see
            `feature_width` of `build_captioner`).
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
                "model/recurrence=look_after and adaptive need attention. Set model/attention=soft (which "
                "needs encoder.output=grid), or model/recurrence=look_first"
            )
        if sentinel and context_size != state_size:
            raise ConfigError(
                f"model/recurrence=adaptive needs features as wide as the state ({state_size}), not {context_size}. "
                f"Set model.feature_width={state_size}"
            )
        self.cell = cell(input_size, 0, state_size=state_size, layers=layers, dropout=dropout)
        self.context_size, self.loops = context_size, sentinel
        self.sentinel_input = nn.Linear(input_size, state_size) if sentinel else None
        self.sentinel_state = nn.Linear(state_size, state_size, bias=False) if sentinel else None
        self.sentinel_key = nn.Linear(state_size, key_size, bias=False) if sentinel else None

    def zero_state(self, batch: int, *, like: Tensor) -> RecurrentState:
        """Return zeros for `batch` images, one row per image."""
        return self.cell.zero_state(batch, like=like)

    def project(self, inputs: Tensor) -> Tensor:
        """Compute the known input's share of the cell's sums and of the sentinel's gate: [..., I] -> [..., X]."""
        projected = self.cell.project(inputs)
        if self.sentinel_input is None:
            return projected
        return torch.cat((projected, self.sentinel_input(inputs)), -1)

    def step(self, projected: Tensor, state: RecurrentState, look: Look) -> tuple[RecurrentState, Glimpse]:
        """Step the cell, then attend with the new state.

        Args:
            projected: [B, K, X] from `project`.
            state: The state before the step.
            look: Attention over the current images.

        Returns:
            The new state and the glimpse.
        """
        size = self.cell.projected_size
        new = self.cell.step(projected[..., :size], projected[..., :0], state)
        if self.sentinel_state is None or self.sentinel_key is None:
            return new, look(new.top)
        gate = torch.sigmoid(projected[..., size:] + linear(state.top, self.sentinel_state.weight))
        vector = gate * torch.tanh(new.cell[-1] if self.cell.has_cell else new.top)
        return new, look(new.top, sentinel=Sentinel(vector, linear(vector, self.sentinel_key.weight)))

    def sequence(self, inputs: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Run all steps in torch's fused kernel; only without a sentinel.

        Args:
            inputs: [T, B, K, I].
            state: The state before the first step.

        Returns:
            All outputs [T, B, K, H] and the last state.
        """
        return self.cell.sequence(inputs, state)


class UpDown(nn.Module):
    """Attend between two cells: Bottom-Up and Top-Down Attention (Anderson et al. 2018), section 3.2.

    The attention cell computes h¹_t = cell(h²_{t-1}, x_t; h¹_{t-1}), and h¹_t is the query. The language cell computes
    h²_t = cell(v̂_t, h¹_t; h²_{t-1}), and the readout sees only h²_t. To add the paper's v̄ to x_t, set
    model/conditioning=every_step.

    Args:
        input_size: Size of the word together with the image input that joins it.
        context_size: Size of the attention's context; 0 without attention.
        key_size: Not used.
        cell: (input_size, feedback_size, state_size=, layers=, dropout=) -> Cell.
        state_size: H of both cells.
        layers: Number of stacked layers of the language cell.
        dropout: Between the layers of the language cell.
    """

    context_size = 0  # the readout sees only the state
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
        """Return zeros for `batch` images, one row per image; the layer of the attention cell is first."""
        attention, language = (c.zero_state(batch, like=like) for c in (self.attention_cell, self.language_cell))
        return attention.below(language)

    def project(self, inputs: Tensor) -> Tensor:
        """Compute the known input's share of the attention cell's sums: [..., I] -> [..., X]."""
        return self.attention_cell.project(inputs)

    def step(self, projected: Tensor, state: RecurrentState, look: Look) -> tuple[RecurrentState, Glimpse]:
        """Step the attention cell, attend, then step the language cell.

        Args:
            projected: [B, K, X] from `project`.
            state: The state before the step.
            look: Attention over the current images.

        Returns:
            The new state and the glimpse without its context, which the language cell already used.
        """
        attention = self.attention_cell.step(projected, state.top, state.layers(0, 1))
        glimpse = look(attention.top)
        known = self.language_cell.project(attention.top)
        language = self.language_cell.step(known, glimpse.context, state.layers(1))
        return attention.below(language), glimpse._replace(context=glimpse.context[..., :0])
