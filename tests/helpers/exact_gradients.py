"""Gradients of expectations by enumeration."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from captioning.models import gradient_estimators
from captioning.objectives import self_critical


@contextmanager
def forced_noise(noise: Tensor) -> Iterator[None]:
    """Inside, hard attention's draws of one forward pass take their Gumbel noise from [B, K, T, P], step after step.

    Rows whose captions have ended are left out of later steps: an image's first rows are those that remain.
    """
    drawn, steps = gradient_estimators._gumbel, iter(noise.unbind(2))
    gradient_estimators._gumbel = lambda like: next(steps)[:, : like.shape[1]].to(like.dtype)
    try:
        yield
    finally:
        gradient_estimators._gumbel = drawn


def forced_paths(paths: Tensor, places: int):
    """Inside, hard attention draws the given of its P locations, [B, K, T]."""
    return forced_noise(1e9 * torch.nn.functional.one_hot(paths, places))


@contextmanager
def forced_words(tokens: Tensor) -> Iterator[list[Tensor]]:
    """Inside, self-critical training draws given words [B, n, T]; gives the probabilities that it would draw from, step
    after step."""
    drawn, steps, probabilities = self_critical.draw_ids, iter(tokens.unbind(2)), []

    def draw(given: Tensor) -> Tensor:
        probabilities.append(given)
        return next(steps)

    self_critical.draw_ids = draw
    try:
        yield probabilities
    finally:
        self_critical.draw_ids = drawn


def gradient(loss, model):
    grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    zeros = (torch.zeros_like(p) if g is None else g for g, p in zip(grads, model.parameters(), strict=True))
    return torch.cat([g.flatten() for g in zeros])


def assert_same_gradient(found: Tensor, exact: Tensor, *, rtol: float = 1e-10) -> None:
    """The two differ by at most `rtol` of the exact one's length, which is not 0."""
    assert exact.norm() > 1e-3
    error = ((found - exact).norm() / exact.norm()).item()
    assert error <= rtol, f"off by {error:.2e} of the gradient's length"
