"""Compare attention, scorers and the samples of hard attention with loops written from the papers' equations."""

import pytest
import torch
from toys import SCORERS

from captioning.errors import ConfigError
from captioning.models import (
    Additive,
    HardAttention,
    NoAttention,
    ScoreFunction,
    SoftAttention,
    StraightThrough,
    gradient_estimators,
)
from captioning.models.attention import Sentinel
from captioning.models.gradient_estimators import entropy, most_likely
from captioning.models.ops import additive_kernel

MASK = torch.tensor([[True, True, False, True], [False, True, False, False]])


def make(kind=SoftAttention, *, scorer="additive", **arguments):
    attention = kind(6, 7, scorer=SCORERS[scorer], **arguments).double()
    return attention, torch.randn(2, 3, 7, dtype=torch.float64), torch.randn(2, 4, 6, dtype=torch.float64)


def a_sentinel():
    return Sentinel(torch.randn(2, 3, 6, dtype=torch.float64), torch.randn(2, 3, 5, dtype=torch.float64))


def score(scorer, h, key):
    """Compute e of one location from its key, by the scorer's equation."""
    if isinstance(scorer, Additive):
        return scorer.score.weight[0] @ torch.tanh(key + scorer.query.weight @ h)
    return (scorer.query.weight @ h + scorer.query.bias) @ key / 5**0.5


def naive(attention, h, places, sentinel=None):
    """Compute context and weights of one row in a loop over the real locations; the sentinel (vector, key) is last."""
    bias = attention.scorer.key.bias
    keys = [attention.scorer.key.weight @ a + (0 if bias is None else bias) for a in places]
    values = list(places)
    if sentinel is not None:
        keys.append(sentinel[1])
        values.append(sentinel[0])
    e = torch.stack([score(attention.scorer, h, key) for key in keys])
    alpha = e.exp() / e.exp().sum()
    return sum(a * v for a, v in zip(alpha, values, strict=True)), alpha


