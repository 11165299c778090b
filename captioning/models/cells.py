"""Compute recurrent cells (RNN, GRU, LSTM) one step or a whole sequence at a time, with the same parameters.

The parameters are those of torch's own recurrence, so a whole sequence runs in its fused kernel; a step does the same
sums by hand, because attention must look between two of them. The input of a cell is what is known before the loop
(the word, the image) and what the loop feeds back (attention's context): `project` multiplies the former for all
steps at once, `step` adds the latter, by a matrix of its own (a slice of a common one would cost a copy of it, filled
with zeros, in the backward pass of every step).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from captioning.models.ops import dropout, linear
from captioning.models.state import RecurrentState


class Layer(NamedTuple):
    """One layer after a step: hidden and cell [B, K, H], and what the gates let through, each [B, K, H], in the order
    of the cell's `gates`."""

    hidden: Tensor
    cell: Tensor
    gates: tuple[Tensor, ...]


class Cell(nn.Module):
    """Common to all recurrences; `forward`, one layer's step, is what a kind of cell adds.

    A forward hook on a cell sees each layer of each step with its gates, from the first layer to the last: that is how
    `captioning.models.tracing` reads them.

    Args:
        input_size: width of the known part of the input.
        feedback_size: width of the part that each step computes (0: none).
        state_size: H.
        layers: stacked recurrences.
        dropout: on the output of every layer but the last, as torch's recurrences do.
    """

    recurrence: type[nn.RNNBase]
    has_cell = False
    gates: tuple[str, ...] = ()  # the names of a Layer's gates

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
        """Orthogonal recurrent matrices gate by gate, as in Show, Attend and Tell's code; zero biases."""
        for name, parameter in self.rnn.named_parameters():
            if name.startswith("weight_hh"):
                for gate in parameter.data.split(self.state_size):
                    nn.init.orthogonal_(gate)
            elif name.startswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.xavier_uniform_(parameter)
        if self.feedback is not None:  # as two halves of one matrix
            bound = (6 / (self.input_size + self.feedback_size + self.projected_size)) ** 0.5
            for weight in (self.rnn.weight_ih_l0, self.feedback.weight):
                nn.init.uniform_(weight, -bound, bound)

    def zero_state(self, batch: int, *, like: Tensor) -> RecurrentState:
        """All zeros for `batch` images with one row each, of the device and type of `like`."""
        shape = (self.layers, batch, 1, self.state_size)
        cell = shape if self.has_cell else (*shape[:3], 0)
        return RecurrentState(like.new_zeros(shape), like.new_zeros(cell))

    def project(self, inputs: Tensor) -> Tensor:
        """[…, input_size] -> […, gates · H]: the first layer's share of the known input, bias included."""
        return linear(inputs, self.rnn.weight_ih_l0, self.rnn.bias_ih_l0)

    def step(self, projected: Tensor, feedback: Tensor, state: RecurrentState) -> RecurrentState:
        """One step of every layer.

        Args:
            projected: [B, K, gates · H] from `project`.
            feedback: [B, K, feedback_size].
            state: before the step.
        """
        rnn, hidden, cell = self.rnn, [], []
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
        """All steps in torch's fused kernel: inputs [T, B, K, input_size] -> outputs [T, B, K, H], last state.

        Only for cells without feedback.
        """
        length, batch, rows, _ = inputs.shape
        flat = [part.reshape(self.layers, batch * rows, -1).contiguous() for part in state]
        outputs, last = self.rnn(inputs.reshape(length, batch * rows, -1), tuple(flat) if self.has_cell else flat[0])
        hidden, cell = last if self.has_cell else (last, flat[1])
        shape = (self.layers, batch, rows, -1)
        # A width of 0 cannot be inferred by reshape.
        cell = cell.reshape(shape) if self.has_cell else state.cell
        return outputs.reshape(length, batch, rows, -1), RecurrentState(hidden.reshape(shape), cell)

    def forward(self, projected: Tensor, recurrent: Tensor, hidden: Tensor, cell: Tensor) -> Layer:
        """Input share and recurrent share [B, K, gates · H], and one layer's state before the step -> after it."""
        raise NotImplementedError


class RNN(Cell):
    """Vanilla recurrence: h_t = tanh(W_x x_t + W_h h_{t-1} + b)."""

    recurrence = nn.RNN

    def forward(self, projected, recurrent, hidden, cell):
        return Layer(torch.tanh(projected + recurrent), cell, ())


class GRU(Cell):
    """Gated recurrent unit: h_t = (1 − z) ∘ n + z ∘ h_{t-1}, with reset, update and candidate r, z, n.

    Cho et al. 2014, in torch's form: n = tanh(x + r ∘ W_h h_{t-1}), the reset gate after the product.
    """

    recurrence = nn.GRU
    gates = ("reset", "update", "candidate")

    def forward(self, projected, recurrent, hidden, cell):
        x_reset, x_update, x_new = projected.chunk(3, -1)
        h_reset, h_update, h_new = recurrent.chunk(3, -1)
        reset, update = torch.sigmoid(x_reset + h_reset), torch.sigmoid(x_update + h_update)
        candidate = torch.tanh(x_new + reset * h_new)
        hidden = hidden.to(candidate.dtype)  # under autocast a state of zeros is wider than what products give
        return Layer(torch.lerp(candidate, hidden, update), cell, (reset, update, candidate))


class LSTM(Cell):
    """Long short-term memory: c_t = f ∘ c_{t-1} + i ∘ g, h_t = o ∘ tanh(c_t), gates in the order i, f, g, o.

    The forget gate's bias starts at one (Jozefowicz et al. 2015).
    """

    recurrence = nn.LSTM
    has_cell = True
    gates = ("input", "forget", "candidate", "output")

    def reset_parameters(self) -> None:
        """As for every cell, then the forget gate's bias."""
        super().reset_parameters()
        for layer in range(self.layers):
            bias = getattr(self.rnn, f"bias_ih_l{layer}")
            nn.init.ones_(bias.data[self.state_size : 2 * self.state_size])

    def forward(self, projected, recurrent, hidden, cell):
        i, f, g, o = (projected + recurrent).chunk(4, -1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        cell = torch.addcmul(f * cell, i, g)
        return Layer(o * torch.tanh(cell), cell, (i, f, g, o))
