"""Compare REINFORCE over hard attention's locations with exact expectations over all paths, and with its equations.

`PaperCaptioner`, which shares no code with the package, computes the expected values. The package's own samples are
forced to every path in turn.
"""

import itertools
import math

import pytest
import torch
from exact_gradients import assert_same_gradient, forced_noise, forced_paths, gradient
from paper_captioner import PaperCaptioner
from small_worlds import LOSSES, MIXED, P, V, World, losses_along
from toys import END, PAD

from captioning.models import ScoreFunction, StraightThrough
from captioning.objectives import CrossEntropy, LeaveOneOut, MovingAverage, Reinforce


@pytest.fixture
def make_model(toy):
    """Build a hard-attention model whose locations influence the words, in training mode without dropout."""

    def make(conditioning="first_step"):
        torch.manual_seed(5)
        model = toy(
            attention="hard", conditioning=conditioning, dropout=0.0, width=3, embedding_size=2, vocabulary_size=V
        )
        model.decoder.attention.draw = ScoreFunction(expected_share=0.0)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.8)
        return model.train()

    return make


AVERAGE = -1.75  # the moving average's value
BASELINES = {
    "none": lambda: MovingAverage(decay=1.0),  # stays at 0
    "moving_average": MovingAverage,
    "leave_one_out": LeaveOneOut,
    "leave_two_out": lambda: LeaveOneOut(samples=3),
}


def make_objective(losses, baseline, *, reward_to_go, scale=1.0, entropy=0.0):
    places = Reinforce(scale=scale, entropy=entropy, baseline=BASELINES[baseline](), reward_to_go=reward_to_go)
    return CrossEntropy(**LOSSES[losses], location_loss=places)


def loss_of(objective, model, batch):
    """Compute the package's loss; the moving average has the same value at each call."""
    if isinstance(objective.location_loss.baseline, MovingAverage):
        objective.location_loss.baseline.value.fill_(AVERAGE if objective.location_loss.baseline.decay < 1 else 0.0)
    return objective(model, batch)


def paths_of(world, image, words):
    """Return all paths of a caption, [L^T, T], as indices of its image's locations."""
    return torch.tensor(list(itertools.product(range(len(world.locations[image])), repeat=len(words))))


def estimate(model, batch, world, objective, paths, losses, *, shown=(), average=0.0):
    """Compute the estimator's equations for the sampled paths [B, K · n, T].

    Args:
        shown: Images that get the expected context instead of a location; nothing of them is reinforced.
        average: b; a return over part of the words is compared with the same share of b.

    Returns:
        The terms of the loss by name, and the mean return.
    """
    paper, places = PaperCaptioner(model), objective.location_loss
    n = places.baseline.samples
    nothing, mean = torch.zeros((), dtype=torch.float64), 0.0
    sums = dict.fromkeys(("cross_entropy", "doubly_stochastic", "location", "location_entropy"), nothing)
    for image, slot, words in world.real():
        length, own = len(words), world.locations[image]
        drawn = paths[image, slot * n : slot * n + n, :length].tolist()
        drawn = torch.tensor([[own.index(place) for place in path] for path in drawn])
        how = {"weigh": lambda t, alpha, located: alpha} if image in shown else {}
        log_p, of_words, whole, entropy = losses_along(paper, batch, world, image, words, drawn, losses, **how)
        first = range(length) if places.reward_to_go else [0] * length
        returns = -torch.stack([of_words[:, t:].sum(1) + whole for t in first], 1).detach()
        if n > 1:
            baseline = torch.stack([sum(returns[other] for other in range(n) if other != row) for row in range(n)])
            baseline = baseline / (n - 1)
        else:
            baseline = torch.tensor([[average * (length - t) / length for t in first]], dtype=torch.float64)
        if image not in shown:
            sums["location"] = sums["location"] - places.scale * ((returns - baseline) * log_p).sum()
        sums["cross_entropy"] = sums["cross_entropy"] + of_words.sum()
        sums["doubly_stochastic"] = sums["doubly_stochastic"] + whole.sum()
        sums["location_entropy"] = sums["location_entropy"] - places.entropy * entropy.sum()
        mean += returns[:, 0].sum().item()
    captions = n * len(world.real())
    return {name: part / captions for name, part in sums.items()}, mean / captions


