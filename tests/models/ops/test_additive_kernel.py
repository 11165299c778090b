"""Compare the additive scorer's kernel with its equation: scores and all gradients, for all divisions into parts."""

import pytest
import torch

from captioning.models.ops import additive_kernel, summed_at_once
from captioning.models.scorers import additive_equation


@pytest.mark.parametrize("cached", [1, 40, 10**6])
@pytest.mark.parametrize("shape", [(3, 2, 5, 4), (1, 1, 1, 1), (2, 7, 3, 1), (0, 2, 5, 4)])
def test_the_kernel_computes_the_equation_and_its_gradients(monkeypatch, shape, cached):
    monkeypatch.setattr(additive_kernel, "_CACHED", cached)
    batch, rows, places, width = shape
    torch.manual_seed(0)
    query = torch.randn(batch, rows, width, dtype=torch.float64, requires_grad=True)
    keys = torch.randn(batch, places, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, width, dtype=torch.float64, requires_grad=True)
    outer = torch.randn(batch, rows, places, dtype=torch.float64)
    found = []
    for score in (additive_equation, additive_kernel.additive_scores):
        scores = score(query, keys, weight)
        found.append([scores, *torch.autograd.grad((scores * outer).sum(), (query, keys, weight))])
    for expected, given in zip(*found, strict=True):
        torch.testing.assert_close(given, expected, rtol=0, atol=1e-13)


def test_the_equation_by_hand():
    query, keys = torch.tensor([[[0.5, -1.0]]]), torch.tensor([[[0.5, 0.0], [-0.5, 3.0]]])
    weight = torch.tensor([[2.0, 1.0]])
    expected = [2 * torch.tensor(1.0).tanh() + torch.tensor(-1.0).tanh(), torch.tensor(2.0).tanh()]
    torch.testing.assert_close(additive_equation(query, keys, weight)[0, 0], torch.stack(expected))


def loop_of_scores(score, query, keys, weight):
    """Return the totals of three steps; each query depends on the scores before, and rows end."""
    totals = []
    for rows in (3, 2, 1):
        scores = score(query[:, :rows], keys, weight)
        query = query[:, :rows] + scores.tanh() @ keys
        totals.append(scores.square().sum())
    return totals


def test_a_loop_sums_the_gradient_of_the_keys():
    torch.manual_seed(0)
    given = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3, 4), (2, 5, 4), (1, 4))]
    with summed_at_once():
        ours = loop_of_scores(additive_kernel.additive_scores, *given)
    theirs = loop_of_scores(additive_equation, *given)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    # A pass for other gradients, or for fewer steps, must leave nothing behind for the next one.
    for total, asked in ((2, (0,)), (1, (1,)), (0, (1, 2)), (2, (0, 2)), (2, (0, 1, 2)), (2, (1,))):
        wanted = [given[index] for index in asked]
        found, expected = (torch.autograd.grad(some[total], wanted, retain_graph=True) for some in (ours, theirs))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_two_scorers_of_the_same_keys_do_not_mix():
    query, keys = (torch.randn(2, size, 4, dtype=torch.float64, requires_grad=True) for size in (3, 5))
    first, second = (torch.randn(1, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def total(score):
        return (score(query, keys, first) * score(query, keys, second) + score(query, keys, first)).sum()

    with summed_at_once():
        ours = total(additive_kernel.additive_scores)
    wanted = [query, keys, first, second]
    found, expected = (torch.autograd.grad(value, wanted) for value in (ours, total(additive_equation)))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_scores_and_gradients_in_float32_are_those_in_float64(size):
    """The error is a small multiple of float32's precision, also where tanh is nearly linear or saturated."""
    torch.manual_seed(0)
    shapes = ((2, 3, 512), (2, 49, 512), (1, 512))
    exact = [size * torch.randn(*shape, dtype=torch.float64) for shape in shapes[:2]]
    exact.append(0.05 * torch.randn(*shapes[2], dtype=torch.float64))
    exact = [part.float().double().requires_grad_() for part in exact]
    single = [part.detach().float().requires_grad_() for part in exact]
    outer = torch.randn(2, 3, 49)
    found, expected = [], []
    for score, given, made in (
        (additive_kernel.additive_scores, single, found),
        (additive_equation, exact, expected),
    ):
        scores = score(*given)
        made += [scores, *torch.autograd.grad(scores, given, outer.to(scores.dtype))]
    for one, other, atol in zip(found, expected, (1e-5, 2e-6, 2e-6, 5e-5), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=atol)


def test_half_precision_keeps_the_digits_of_small_sums():
    """The sigmoid of a number near 0 is near ½, where bfloat16 has steps of 2⁻⁸: it would lose all of them."""
    torch.manual_seed(0)
    query, keys, weight = (torch.randn(*shape).mul(1e-3).bfloat16() for shape in ((1, 2, 64), (1, 5, 64), (1, 64)))
    expected = additive_equation(query.double(), keys.double(), weight.double())
    found = additive_kernel.additive_scores(query, keys, weight).double()
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()
