"""How well a place fits the decoder's state: two scorers, one signature.

    keys   = scorer.project(grid)       once an image: [B, P, D] -> [B, P, A]
    scores = scorer(query, keys)        each step: [B, K, H] -> [B, K, P]
    score  = scorer.of_rows(query, key) of one key a row (a sentinel): [B, K, A] -> [B, K]

A softmax over the places follows, so what shifts all places alike is left out of either scorer.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from captioning.errors import must_be
from captioning.models.products import linear

CACHED = 2**18  # numbers of a hidden layer that a CPU works on at once; more of them no longer fit its caches


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
        if torch.compiler.is_compiling():  # one kernel, that keeps nothing of [B, K, P, A] either
            return ((query[:, :, None] + keys[:, None]).tanh() * weight).sum(-1)
        return _Scores.apply(query, keys, weight)

    def of_rows(self, query: Tensor, key: Tensor) -> Tensor:
        """Scores of [B, K, A], a key for each row."""
        return linear((key + linear(query, self.query.weight)).tanh(), self.score.weight).squeeze(-1)


class _Scores(torch.autograd.Function):
    """u · tanh(q + k) of queries [B, K, A] and keys [B, P, A] -> [B, K, P].

    The hidden layer [B, K, P, A] of each step would be most of what training holds in memory. It is made a part at a
    time, that a CPU's caches hold, and made anew for the gradient, which costs less than to write it out and read it.
    """

    @staticmethod
    def forward(context, query: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
        context.save_for_backward(query, keys, weight)
        scores = query.new_empty(*query.shape[:2], keys.shape[1])
        for images, rows in _parts(query, keys):
            scores[images, rows] = F.linear(_hidden(query[images, rows], keys[images]), weight[None]).squeeze(-1)
        return scores

    @staticmethod
    @once_differentiable
    def backward(context, outer: Tensor):
        query, keys, weight = context.saved_tensors
        of_query, of_keys, of_weight = torch.empty_like(query), torch.zeros_like(keys), torch.zeros_like(weight)
        ones = torch.ones_like(weight)
        for images, rows in _parts(query, keys):
            hidden, inner, sums = _hidden(query[images, rows], keys[images]), outer[images, rows], of_keys[images]
            of_weight += (inner.reshape(1, -1) @ hidden.flatten(0, 2))[0]
            slopes = torch.addcmul(ones, hidden, hidden, value=-1, out=hidden)  # tanh' = 1 − tanh²
            of_query[images, rows] = (inner[:, :, None] @ slopes).squeeze(2)
            for row in range(slopes.shape[1]):
                sums.addcmul_(slopes[:, row], inner[:, row, :, None])
        return of_query * weight, of_keys * weight, of_weight


def _hidden(query: Tensor, keys: Tensor) -> Tensor:
    return (query[:, :, None] + keys[:, None]).tanh_()


def _parts(query: Tensor, keys: Tensor) -> Iterator[tuple[slice, slice]]:
    """Images and rows of [B, K] that are worked on at once: all, but on a CPU no more than `CACHED` numbers if it can
    be."""
    (batch, rows, width), places = query.shape, keys.shape[1]
    at_once = max(1, CACHED // max(1, places * width)) if query.device.type == "cpu" else batch * rows
    images, few = max(1, at_once // max(1, rows)), min(rows, at_once)
    for image in range(0, batch, images):
        for row in range(0, rows, max(1, few)):
            yield slice(image, image + images), slice(row, row + few)


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
