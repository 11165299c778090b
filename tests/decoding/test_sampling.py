"""Compare sampling for given uniform numbers with the distribution functions of a slow reference."""

import math
from collections import Counter
from functools import partial

import pytest
import torch
from prefixes import PrefixModel, draw_world, permitted, score
from toys import END, START

from captioning.decoding import sample
from captioning.decoding.sampling import draw_tokens
from captioning.errors import ConfigError
from captioning.inference import with_generator


def run(model, images, **arguments):
    state, memory = model.begin(images)
    step = partial(model.step, memory=memory)
    return sample(step, state, batch=len(images), start=START, end=END, **arguments)


@pytest.fixture
def model(toy):
    model = toy(vocabulary_size=5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    return model


def log_prob_of(model, image, tokens):
    """Compute Σ log p by teacher forcing; token 0, which is a word here, is scored too."""
    model.decoder.pad = -1
    logits = model(image[None], torch.tensor([[[START, *tokens]]])).logits
    model.decoder.pad = 0
    return logits.log_softmax(-1)[range(len(tokens)), tokens].sum().item()


def intervals(log_probs, *, temperature=1.0, top_k=None, top_p=None):
    """Return {word: (from, to)}, the uniform numbers that sample each word, by sorting and summing a list."""
    words = [word for word, value in enumerate(log_probs) if value > -math.inf]
    if top_k is not None or top_p is not None:
        words = sorted(words, key=lambda word: -log_probs[word])[: top_k or len(words)]
    highest = max(log_probs)
    weights = {word: math.exp((log_probs[word] - highest) / temperature) for word in words}
    total, reached, kept = math.fsum(weights.values()), 0.0, []
    for word in words:
        if top_p is None or reached / total < top_p:
            kept.append(word)
        reached += weights[word]
    total, found, reached = math.fsum(weights[word] for word in kept), {}, 0.0
    for word in kept:
        found[word] = (reached / total, (reached + weights[word]) / total)
        reached += weights[word]
    return found


def boxes(model, image, rules, options):
    """Return {caption: the intervals of its words} for all possible captions, in order; their volumes sum to 1."""
    found, live = {}, {(): []}
    for t in range(model.length):
        grown = {}
        for prefix, sides in live.items():
            log_probs = [
                value if permitted(prefix, word, rules, max_length=model.length) else -math.inf
                for word, value in enumerate(model.log_probs[model.at(image, prefix)])
            ]
            if max(log_probs) == -math.inf:  # no word is possible
                found[prefix] = sides
                continue
            for word, side in intervals(log_probs, **options).items():
                (found if word == END or t + 1 == model.length else grown)[(*prefix, word)] = [*sides, side]
        live = grown
    return found


def given_uniforms(monkeypatch, steps):
    """Let torch.rand return these numbers, one after another."""
    left = iter(steps)

    def rand(*shape, dtype, generator, device):
        assert dtype == torch.float64 and generator is None
        return next(left).view(shape).to(device)

    monkeypatch.setattr(torch, "rand", rand)


FILTERS = [
    {},
    {"temperature": 0.5},
    {"temperature": 2.0, "top_k": 3},
    {"top_k": 1},
    {"top_p": 0.7},
    {"temperature": 0.7, "top_k": 3, "top_p": 0.6},
    {"temperature": 1.5, "top_k": 99, "top_p": 1.0},
]


@pytest.mark.parametrize("options", FILTERS, ids=lambda options: "-".join(options) or "plain")
def test_every_caption_is_drawn_by_the_uniform_numbers_of_its_probability(monkeypatch, options):
    """The numbers that sample a caption form a box: one interval per word, as long as the word is probable.

    Its center and two opposite corners sample the caption.
    """
    tested = 0
    for seed in range(6000, 6015):
        model, rules, _ = draw_world(seed)
        every = [boxes(model, image, rules, options) for image in range(2)]
        for found in every:
            assert math.fsum(math.prod(b - a for a, b in sides) for sides in found.values()) == pytest.approx(1)
        if min(b - a for found in every for sides in found.values() for a, b in sides) < 1e-12:
            continue  # words so improbable are too close to their neighbors for 64 bits
        tested += 1
        rows = [[(*pair, at) for pair in found.items() for at in ("first", "middle", "last")] for found in every]
        samples = max(map(len, rows))
        rows = [part + part[:1] * (samples - len(part)) for part in rows]
        uniforms = torch.full((model.length, 2, samples), 0.5, dtype=torch.float64)
        for image, part in enumerate(rows):
            for k, (_, sides, at) in enumerate(part):
                for t, (low, high) in enumerate(sides):
                    uniforms[t, image, k] = {"first": low + 1e-13, "middle": (low + high) / 2, "last": high - 1e-13}[at]
        with monkeypatch.context() as patch:
            given_uniforms(patch, uniforms)
            results = model.search(sample, samples=samples, **options, **rules)
        for image, (part, hypotheses) in enumerate(zip(rows, results, strict=True)):
            for (tokens, _, _), hypothesis in zip(part, hypotheses, strict=True):
                assert tuple(hypothesis.tokens) == tokens, (seed, rules)
                own = model.log_prob(image, tokens)  # for every temperature, filter and rule
                assert hypothesis.log_prob == pytest.approx(own, abs=1e-9)
                assert hypothesis.score == pytest.approx(score(own, len(tokens), rules), abs=1e-9)
                wanted = [model.at(image, tokens[:t]) for t in range(len(tokens))]
                assert torch.equal(hypothesis.weights, model.weights[wanted])
                assert torch.equal(hypothesis.places, model.places[wanted])
    assert tested >= 10


def test_one_uniform_number_a_row_and_step_comes_from_the_seed_or_generator():
    model = PrefixModel(3, vocabulary=5, length=6, seed=9, end_bias=0.5)
    alike = [
        (torch.Generator().manual_seed(4), {"seed": 4}),
        (torch.Generator().manual_seed(5), {"generator": torch.Generator().manual_seed(5)}),
        (torch.Generator().manual_seed(6), {}),
        # A seed replaces a generator.
        (torch.Generator().manual_seed(4), {"seed": 4, "generator": torch.Generator().manual_seed(5)}),
    ]
    for generator, options in alike:
        torch.manual_seed(6)
        results, tokens, t = model.search(sample, samples=4, **options), [[()] * 4 for _ in range(3)], 0
        while t < 6 and any(caption[-1:] != (END,) for group in tokens for caption in group):
            uniforms = torch.rand(3, 4, 1, dtype=torch.float64, generator=generator).squeeze(-1).tolist()
            for image, (group, numbers) in enumerate(zip(tokens, uniforms, strict=True)):
                for k, number in enumerate(numbers):
                    if group[k][-1:] != (END,):
                        sides = intervals(model.log_probs[model.at(image, group[k])])
                        group[k] += tuple(word for word, (low, high) in sides.items() if low <= number < high)
            t += 1
        assert [[tuple(h.tokens) for h in group] for group in results] == tokens
        given = options.get("generator")
        if given is not None and "seed" not in options:
            assert torch.equal(given.get_state(), generator.get_state())  # no further number, none after the last <end>


def test_the_nucleus_ends_with_the_word_that_reaches_it(monkeypatch):
    """Eight words have exactly 1/8 each, so that their sums are exact: k words reach k/8, and fewer do not."""
    rows = torch.zeros(1, 1000, 8, dtype=torch.float64)
    for words in range(1, 9):
        for top_p, top_k, wanted in (
            (words / 8, None, words),
            (math.nextafter(words / 8, 0), None, words),
            (math.nextafter(words / 8, 1), None, min(words + 1, 8)),
            (None, words, words),
            (0.5, words, math.ceil(words / 2)),  # half of the top_k, not half of all words
        ):
            if top_p is not None and top_p > 1:
                continue
            given_uniforms(monkeypatch, [(torch.arange(1000, dtype=torch.float64) + 0.5) / 1000])
            counts = Counter(draw_tokens(rows, top_p=top_p, top_k=top_k).flatten().tolist())
            assert len(counts) == wanted, (top_p, top_k)
            assert all(abs(count - 1000 / wanted) <= 1 for count in counts.values())  # renormalized


def test_scores_of_samples_by_hand(monkeypatch):
    """<end> has 1/2 and both words 1/4 at each step, cut after two: score = log_prob / length."""
    model = PrefixModel(1, vocabulary=3, length=2, seed=0)
    model.logits = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64).log().expand_as(model.logits)
    rules = {"length_normalization": 1.0}
    for numbers, tokens, log_prob in (
        ((0.9, 0.9), [END], math.log(1 / 2)),
        ((0.3, 0.9), [1, END], math.log(1 / 8)),
        ((0.2, 0.3), [0, 1], math.log(1 / 16)),
    ):
        given_uniforms(monkeypatch, torch.tensor(numbers, dtype=torch.float64))
        ((one,),) = model.search(sample, **rules)
        assert one.tokens == tokens and one.log_prob == pytest.approx(log_prob)
        assert one.score == pytest.approx(log_prob / len(tokens))
    # No word at all: an empty caption with probability 1.
    for rules in ({"length_normalization": 1.0}, {"length_penalty": 1.0}, {}):
        given_uniforms(monkeypatch, [torch.tensor(0.5, dtype=torch.float64)])
        ((one,),) = model.search(sample, avoid=(0, 1), min_length=2, **rules)
        assert one.tokens == [] and one.log_prob == one.score == 0