def draw_paths(batch, world, n):
    """Sample real locations for every step of every row, all with the same probability: [B, K · n, T]."""
    images, slots, length = batch.tokens.shape
    draws = torch.randint(6, (images, slots * n, length - 1))  # 6: the same number of samples for 1, 2 or 3 locations
    return torch.stack([torch.tensor(own)[draw % len(own)] for own, draw in zip(world.locations, draws, strict=True)])


@pytest.mark.parametrize("reward_to_go", [False, True])
@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("losses", LOSSES)
def test_each_estimate_is_that_of_the_equations(make_model, losses, baseline, reward_to_go):
    """Every term and its gradient, for sampled paths; 1 to 3 locations, 0 to 2 words, missing captions."""
    model, batch = make_model(), MIXED.batch()
    objective = make_objective(losses, baseline, reward_to_go=reward_to_go, scale=0.3, entropy=0.2)
    paths = draw_paths(batch, MIXED, objective.location_loss.baseline.samples)
    with forced_paths(paths, P):
        found = loss_of(objective, model, batch)
    average = AVERAGE if baseline == "moving_average" else 0.0
    assert_loss(found, model, *estimate(model, batch, MIXED, objective, paths, LOSSES[losses], average=average))


@pytest.mark.parametrize("shown", [(0, 2), (1, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("baseline", ["moving_average", "leave_one_out"])
def test_an_image_that_is_shown_the_expected_context_is_not_reinforced(make_model, baseline, shown):
    """All its captions and steps get Σ_i α_i a_i, whose gradient is exact without a score function."""
    model, batch = make_model(), MIXED.batch()
    objective = make_objective("all", baseline, reward_to_go=True, scale=0.3, entropy=0.2)
    paths = draw_paths(batch, MIXED, objective.location_loss.baseline.samples)
    model.decoder.attention.draw.expected = lambda grid: torch.tensor([image in shown for image in range(4)])
    with forced_paths(paths, P):
        found = loss_of(objective, model, batch)
    average = AVERAGE if baseline == "moving_average" else 0.0
    expected = estimate(model, batch, MIXED, objective, paths, LOSSES["all"], shown=shown, average=average)
    assert_loss(found, model, *expected)


def assert_loss(found, model, terms, mean_return):
    total = sum(terms.values())
    assert found.total.item() == pytest.approx(total.item(), rel=1e-12)
    for name, part in found.parts.items():
        assert part.item() == pytest.approx(float(terms[name].detach()), rel=1e-12, abs=1e-15), name
        assert not part.requires_grad
    assert all(name in found.parts or part == 0 for name, part in terms.items())
    assert found.stats["location_return"].item() == pytest.approx(mean_return, rel=1e-12)
    assert not found.stats["location_return"].requires_grad
    assert_same_gradient(gradient(found.total, model), gradient(total, model))


@pytest.mark.parametrize("losses", LOSSES)
def test_in_evaluation_the_loss_is_that_of_the_likeliest_locations(make_model, losses):
    """There is one row per caption, no teacher, and nothing to reinforce."""
    model, batch = make_model().eval(), MIXED.batch()
    found = make_objective(losses, "leave_one_out", reward_to_go=False, entropy=0.2)(model, batch)
    paper, total = PaperCaptioner(model), 0.0
    settings = {name: value for name, value in LOSSES[losses].items() if name != "teacher"}
    for image, _, words in MIXED.real():

        def likeliest(t, alpha, located):
            return torch.eye(alpha.shape[1]).double()[alpha.argmax(1)]

        anywhere = torch.zeros(1, len(words), dtype=torch.int64)
        _, of_words, whole, _ = losses_along(paper, batch, MIXED, image, words, anywhere, settings, weigh=likeliest)
        total = total + (of_words.sum() + whole.sum()) / len(MIXED.real())
    assert found.total.item() == pytest.approx(total.item(), rel=1e-12)
    assert not {"location", "location_entropy"} & found.parts.keys() and not found.stats
    assert (found.count.item(), found.words.item()) == (
        len(MIXED.real()),
        sum(len(words) for *_, words in MIXED.real()),
    )


def test_locations_are_drawn_with_the_probabilities_by_which_paths_are_weighted():
    log_alpha = torch.tensor([0.05, 0.6, 0.35, 0.0], dtype=torch.float64).log()
    times = 200_000
    drawn = ScoreFunction(expected_share=0.0)(log_alpha.expand(1, times, 4), None)
    counts = drawn.places.flatten().bincount(minlength=4)
    for count, alpha in zip(counts.tolist(), log_alpha.exp().tolist(), strict=True):
        assert count == pytest.approx(times * alpha, abs=4 * (times * alpha * (1 - alpha)) ** 0.5)


# Baselines -----------------------------------------------------------------------------------------------------------

RETURNS = torch.tensor([[[-4.0, -3.0, -1.0], [-2.0, -1.5, 0.0], [0.0, 0.0, 0.0]], [[-9.0, 0.0, 0.0]] + 2 * [[0.0] * 3]])
REAL = torch.tensor([[[1, 1, 1], [1, 1, 0], [0, 0, 0]], [[1, 0, 0], [0, 0, 0], [0, 0, 0]]], dtype=torch.bool)
LEFT = REAL.flip(-1).cumsum(-1).flip(-1).double()


def test_a_moving_average_is_of_real_captions_and_updated_after_its_use():
    average = MovingAverage(decay=0.75)
    average.value.fill_(-2.0)
    found = average(RETURNS.double(), LEFT, REAL)
    expected = [[[-2.0, -2 * 2 / 3, -2 / 3], [-2.0, -1.0, 0.0], [0.0] * 3], [[-2.0, 0.0, 0.0], [0.0] * 3, [0.0] * 3]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    after = 0.75 * -2.0 + 0.25 * (-4 - 2 - 9) / 3  # three captions in six slots
    assert average.value.item() == pytest.approx(after, rel=1e-6)
    whole = (LEFT[..., :1] * REAL).double()
    torch.testing.assert_close(average(RETURNS.double(), whole, REAL), average_of(after) * REAL, rtol=1e-6, atol=0)
    assert average.value.item() == pytest.approx(0.75 * after + 0.25 * -5, rel=1e-6)


def average_of(value):
    return torch.tensor(value, dtype=torch.float64)


def test_a_moving_average_stays_where_it_is_without_captions_and_in_evaluation():
    average = MovingAverage(decay=0.75)
    average.value.fill_(-2.0)
    average(RETURNS.double() * 0, LEFT * 0, REAL & False)
    average.eval()(RETURNS.double(), LEFT, REAL)
    assert average.value.item() == -2.0
    average.train()(RETURNS[1:].double(), LEFT[1:], REAL[1:])  # a single caption is enough
    assert average.value.item() == 0.75 * -2.0 + 0.25 * -9.0


@pytest.mark.parametrize("samples", [2, 3])
def test_leave_one_out_compares_a_path_with_the_other_paths_of_its_own_caption(samples):
    returns = torch.randn(2, 2 * samples, 3, dtype=torch.float64)
    found = LeaveOneOut(samples=samples)(returns, None, None)
    for image, caption, row, t in itertools.product(range(2), range(2), range(samples), range(3)):
        own = range(caption * samples, (caption + 1) * samples)
        others = [returns[image, other, t].item() for other in own if other != own[row]]
        assert found[image, own[row], t].item() == pytest.approx(sum(others) / len(others), rel=1e-12)


@pytest.mark.parametrize("samples", [2, 3])
def test_the_paths_of_a_caption_are_rows_beside_one_another(samples):
    tokens = torch.randint(9, (2, 2, 3))
    rows = Reinforce(baseline=LeaveOneOut(samples=samples)).repeat(tokens)
    assert rows.tolist() == [[caption for caption in image for _ in range(samples)] for image in tokens.tolist()]
    assert Reinforce().repeat(tokens) is tokens


def test_the_mean_return_of_one_caption_and_of_none(make_model):
    model, world = make_model(), World([(0, 1, 2)], [[[4, 5], None]])
    objective, batch = make_objective("plain", "none", reward_to_go=False), world.batch()
    loss = loss_of(objective, model, batch)
    assert loss.stats["location_return"].item() == pytest.approx(-loss.parts["cross_entropy"].item(), rel=1e-12)
    loss = loss_of(objective, model, batch._replace(tokens=torch.full_like(batch.tokens, PAD)))
    assert loss.stats["location_return"] == 0 and loss.total == 0


def test_without_advantage_there_is_no_gradient(make_model):
    """If the same path is sampled twice, its baseline is its own return."""
    model, world = make_model(), World([(0, 1, 2)], [[[4, 5]]])
    places = Reinforce(scale=1.0, entropy=0.0, baseline=LeaveOneOut(samples=2))
    objective, paths = CrossEntropy(location_loss=places), torch.tensor([[[1, 0, 2]] * 2])
    with forced_paths(paths, P):
        loss = objective(model, world.batch())
    assert loss.parts["location"] == 0
    with forced_paths(paths, P):
        alone = CrossEntropy(location_loss=Reinforce(scale=0.0, entropy=0.0))(model, world.batch())
    assert_same_gradient(gradient(loss.total, model), gradient(alone.total, model), rtol=1e-14)


# Against exact expectations ------------------------------------------------------------------------------------------


def exact_objective(model, batch, world, losses):
    """Compute Σ_s p(s | a) L(s), the mean over the captions, with gradients through both factors."""
    paper, total = PaperCaptioner(model), 0.0
    for image, _, words in world.real():
        log_p, of_words, whole, _ = losses_along(
            paper, batch, world, image, words, paths_of(world, image, words), losses
        )
        prior = log_p.sum(1).exp()
        assert prior.sum().item() == pytest.approx(1.0, rel=1e-12)
        total = total + (prior * (of_words.sum(1) + whole)).sum()
    return total / len(world.real())


def expected_gradient(model, batch, world, objective):
    """Compute the mean of the package's gradient over every path of every row, with its probability."""
    paper, n = PaperCaptioner(model), objective.location_loss.baseline.samples
    outcomes = []  # of each row: (image, row, locations, probability)
    for image, slot, words in world.real():
        paths = paths_of(world, image, words)
        log_p = losses_along(paper, batch, world, image, words, paths, LOSSES["plain"])[0]
        probabilities = log_p.sum(1).exp().tolist()
        places = torch.tensor(world.locations[image])[paths]
        for row in range(slot * n, slot * n + n):
            outcomes.append([(image, row, path, p) for path, p in zip(places, probabilities, strict=True)])
    total, mass = 0.0, 0.0
    size = (*batch.tokens.shape[:1], batch.tokens.shape[1] * n, batch.tokens.shape[2] - 1)
    for joint in itertools.product(*outcomes):
        drawn = torch.zeros(size, dtype=torch.int64)
        for image, row, path, _ in joint:
            drawn[image, row, : len(path)] = path
        weight = math.prod(p for *_, p in joint)
        with forced_paths(drawn, P):
            total = total + weight * loss_of(objective, model, batch).total
        mass += weight
    assert mass == pytest.approx(1.0, rel=1e-9)
    return gradient(total, model)


# Small enough to enumerate all joint paths: each step of a row multiplies their number by its image's locations.
ONE_DRAW = {
    "lengths 1 and 2": World([(0, 1, 2), (0, 2)], [[[4]], [[5, 4]]]),
    "an empty caption, a missing one": World([(0, 1, 2), (1, 2)], [[[4], []], [[], None]]),
}
SEVERAL_DRAWS = {
    "leave_one_out": {
        "length 1": World([(0, 1, 2)], [[[4]]]),
        "two images": World([(1, 2), (0, 2)], [[[5], None], [[]]]),
    },
    "leave_two_out": {
        "length 1": World([(0, 2)], [[[4]]]),
        "two captions": World([(0, 2)], [[[], []]]),
    },
}
CASES = [(baseline, world) for baseline in ("none", "moving_average") for world in ONE_DRAW]
CASES += [(baseline, world) for baseline, worlds in SEVERAL_DRAWS.items() for world in worlds]


@pytest.mark.parametrize("reward_to_go", [False, True])
@pytest.mark.parametrize(("baseline", "world"), CASES)
def test_the_expected_gradient_is_that_of_the_expected_loss(make_model, baseline, world, reward_to_go):
    """∇ Σ_s p(s | a) L(s), over all paths; for the lower bound of eq. 10 it is exact."""
    world = SEVERAL_DRAWS.get(baseline, ONE_DRAW)[world]
    model, batch = make_model(), world.batch()
    objective = make_objective("plain", baseline, reward_to_go=reward_to_go)
    exact = gradient(exact_objective(model, batch, world, LOSSES["plain"]), model)
    assert_same_gradient(expected_gradient(model, batch, world, objective), exact)


WHOLE = [("all", baseline, to_go) for baseline in ("moving_average", "leave_one_out") for to_go in (False, True)]
WHOLE += [(losses, "moving_average", True) for losses in ("smoothing", "soft_targets", "doubly_stochastic")]


@pytest.mark.parametrize(("losses", "baseline", "reward_to_go"), WHOLE)
def test_the_expected_gradient_is_that_of_the_whole_loss_that_is_minimized(make_model, losses, baseline, reward_to_go):
    """The return of a path includes label smoothing, soft targets and the doubly stochastic term."""
    world = {
        "moving_average": World([(0, 2), (0, 1, 2)], [[[4, 5]], [[4]]]),
        "leave_one_out": World([(0, 2), (1, 2)], [[[4]], [[]]]),
    }[baseline]
    model, batch = make_model("initial_state"), world.batch()
    objective = make_objective(losses, baseline, reward_to_go=reward_to_go)
    exact = gradient(exact_objective(model, batch, world, LOSSES[losses]), model)
    assert_same_gradient(expected_gradient(model, batch, world, objective), exact)


# Numbers that docs/parts/attention.md quotes -------------------------------------------------------------------------

QUOTED = {"moving_average": 0.024, "leave_one_out": 0.037, "straight_through": 0.195}
ONE = World([(0, 1, 2)], [[[4, 5]]])


def quoted_toy(make_model):
    model = make_model()
    return model, ONE.batch()._replace(images=torch.randn(1, P, 6, dtype=torch.float64))


def test_baselines_lower_the_variance_as_quoted(make_model):
    """Compare variances, summed over the parameters and relative to no baseline, for the same number of paths.

    They are computed over all 27 paths and their pairs. An estimate is A(s) − b S(s) for any baseline b; the moving
    average's is E[R] after it has converged.
    """
    model, batch = quoted_toy(make_model)
    paths, words = paths_of(ONE, 0, [4, 5, END]), [4, 5, END]
    log_p, of_words, _, _ = losses_along(PaperCaptioner(model), batch, ONE, 0, words, paths, LOSSES["plain"])
    p, returns = log_p.sum(1).exp().detach(), -of_words.sum(1).detach()
    objective, found = make_objective("plain", "none", reward_to_go=False), {}
    for value in (0.0, 1.0):
        rows = []
        for path in paths:
            objective.location_loss.baseline.value.fill_(value)
            with forced_paths(path[None, None], P):
                rows.append(gradient(objective(model, batch).total, model))
        found[value] = torch.stack(rows)
    unmoved, slope = found[0.0], found[0.0] - found[1.0]  # A and S

    def variance(probabilities, estimates):
        mean = probabilities @ estimates
        return (probabilities @ (estimates - mean) ** 2).sum().item()

    none, average = variance(p, unmoved), variance(p, unmoved - (p @ returns) * slope)
    first, second = torch.tensor(list(itertools.product(range(27), repeat=2))).T
    pairs = unmoved[first] - returns[second, None] * slope[first]
    pairs = (pairs + unmoved[second] - returns[first, None] * slope[second]) / 2
    twice = 2 * variance(p[first] * p[second], pairs)  # a pair costs as much as two paths
    figures = {"moving_average": average / none, "leave_one_out": twice / none}
    print(figures)
    for name, figure in figures.items():
        assert figure == pytest.approx(QUOTED[name], rel=0.03)


def test_the_straight_through_estimator_is_biased_by_what_is_quoted(make_model):
    """Compare the attention's mean gradient over evenly spaced noise with that of the expected loss."""
    (model, batch), times = quoted_toy(make_model), 2**13
    exact = gradient(exact_objective(model, batch, ONE, LOSSES["plain"]), model)
    model.decoder.attention.draw = StraightThrough(temperature=1.0)
    even = torch.quasirandom.SobolEngine(3 * P, scramble=True, seed=0).draw(times, dtype=torch.float64)
    noise = -(-even.clamp(1e-12, 1 - 1e-12).log()).log()
    with forced_noise(noise.view(1, times, 3, P)):
        many = batch._replace(tokens=batch.tokens.expand(-1, times, -1))
        found = gradient(CrossEntropy(doubly_stochastic=0.0)(model, many).total, model)
    scorer = torch.cat([torch.full((p.numel(),), "scorer" in name) for name, p in model.named_parameters()])
    bias = ((found - exact)[scorer].norm() / exact[scorer].norm()).item()
    print(f"straight_through {bias:.3f} of the gradient's length")
    assert bias == pytest.approx(QUOTED["straight_through"], rel=0.02)


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_a_straight_through_estimate_is_that_of_its_equations(make_model, temperature):
    """The context is that of argmax(log α + g); its gradient is that of softmax((log α + g) / τ)."""
    model, batch = make_model(), MIXED.batch()
    model.decoder.attention.draw = StraightThrough(temperature=temperature)
    noise = torch.randn(len(batch.tokens), batch.tokens.shape[1], 3, P, dtype=torch.float64)
    with forced_noise(noise):
        found = CrossEntropy(doubly_stochastic=0.7)(model, batch)
    paper, total = PaperCaptioner(model), 0.0
    for image, slot, words in MIXED.real():
        own = list(MIXED.locations[image])

        def weigh(t, alpha, located):
            noisy = alpha.log() + noise[image, slot, t, own]  # noqa: B023
            soft = (noisy / temperature).exp() / (noisy / temperature).exp().sum(1, keepdim=True)
            return torch.eye(len(own)).double()[noisy.argmax(1)] + soft - soft.detach()  # noqa: B023

        anywhere = torch.zeros(1, len(words), dtype=torch.int64)
        _, of_words, whole, _ = losses_along(
            paper, batch, MIXED, image, words, anywhere, LOSSES["doubly_stochastic"], weigh=weigh
        )
        total = total + (of_words.sum() + whole.sum()) / len(MIXED.real())
    assert found.total.item() == pytest.approx(total.item(), rel=1e-12) and not found.stats
    assert_same_gradient(gradient(found.total, model), gradient(total, model))
