"""How well a place fits the decoder's state: two scorers, one signature.

    keys   = scorer.project(grid)       once an image: [B, P, D] -> [B, P, A]
    scores = scorer(query, keys)        each step: [B, K, H] -> [B, K, P]
    score  = scorer.of_rows(query, key) of one key a row (a sentinel): [B, K, A] -> [B, K]

A softmax over the places follows, so what shifts all places alike is left out of either scorer.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captioning.errors import must_be

CACHED = 2**20  # numbers of a hidden layer that a CPU works on at once; more of them no longer fit its caches


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
        query = 2 * self.query(query)[:, :, None]
        cached = query.device.type == "cpu" and not torch.compiler.is_compiling()
        at_once = max(1, CACHED // (query.numel() or 1)) if cached else keys.shape[1]
        return torch.cat([self._scores(query, part) for part in keys.split(at_once, 1)], -1) - self.score.weight.sum()

    def _scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Of some places, up to a constant: [B, K, 1, A], [B, P, A] -> [B, K, P]."""
        # tanh x = 2 σ(2x) − 1: on a CPU torch's sigmoid takes half the time of its tanh, which is most of a step.
        hidden = torch.add(query, keys[:, None], alpha=2)
        if torch.compiler.is_compiling():  # one kernel, after which nothing of [B, K, P, A] is kept for the gradient
            return (hidden.sigmoid() * (2 * self.score.weight[0])).sum(-1)
        hidden = hidden.sigmoid() if torch.is_grad_enabled() else hidden.sigmoid_()
        return F.linear(hidden, 2 * self.score.weight).squeeze(-1)

    def of_rows(self, query: Tensor, key: Tensor) -> Tensor:
        """Scores of [B, K, A], a key for each row."""
        return self.score((key + self.query(query)).tanh()).squeeze(-1)


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
        return self.query(query) @ keys.transpose(1, 2) * self.width**-0.5

    def of_rows(self, query: Tensor, key: Tensor) -> Tensor:
        """Scores of [B, K, A], a key for each row."""
        return (self.query(query) * key).sum(-1) * self.width**-0.5
