"""Compute additive attention scores without keeping the hidden layer in memory, with a backward pass of its own."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_CACHED = 2**18  # numbers of a hidden layer that a CPU processes at once; more do not fit its caches


def additive_scores(query: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    """Compute the same numbers and gradients as `scorers.additive_equation`, without its hidden layer in memory.

    Args:
        query: [B, K, A].
        keys: [B, L, A].
        weight: [A].

    Returns:
        Scores [B, K, L].
    """
    return _AdditiveScores.apply(query, keys, weight)


class _AdditiveScores(torch.autograd.Function):
    """u · tanh(q + k) of queries [B, K, A] and keys [B, L, A] -> [B, K, L].

    The hidden layer [B, K, L, A] of every step would take most of the memory in training. It is computed in parts that
    fit the caches of a CPU. The backward pass computes it again, which is faster than writing and reading it.
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
    """Yield the images and rows of [B, K] to process at once: on a CPU, if possible, at most `_CACHED` numbers."""
    (batch, rows, width), locations = query.shape, keys.shape[1]
    at_once = max(1, _CACHED // max(1, locations * width)) if query.device.type == "cpu" else batch * rows
    images, few = max(1, at_once // max(1, rows)), min(rows, at_once)
    for image in range(0, batch, images):
        for row in range(0, rows, max(1, few)):
            yield slice(image, image + images), slice(row, row + few)
