"""Compare losses with two-line formulas."""

import pytest
import torch
from exact_gradients import assert_same_gradient, forced_paths, gradient
from paper_captioner import PaperCaptioner
from small_worlds import LOSSES, MIXED, P, V, World, losses_along
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toys import (
    END,
    PAD,
    START,
    UNKNOWN,
)

from captioning.data import CaptionBatch
from captioning.models import ScoreFunction
from captioning.models.readout import LazyLogits
from captioning.objectives import (
    CrossEntropy,
    MovingAverage,
    Reinforce,
    ScheduledSampling,
    SelfCritical,
    chunked_cross_entropy,
)
from captioning.objectives.loss import make_loss
from captioning.objectives.rollout import draw_ids
from captioning.objectives.word_loss import WordLoss


@pytest.fixture
def batch(toy_tokens):
    return CaptionBatch(torch.arange(3), torch.randn(3, 4, 6, dtype=torch.float64), None, toy_tokens)


def test_cross_entropy_is_summed_over_words_and_averaged_over_captions(toy, batch):
    model = toy()
    loss = CrossEntropy(doubly_stochastic=0.0)(model, batch)
    decoded = model(batch.images, batch.tokens)
    targets = batch.tokens[..., 1:].flatten()[decoded.index]
    nll = -sum(row.log_softmax(-1)[target] for row, target in zip(decoded.logits, targets, strict=True))
    assert loss.parts["cross_entropy"].item() == pytest.approx(nll.item() / 8, rel=1e-6)  # 8 captions
    assert loss.words == (batch.tokens[..., 1:] != PAD).sum()


def test_doubly_stochastic_term_is_summed_over_places_and_averaged_over_captions(toy, batch):
    model = toy()
    loss = CrossEntropy(doubly_stochastic=0.7)(model, batch)
    alpha = model(batch.images, batch.tokens).glimpse.weights
    terms = [
        sum((1 - alpha[b, k, :, i].sum()) ** 2 for i in range(4))
        for b in range(3)
        for k in range(3)
        if (b, k) != (2, 2)  # the missing caption
    ]
    assert loss.parts["doubly_stochastic"].item() == pytest.approx(0.7 * sum(terms).item() / 8)
    assert loss.total.item() == pytest.approx(sum(part.item() for part in loss.parts.values()))


def test_label_smoothing(toy, batch):
    model = toy()
    loss = CrossEntropy(doubly_stochastic=0.0, label_smoothing=0.1)(model, batch)
    decoded = model(batch.images, batch.tokens)
    log_probs = decoded.logits.log_softmax(-1)
    targets = batch.tokens[..., 1:].flatten()[decoded.index]
    smooth = 0.9 * torch.nn.functional.one_hot(targets, 11) + 0.1 / 11
    assert loss.total.item() == pytest.approx(-(smooth * log_probs).sum().item() / 8, rel=1e-6)


def test_padding_and_missing_captions_change_no_loss(toy, batch):
    model, objective = toy(), CrossEntropy()
    padded = batch._replace(tokens=torch.nn.functional.pad(batch.tokens, (0, 3, 0, 2), value=PAD))
    torch.testing.assert_close(objective(model, padded).total, objective(model, batch).total)


def test_without_attention_there_is_no_doubly_stochastic_part(toy, batch):
    loss = CrossEntropy(doubly_stochastic=1.0)(toy(attention="none"), batch)
    assert loss.parts.keys() == {"cross_entropy"}


def test_scheduled_sampling_at_its_ends(toy, batch):
    """Probability 0 is teacher forcing. Probability 1 is free running: only the first word is the caption's."""
    model = toy().train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    never = CrossEntropy(inputs=ScheduledSampling(increase=0.0))(model, batch)
    assert never.total.item() == pytest.approx(CrossEntropy()(model, batch).total.item(), rel=1e-6)
    always = ScheduledSampling(start=-1, every=1, increase=1.0, maximum=1.0)
    torch.manual_seed(0)
    logits, index, glimpse = always(model, batch)
    # Free running by hand, with the same random words and coins.
    torch.manual_seed(0)
    state, memory = model.begin(batch.images)
    state, token, expected, weights = state.repeat(3), batch.tokens[..., 0], [], []
    for _ in range(6):
        out = model.step(token, state, memory)
        state = out.state
        token = out.logits.softmax(-1).flatten(0, 1).multinomial(1).view(3, 3)
        torch.rand(3, 3)
        expected.append(out.logits)
        weights.append(out.glimpse.weights)
    real = batch.tokens[..., 1:] != PAD
    torch.testing.assert_close(logits, torch.stack(expected, 2)[real])
    torch.testing.assert_close(glimpse.weights, torch.stack(weights, 2) * real[..., None])
    assert index.tolist() == real.flatten().nonzero().squeeze(1).tolist()


