"""Score how well each location of the grid fits the decoder's state: additive and scaled dot-product scorers.

    keys   = scorer.project(grid)       once an image: [B, P, D] -> [B, P, A]
    scores = scorer(query, keys)        each step: [B, K, H] -> [B, K, P]
    score  = scorer.of_rows(query, key) of one key a row (a sentinel): [B, K, A] -> [B, K]

A softmax over the places follows, so what shifts all places alike is left out of either scorer.
"""

import torch
from torch import Tensor, nn

from captioning.errors import must_be
from captioning.models.ops import additive_scores, linear


def additive_equation(query: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    """e_bki = u · tanh(q_bk + k_bi): queries [B, K, A], keys [B, P, A] and u [A] -> scores [B, K, P]."""
    return ((query[:, :, None] + keys[:, None]).tanh() * weight).sum(-1)


class Additive(nn.Module):
    """e_i = u · tanh(W_a a_i + W_h h + b): Bahdanau et al. 2015, Show, Attend and Tell's f_att.

    Args:
        feature_size: D. state_size: H.
        width: A, of the hidden layer.
    """

    def __init__(self, feature_size: int, state_size: int, *, width: int = 512):
        super().__init__()
        must_be("model.scorer.width", width, least=1)
        self.width = width
        self.key = nn.Linear(feature_size, width)
        self.query = nn.Linear(state_size, width, bias=False)  # one bias is enough in the sum
        self.score = nn.Linear(width, 1, bias=False)

    def project(self, grid: Tensor) -> Tensor:
        """W_a a_i + b."""
        return self.key(grid)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        query = linear(query, self.query.weight)
        weight = self.score.weight[0].to(query.dtype)
        # The compiler fuses the equation into one kernel, which keeps nothing of [B, K, P, A] in memory either.
        return (additive_equation if torch.compiler.is_compiling() else additive_scores)(query, keys, weight)

    def of_rows(self, query: Tensor, key: Tensor) -> Tensor:
        """Scores of [B, K, A], a key for each row."""
        return linear((key + linear(query, self.query.weight)).tanh(), self.score.weight).squeeze(-1)


class DotProduct(nn.Module):
    """e_i = (W_h h + b) · (W_a a_i) / √A: scaled dot product, Vaswani et al. 2017 eq. 1.

    Args:
        feature_size: D. state_size: H.
        width: A, of query and key.
    """

    def __init__(self, feature_size: int, state_size: int, *, width: int = 512):
        super().__init__()
        must_be("model.scorer.width", width, least=1)
        self.width = width
        self.key = nn.Linear(feature_size, width, bias=False)
        self.query = nn.Linear(state_size, width)

    def project(self, grid: Tensor) -> Tensor:
        """W_a a_i."""
        return self.key(grid)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return linear(query, self.query.weight, self.query.bias) @ keys.transpose(1, 2) * self.width**-0.5

    def of_rows(self, query: Tensor, key: Tensor) -> Tensor:
        """Scores of [B, K, A], a key for each row."""
        return (linear(query, self.query.weight, self.query.bias) * key).sum(-1) * self.width**-0.5
