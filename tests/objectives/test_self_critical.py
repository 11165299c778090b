"""Compare self-critical training with exact expectations over all captions, and with its equations, dropout included.

`PaperCaptioner`, which shares no code with the package, computes the expected values. The package's own samples are
forced to every caption (and every path of hard attention's locations) in turn.
"""

import itertools
import math
from contextlib import ExitStack
from typing import NamedTuple

import pytest
import torch
from exact_gradients import assert_same_gradient, forced_paths, forced_words, gradient
from paper_captioner import PaperCaptioner, unevenness, word_losses
from toys import END, PAD, START, UNKNOWN

from captioning.data import CaptionBatch, Vocabulary
from captioning.errors import ConfigError
from captioning.metrics import Reward
from captioning.models import ScoreFunction
from captioning.objectives import LeaveOneOut, Reinforce, SelfCritical, greedy, leave_one_out
from captioning.tasks.image_captioning import _objective

P, V, FORBIDDEN = 3, 6, (PAD, START, UNKNOWN)  # words 4 and 5 are not special tokens


def make_model(toy, attention="soft", conditioning="initial_state", dropout=0.0):
    torch.manual_seed(5)
    model = toy(
        attention=attention, conditioning=conditioning, dropout=dropout, width=3, embedding_size=2, vocabulary_size=V
    )
    if attention == "hard":
        model.decoder.attention.draw = ScoreFunction(expected_share=0.0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    with torch.no_grad():
        model.decoder.readout.output.bias[END] -= 1.4  # so that some greedy captions end and others are cut
    return model.train()


def make_batch(locations):
    """Build images 10, 11, … with some of L locations each."""
    images = torch.randn(len(locations), P, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    mask = torch.tensor([[place in real for place in range(P)] for real in locations])
    images[~mask] = 100.0  # masked locations have no features
    return CaptionBatch(torch.arange(len(images)) + 10, images, None if mask.all() else mask, None)


def features_of(batch, image):
    return batch.images[image] if batch.mask is None else batch.images[image][batch.mask[image]]


def any_reward(image_ids, found):
    """Return an arbitrary number for each image and caption; <end> counts like a word."""
    return [
        ((17 * sum((i + 2) * t for i, t in enumerate(c)) + 5 * b) % 11) / 3
        for b, c in zip(image_ids, found, strict=True)
    ]


BASELINES = {"leave_one_out": leave_one_out, "greedy": greedy}


# Against the equations -----------------------------------------------------------------------------------------------

DRAWN = [  # two images with three rows each; samples after an end are not words
    [[4, 5, END, 5], [5, 4, 4, 5], [END, 4, 4, END]],
    [[5, 5, 5, END], [4, END, END, 4], [END, 5, END, 5]],
]


def written(caption):
    return caption[: caption.index(END) + 1] if END in caption else caption


class Masks:
    """Fixed dropout masks of a model in training mode, stored by layer and step."""

    def __init__(self, model):
        self.model, self.of = model, {name: [] for name in ("start", "word", "hidden", "deep")}
        layers = {"word": model.decoder.dropout, "hidden": model.decoder.readout.dropout}
        layers["start"] = model.conditioning.shared[2]
        for name, layer in layers.items():
            layer.p, layer.forward = 0.5, lambda numbers, layer=layer, name=name: self.drop(numbers, layer, name)

    def drop(self, numbers, layer, name):
        if not layer.training:
            return numbers
        if name == "hidden" and len(self.of["hidden"]) > len(self.of["deep"]):
            name = "deep"  # the same layer twice in a step
        self.of[name].append((torch.rand(numbers.shape) < 0.6).double() / 0.6)
        return numbers * self.of[name][-1]

    def paper(self, image, row):
        """Return the reference with the masks of one row."""

        def drop(name, t, numbers):
            mask = self.of[name][max(t, 0)][image]
            return numbers * (mask if name == "start" else mask[row])

        return PaperCaptioner(self.model, drop)


@pytest.mark.parametrize("attention", ["soft", "hard"])
@pytest.mark.parametrize("baseline", BASELINES)
def test_the_loss_is_that_of_the_equations_with_dropout(toy, baseline, attention):
    """Captions are sampled in training mode; the greedy ones come from the model without dropout."""
    model, batch = make_model(toy, attention), make_batch([(0, 1, 2), (0, 2)])
    masks, asked = Masks(model), []

    def reward(image_ids, found):
        asked.append((image_ids, found, model.training))
        return any_reward(image_ids, found)

    objective = SelfCritical(
        reward, start=START, end=END, forbidden=FORBIDDEN, samples=3, baseline=BASELINES[baseline], max_length=4,
        location_loss=Reinforce(scale=0.3, entropy=0.2),
    )  # fmt: skip
    paths = torch.tensor([[[0, 1, 2, 0], [2, 0, 0, 1], [1, 1, 1, 1]], [[2, 0, 0, 2], [0, 2, 2, 2], [2, 0, 0, 0]]])
    modes = {name: module.training for name, module in model.named_modules()}
    assert all(modes.values())
    with forced_words(torch.tensor(DRAWN)) as drawn_from, ExitStack() as stack:
        if attention == "hard":
            stack.enter_context(forced_paths(paths, P))
        found = objective(model, batch)
    assert modes == {name: module.training for name, module in model.named_modules()}  # it continues training
    assert [len(masks.of[name]) for name in masks.of] == [1, 4, 4, 4]  # none of the greedy captions

    sums, rewards = dict.fromkeys(("self_critical", "location", "location_entropy"), 0.0), []
    bests = []
    every = [[written(caption) for caption in rows] for rows in DRAWN]
    for image, rows in enumerate(every):
        features, real = features_of(batch, image), [[0, 1, 2], [0, 2]][image]
        own = any_reward([10 + image] * 3, rows)
        best = PaperCaptioner(model).greedy(
            features, start=START, end=END, forbidden=FORBIDDEN, length=4, hard=attention == "hard"
        )
        bests.append(best)
        rewards += own
        for row, caption in enumerate(rows):
            others = [own[other] for other in range(3) if other != row]
            b = any_reward([10 + image], [best])[0] if baseline == "greedy" else sum(others) / 2
            path = [[real.index(place) for place in paths[image, row, : len(caption)].tolist()]]
            followed = masks.paper(image, row).follow(
                features, caption, torch.tensor(path) if attention == "hard" else None, start=START, forbidden=FORBIDDEN
            )
            for t in range(len(caption)):
                probabilities = followed.log_probs[0, t].exp().index_fill(0, torch.tensor(FORBIDDEN), 0.0)
                torch.testing.assert_close(
                    drawn_from[t][image, row] / drawn_from[t][image, row].sum(), probabilities, rtol=1e-10, atol=0
                )
            sums["self_critical"] = sums["self_critical"] - (own[row] - b) * followed.of(caption).sum()
            if attention == "hard":
                sums["location"] = sums["location"] - 0.3 * (own[row] - b) * followed.log_locations.sum()
                sums["location_entropy"] = sums["location_entropy"] - 0.2 * followed.entropy().sum()
    total = sum(sums.values()) / 6
    assert asked[0] == ([10] * 3 + [11] * 3, every[0] + every[1], True)
    assert asked[1:] == ([([10, 11], bests, True)] if baseline == "greedy" else [])
    assert [END in caption for caption in bests] == [True, False]
    for name, part in found.parts.items():
        assert part.item() == pytest.approx(sums[name].item() / 6, rel=1e-10), name
    assert found.total.item() == pytest.approx(total.item(), rel=1e-10)
    assert_same_gradient(gradient(found.total, model), gradient(total, model))
    assert found.count == 6 and found.words == sum(len(caption) for caption in every[0] + every[1]) == 15
    assert not any(part.requires_grad for part in [*found.parts.values(), *found.stats.values()])
    assert found.stats["reward"].item() == pytest.approx(sum(rewards) / 6, rel=1e-12)
    assert found.stats["words_a_caption"].item() == pytest.approx(15 / 6, rel=1e-12)


def test_words_are_drawn_until_all_captions_have_ended(toy):
    model, batch = make_model(toy), make_batch([(0, 1, 2)])
    objective = SelfCritical(any_reward, start=START, end=END, forbidden=FORBIDDEN, samples=2, max_length=4)
    with forced_words(torch.tensor([[[4, END], [END, 4]]])) as drawn_from:
        assert objective(model, batch).words == 3
    assert len(drawn_from) == 2


def test_every_word_may_be_written_where_none_is_forbidden(toy):
    model, batch = make_model(toy), make_batch([(0, 1, 2)])
    objective = SelfCritical(any_reward, start=START, end=END, samples=2, max_length=2)
    with forced_words(torch.tensor([[[UNKNOWN, END], [4, START]]])) as drawn_from:
        found = objective(model, batch)
    log_p = 0.0
    own = any_reward([10, 10], [[UNKNOWN, END], [4, START]])
    for caption, advantage in (([UNKNOWN, END], own[0] - own[1]), ([4, START], own[1] - own[0])):
        followed = PaperCaptioner(model).follow(batch.images[0], caption, start=START)
        log_p = log_p - advantage * followed.of(caption).sum() / 2
    assert advantage and drawn_from[0].shape[-1] == V and (drawn_from[0] > 0).all()
    assert_same_gradient(gradient(found.total, model), gradient(log_p, model))


def test_the_mean_is_over_the_samples_of_all_processes(toy, monkeypatch):
    class Two:
        """A distributed run of two processes; the other one has 8 samples."""

        is_available = is_initialized = staticmethod(lambda: True)
        get_world_size = staticmethod(lambda: 2)
        all_reduce = staticmethod(lambda count: count.add_(8))

    model, batch = make_model(toy), make_batch([(0, 1, 2)])
    objective = SelfCritical(any_reward, start=START, end=END, forbidden=FORBIDDEN, samples=2, max_length=2)
    losses = []
    for run in (None, Two):
        if run:
            monkeypatch.setattr("captioning.objectives.loss.distributed", run)
        with forced_words(torch.tensor([[[4, END], [4, 5]]])):
            losses.append(objective(model, batch))
    assert [loss.count.item() for loss in losses] == [2, 5]
    assert losses[1].total.item() == pytest.approx(losses[0].total.item() * 2 / 5, rel=1e-12)


def test_each_sample_is_compared_with_the_others_of_its_image_or_with_the_greedy_caption():
    rewards = torch.randn(2, 4, dtype=torch.float64)
    found = leave_one_out(rewards, None)
    for image, row in itertools.product(range(2), range(4)):
        others = [rewards[image, other].item() for other in range(4) if other != row]
        assert found[image, row].item() == pytest.approx(sum(others) / 3, rel=1e-12)
    assert greedy(rewards, lambda: torch.tensor([1.5, -2.0])).expand(2, 4).tolist() == [[1.5] * 4, [-2.0] * 4]


def test_equal_rewards_give_no_gradient(toy):
    model, batch = make_model(toy, "hard"), make_batch([(0, 1, 2), (1, 2)])
    objective = SelfCritical(
        lambda ids, found: [2.5] * len(found), start=START, end=END, forbidden=FORBIDDEN, max_length=3,
        location_loss=Reinforce(scale=1.0, entropy=0.0),
    )  # fmt: skip
    loss = objective(model, batch)
    assert (gradient(loss.total, model) == 0).all() and loss.stats["reward"] == 2.5


def test_self_critical_needs_something_to_compare_with():
    with pytest.raises(ConfigError, match=r"objective\.samples \(1\)"):
        SelfCritical(len, start=START, end=END, samples=1)
    with pytest.raises(ConfigError, match=r"baseline\.samples"):
        LeaveOneOut(samples=1)


def test_in_evaluation_the_loss_is_the_cross_entropy_of_the_captions(toy):
    model, batch = make_model(toy, dropout=0.5).eval(), make_batch([(0, 1, 2), (0, 2)])
    tokens = torch.tensor([[[START, 4, 5, END], [START, END, PAD, PAD]], [[START, 5, END, PAD], [PAD] * 4]])
    objective = SelfCritical(
        any_reward, start=START, end=END, forbidden=FORBIDDEN, doubly_stochastic=0.7, label_smoothing=0.2
    )
    found = objective(model, batch._replace(tokens=tokens))
    words = smooth = uneven = 0.0
    for image, caption in [(0, [4, 5, END]), (0, [END]), (1, [5, END])]:
        followed = PaperCaptioner(model).follow(features_of(batch, image), caption, start=START)
        smooth = smooth + word_losses(followed.log_probs, caption, smoothing=0.2).sum().item() / 3
        uneven = uneven + 0.7 * unevenness(followed.alpha).sum().item() / 3
        words += len(caption)
    assert {name: part.item() for name, part in found.parts.items()} == pytest.approx(
        {"cross_entropy": smooth, "doubly_stochastic": uneven}, rel=1e-12
    )
    assert found.count == 3 and found.words == words


# End to end, from ids to words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", ["leave_one_out", "greedy"])
def test_a_caption_that_was_cut_is_rewarded_as_one_without_an_end(toy, baseline):
    """Through the task with its vocabulary: words are those of the ids, and only a generated <end> counts."""
    vocabulary, model = Vocabulary(["dog", "runs"]), make_model(toy)
    batch, asked = make_batch([(0, 1, 2), (0, 2)]), []
    scorer = Reward({10: ["dog runs", "dog"], 11: ["runs", "runs dog dog"], 12: ["a cat"]})

    def reward(image_ids, texts, ended):
        asked.append((list(image_ids), texts, list(ended)))
        return scorer(image_ids, texts, ended)

    settings = {"_target_": "captioning.objectives.SelfCritical", "samples": 2, "max_length": 2}
    settings["baseline"] = {"_target_": f"captioning.objectives.{baseline}", "_partial_": True}
    objective = _objective({"objective": settings}, reward, None, vocabulary)
    assert (objective.start, objective.end) == (START, END) and set(objective.forbidden) == {PAD, START, UNKNOWN}
    with forced_words(torch.tensor([[[4, END], [4, 5]], [[END, 4], [5, END]]])):
        loss = objective(model, batch)
    image_ids, texts, ended = asked[0]
    assert (image_ids, texts) == ([10, 10, 11, 11], [["dog"], ["dog", "runs"], [], ["runs"]])
    assert ended == [True, False, True, True]
    references = {10: ["dog runs END", "dog END"], 11: ["runs END", "runs dog dog END"], 12: ["a cat END"]}
    by_hand = Reward(references, count_end=False)(
        image_ids, [["dog", "end"], ["dog", "runs"], ["end"], ["runs", "end"]], [False] * 4
    )
    assert scorer([10], [["dog", "runs"]], [True])[0] > by_hand[1] + 0.5  # an end would have had a high reward
    assert loss.stats["reward"].item() == pytest.approx(by_hand.mean(), rel=1e-12)
    if baseline == "greedy":
        image_ids, texts, ended = asked[1]
        best = [
            PaperCaptioner(model).greedy(
                features_of(batch, image), start=START, end=END, forbidden=FORBIDDEN, length=2, hard=False
            )
            for image in range(2)
        ]
        assert image_ids == [10, 11] and ended == [END in caption for caption in best] == [True, False]
        assert texts == [[{4: "dog", 5: "runs"}[word] for word in caption if word != END] for caption in best]


# Against exact expectations ------------------------------------------------------------------------------------------


def captions(words, length):
    """Return every caption of at most `length` tokens, finished or cut."""
    ended = [(*each, END) for n in range(length) for each in itertools.product(words, repeat=n)]
    return ended + list(itertools.product(words, repeat=length))


def cider_d(image_ids, found):
    """Compute the package's own CIDEr-D, <end> counted, over a few references."""
    words = {4: "dog", 5: "runs"}
    scorer = Reward({10: ["dog runs", "dog"], 11: ["runs dog", "runs"], 12: ["a cat"]}, cider_d=1.0, bleu_4=0.5)
    return scorer(image_ids, [[words[t] for t in c if t != END] for c in found], [c[-1] == END for c in found])


class Outcome(NamedTuple):
    """A possible sample of a row: a caption and, for hard attention, a path of locations."""

    caption: tuple[int, ...]
    path: tuple[int, ...] | None
    probability: float


def outcomes_of(paper, batch, image, words, length, reward, *, hard):
    """Return all outcomes of an image's row, and Σ p r with its gradient."""
    features, found, expected = features_of(batch, image), [], 0.0
    real = range(P) if batch.mask is None else batch.mask[image].nonzero().flatten().tolist()
    for caption in captions(words, length):
        paths = torch.tensor(list(itertools.product(range(len(real)), repeat=len(caption)))) if hard else None
        unwritten = {4, 5} - set(words)
        followed = paper.follow(features, caption, paths, start=START, forbidden=[*FORBIDDEN, *unwritten])
        log_p = followed.of(caption).sum(1)
        log_p = log_p + followed.log_locations.sum(1) if hard else log_p
        expected = expected + log_p.exp().sum() * float(reward([10 + image], [caption])[0])
        for row, p in enumerate(log_p.exp().tolist()):
            found.append(Outcome(caption, tuple(real[i] for i in paths[row].tolist()) if hard else None, p))
    assert sum(outcome.probability for outcome in found) == pytest.approx(1.0, rel=1e-12)
    return found, expected


def loss_of(objective, model, batch, rows, length):
    """Compute the package's loss when the rows of each image sample the given outcomes."""
    tokens = torch.full((len(rows), len(rows[0]), length), 5)  # what is drawn behind an end is no word
    paths = torch.zeros_like(tokens)
    for image, row in itertools.product(range(len(rows)), range(len(rows[0]))):
        outcome = rows[image][row]
        tokens[image, row, : len(outcome.caption)] = torch.tensor(outcome.caption)
        if outcome.path is not None:
            paths[image, row, : len(outcome.path)] = torch.tensor(outcome.path)
    with ExitStack() as stack:
        stack.enter_context(forced_words(tokens))
        if rows[0][0].path is not None:
            stack.enter_context(forced_paths(paths, P))
        return objective(model, batch).total


def expected_and_exact(model, batch, objective, reward, *, words, length, joint=False):
    """Compute the package's mean gradient over all samples, and that of −Σ_y p(y) r(y), the mean over the images.

    Args:
        joint: Whether the samples of all images are enumerated together. Otherwise those of one image are, while the
            others always sample the same: their parts of the gradient, which is a sum over the images, are then
            subtracted.
    """
    paper, hard = PaperCaptioner(model), model.hard_attention is not None
    found = [
        outcomes_of(paper, batch, image, words, length, reward, hard=hard) for image in range(len(batch.image_ids))
    ]
    exact = -sum(expected for _, expected in found) / len(found)
    draws = [list(itertools.product(outcomes, repeat=objective.samples)) for outcomes, _ in found]

    def weight(rows):
        return math.prod(outcome.probability for outcome in rows)

    if joint:
        total = sum(
            math.prod(map(weight, rows)) * loss_of(objective, model, batch, rows, length)
            for rows in itertools.product(*draws)
        )
    else:
        held = [image_draws[len(image_draws) // 2] for image_draws in draws]
        total = (1 - len(draws)) * loss_of(objective, model, batch, held, length)
        for image, image_draws in enumerate(draws):
            for rows in image_draws:
                every = [*held[:image], rows, *held[image + 1 :]]
                total = total + weight(rows) * loss_of(objective, model, batch, every, length)
    return gradient(total, model), gradient(exact, model)


SIZES = {  # samples, words, length of the longest caption, whether the samples of two images are enumerated together
    "2 samples of 7 captions": (2, (4, 5), 2, False),
    "2 samples of 3 captions, jointly": (2, (4, 5), 1, True),
    "3 samples of 3 captions": (3, (4,), 2, False),
}


@pytest.mark.parametrize(
    ("size", "baseline", "reward"),
    [*itertools.product(SIZES, BASELINES, [any_reward]), ("2 samples of 7 captions", "leave_one_out", cider_d)],
)
def test_the_expected_gradient_is_that_of_the_expected_reward(toy, size, baseline, reward):
    samples, words, length, joint = SIZES[size]
    model, batch = make_model(toy), make_batch([(0, 1, 2), (0, 2)])
    objective = SelfCritical(
        reward, start=START, end=END, forbidden=(*FORBIDDEN, *{4, 5} - set(words)), samples=samples,
        baseline=BASELINES[baseline], max_length=length,
    )  # fmt: skip
    found, exact = expected_and_exact(model, batch, objective, reward, words=words, length=length, joint=joint)
    assert_same_gradient(found, exact)


class Near:
    """r(y) − kl (log p(y) − log p_0(y)) by the equations; p is constant in it, as in the score function's gradient."""

    def __init__(self, model, started, batch, kl, words):
        self.papers, self.batch, self.kl = (PaperCaptioner(model), PaperCaptioner(started)), batch, kl
        self.forbidden = [*FORBIDDEN, *({4, 5} - set(words))]

    def __call__(self, image_ids, found):
        rewards = any_reward(image_ids, found)
        return [r - self.kl * self.divergence(b - 10, c) for r, b, c in zip(rewards, image_ids, found, strict=True)]

    def divergence(self, image, caption):
        now, start = (
            paper.follow(features_of(self.batch, image), caption, start=START, forbidden=self.forbidden)
            .of(caption).sum().item()
            for paper in self.papers
        )  # fmt: skip
        return now - start


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("baseline", BASELINES)
def test_the_expected_gradient_is_that_of_reward_and_divergence(toy, size, baseline):
    """The exact gradient is of −E[r] + kl · KL(p ‖ p_0): Σ_y ∇p(y) (log p(y) − log p_0(y)), as Σ_y ∇p(y) = 0."""
    samples, words, length, joint = SIZES[size]
    model, started, batch = make_model(toy), make_model(toy), make_batch([(0, 1, 2), (0, 2)])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.8)  # it has left the start
    objective = SelfCritical(
        any_reward, start=START, end=END, forbidden=(*FORBIDDEN, *{4, 5} - set(words)), samples=samples,
        baseline=BASELINES[baseline], max_length=length, kl=0.7,
    )  # fmt: skip
    objective.remember(started)
    near = Near(model, started, batch, 0.7, words)
    found, exact = expected_and_exact(model, batch, objective, near, words=words, length=length, joint=joint)
    assert_same_gradient(found, exact)
    _, without = expected_and_exact(model, batch, objective, any_reward, words=words, length=length, joint=joint)
    assert (exact - without).norm() > 0.05 * exact.norm()


def test_the_divergence_is_logged_beside_the_plain_reward(toy):
    model, started, batch = make_model(toy, dropout=0.5), make_model(toy), make_batch([(0, 1, 2), (0, 2)])
    objective = SelfCritical(any_reward, start=START, end=END, forbidden=FORBIDDEN, samples=2, max_length=2, kl=0.3)
    objective.remember(started)
    objective.train()
    assert not any(module.training for module in objective.start_model.modules())
    assert not any(parameter.requires_grad for parameter in objective.start_model.parameters())
    with torch.no_grad():
        for parameter in started.parameters():
            parameter.add_(1.0)  # the copy does not follow
    model.eval(), setattr(model, "training", True)  # no dropout
    rows = [[[4, END], [4, 5]], [[END, 4], [5, END]]]
    with forced_words(torch.tensor(rows)):
        loss = objective(model, batch)
    near = Near(model, objective.start_model.model, batch, 1.0, (4, 5))
    divergences = [near.divergence(image, written(rows[image][row])) for image in (0, 1) for row in (0, 1)]
    assert loss.stats["kl"].item() == pytest.approx(sum(divergences) / 4, rel=1e-10)
    plain = any_reward([10, 10, 11, 11], [written(row) for image in rows for row in image])
    assert loss.stats["reward"].item() == pytest.approx(sum(plain) / 4, rel=1e-12)


def test_a_divergence_needs_a_start_and_one_probability(toy):
    arguments = {"start": START, "end": END, "forbidden": FORBIDDEN, "max_length": 2}
    with pytest.raises(ConfigError, match=r"objective\.kl must be at least 0"):
        SelfCritical(any_reward, **arguments, kl=-1.0)
    objective = SelfCritical(any_reward, **arguments, kl=1.0)
    with pytest.raises(ConfigError, match=r"objective\.kl needs the model .*: set start_from=CHECKPOINT"):
        objective(make_model(toy), make_batch([(0, 1, 2)]))
    with pytest.raises(ConfigError, match=r"objective\.kl needs the probability .*: set objective\.kl=0"):
        objective.remember(make_model(toy, "hard"))
    without = SelfCritical(any_reward, **arguments)
    without.remember(make_model(toy, "hard"))
    assert without.start_model is None and not any("start" in key for key in without.state_dict())
    model = make_model(toy)
    objective.remember(model)
    model.encoder = torch.nn.Linear(6, 6).double()
    with pytest.raises(ConfigError, match=r"objective\.kl needs a frozen encoder"):
        objective(model, make_batch([(0, 1, 2)]))


@pytest.mark.parametrize("words", [(4, 5), (4,)])
def test_one_sample_against_the_greedy_caption(toy, words):
    model, batch = make_model(toy, conditioning="first_step"), make_batch([(0, 1, 2), (1, 2)])
    objective = SelfCritical(
        any_reward, start=START, end=END, forbidden=(*FORBIDDEN, *{4, 5} - set(words)), samples=1, baseline=greedy,
        max_length=3,
    )  # fmt: skip
    assert_same_gradient(*expected_and_exact(model, batch, objective, any_reward, words=words, length=3))


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize(("words", "length", "locations"), [((4, 5), 1, (0, 1, 2)), ((4,), 2, (0, 2))])
def test_with_hard_attention_it_is_that_over_all_captions_and_paths(toy, words, length, locations, baseline):
    model, batch = make_model(toy, "hard"), make_batch([locations, (1,)])
    objective = SelfCritical(
        any_reward, start=START, end=END, forbidden=(*FORBIDDEN, *{4, 5} - set(words)), samples=2,
        baseline=BASELINES[baseline], max_length=length, location_loss=Reinforce(scale=1.0, entropy=0.0),
    )  # fmt: skip
    assert_same_gradient(*expected_and_exact(model, batch, objective, any_reward, words=words, length=length))


def test_the_greedy_caption_is_of_the_real_locations_alone(toy, toy_tokens):
    seen = []
    objective = SelfCritical(
        lambda ids, found: seen.append(found) or [0.0] * len(ids), start=START, end=END, samples=2, max_length=5
    )
    images = torch.randn(3, 4, 6, dtype=torch.float64)
    images[:, 2:] = torch.nan
    batch = CaptionBatch(torch.arange(3), images, torch.tensor([True, True, False, False]).expand(3, -1), toy_tokens)
    model = toy().train()
    objective._greedy(model, batch, like=images)
    objective._greedy(model, batch._replace(images=images[:, :2], mask=None), like=images)
    assert seen[0] == seen[1]


def test_samples_are_drawn_and_scored_in_float32(toy, toy_tokens):
    objective = SelfCritical(lambda ids, _: [0.0] * len(ids), start=START, end=END, samples=2, max_length=3)
    batch = CaptionBatch(torch.arange(3), torch.randn(3, 4, 6).to(torch.bfloat16), None, toy_tokens)
    assert objective._sample(toy().to(torch.bfloat16).train(), batch)[1].dtype == torch.float32
