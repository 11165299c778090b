"""Compute recurrent cells (RNN, GRU, LSTM) step by step or over a full sequence, with the same parameters.

The parameters are those of torch's own recurrence, so torch's fused kernel can run a full sequence. A single step
computes the same sums in Python, because attention must run between two steps. The input of a cell has two parts: the
part that is known before the loop (the word, the image), and the part that the loop feeds back (the attention's
context). `project` multiplies the first part for all steps at once. `step` adds the second part, with a matrix of its
own: a slice of a joint matrix would be copied and filled with zeros in the backward pass of every step.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captioning.models.ops import dropout, linear
from captioning.models.state import RecurrentState


class Layer(NamedTuple):
    """One layer after a step.

    Attributes:
        hidden: Hidden state [B, K, H].
        cell: Cell state [B, K, H], or [B, K, 0] for cells without one.
        gates: Activations of the gates, each [B, K, H], in the order of the cell's `gates`.
    """

    hidden: Tensor
    cell: Tensor
    gates: tuple[Tensor, ...]


class Cell(nn.Module):
    """Base of all recurrent cells; a subclass implements `forward`, one layer's step.

    A forward hook on a cell gets every layer of every step with its gates, from the first layer to the last.
    `captioning.models.tracing` uses this.

    Args:
        input_size: Width of the known part of the input.
        feedback_size: Width of the part that each step computes (0: none).
        state_size: H.
        layers: Number of stacked recurrences.
        dropout: On the output of every layer except the last, as in torch's recurrences.

    Attributes:
        rnn: torch's recurrence, which owns the parameters.
        has_cell: Whether the state has a cell state.
        gates: Names of the gates of a `Layer`.
        projected_size: Number of gates times H.
    """

    recurrence: type[nn.RNN] | type[nn.GRU] | type[nn.LSTM]
    rnn: Any  # torch creates the weights' attributes at run time, so they have no types
    has_cell = False
    gates: tuple[str, ...] = ()

    def __init__(self, input_size: int, feedback_size: int, *, state_size: int, layers: int = 1, dropout: float = 0.0):
        super().__init__()
        self.input_size, self.feedback_size, self.state_size, self.layers = (
            input_size,
            feedback_size,
            state_size,
            layers,
        )
        self.dropout = dropout if layers > 1 else 0.0
        self.rnn = self.recurrence(input_size, state_size, layers, dropout=self.dropout)
        self.projected_size = self.rnn.weight_ih_l0.shape[0]
        self.feedback = nn.Linear(feedback_size, self.projected_size, bias=False) if feedback_size else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize recurrent matrices as orthogonal, one gate at a time, as in the code of Show, Attend and Tell.

        Input matrices are Xavier-uniform, biases zero.
        """
        for name, parameter in self.rnn.named_parameters():
            if name.startswith("weight_hh"):
                for gate in parameter.data.split(self.state_size):
                    nn.init.orthogonal_(gate)
            elif name.startswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.xavier_uniform_(parameter)
        if self.feedback is not None:  # as if both matrices were halves of one
            bound = (6 / (self.input_size + self.feedback_size + self.projected_size)) ** 0.5
            for weight in (self.rnn.weight_ih_l0, self.feedback.weight):
                nn.init.uniform_(weight, -bound, bound)

    def zero_state(self, batch: int, *, like: Tensor) -> RecurrentState:
        """Return zeros for `batch` images with one row each, with the device and type of `like`."""
        shape = (self.layers, batch, 1, self.state_size)
        cell = shape if self.has_cell else (*shape[:3], 0)
        return RecurrentState(like.new_zeros(shape), like.new_zeros(cell))

    def project(self, inputs: Tensor) -> Tensor:
        """Compute the first layer's share of the known input, bias included: […, input_size] -> […, gates · H]."""
        return linear(inputs, self.rnn.weight_ih_l0, self.rnn.bias_ih_l0)

    def step(self, projected: Tensor, feedback: Tensor, state: RecurrentState) -> RecurrentState:
        """Compute one step of all layers.

        Args:
            projected: [B, K, gates · H] from `project`.
            feedback: [B, K, feedback_size].
            state: The state before the step.

        Returns:
            The state after the step.
        """
        rnn = self.rnn
        hidden: list[Tensor] = []
        cell: list[Tensor] = []
        if self.feedback is not None:
            projected = projected + linear(feedback, self.feedback.weight)
        for layer in range(self.layers):
            if layer:
                below = dropout(hidden[-1], self.dropout, self.training)
                weight, bias = getattr(rnn, f"weight_ih_l{layer}"), getattr(rnn, f"bias_ih_l{layer}")
                projected = linear(below, weight, bias)
            weight, bias = getattr(rnn, f"weight_hh_l{layer}"), getattr(rnn, f"bias_hh_l{layer}")
            recurrent = linear(state.hidden[layer], weight, bias)
            new = self(projected, recurrent, state.hidden[layer], state.cell[layer])
            hidden.append(new.hidden)
            cell.append(new.cell)
        return RecurrentState(torch.stack(hidden), torch.stack(cell))

    def sequence(self, inputs: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Compute all steps in torch's fused kernel; only for cells without feedback.

        Args:
            inputs: [T, B, K, input_size].
            state: The state before the first step.

        Returns:
            Outputs [T, B, K, H] of the last layer, and the last state.
        """
        length, batch, rows, _ = inputs.shape
        flat = [part.reshape(self.layers, batch * rows, -1).contiguous() for part in state]
        outputs, last = self.rnn(inputs.reshape(length, batch * rows, -1), tuple(flat) if self.has_cell else flat[0])
        hidden, cell = last if self.has_cell else (last, flat[1])
        shape = (self.layers, batch, rows, -1)
        # reshape cannot infer a width of 0.
        cell = cell.reshape(shape) if self.has_cell else state.cell
        return outputs.reshape(length, batch, rows, -1), RecurrentState(hidden.reshape(shape), cell)

    def forward(self, projected: Tensor, recurrent: Tensor, hidden: Tensor, cell: Tensor) -> Layer:
        """Compute one step of one layer.

        Args:
            projected: Input share of the sums, [B, K, gates · H].
            recurrent: Recurrent share of the sums, [B, K, gates · H].
            hidden: Hidden state before the step, [B, K, H].
            cell: Cell state before the step, [B, K, H], or [B, K, 0] for cells without one.

        Returns:
            The layer after the step.
        """
        raise NotImplementedError


class RNN(Cell):
    """Vanilla recurrence: h_t = tanh(W_x x_t + W_h h_{t-1} + b)."""

    recurrence = nn.RNN

    def forward(self, projected, recurrent, hidden, cell):
        """Compute one step of one layer; see `Cell.forward`."""
        return Layer(torch.tanh(projected + recurrent), cell, ())


class GRU(Cell):
    """Gated recurrent unit (Cho et al. 2014): h_t = (1 − z) ∘ n + z ∘ h_{t-1}.

    r, z and n are the reset gate, the update gate and the candidate. As in torch, the reset gate is applied after the
    product: n = tanh(x + r ∘ W_h h_{t-1}).
    """

    recurrence = nn.GRU
    gates = ("reset", "update", "candidate")

    def forward(self, projected, recurrent, hidden, cell):
        """Compute one step of one layer; see `Cell.forward`."""
        x_reset, x_update, x_new = projected.chunk(3, -1)
        h_reset, h_update, h_new = recurrent.chunk(3, -1)
        reset, update = torch.sigmoid(x_reset + h_reset), torch.sigmoid(x_update + h_update)
        candidate = torch.tanh(x_new + reset * h_new)
        hidden = hidden.to(candidate.dtype)  # under autocast the zero state is float32, but products are not
        return Layer(torch.lerp(candidate, hidden, update), cell, (reset, update, candidate))


class LSTM(Cell):
    """Long short-term memory: c_t = f ∘ c_{t-1} + i ∘ g, h_t = o ∘ tanh(c_t), gates in the order i, f, g, o.

    The bias of the forget gate starts at 1 (Jozefowicz et al. 2015).
    """

    recurrence = nn.LSTM
    has_cell = True
    gates = ("input", "forget", "candidate", "output")

    def reset_parameters(self) -> None:
        """Initialize as every cell, then set the bias of the forget gate to 1."""
        super().reset_parameters()
        for layer in range(self.layers):
            bias = getattr(self.rnn, f"bias_ih_l{layer}")
            nn.init.ones_(bias.data[self.state_size : 2 * self.state_size])

    def forward(self, projected, recurrent, hidden, cell):
        """Compute one step of one layer; see `Cell.forward`."""
        i, f, g, o = (projected + recurrent).chunk(4, -1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        cell = torch.addcmul(f * cell, i, g)
        return Layer(o * torch.tanh(cell), cell, (i, f, g, o))
