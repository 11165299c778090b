"""Test the samples of hard attention for given uniform numbers and by quadrature, and their gradients by formula."""

import math

import pytest
import torch

from captioning.models import ScoreFunction, StraightThrough
from captioning.models.gradient_estimators import _gumbel, entropy, most_likely


@pytest.fixture
def uniform(monkeypatch):
    """Set the next exponential noise to −log u for given u, the quantile function of 1 − u."""

    def give(numbers):
        def exponential_(self, rate=1.0, *, generator=None):
            return self.copy_(-torch.log(numbers.expand_as(self)) / rate)

        monkeypatch.setattr(torch.Tensor, "exponential_", exponential_)

    return give


def test_the_noise_is_standard_gumbel(uniform):
    """The quantile function of the noise is −log(−log u)."""
    u = torch.tensor([0.01, 0.3, 0.5, math.exp(-1), 0.99], dtype=torch.float64)
    uniform(u)
    expected = torch.tensor([-math.log(-math.log(float(each))) for each in u], dtype=torch.float64)
    torch.testing.assert_close(_gumbel(torch.zeros(2, 5, dtype=torch.float64)), expected.expand(2, 5))


def test_noise_that_rounds_to_nothing_or_all_is_finite_and_draws_no_masked_place(uniform):
    for u in (1.0, torch.finfo(torch.float64).tiny):
        uniform(torch.tensor(u, dtype=torch.float64))
        assert _gumbel(torch.zeros(3, dtype=torch.float64)).isfinite().all()
        log_weights = torch.tensor([[[-torch.inf, math.log(0.25), math.log(0.75)]]], dtype=torch.float64)
        for draw in (ScoreFunction(expected_share=0.0), StraightThrough()):
            assert draw(log_weights, None).places.tolist() == [[2]]


GRID = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
U = torch.stack(torch.meshgrid(GRID, GRID, indexing="ij"), -1).view(1, -1, 2)


@pytest.mark.parametrize("share", [0.5, 0.2, 0.93])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("draw", ["most_likely", "score_function", "straight_through"])
def test_a_place_is_drawn_from_alpha(uniform, draw, share, masked):
    """Use all pairs of 400 evenly spaced uniform numbers; one location is masked."""
    alpha = torch.tensor([share, 0.0, 1 - share] if masked else [share, 1 - share], dtype=torch.float64)
    noise = torch.cat((U[..., :1], torch.full_like(U[..., :1], 1 - 1e-12), U[..., 1:]), -1) if masked else U
    uniform(noise)
    log_weights = alpha.log().expand(1, U.shape[1], -1)
    draws = {
        "most_likely": lambda: most_likely(log_weights, sample=True),
        "score_function": lambda: ScoreFunction(expected_share=0.0)(log_weights, None),
        "straight_through": lambda: StraightThrough(temperature=3.0)(log_weights, None),
    }
    drawn = draws[draw]()
    found = torch.bincount(drawn.places.flatten(), minlength=len(alpha)) / U.shape[1]
    torch.testing.assert_close(found, alpha.to(found.dtype), rtol=0, atol=1.5 / 400)
    assert torch.equal(drawn.weights.argmax(-1), drawn.places)
    torch.testing.assert_close(drawn.weights.sort(-1).values[..., -1], torch.ones_like(drawn.weights[..., 0]))
    torch.testing.assert_close(drawn.weights.sum(-1), torch.ones_like(drawn.weights[..., 0]))


def test_the_likeliest_place_is_the_first_of_equals():
    log_weights = torch.tensor([[[0.2, 0.4, 0.4], [0.1, 0.1, 0.8]]], dtype=torch.float64).log()
    drawn = most_likely(log_weights)
    assert drawn.places.tolist() == [[1, 2]] and drawn.log_prob is None and drawn.entropy is None
    assert drawn.weights.tolist() == [[[0, 1, 0], [0, 0, 1]]]


def test_the_score_function_carries_no_gradient_but_log_alpha_and_entropy():
    scores = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    log_weights = scores.log_softmax(-1)
    drawn = ScoreFunction(expected_share=0.0)(log_weights, None)
    assert not drawn.weights.requires_grad
    for b in range(2):
        for k in range(3):
            place, alpha = int(drawn.places[b, k]), log_weights[b, k].exp().detach()
            assert drawn.log_prob[b, k] == log_weights[b, k, place]
            (gradient,) = torch.autograd.grad(drawn.log_prob[b, k], scores, retain_graph=True)
            expected = torch.zeros_like(scores)
            expected[b, k] = torch.eye(4)[place] - alpha  # ∂ log softmax
            torch.testing.assert_close(gradient, expected)
            (gradient,) = torch.autograd.grad(drawn.entropy[b, k], scores, retain_graph=True)
            total = -(alpha * alpha.log()).sum()
            torch.testing.assert_close(gradient[b, k], -alpha * (alpha.log() + total))
            assert gradient.count_nonzero() == 4


