"""Estimated gradients against exact ones, by enumerating every path of places and every caption of a toy world."""

import itertools

import pytest
import torch
from exact_gradients import Forced, gradient
from toys import (
    END,
    PAD,
    START,
    UNKNOWN,
)

from captioning.data import CaptionBatch
from captioning.metrics import Reward
from captioning.models import ScoreFunction
from captioning.objectives import CrossEntropy, LeaveOneOut, MovingAverage, Reinforce, SelfCritical, greedy

P, WORDS = 3, [4, 5, END]
FORBIDDEN = (PAD, START, UNKNOWN)


@pytest.fixture
def model(toy):
    """Hard attention over three places that matter to the words, in training mode without dropout."""
    torch.manual_seed(5)
    model = toy(attention="hard", conditioning="first_step", dropout=0.0, width=3, embedding_size=2, vocabulary_size=6)
    model.decoder.attention.draw = ScoreFunction(expected_share=0.0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    return model.train()


@pytest.fixture
def batch():
    tokens = torch.tensor([[[START, *WORDS]]])
    return CaptionBatch(torch.tensor([0]), torch.randn(1, P, 6, dtype=torch.float64), None, tokens)


def exact_lower_bound(model, batch):
    """∇ Σ_s p(s | a) log p(y | s, a) over all P^T paths."""
    paths = torch.tensor(list(itertools.product(range(P), repeat=len(WORDS))))
    drawn, model.decoder.attention.draw = model.decoder.attention.draw, Forced(paths[None])
    decoded = model(batch.images, batch.tokens.expand(1, len(paths), -1))
    model.decoder.attention.draw = drawn
    targets = batch.tokens[0, 0, 1:].expand(len(paths), -1).flatten()[decoded.index]
    log_p = decoded.logits.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    log_likelihood = log_p.new_zeros(len(paths)).index_add(0, decoded.index // len(WORDS), log_p)
    prior = decoded.glimpse.log_prob[0].sum(-1).exp()
    torch.testing.assert_close(prior.sum(), prior.new_ones(()))
    return gradient((prior * log_likelihood).sum(), model)


def estimates(model, batch, objective, *, times, rows):
    many = batch._replace(tokens=batch.tokens.expand(-1, rows, -1))
    return torch.stack([gradient(objective(model, many).total, model) for _ in range(times)])


def assert_unbiased(found, exact):
    error = found.std(0) / len(found) ** 0.5
    assert (error > 0).sum() > 20  # most parameters are random at all
    assert ((found.mean(0) - exact).abs() <= 4 * error + 1e-12).all()


BASELINES = {
    "none": lambda: MovingAverage(decay=1.0),  # stays at 0
    "moving_average": MovingAverage,
    "leave_one_out": LeaveOneOut,
}


@pytest.mark.parametrize("reward_to_go", [False, True])
@pytest.mark.parametrize("baseline", BASELINES)
def test_reinforce_is_an_unbiased_gradient_of_the_lower_bound(model, batch, baseline, reward_to_go):
    places = Reinforce(scale=1.0, entropy=0.0, baseline=BASELINES[baseline](), reward_to_go=reward_to_go)
    objective = CrossEntropy(doubly_stochastic=0.0, location_loss=places)
    rows = 240 // places.baseline.samples  # captions drawn for each estimate: the same work for every baseline
    assert_unbiased(estimates(model, batch, objective, times=80, rows=rows), -exact_lower_bound(model, batch))


def test_baselines_lower_the_variance(model, batch):
    variance = {}
    for name, make in BASELINES.items():
        places = Reinforce(scale=1.0, entropy=0.0, baseline=make())
        objective = CrossEntropy(doubly_stochastic=0.0, location_loss=places)
        found = estimates(model, batch, objective, times=100, rows=240 // places.baseline.samples)
        variance[name] = found[40:].var(0).sum().item()  # once the average has moved
    print({name: f"{value / variance['none']:.3f}" for name, value in variance.items()})
    assert variance["moving_average"] < 0.5 * variance["none"]
    assert variance["leave_one_out"] < 0.5 * variance["none"]


def test_without_advantage_there_is_no_gradient(model, batch):
    places = Reinforce(scale=1.0, entropy=0.0, baseline=LeaveOneOut(samples=2))
    decoded = model(batch.images, batch.tokens.expand(-1, 4, -1))
    real = torch.ones(1, 4, 3, dtype=torch.bool)
    rewards = torch.full((1, 4, 3), -1.7, dtype=torch.float64)
    terms, _ = places(rewards, decoded.glimpse, real)
    assert (gradient(sum(terms.values()), model) == 0).all()


def test_the_terms_equal_their_formulas(model, batch):
    places = Reinforce(scale=0.3, entropy=0.2, baseline=MovingAverage(decay=0.9))
    places.baseline.value.fill_(-2.0)
    glimpse = model(batch.images, batch.tokens).glimpse
    rewards = torch.tensor([[[-1.0, -2.0, -0.5]]], dtype=torch.float64)
    terms, figures = places(rewards, glimpse, torch.ones(1, 1, 3, dtype=torch.bool))
    assert terms["location"].item() == pytest.approx(-0.3 * (-3.5 + 2.0) * glimpse.log_prob.sum().item())
    alpha = glimpse.weights
    assert terms["location_entropy"].item() == pytest.approx(0.2 * (alpha * alpha.log()).sum().item())
    assert figures["location_return"].item() == -3.5
    assert places.baseline.value.item() == pytest.approx(0.9 * -2.0 + 0.1 * -3.5)
    places.reward_to_go = True
    places.baseline.value.fill_(-3.0)
    terms, _ = places(rewards, glimpse, torch.ones(1, 1, 3, dtype=torch.bool))
    advantage = [-3.5 + 3.0, -2.5 + 2.0, -0.5 + 1.0]
    expected = -0.3 * sum(a * p for a, p in zip(advantage, glimpse.log_prob[0, 0].tolist(), strict=True))
    assert terms["location"].item() == pytest.approx(expected)


def test_the_straight_through_estimator_is_biased_and_by_how_much(model, batch):
    """No claim of no bias: this pins the size that the docs tell, so that a change of the estimator is seen."""
    from captioning.models import StraightThrough

    exact = -exact_lower_bound(model, batch)
    model.decoder.attention.draw = StraightThrough(temperature=1.0)
    found = estimates(model, batch, CrossEntropy(doubly_stochastic=0.0), times=60, rows=240)
    scorer = torch.cat(
        [torch.full((p.numel(),), "scorer" in name) for name, p in model.named_parameters()]
    )  # the parameters that only the places can teach
    found, exact = found[:, scorer], exact[scorer]
    bias = (found.mean(0) - exact).norm() / exact.norm()
    print(f"bias {bias:.3f} of the gradient's length")
    assert 0.01 < bias < 0.5
    assert torch.cosine_similarity(found.mean(0), exact, dim=0) > 0.9


# Self-critical: all captions of at most LENGTH tokens over two words and <end> ---------------------------------------

LENGTH = 3


def captions(length=LENGTH):
    """Every caption: ended, or cut at `length` tokens."""
    ended = [(*words, END) for n in range(length) for words in itertools.product((4, 5), repeat=n)]
    return ended + list(itertools.product((4, 5), repeat=length))


def rewards_of(image_ids, found):
    """A reward without structure: a number that depends on image and caption alone."""
    return [
        ((17 * sum((i + 2) * t for i, t in enumerate(c)) + 5 * b) % 11) / 3
        for b, c in zip(image_ids, found, strict=True)
    ]


def exact_expected_reward(model, batch, reward, paths=None):
    """∇ Σ_y p(y) r(y) over all captions (and all paths of places)."""
    every = captions()
    if paths is not None:
        every = [caption for caption in every for _ in paths]
        forced = torch.tensor([path for _ in captions() for path in paths])
        model.decoder.attention.draw = Forced(forced[None])
    total = 0.0
    for image in range(len(batch.image_ids)):
        state, memory = model.begin(batch.images[image : image + 1])
        state = state.repeat(len(every))
        token = torch.full((1, len(every)), START)
        log_p = torch.zeros(len(every), dtype=torch.float64)
        copies = torch.ones(len(every), dtype=torch.float64)
        for t in range(LENGTH):
            out = model.step(token, state, memory)
            state = out.state
            word = torch.tensor([[c[t] if t < len(c) else PAD for c in every]])
            real = (word != PAD)[0]
            scores = out.logits.index_fill(-1, torch.tensor(FORBIDDEN), -torch.inf).log_softmax(-1)
            chosen = scores.masked_fill(scores.isneginf(), 0.0).gather(-1, word[..., None])[0, :, 0]
            log_p = log_p + chosen * real
            if paths is not None:
                log_p = log_p + out.glimpse.log_prob[0] * real
                copies = copies * torch.where(real, 1, P)  # paths that differ after the end alone count once
            token = word
        p = log_p.exp() / copies
        assert p.sum().item() == pytest.approx(1.0)
        total = total + (p * p.new_tensor(reward([int(batch.image_ids[image])] * len(every), every))).sum()
    return gradient(total / len(batch.image_ids), model)


def cider_d(image_ids, found):
    """The package's own CIDEr-D, <end> counted, over a few references."""
    words = {4: "dog", 5: "runs"}
    scorer = Reward({1: ["dog runs", "dog dog"], 2: ["runs dog", "runs"], 3: ["a cat"]}, cider_d=1.0, bleu_4=0.5)
    return scorer(image_ids, [[words[t] for t in c if t != END] for c in found], [c[-1] == END for c in found])


@pytest.mark.parametrize(("baseline", "reward"), [(None, rewards_of), (greedy, rewards_of), (None, cider_d)])
def test_self_critical_is_an_unbiased_gradient_of_the_expected_reward(toy, baseline, reward):
    model = toy(conditioning="first_step", dropout=0.0, width=3, embedding_size=2, vocabulary_size=6)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    model.train()
    batch = CaptionBatch(torch.tensor([1, 2]), torch.randn(2, P, 6, dtype=torch.float64), None, None)
    exact = -exact_expected_reward(model, batch, reward)
    assert exact.norm() > 0.01
    objective = SelfCritical(
        reward, start=START, end=END, forbidden=FORBIDDEN, samples=150, baseline=baseline, max_length=LENGTH
    )
    found = torch.stack([gradient(objective(model, batch).total, model) for _ in range(80)])
    assert_unbiased(found, exact)


def test_self_critical_composes_with_hard_attention(model, batch):
    objective = SelfCritical(
        rewards_of, start=START, end=END, forbidden=FORBIDDEN, samples=300, max_length=LENGTH,
        location_loss=Reinforce(scale=1.0, entropy=0.0),
    )  # fmt: skip
    found = torch.stack([gradient(objective(model, batch).total, model) for _ in range(80)])
    paths = list(itertools.product(range(P), repeat=LENGTH))
    assert_unbiased(found, -exact_expected_reward(model, batch, rewards_of, paths))


def test_equal_rewards_give_no_gradient(model, batch):
    objective = SelfCritical(
        lambda ids, found: [2.5] * len(found), start=START, end=END, forbidden=FORBIDDEN, max_length=LENGTH,
        location_loss=Reinforce(scale=1.0, entropy=0.0),
    )  # fmt: skip
    loss = objective(model, batch)
    assert (gradient(loss.total, model) == 0).all() and loss.stats["reward"] == 2.5
