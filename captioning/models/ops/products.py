"""Compute the matrix products of a loop over steps, and the gradient of each matrix in one product over all steps.

A step multiplies few rows. If the gradient of a matrix were summed step by step, each step would need a small product
and a pass over the full matrix.

    with summed_at_once():
        for …: y = linear(x, weight, bias)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_loop: ContextVar[dict[tuple, Any] | None] = ContextVar("loop", default=None)
One = TypeVar("One")


@contextmanager
def summed_at_once() -> Iterator[None]:
    """Make all uses of a matrix by `linear`, and of keys by `additive_scores`, share one sum for their gradient."""
    sums: dict[tuple, Any] = {}
    token = _loop.set(sums)
    try:
        yield
    finally:
        _loop.reset(token)
        for one in sums.values():  # otherwise a reference cycle with the graph would never be freed
            one.release()


def loop_sum(key: tuple, build: Callable[[], One]) -> One | None:
    """Return the object that sums the gradients of `key` in the loop of `summed_at_once`, built at its first use.

    Outside a loop, or without gradients, this is None.
    """
    sums = None if torch.compiler.is_compiling() else _loop.get()
    if sums is None or not torch.is_grad_enabled():
        return None
    if key not in sums:
        sums[key] = build()
    return sums[key]


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute torch's linear map: inputs [..., I], weight [O, I], bias [O] -> [..., O].

    Inside `summed_at_once`, the gradients of weight and bias are computed in one product over all calls.
    """
    build = partial(_Sum, weight, bias, inputs.device.type)
    one = loop_sum((weight, bias), build) if weight.requires_grad else None
    return F.linear(inputs, weight, bias) if one is None else one(inputs)


def mixed(device: str, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that torch's autocast, if it is on, uses for a product on this device; float64 is never cast.

    Args:
        device: Device type, for example "cpu" or "cuda".
        dtype: The dtype of the operands.
    """
    on = dtype != torch.float64 and torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else dtype


class _Sum:
    """One matrix in one loop.

    The steps of the loop get the matrix through `_Begin`, whose backward pass runs after those of all steps.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, device: str):
        self.steps: list[tuple[Tensor, Tensor]] = []  # inputs and output gradients of one backward pass
        self.task = -1  # id of that pass; a pass for other gradients only runs `_Step`s, but not `_Begin`
        self.dtype = mixed(device, weight.dtype)
        weight = weight.to(self.dtype)
        self.weight, self.bias = _Begin.apply(self, weight, None if bias is None else bias.to(self.dtype))

    def __call__(self, inputs: Tensor) -> Tensor:
        return _Step.apply(self, inputs.to(self.dtype), self.weight, self.bias)

    def release(self) -> None:
        """Drop the references to the graph."""
        self.weight = self.bias = None

    def add(self, inputs: Tensor, outer: Tensor) -> None:
        """Record one step's inputs and output gradients in the backward pass."""
        task = torch._C._current_graph_task_id()
        if task != self.task:
            self.task, self.steps = task, []
        self.steps.append((inputs, outer))

    def taken(self) -> list[tuple[Tensor, Tensor]]:
        """Return the records of all steps of this backward pass, and release them."""
        steps, self.steps = self.steps, []
        return steps


class _Begin(torch.autograd.Function):
    @staticmethod
    def forward(context, sums: _Sum, weight: Tensor, bias: Tensor | None):
        context.sums = sums
        context.set_materialize_grads(False)
        return weight.view_as(weight), None if bias is None else bias.view_as(bias)

    @staticmethod
    @once_differentiable
    def backward(context, *_):
        # At least one step ran before: only steps use the weight that `_Begin` returns.
        inputs, outer = (torch.cat(parts) for parts in zip(*context.sums.taken(), strict=True))
        return None, outer.T @ inputs, outer.sum(0) if context.needs_input_grad[2] else None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(context, sums: _Sum, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        context.sums = sums
        context.save_for_backward(inputs, weight)
        return F.linear(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(context, outer: Tensor):
        inputs, weight = context.saved_tensors
        # Detached: a pass without `_Begin` keeps them in the sum, and a reference to the graph would be a cycle.
        rows = (part.detach().reshape(-1, part.shape[-1]) for part in (inputs, outer))
        context.sums.add(*rows)
        return None, outer @ weight if context.needs_input_grad[1] else None, None, None
