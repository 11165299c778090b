"""Where the decoder looks: no attention and soft attention, one signature.

    keys    = attention.project(grid)                 once an image
    glimpse = attention(query, grid, keys, mask)      each step

grid [B, P, D] holds P places of D features; query [B, K, H] is the state before the step, for K captions or beams of
each image. All K look at the one grid of their image: nothing of size P × D is repeated for them.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError


class Glimpse(NamedTuple):
    """What one step saw.

    context: [B, K, D'] with D' = attention.context_size (0 without attention).
    weights: [B, K, P] attention weights α, each row sums to 1 ([B, K, 0] without attention).
    places: [B, K] int64, the one place that hard attention looked at; None for other kinds.
    """

    context: Tensor
    weights: Tensor
    places: Tensor | None = None


class NoAttention(nn.Module):
    """Sees nothing: a context and weights of width zero. The image enters through the conditioning alone."""

    def __init__(self, feature_size: int, state_size: int, *, grid: bool = False):
        super().__init__()
        self.context_size = 0

    def project(self, grid: Tensor) -> Tensor:
        """Nothing to project: [B, 1, 0]."""
        return grid.new_zeros(len(grid), 1, 0)

    def forward(self, query: Tensor, grid: Tensor, keys: Tensor, mask: Tensor | None = None) -> Glimpse:
        empty = query.new_zeros(*query.shape[:2], 0)
        return Glimpse(empty, empty)


class SoftAttention(nn.Module):
    """Deterministic soft attention, Show, Attend and Tell eqs. 4–6 and 13–14 (Bahdanau et al.'s additive scorer).

    e_i = u · tanh(W_a a_i + W_h h_{t-1} + b), α = softmax(e) over the places, z = β Σ_i α_i a_i with the scalar gate
    β = σ(w · h_{t-1} + b) of section 4.2.1.

    Args:
        feature_size: D.
        state_size: H.
        grid: whether the encoder gives places at all; attention over one fc vector is refused.
        width: A, of the hidden layer that scores a place.
        gate: whether β scales the context.
    """

    def __init__(self, feature_size: int, state_size: int, *, grid: bool = True, width: int = 512, gate: bool = True):
        super().__init__()
        if not grid:
            raise ConfigError(
                "model/attention=soft looks over a grid, but the encoder gives one fc vector: "
                "set encoder.output=grid or model/attention=none"
            )
        self.context_size = feature_size
        self.key = nn.Linear(feature_size, width)
        self.query = nn.Linear(state_size, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)  # a bias would shift all places alike
        self.gate = nn.Linear(state_size, 1) if gate else None

    def project(self, grid: Tensor) -> Tensor:
        """W_a a_i + b for every place: [B, P, D] -> [B, P, A]."""
        return self.key(grid)

    def forward(self, query: Tensor, grid: Tensor, keys: Tensor, mask: Tensor | None = None) -> Glimpse:
        hidden = torch.tanh(keys[:, None] + self.query(query)[:, :, None])  # [B, K, P, A]
        scores = self.score(hidden).squeeze(-1)  # [B, K, P]
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)  # before the softmax: no 0 / 0
        weights = scores.softmax(-1)
        context = weights @ grid  # [B, K, P] @ [B, P, D] -> [B, K, D]
        if self.gate is not None:
            context = torch.sigmoid(self.gate(query)) * context
        return Glimpse(context, weights)