def test_draws_without_filters_are_those_of_the_distribution(monkeypatch):
    rows = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64).log().expand(1, 4, 3)
    uniforms = torch.tensor([0.1 - 1e-12, 0.1 + 1e-12, 0.7 - 1e-12, 0.7 + 1e-12], dtype=torch.float64)
    given_uniforms(monkeypatch, [uniforms])
    assert draw_tokens(rows).tolist() == [[0, 1, 1, 2]]


def test_all_samples_having_ended_ends_the_search(monkeypatch):
    """Three samples end with their first, second and third word of six: three steps, and no word after <end>."""
    model, calls = PrefixModel(1, vocabulary=4, length=6, seed=3), []
    step, state = model.begin()
    sides = [intervals(model.log_probs[model.at(0, (3,) * t)]) for t in range(3)]
    middle = [{word: sum(side) / 2 for word, side in part.items()} for part in sides]
    uniforms = torch.tensor([[middle[t][END if t == k else 3] if t <= k else 0.5 for k in range(3)] for t in range(3)])
    given_uniforms(monkeypatch, uniforms.double())

    def counted(token, state):
        calls.append(token.tolist())
        return step(token, state)

    (found,) = sample(counted, state, batch=1, start=START, end=END, samples=3, max_length=6)
    assert [h.tokens for h in found] == [[END], [3, END], [3, 3, END]]
    assert calls == [[[START]], [[END, 3, 3]], [[END, END, 3]]]