def test_scheduled_sampling_rises_with_the_batches_and_not_in_validation(toy, batch):
    inputs = ScheduledSampling(start=2, every=3, increase=0.1, maximum=0.25)
    model, objective = toy().train(), CrossEntropy(inputs=inputs)
    told = []
    for _ in range(14):
        told.append(round(inputs.probability(), 3))
        objective(model, batch)
        objective(model.eval(), batch)
        model.train()
    assert told == [0, 0, 0, 0, 0, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.25, 0.25, 0.25]
    assert objective.state_dict()["inputs.batches"] == 14  # is saved in a checkpoint


def test_scheduled_sampling_mixes_in_proportion(toy, batch):
    """With a model that always outputs 9, the share of inputs that became 9 is the probability."""
    many = batch._replace(tokens=torch.tensor([[[START] + [5] * 40 + [END]]]).expand(3, 30, -1))
    model = toy().train()
    fed = []
    step = type(model).step

    def says_nine(self, token, state, memory):
        fed.append(token)
        out = step(self, token, state, memory)
        return out._replace(logits=torch.full_like(out.logits, -1e4).index_fill(-1, torch.tensor([9]), 0.0))

    type(model).step = says_nine
    try:
        ScheduledSampling(start=-1, every=1, increase=0.3, maximum=0.3)(model, many)
    finally:
        type(model).step = step
    inner = torch.stack(fed[1:], 2)
    assert set(inner.unique().tolist()) == {5, 9} and (fed[0] == START).all()
    assert (inner == 9).double().mean().item() == pytest.approx(0.3, abs=4 * (0.21 / inner.numel()) ** 0.5)


def test_self_critical_equals_its_formula_and_ends_captions(toy, batch):
    seen = []

    def reward(image_ids, captions):
        seen.append((image_ids, captions))
        return [float(len(caption)) for caption in captions]

    model = toy().train()
    objective = SelfCritical(reward, start=START, end=END, forbidden=(PAD, START, 3), samples=4, max_length=5)
    loss = objective(model, batch)
    ((ids, captions),) = seen
    assert ids == [0] * 4 + [1] * 4 + [2] * 4
    for caption in captions:
        assert 1 <= len(caption) <= 5 and not set(caption) & {PAD, START, 3}
        assert END not in caption[:-1] and (len(caption) == 5 or caption[-1] == END)
    lengths = torch.tensor([len(caption) for caption in captions], dtype=torch.float64)
    assert loss.words == lengths.sum() and loss.stats["reward"].item() == pytest.approx(lengths.mean().item())
    assert objective(model.eval(), batch).parts == CrossEntropy()(model, batch).parts  # the validation loss


def test_masked_places_are_no_part_of_the_doubly_stochastic_term(toy, batch):
    model, objective = toy(), CrossEntropy()
    more = torch.nn.functional.pad(batch.images, (0, 0, 0, 5))
    masked = batch._replace(images=more, mask=(torch.arange(9) < 4).expand(3, -1))
    torch.testing.assert_close(objective(model, masked).total, objective(model, batch).total)


def test_a_batch_without_a_word_has_no_loss(toy, batch):
    nothing = batch._replace(tokens=torch.full((3, 1, 2), PAD))
    assert CrossEntropy()(toy(attention="hard").train(), nothing).total == 0


