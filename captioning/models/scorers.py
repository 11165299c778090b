"""Score how well each location of the grid matches the decoder's state: additive and scaled dot-product scorers.

    keys   = scorer.project(grid)         once per image: [B, L, D] -> [B, L, A]
    scores = scorer(query, keys)          once per step: [B, K, H] -> [B, K, L]
    score  = scorer.of_rows(query, key)   of one key per row (a sentinel): [B, K, A] -> [B, K]

A softmax over the locations follows. Both scorers therefore leave out terms that shift all locations equally.
"""

import torch
from torch import Tensor, nn

from captioning.errors import must_be
from captioning.models.ops import additive_scores, linear


def additive_equation(query: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    """Compute e_bki = u · tanh(q_bk + k_bi).

    Args:
        query: q [B, K, A].
        keys: k [B, L, A].
        weight: u [1, A].

    Returns:
        Scores [B, K, L].
    """
    return ((query[:, :, None] + keys[:, None]).tanh() * weight).sum(-1)


class Additive(nn.Module):
    """Additive scores e_i = u · tanh(W_a a_i + W_h h + b): Bahdanau et al. 2015; f_att of Show, Attend and Tell.

    Args:
        feature_size: D.
        state_size: H.
        width: A, the size of the hidden layer.

    Raises:
        ConfigError: `width` is less than 1.
    """

    def __init__(self, feature_size: int, state_size: int, *, width: int = 512):
        super().__init__()
        must_be("model.scorer.width", width, least=1)
        self.width = width
        self.key = nn.Linear(feature_size, width)
        self.query = nn.Linear(state_size, width, bias=False)  # one bias is enough in the sum
        self.score = nn.Linear(width, 1, bias=False)

    def project(self, grid: Tensor) -> Tensor:
        """Compute the keys W_a a_i + b: [B, L, D] -> [B, L, A]."""
        return self.key(grid)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Score query [B, K, H] against keys [B, L, A]: -> [B, K, L]."""
        query = linear(query, self.query.weight)
        # The compiler fuses the equation into one kernel, which does not keep [B, K, L, A] in memory either.
        if torch.compiler.is_compiling():
            return additive_equation(query, keys, self.score.weight.to(query.dtype))
        return additive_scores(query, keys, self.score.weight)

    def of_rows(self, query: Tensor, key: Tensor) -> Tensor:
        """Score query [B, K, H] against one key per row [B, K, A]: -> [B, K]."""
        return linear((key + linear(query, self.query.weight)).tanh(), self.score.weight).squeeze(-1)


class DotProduct(nn.Module):
    """Scaled dot-product scores e_i = (W_h h + b) · (W_a a_i) / √A: Vaswani et al. 2017 eq. 1.

    Args:
        feature_size: D.
        state_size: H.
        width: A, the size of query and key.

    Raises:
        ConfigError: `width` is less than 1.
    """

    def __init__(self, feature_size: int, state_size: int, *, width: int = 512):
        super().__init__()
        must_be("model.scorer.width", width, least=1)
        self.width = width
        self.key = nn.Linear(feature_size, width, bias=False)
        self.query = nn.Linear(state_size, width)

    def project(self, grid: Tensor) -> Tensor:
        """Compute the keys W_a a_i: [B, L, D] -> [B, L, A]."""
        return self.key(grid)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Score query [B, K, H] against keys [B, L, A]: -> [B, K, L]."""
        return linear(query, self.query.weight, self.query.bias) @ keys.transpose(1, 2) * self.width**-0.5

    def of_rows(self, query: Tensor, key: Tensor) -> Tensor:
        """Score query [B, K, H] against one key per row [B, K, A]: -> [B, K]."""
        return (linear(query, self.query.weight, self.query.bias) * key).sum(-1) * self.width**-0.5
