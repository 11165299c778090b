"""Compute additive attention scores without keeping the hidden layer in memory, with a backward pass of its own."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from captioning.models.ops.products import loop_sum

_CACHED = 2**20  # numbers of a hidden layer that a CPU processes at once; with fewer, the calls take longer


def additive_scores(query: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    """Compute the same numbers and gradients as `scorers.additive_equation`, without its hidden layer in memory.

    Inside `summed_at_once`, the steps add their gradients of the keys into one tensor.

    Args:
        query: [B, K, A].
        keys: [B, L, A].
        weight: [1, A].

    Returns:
        Scores [B, K, L].
    """
    sums = loop_sum((_KeySum, keys, weight), lambda: _KeySum(keys, weight)) if keys.requires_grad else None
    return _AdditiveScores.apply(sums, query, keys if sums is None else sums.keys, weight)


class _KeySum:
    """The gradient of the keys in one loop.

    The steps of the loop get the keys through `_Begin`, whose backward pass runs after those of all steps.
    """

    def __init__(self, keys: Tensor, weight: Tensor):
        self.total: Tensor | None = None  # sum of one backward pass
        self.task = -1  # id of that pass; a pass for other gradients only does not run `_Begin`
        self.keys = _Begin.apply(self, keys, weight.detach())

    def release(self) -> None:
        """Drop the reference to the graph, which would be a cycle."""
        self.keys = None

    def of_pass(self, keys: Tensor) -> Tensor:
        """Return the sum of this backward pass; zeros at its first step."""
        task = torch._C._current_graph_task_id()
        if self.total is None or task != self.task:
            self.task, self.total = task, torch.zeros_like(keys)
        return self.total

    def taken(self) -> Tensor:
        """Return the sum of this backward pass, and release it."""
        total, self.total = self.total, None
        assert total is not None  # at least one step ran before: only steps use the keys that `_Begin` returns
        return total


class _Begin(torch.autograd.Function):
    @staticmethod
    def forward(context, sums: _KeySum, keys: Tensor, weight: Tensor) -> Tensor:
        context.sums = sums
        context.save_for_backward(weight)
        context.set_materialize_grads(False)
        return keys.view_as(keys)

    @staticmethod
    @once_differentiable
    def backward(context, _):
        (weight,) = context.saved_tensors
        total = context.sums.taken()
        return None, total.mul_(_times(weight[0].to(total.dtype))), None


class _AdditiveScores(torch.autograd.Function):
    """u · tanh(q + k) of queries [B, K, A] and keys [B, L, A] -> [B, K, L].

    The hidden layer [B, K, L, A] of every step would take most of the memory in training. It is computed in parts that
    fit the caches of a CPU. The backward pass computes it again, which is faster than writing and reading it.

    tanh x = 2 σ(2x) − 1, and torch computes σ five times as fast on a CPU. The factors are applied outside the hidden
    layer: u · tanh = 2u · σ − Σ u, and tanh' = 4 (σ − σ²). In half precision, σ near ½ would have too few digits.
    """

    @staticmethod
    def forward(context, sums: _KeySum | None, query: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
        context.sums = sums
        context.save_for_backward(query, keys, weight)
        scores, vector = query.new_empty(*query.shape[:2], keys.shape[1]), weight[0].to(query.dtype)
        factor, offset = (2 * vector, vector.sum()) if _by_sigmoid(query) else (vector, vector.new_zeros(()))
        for images, rows, hidden in _hidden(query, keys):
            scores[images, rows] = (hidden @ factor).sub_(offset)
        return scores

    @staticmethod
    @once_differentiable
    def backward(context, outer: Tensor):
        query, keys, weight = context.saved_tensors
        vector = weight[0].to(query.dtype)
        of_query, of_vector = torch.empty_like(query), torch.zeros_like(vector)
        of_keys = torch.zeros_like(keys) if context.sums is None else context.sums.of_pass(keys)
        ones = None if _by_sigmoid(query) else torch.ones_like(vector)
        for images, rows, hidden in _hidden(query, keys):
            inner, sums = outer[images, rows], of_keys[images]
            of_vector += (inner.reshape(1, -1) @ hidden.flatten(0, 2))[0]
            slopes = torch.addcmul(hidden if ones is None else ones, hidden, hidden, value=-1, out=hidden)
            of_query[images, rows] = (inner[:, :, None] @ slopes).squeeze(2)
            for row in range(slopes.shape[1]):
                sums.addcmul_(slopes[:, row], inner[:, row, :, None])
        of_vector = of_vector if ones is not None else 2 * of_vector - outer.sum()
        factor = _times(vector)
        return (
            None,
            of_query.mul_(factor),
            of_keys.mul_(factor) if context.sums is None else None,
            of_vector[None].to(weight.dtype),
        )


def _by_sigmoid(query: Tensor) -> bool:
    return query.dtype in (torch.float32, torch.float64)


def _times(weight: Tensor) -> Tensor:
    """Return what the sums of the slopes are multiplied with: u · tanh' = 4u · (σ − σ²)."""
    return 4 * weight if _by_sigmoid(weight) else weight


def _hidden(query: Tensor, keys: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield images, rows and the hidden layer of each part: σ(2(q + k)), or tanh(q + k) in half precision.

    All parts use the same memory.
    """
    by_sigmoid, (locations, width) = _by_sigmoid(query), keys.shape[1:]
    query, space = (2 * query if by_sigmoid else query), query.new_empty(0)
    for images, rows in _parts(query, keys):
        part, key = query[images, rows, None], keys[images, None]
        shape = torch.Size((*part.shape[:2], locations, width))
        if not len(space):  # the first part is the largest
            space = query.new_empty(shape.numel())
        hidden = space[: shape.numel()].view(shape)
        torch.add(part, key, alpha=2 if by_sigmoid else 1, out=hidden)
        yield images, rows, hidden.sigmoid_() if by_sigmoid else hidden.tanh_()


def _parts(query: Tensor, keys: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield the images and rows of [B, K] to process at once: on a CPU, if possible, at most `_CACHED` numbers."""
    (batch, rows, width), locations = query.shape, keys.shape[1]
    at_once = max(1, _CACHED // max(1, locations * width)) if query.device.type == "cpu" else batch * rows
    images, few = max(1, at_once // max(1, rows)), min(rows, at_once)
    for image in range(0, batch, images):
        for row in range(0, rows, max(1, few)):
            yield slice(image, image + images), slice(row, row + few)