@pytest.fixture
def words():
    """Return lazy scores of seven words with a vocabulary of 30, and their targets."""
    output = torch.nn.Linear(5, 30).double()
    return LazyLogits(torch.randn(7, 5, dtype=torch.float64).requires_grad_(), output), torch.tensor(
        [0, 29, 5, 17, 5, 8, 1]
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "scale", [1.0, 300.0]
)  # scale of the scores; with the larger ones nearly all probabilities are 0
@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("at_once", [1, 3, 7, 100])
def test_the_word_loss_and_its_gradient_are_those_of_the_formula(words, smoothing, scale, made, at_once, monkeypatch):
    monkeypatch.setattr(chunked_cross_entropy, "_CACHED", at_once * 30 + 29)
    (features, output), targets = words
    with torch.no_grad():
        output.weight *= scale
    inputs = [features, output.weight, output.bias]
    logits = features @ output.weight.T + output.bias
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    wanted = torch.full_like(logits, smoothing / 30)
    wanted[range(7), targets] += 1 - smoothing
    expected = -(wanted * log_p).sum()
    total, of_words = WordLoss(label_smoothing=smoothing)(logits if made else LazyLogits(features, output), targets)
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(of_words, -(wanted * log_p).sum(-1).detach(), rtol=1e-12, atol=1e-12)
    assert not of_words.requires_grad
    found, other = (torch.autograd.grad(3 * value, inputs, retain_graph=True) for value in (total, expected))
    torch.testing.assert_close(found, other, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(total, inputs), [part / 3 for part in other], rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        again, _ = WordLoss(label_smoothing=smoothing)(LazyLogits(features, output), targets)
        torch.testing.assert_close(again, expected, rtol=1e-12, atol=0)


def test_the_word_loss_never_holds_all_scores(words, monkeypatch):
    monkeypatch.setattr(chunked_cross_entropy, "_CACHED", 2 * 30)
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            made = function(*arguments, **(keywords or {}))
            sizes.extend(part.numel() for part in tree_leaves(made) if isinstance(part, torch.Tensor))
            return made

    with Watch():
        total, _ = WordLoss(label_smoothing=0.1)(*words)
        total.backward()
    assert max(sizes) == 30 * 5 < 7 * 30  # the matrix, and its gradient


@pytest.mark.parametrize("frozen", ["features", "output"])
def test_the_word_loss_gives_no_gradient_to_what_is_frozen(words, frozen):
    scores, targets = words
    getattr(scores, frozen).requires_grad_(False)
    free = [part for part in (scores.features, *scores.output.parameters()) if part.requires_grad]
    ours, theirs = WordLoss()(scores, targets)[0], WordLoss()(scores.compute(), targets)[0]
    torch.testing.assert_close(*(torch.autograd.grad(total, free) for total in (ours, theirs)))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_word_loss_makes_no_gradient_that_nobody_wants(words, mode):
    with torch.profiler.profile() as profile, mode():
        WordLoss()(*words)
    assert not [event for event in profile.events() if event.name == "aten::mm"]


def test_the_word_loss_of_frozen_weights_and_features_makes_no_gradient(words):
    scores, targets = words
    frozen = LazyLogits(scores.features.detach(), scores.output.requires_grad_(False))
    with torch.profiler.profile() as profile:
        WordLoss()(frozen, targets)
    assert not [event for event in profile.events() if event.name == "aten::mm"]


def test_the_word_loss_of_a_matrix_without_bias(words):
    (features, output), targets = words
    output.bias = None
    (ours, _), (theirs, _) = (WordLoss()(scores, targets) for scores in (words[0], words[0].compute()))
    asked = [features, output.weight]
    torch.testing.assert_close(*(torch.autograd.grad(total, asked) for total in (ours, theirs)))


def test_a_word_loss_in_half_precision_is_summed_in_float32():
    output = torch.nn.Linear(16, 50)
    features, targets = torch.randn(6, 16).requires_grad_(), torch.arange(6)
    with torch.autocast("cpu", torch.bfloat16):
        total, of_words = WordLoss()(LazyLogits(features, output), targets)
        logits = output(features)
    expected = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
    assert total.dtype == of_words.dtype == torch.float32
    torch.testing.assert_close(total, expected)
    found, other = (torch.autograd.grad(value, [features, *output.parameters()]) for value in (total, expected))
    torch.testing.assert_close(found, other, rtol=0.02, atol=0.02)


# Comparison with the equations, by a reference that shares no code with the package ----------------------------------


def paper_model(toy, attention="soft", conditioning="initial_state"):
    torch.manual_seed(5)
    model = toy(
        attention=attention, conditioning=conditioning, dropout=0.0, width=3, embedding_size=2, vocabulary_size=V
    )
    if attention == "hard":
        model.decoder.attention.draw = ScoreFunction(expected_share=0.0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    return model.train()


@pytest.mark.parametrize("conditioning", ["initial_state", "first_step"])
@pytest.mark.parametrize("losses", LOSSES)
def test_the_loss_and_its_gradient_are_those_of_the_equations(toy, losses, conditioning):
    model, batch = paper_model(toy, conditioning=conditioning), MIXED.batch()
    objective, paper = CrossEntropy(**LOSSES[losses]), PaperCaptioner(model)
    for settings in (LOSSES[losses], {name: part for name, part in LOSSES[losses].items() if name != "teacher"}):
        found = objective(model, batch)  # in training, and then in evaluation, which has no teacher
        words = whole = 0.0
        for image, _, caption in MIXED.real():
            _, of_words, uneven, _ = losses_along(paper, batch, MIXED, image, caption, None, settings)
            words, whole = words + of_words.sum() / 8, whole + uneven.sum() / 8
        assert found.count == 8 and found.words == 15 and not found.stats
        expected = {"cross_entropy": words.item()}
        expected |= {"doubly_stochastic": whole.item()} if settings["doubly_stochastic"] else {}
        assert {name: part.item() for name, part in found.parts.items()} == pytest.approx(expected, rel=1e-12)
        assert found.total.item() == pytest.approx(sum(expected.values()), rel=1e-12)
        assert_same_gradient(gradient(found.total, model), gradient(words + whole, model))
        model.eval()


LONG = World([(0, 1, 2), (0, 2)], [[[4, 5, 4, 5], [5]], [[], None]])


@pytest.mark.parametrize("world", [MIXED, LONG], ids=["with a column of padding", "without"])
@pytest.mark.parametrize("attention", ["soft", "hard"])
def test_scheduled_sampling_feeds_the_words_that_coins_choose(toy, attention, world, monkeypatch):
    """An input word is the model's own if a coin is below the probability; the targets remain the caption's words."""
    model, batch = paper_model(toy, attention), world.batch()
    batch = batch._replace(tokens=batch.tokens[..., :-1]) if world is LONG else batch
    images, slots, length = batch.tokens[..., 1:].shape
    inputs = ScheduledSampling(start=-1, every=1, increase=0.35, maximum=0.35)
    places = Reinforce(scale=0.3, entropy=0.2, baseline=MovingAverage(decay=1.0))
    objective = CrossEntropy(doubly_stochastic=0.7, label_smoothing=0.2, inputs=inputs, location_loss=places)
    own = torch.tensor([4, 5, UNKNOWN])[torch.randint(3, (length, images, slots))]  # [T, B, K]
    steps, drawn_from = iter(own), []
    monkeypatch.setattr(
        "captioning.objectives.cross_entropy.draw_ids", lambda given: drawn_from.append(given) or next(steps)
    )
    draws = torch.randint(6, (images, slots, length))  # 6: the same number of samples for 1, 2 or 3 locations
    paths = torch.stack([torch.tensor(own)[draw % len(own)] for own, draw in zip(world.locations, draws, strict=True)])
    torch.manual_seed(1)
    with forced_paths(paths, P):
        found = objective(model, batch)
    torch.manual_seed(1)
    taken = torch.stack([torch.rand(images, slots) for _ in range(length)]) < 0.35
    assert taken[:2].any() and not taken[:2].all()
    paper, sums, differ = PaperCaptioner(model), dict.fromkeys(("words", "whole", "location", "entropy"), 0.0), 0
    for image, slot, words in world.real():
        entered = [START]
        for t in range(len(words) - 1):
            entered.append(int(own[t, image, slot]) if taken[t, image, slot] else words[t])
        differ += entered[1:] != words[:-1]
        path = [[list(world.locations[image]).index(place) for place in paths[image, slot].tolist()]]
        log_p, of_words, whole, entropy = losses_along(
            paper, batch, world, image, words, torch.tensor(path) if attention == "hard" else None,
            {"doubly_stochastic": 0.7, "label_smoothing": 0.2}, inputs=entered,
        )  # fmt: skip
        followed = paper.follow(
            batch.images[image][list(world.locations[image])], words,
            torch.tensor(path) if attention == "hard" else None, start=START, inputs=entered,
        )  # fmt: skip
        for t in range(len(words)):
            torch.testing.assert_close(drawn_from[t][image, slot], followed.log_probs[0, t].exp(), rtol=1e-10, atol=0)
        sums["words"] = sums["words"] + of_words.sum()
        sums["whole"] = sums["whole"] + whole.sum()
        if attention == "hard":
            returns = -(of_words.sum() + whole.sum()).detach()
            sums["location"] = sums["location"] - 0.3 * returns * log_p.sum()
            sums["entropy"] = sums["entropy"] - 0.2 * entropy.sum()
    assert differ and not any(given.requires_grad for given in drawn_from)
    total = sum(sums.values()) / len(world.real())
    assert found.total.item() == pytest.approx(total.item(), rel=1e-12)
    assert_same_gradient(gradient(found.total, model), gradient(total, model))


def test_a_word_is_drawn_by_an_exponential_race():
    """argmin_i E_i / p_i of standard exponential E_i is a sample from p.

    An exponential of rate p_i is the first of all with probability p_i / Σ p.
    """
    probabilities = torch.rand(2, 3, 5, dtype=torch.float64)
    probabilities[..., 1] = 0.0
    torch.manual_seed(2)
    found = draw_ids(probabilities)
    torch.manual_seed(2)
    times = torch.empty_like(probabilities).exponential_() / probabilities
    assert found.tolist() == times.argmin(-1).tolist() and found.shape == (2, 3)
    counts = draw_ids(torch.tensor([0.1, 0.6, 0.3, 0.0]).expand(2, 50_000, 4)).flatten().bincount(minlength=4)
    for count, p in zip(counts.tolist(), (0.1, 0.6, 0.3, 0.0), strict=True):
        assert count == pytest.approx(1e5 * p, abs=4 * (1e5 * p * (1 - p)) ** 0.5)


@pytest.mark.parametrize("items", [torch.tensor(3), torch.tensor(3.0)])
@pytest.mark.parametrize("training", [True, False])
def test_in_training_sums_are_divided_by_the_mean_count_of_all_processes(training, items, monkeypatch):
    class Two:
        """A distributed run of two processes; the other one has 7 items."""

        is_available = is_initialized = staticmethod(lambda: True)
        get_world_size = staticmethod(lambda: 2)

        @staticmethod
        def all_reduce(count):
            count += 7

    sums = {"one": torch.tensor(6.0, requires_grad=True), "other": torch.tensor(4.0)}
    for run, divisor in ((None, 3), (Two, 5 if training else 3)):
        if run:
            monkeypatch.setattr("captioning.objectives.loss.distributed", run)
        found = make_loss(sums, items, words=torch.tensor(9), stats={"a": items}, training=training)
        assert (found.total.item(), found.count.item(), found.words.item()) == (
            pytest.approx(10 / divisor), divisor, 9
        )  # fmt: skip
        assert {name: part.item() for name, part in found.parts.items()} == pytest.approx(
            {"one": 6 / divisor, "other": 4 / divisor}
        )
        assert found.total.requires_grad and not found.parts["one"].requires_grad
        assert items == 3 and found.stats == {"a": items}


def test_without_items_the_loss_is_its_sum():
    nothing = make_loss({"a": torch.tensor(5.0)}, torch.tensor(0), words=torch.tensor(0), stats={}, training=True)
    assert (nothing.total.item(), nothing.count.item()) == (5.0, 0)


def test_without_support_for_processes_there_is_one(monkeypatch):
    class Absent:
        """torch.distributed of a torch built without it: it has no `is_initialized`."""

        is_available = staticmethod(lambda: False)

    monkeypatch.setattr("captioning.objectives.loss.distributed", Absent)
    loss = make_loss({"a": torch.tensor(5.0)}, torch.tensor(2), words=torch.tensor(3), stats={}, training=True)
    assert loss.total == 2.5


def test_no_word_s_loss_depends_on_how_large_another_s_scores_are():
    output = torch.nn.Linear(2, 5)
    features, targets = torch.tensor([[1.0, 2.0], [1e5, -2e5]]), torch.tensor([3, 4])
    _, found = WordLoss()(LazyLogits(features, output), targets)
    _, alone = WordLoss()(LazyLogits(features[:1], output), targets[:1])
    assert found[0].isfinite() and found[0].item() == pytest.approx(alone.item(), rel=1e-6)
