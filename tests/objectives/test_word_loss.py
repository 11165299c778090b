"""Compare the chunked cross-entropy kernel with the equation of the word loss, and the equation with its definition."""

import pytest
import torch

from captioning.objectives import chunked_cross_entropy as kernel
from captioning.objectives.chunked_cross_entropy import SoftTargets
from captioning.objectives.word_loss import word_loss_equation


def world(words: int, vocabulary: int, *, soft: bool):
    torch.manual_seed(0)
    features = torch.randn(words, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocabulary, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(vocabulary, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(vocabulary, (words,))
    shares = 0.3 * torch.rand(words, 2, dtype=torch.float64)
    soft_targets = SoftTargets(torch.randint(vocabulary, (words, 2)), shares) if soft else None
    return features, weight, bias, targets, soft_targets


@pytest.mark.parametrize("cached", [1, 20, 10**6])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("words", [0, 1, 9])
@pytest.mark.filterwarnings("error")  # torch warns if a part of a gradient has the wrong shape
def test_the_kernel_computes_the_equation_and_its_gradients(monkeypatch, words, soft, smoothing, cached):
    monkeypatch.setattr(kernel, "_CACHED", cached)
    features, weight, bias, targets, soft_targets = world(words, 6, soft=soft)
    logits = features @ weight.T + bias
    expected, of_words = word_loss_equation(logits, targets, soft_targets, label_smoothing=smoothing)
    found, given = kernel.chunked_cross_entropy(
        features, weight, bias, targets, soft_targets, label_smoothing=smoothing
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(given, of_words, rtol=0, atol=1e-12)
    leaves = (features, weight, bias)
    for one, other in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_equation_is_the_cross_entropy_with_the_distribution_that_it_names(smoothing):
    features, weight, bias, targets, soft_targets = world(5, 6, soft=True)
    logits = (features @ weight.T + bias).detach()
    each = []
    for n in range(5):
        wanted = [smoothing / 6 + (1 - smoothing) * (v == int(targets[n])) for v in range(6)]
        left = 1 - sum(map(float, soft_targets.shares[n]))
        wanted = [left * value for value in map(float, wanted)]
        for word, share in zip(soft_targets.ids[n], soft_targets.shares[n], strict=True):
            wanted[int(word)] += float(share)
        assert sum(wanted) == pytest.approx(1)
        log_probs = [float(value - logits[n].exp().sum().log()) for value in logits[n]]
        each.append(-sum(a * b for a, b in zip(wanted, log_probs, strict=True)))
    loss, of_words = word_loss_equation(logits, targets, soft_targets, label_smoothing=smoothing)
    assert float(loss) == pytest.approx(sum(each), abs=1e-12)
    torch.testing.assert_close(of_words, torch.tensor(each, dtype=torch.float64), rtol=0, atol=1e-12)


def test_scores_beyond_the_range_of_exp_lose_nothing():
    """exp(2000) overflows, so each word's largest score is subtracted first."""
    features, weight, bias, targets, _ = world(4, 6, soft=False)
    features = (2000 * features).detach().requires_grad_()
    logits = features @ weight.T + bias
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    found, _ = kernel.chunked_cross_entropy(features, weight, bias, targets)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for one, other in zip(
        *(torch.autograd.grad(loss, (features, weight, bias)) for loss in (found, expected)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_shares_of_another_precision_and_no_smoothing_where_none_is_asked_for():
    features, weight, bias, targets, soft_targets = world(5, 6, soft=True)
    shares = soft_targets.shares.float()
    logits = features @ weight.T + bias
    wanted = (1 - shares.double().sum(1, keepdim=True)) * torch.nn.functional.one_hot(targets, 6)
    wanted = wanted.scatter_add(1, soft_targets.ids, shares.double())
    expected = -(wanted * logits.log_softmax(1)).sum()
    rounded = soft_targets._replace(shares=shares)
    for found, _ in (
        word_loss_equation(logits, targets, rounded),
        kernel.chunked_cross_entropy(features, weight, bias, targets, rounded),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
        (one,), (other,) = (torch.autograd.grad(loss, [features], retain_graph=True) for loss in (found, expected))
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_so_many_scores_are_in_memory_at_once():
    assert (kernel._CACHED, kernel.HELD) == (4_194_304, 67_108_864)
