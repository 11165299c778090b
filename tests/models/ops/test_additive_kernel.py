"""Compare the additive scorer's kernel with its equation: scores and all gradients, for all divisions into parts."""

import pytest
import torch

from captioning.models.ops import additive_kernel
from captioning.models.scorers import additive_equation


@pytest.mark.parametrize("cached", [1, 40, 10**6])
@pytest.mark.parametrize("shape", [(3, 2, 5, 4), (1, 1, 1, 1), (2, 7, 3, 1), (0, 2, 5, 4)])
def test_the_kernel_computes_the_equation_and_its_gradients(monkeypatch, shape, cached):
    monkeypatch.setattr(additive_kernel, "_CACHED", cached)
    batch, rows, places, width = shape
    torch.manual_seed(0)
    query = torch.randn(batch, rows, width, dtype=torch.float64, requires_grad=True)
    keys = torch.randn(batch, places, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(width, dtype=torch.float64, requires_grad=True)
    outer = torch.randn(batch, rows, places, dtype=torch.float64)
    found = []
    for score in (additive_equation, additive_kernel.additive_scores):
        scores = score(query, keys, weight)
        found.append([scores, *torch.autograd.grad((scores * outer).sum(), (query, keys, weight))])
    for expected, given in zip(*found, strict=True):
        torch.testing.assert_close(given, expected, rtol=0, atol=1e-13)


def test_the_equation_by_hand():
    query, keys = torch.tensor([[[0.5, -1.0]]]), torch.tensor([[[0.5, 0.0], [-0.5, 3.0]]])
    weight = torch.tensor([2.0, 1.0])
    expected = [2 * torch.tensor(1.0).tanh() + torch.tensor(-1.0).tanh(), torch.tensor(2.0).tanh()]
    torch.testing.assert_close(additive_equation(query, keys, weight)[0, 0], torch.stack(expected))