def test_a_word_without_probability_is_never_drawn(monkeypatch):
    log_probs = torch.tensor([[[-torch.inf, 0.3, -torch.inf, 0.2, -torch.inf]]], dtype=torch.float64)
    for uniform, wanted in ((0.0, 1), (1 - 2**-53, 3)):  # the smallest and largest number that torch.rand returns
        value = torch.full((1, 1, 1), uniform, dtype=torch.float64)
        monkeypatch.setattr(torch, "rand", lambda *shape, value=value, **options: value)
        assert draw_tokens(log_probs).item() == draw_tokens(log_probs, top_p=1.0).item() == wanted


def test_log_probability_is_the_models_own_and_attention_belongs_to_the_words(model):
    images = torch.randn(3, 4, 6, dtype=torch.float64)
    results = run(model, images, samples=4, temperature=2.0, top_k=4, max_length=6, seed=1)
    for image, hypotheses in zip(images, results, strict=True):
        assert len(hypotheses) == 4
        for hypothesis in hypotheses:
            assert hypothesis.log_prob == pytest.approx(log_prob_of(model, image, hypothesis.tokens), rel=1e-9)
            assert END not in hypothesis.tokens[:-1]
            assert hypothesis.tokens[-1] == END or len(hypothesis.tokens) == 6
            model.decoder.pad = -1
            decoded = model(image[None], torch.tensor([[[START, *hypothesis.tokens]]]))
            model.decoder.pad = 0
            torch.testing.assert_close(hypothesis.weights, decoded.glimpse.weights[0, 0])


def test_seeds_and_generators(model):
    images = torch.randn(3, 4, 6, dtype=torch.float64)

    def tokens(**arguments):
        return [h.tokens for group in run(model, images, samples=5, **arguments) for h in group]

    assert tokens(seed=1) == tokens(seed=1) == tokens(generator=torch.Generator().manual_seed(1)) != tokens(seed=2)
    generator = torch.Generator().manual_seed(1)
    assert tokens(generator=generator) != tokens(generator=generator)  # it continues to sample
    assert len(set(map(tuple, tokens(seed=1)))) > 5


def test_a_seed_lasts_for_all_batches_once_it_is_a_generator(model):
    images = torch.randn(1, 4, 6, dtype=torch.float64)

    def tokens(method):
        state, memory = model.begin(images)
        found = method(partial(model.step, memory=memory), state, batch=1, start=START, end=END)
        return [hypothesis.tokens for hypothesis in found[0]]

    plain, lasting = partial(sample, samples=6, seed=3), with_generator(partial(partial(sample, samples=6), seed=3))
    assert tokens(plain) == tokens(plain) == tokens(lasting) != tokens(lasting)


@pytest.mark.parametrize(
    "edge", [{"temperature": 1e-6}, {"temperature": 1e6}, {"top_k": 1}, {"top_p": 1}, {"samples": 1}]
)
def test_the_edges_of_what_is_possible(model, edge):
    (found,) = run(model, torch.randn(1, 4, 6, dtype=torch.float64), **edge, max_length=1)
    assert len(found) == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"samples": 0},
        {"temperature": 0.0},
        {"temperature": math.inf},
        {"temperature": 1e-310},
        {"temperature": math.nextafter(1e-6, 0)},
        {"temperature": math.nextafter(1e6, 2e6)},
        {"top_p": math.nextafter(1, 2)},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"max_length": 0},
    ],
)
def test_impossible_arguments_are_named(model, bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        run(model, torch.randn(1, 4, 6, dtype=torch.float64), **bad)