@pytest.mark.parametrize("with_sentinel", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("scorer", SCORERS)
def test_soft_attention_equals_the_equations_place_by_place(scorer, with_mask, with_sentinel):
    attention, query, grid = make(scorer=scorer)
    mask, sentinel = MASK if with_mask else None, a_sentinel() if with_sentinel else None
    seen = attention(query, grid, attention.project(grid), mask, sentinel)
    for b in range(2):
        real = MASK[b] if with_mask else torch.ones(4, dtype=torch.bool)
        for k in range(3):
            own = None if sentinel is None else (sentinel.vector[b, k], sentinel.key[b, k])
            context, alpha = naive(attention, query[b, k], grid[b, real], own)
            torch.testing.assert_close(seen.context[b, k], context)
            torch.testing.assert_close(seen.weights[b, k, real], alpha[: int(real.sum())])
            assert (seen.weights[b, k, ~real] == 0).all()


# Number of rows whose hidden layers are computed at once, of two images with three rows each; number of parts.
@pytest.mark.parametrize(("at_once", "parts"), [(0, 6), (1, 6), (2, 4), (3, 2), (5, 2), (6, 1)])
def test_additive_scores_in_parts_equal_the_equation(at_once, parts, monkeypatch):
    attention, query, grid = make()
    query.requires_grad_()
    scorer, keys = attention.scorer, attention.scorer.project(grid).detach().requires_grad_()
    expected = torch.stack(
        [torch.stack([torch.stack([score(scorer, h, key) for key in keys[b]]) for h in query[b]]) for b in range(2)]
    )
    monkeypatch.setattr(additive_kernel, "_CACHED", at_once * keys.shape[1] * scorer.width)
    assert len(list(additive_kernel._parts(scorer.query(query), keys))) == parts
    scores = scorer(query, keys)
    torch.testing.assert_close(scores, expected)
    weights, inputs = torch.randn_like(scores), [query, keys, *scorer.query.parameters(), *scorer.score.parameters()]
    ours, theirs = (torch.autograd.grad((value * weights).sum(), inputs) for value in (scores, expected))
    torch.testing.assert_close(ours, theirs)
    with torch.inference_mode():
        torch.testing.assert_close(scorer(query, keys), expected)


def test_additive_scores_keep_no_hidden_layer_for_the_gradient():
    attention, query, grid = make()
    keys, kept = attention.scorer.project(grid), []
    with torch.autograd.graph.saved_tensors_hooks(lambda part: kept.append(part.numel()) or part, lambda part: part):
        attention.scorer(query.requires_grad_(), keys)
    assert kept and max(kept) == max(query.numel(), keys.numel(), 7 * 5) < 2 * 3 * 4 * 5


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("kind", [SoftAttention, HardAttention])
def test_gradients_by_finite_differences(kind, scorer):
    attention, query, grid = make(kind, scorer=scorer)
    attention.eval()  # hard attention to the most likely location: piecewise smooth
    sentinel = a_sentinel()
    inputs = [part.requires_grad_() for part in (query, grid, *sentinel)]

    def run(q, g, vector, key):
        seen = attention(q, g, attention.project(g), MASK, Sentinel(vector, key))
        return seen.context, seen.weights

    assert torch.autograd.gradcheck(run, inputs)


def test_equal_scores_give_the_mean_of_the_places():
    attention, query, grid = make()
    torch.nn.init.zeros_(attention.scorer.score.weight)
    context = attention(query, grid, attention.project(grid)).context
    torch.testing.assert_close(context, grid.mean(1, keepdim=True).expand_as(context))


@pytest.mark.parametrize("kind", [SoftAttention, HardAttention])
def test_masked_places_get_exactly_nothing_and_do_not_matter(kind):
    attention, query, grid = make(kind)
    attention.eval()
    seen = attention(query, grid, attention.project(grid), MASK)
    assert (seen.weights[~MASK[:, None].expand_as(seen.weights)] == 0).all()
    torch.testing.assert_close(seen.weights.sum(-1), torch.ones(2, 3, dtype=torch.float64))
    assert (seen.weights[1, :, 1] == 1).all()  # one location left: no 0 / 0
    grid[~MASK] = 1e6
    torch.testing.assert_close(attention(query, grid, attention.project(grid), MASK).context, seen.context)


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_shift_of_all_scores_changes_nothing(scorer):
    attention, query, grid = make(scorer=scorer)
    keys = attention.project(grid)
    shifted = (attention.scorer(query, keys.places) + 500).softmax(-1)
    torch.testing.assert_close(attention(query, grid, keys).weights, shifted)


@pytest.mark.parametrize("kind", [SoftAttention, HardAttention])
def test_attention_over_one_vector_is_refused(kind):
    with pytest.raises(ConfigError, match=r"encoder\.output=grid or model/attention=none"):
        kind(6, 7, grid=False)


def test_no_attention_sees_nothing():
    attention = NoAttention(6, 7)
    grid = torch.randn(2, 4, 6)
    seen = attention(torch.randn(2, 3, 7), grid, attention.project(grid))
    assert seen.context.shape == (2, 3, 0) and seen.weights.shape == (2, 3, 0)


@pytest.mark.parametrize("draw", [ScoreFunction(expected_share=0.0), StraightThrough()])
def test_places_are_drawn_as_often_as_alpha_says(draw):
    log_weights = torch.randn(1, 1, 5, dtype=torch.float64).log_softmax(-1)
    log_weights[..., 3] = -torch.inf
    log_weights = log_weights.log_softmax(-1)
    count = 40_000
    drawn = draw(log_weights.expand(1, count, 5), None)
    assert ((drawn.weights.detach() == 1).sum(-1) == 1).all()
    assert torch.equal(drawn.weights.argmax(-1), drawn.places)
    share = torch.bincount(drawn.places[0], minlength=5) / count
    alpha = log_weights.exp()[0, 0]
    error = (alpha * (1 - alpha) / count).sqrt()
    assert ((share - alpha).abs() <= 4 * error).all() and share[3] == 0


def test_training_looks_at_one_place_and_decoding_at_what_it_says(monkeypatch):
    attention, query, grid = make(HardAttention, draw=ScoreFunction(expected_share=0.0))
    seen = attention(query, grid, attention.project(grid))
    for b in range(2):
        torch.testing.assert_close(seen.context[b], grid[b, seen.places[b]])
    chosen = seen.weights.gather(-1, seen.places[..., None]).squeeze(-1)
    torch.testing.assert_close(seen.log_prob, chosen.log())
    attention.eval()
    seen = attention(query, grid, attention.project(grid))
    assert torch.equal(seen.places, seen.weights.argmax(-1)) and seen.log_prob is None
    torch.testing.assert_close(seen.context[1], grid[1, seen.places[1]])
    attention.decode = "expectation"
    soft = attention(query, grid, attention.project(grid))
    assert soft.places is None
    torch.testing.assert_close(soft.context, soft.weights @ grid)
    attention.decode = "sample"
    noise = torch.randn(2, 3, 4, dtype=torch.float64)
    with monkeypatch.context() as patch:
        patch.setattr(gradient_estimators, "_gumbel", lambda like: noise)
        drawn = attention(query, grid, attention.project(grid))
    assert torch.equal(drawn.places, (drawn.weights.log() + noise).argmax(-1))
    assert not torch.equal(drawn.places, drawn.weights.argmax(-1))
    torch.testing.assert_close(drawn.context[1], grid[1, drawn.places[1]])


def test_the_expected_context_is_drawn_once_an_image():
    attention, _, _ = make(HardAttention, draw=ScoreFunction(expected_share=0.5))
    query, grid = torch.randn(64, 3, 7, dtype=torch.float64), torch.randn(64, 4, 6, dtype=torch.float64)
    keys = attention.project(grid)
    assert 16 < keys.expected.sum() < 48
    for _ in range(2):  # two steps: the same images
        seen = attention(query, grid, keys)
        soft = (seen.weights @ grid - seen.context).abs().amax((1, 2)) < 1e-12
        assert torch.equal(soft, keys.expected)
        assert (seen.log_prob[keys.expected] == 0).all() and (seen.log_prob[~keys.expected] < 0).all()


def test_hard_attention_draws_by_the_score_function_and_decodes_the_likeliest_place_unless_told():
    attention, query, grid = make(HardAttention)
    assert isinstance(attention.draw, ScoreFunction) and attention.draw.expected_share == 0.5
    assert attention.decode == "most_likely" and attention.training
    assert attention(query, grid, attention.project(grid)).log_prob is not None
    assert attention.eval().project(grid).expected is None


def test_the_sentinel_is_a_place_of_its_own():
    attention, query, grid = make(HardAttention)
    attention.eval()
    sentinel = a_sentinel()
    attention.scorer.of_rows = lambda query, key: query.new_full(query.shape[:2], 50.0)
    seen = attention(query, grid, attention.project(grid), None, sentinel)
    assert (seen.places == 4).all() and (seen.weights.sum(-1) < 1e-6).all()
    torch.testing.assert_close(seen.context, sentinel.vector)


def test_alpha_that_underflows_gives_no_nan():
    scores = torch.tensor([[[0.0, -2000.0, -torch.inf, 300.0]]], requires_grad=True)
    for draw in (ScoreFunction(), StraightThrough()):
        log_weights = scores.log_softmax(-1)
        drawn = draw(log_weights, None)
        total = drawn.weights.sum() + sum(p.sum() for p in (drawn.log_prob, drawn.entropy) if p is not None)
        (gradient,) = torch.autograd.grad(total, scores)
        assert total.isfinite() and gradient.isfinite().all()


def test_entropy_equals_its_formula():
    log_weights = torch.randn(2, 3, 5, dtype=torch.float64).log_softmax(-1)
    alpha = log_weights.exp()
    torch.testing.assert_close(entropy(log_weights), -(alpha * alpha.log()).sum(-1))
    assert most_likely(log_weights).weights.sum() == 6


@pytest.mark.parametrize("scale", [1.0, 0.4, 0.0])
def test_the_straight_through_gradient_is_that_of_the_softmax(scale):
    scores = torch.randn(1, 1, 4, dtype=torch.float64, requires_grad=True)
    values = torch.randn(4, dtype=torch.float64)
    torch.manual_seed(5)
    drawn = StraightThrough(temperature=0.7, noise=scale)(scores.log_softmax(-1), None)
    (gradient,) = torch.autograd.grad((drawn.weights @ values).sum(), scores)
    torch.manual_seed(5)
    noise = -torch.empty_like(scores).exponential_().log()
    noisy = scores.log_softmax(-1) + scale * noise
    soft = ((noisy / 0.7).softmax(-1) @ values).sum()
    torch.testing.assert_close(gradient, torch.autograd.grad(soft, scores)[0])
    assert torch.equal(drawn.places, noisy.argmax(-1))


def test_without_noise_the_most_probable_location_is_used_and_nothing_is_drawn():
    log_weights = torch.randn(2, 3, 5).log_softmax(-1)
    before = torch.get_rng_state()
    assert torch.equal(StraightThrough(noise=0.0)(log_weights, None).places, log_weights.argmax(-1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("make_part", "words"),
    [
        (lambda: HardAttention(6, 7, decode="soft"), r"model\.attention\.decode must be one of"),
        (lambda: ScoreFunction(expected_share=2), "expected_share"),
        (lambda: StraightThrough(temperature=0), "temperature"),
        (lambda: StraightThrough(noise=-1), "noise"),
    ],
)
def test_impossible_arguments_are_named(make_part, words):
    with pytest.raises(ConfigError, match=words):
        make_part()