def test_expected_contexts_are_told_by_the_image():
    scores = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    log_weights = scores.log_softmax(-1)
    drawn = ScoreFunction(expected_share=0.5)(log_weights, torch.tensor([False, True, False]))
    torch.testing.assert_close(drawn.weights[1], log_weights[1].exp())
    assert (drawn.log_prob[1] == 0).all() and (drawn.log_prob[[0, 2]] < 0).all()
    assert set(drawn.weights[[0, 2]].unique().tolist()) == {0.0, 1.0}
    (gradient,) = torch.autograd.grad(drawn.log_prob.sum(), scores, retain_graph=True)
    assert not gradient[1].any() and gradient[[0, 2]].any()
    values = torch.randn(4, dtype=torch.float64)
    ours, theirs = (
        torch.autograd.grad((weights[1] @ values).sum(), scores, retain_graph=True)[0]
        for weights in (drawn.weights, scores.softmax(-1))
    )
    torch.testing.assert_close(ours, theirs)
    alpha = log_weights.exp()
    torch.testing.assert_close(drawn.entropy, -(alpha * alpha.log()).sum(-1))  # of α, also without a sample


def test_the_share_of_images_with_an_expected_context(monkeypatch):
    drawn = []

    def rand(count, **_):
        drawn.append(count)
        return torch.tensor([0.0, 0.24, 0.25, 0.75, 1 - 2**-24])[:count]

    monkeypatch.setattr(torch, "rand", rand)
    for share, expected in ((0.25, [1, 1, 0, 0, 0]), (0.75, [1, 1, 1, 0, 0]), (1.0, [1] * 5), (1, [1] * 5)):
        assert ScoreFunction(expected_share=share).expected(torch.zeros(5, 2, 3)).tolist() == expected
    assert drawn == [5] * 4
    assert ScoreFunction().expected_share == 0.5  # as in the paper
    assert ScoreFunction(expected_share=0).expected(torch.zeros(5, 2, 3)) is None
    assert StraightThrough().expected(torch.zeros(5, 2, 3)) is None


@pytest.mark.parametrize("temperature", [None, 0.4, 2.0])
def test_straight_through_is_one_hot_with_the_gradient_of_the_softmax(uniform, temperature):
    """∂ Σ v_i y_i / ∂ log α_j = y_j (v_j − Σ v_i y_i) / τ, y = softmax((log α + g) / τ); τ is 1 by default."""
    u = torch.rand(2, 3, 4, dtype=torch.float64)
    uniform(u)
    log_weights = torch.randn(2, 3, 4, dtype=torch.float64).log_softmax(-1).requires_grad_()
    values = torch.randn(2, 3, 4, dtype=torch.float64)
    drawn = StraightThrough(**({} if temperature is None else {"temperature": temperature}))(log_weights, None)
    noisy = log_weights.detach() - torch.log(-torch.log(u))
    torch.testing.assert_close(drawn.weights, torch.eye(4, dtype=torch.float64)[noisy.argmax(-1)])
    assert torch.equal(drawn.places, noisy.argmax(-1)) and drawn.log_prob is None and drawn.entropy is None
    (gradient,) = torch.autograd.grad((drawn.weights * values).sum(), log_weights)
    y = (noisy / (temperature or 1)).exp()
    y = y / y.sum(-1, keepdim=True)
    expected = y * (values - (y * values).sum(-1, keepdim=True)) / (temperature or 1)
    torch.testing.assert_close(gradient, expected)


def test_masked_places_add_nothing_to_the_entropy_nor_to_its_gradient():
    scores = torch.randn(2, 2, 4, dtype=torch.float64)
    scores[0, :, 1] = scores[1, :, 2:] = -torch.inf
    scores.requires_grad_()
    found = entropy(scores.log_softmax(-1))
    (gradient,) = torch.autograd.grad(found.sum(), scores)
    for b, real in enumerate(([0, 2, 3], [0, 1])):
        for k in range(2):
            alpha = scores.detach()[b, k, real].softmax(-1)
            total = -(alpha * alpha.log()).sum()
            torch.testing.assert_close(found[b, k].detach(), total)
            torch.testing.assert_close(gradient[b, k, real], -alpha * (alpha.log() + total))
    assert (gradient[0, :, 1] == 0).all() and (gradient[1, :, 2:] == 0).all()
    assert (entropy(torch.tensor([[[0.0, -torch.inf]]])) == 0).all()
