"""Test every search in bfloat16 and float16 on a CPU: models of that type, and torch's autocast over float32 models.

Rounding changes a number by up to u of itself, u = 2⁻⁸ in bfloat16 and 2⁻¹¹ in float16. A caption of T words needs R =
4 T + 3 products one after another (T steps of four, and the readout). Their errors have random signs. The error of the
logits, of size S, is therefore about u √R S, and that of a log-softmax at most twice that of its logits. So a word's
log-probability may differ by 2 u √R S from float32 (the worst of 300 small random models had 0.8 of that), and a
caption's by T times as much. If two captions change their ranks, both may have that error.
"""

import itertools
import math
import random
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from prefixes import PrefixModel, draw_rules, obeys, permitted, score
from toys import ATTENTIONS, CELLS, CONDITIONINGS, END, PAD, RECURRENCES, SCORERS, START, UNKNOWN

from captioning.decoding import (
    beam_search,
    consensus_search,
    diverse_beam_search,
    forced_decoding,
    greedy_search,
    sample,
    score_tokens,
)
from captioning.inference.ensemble import Ensemble
from captioning.models import build_captioner

V, T, IMAGES = 8, 4, 3
FORBIDDEN = (PAD, START, UNKNOWN)
IDS = {"batch": IMAGES, "start": START, "end": END, "forbidden": FORBIDDEN, "max_length": T}
HALVES = [
    pytest.param(dtype, autocast, id=f"{'autocast ' * autocast}{dtype}".replace("torch.", ""))
    for dtype in (torch.bfloat16, torch.float16)
    for autocast in (False, True)
]
half = pytest.mark.parametrize(("dtype", "autocast"), HALVES)
PARTS = [
    ("soft", "look_first", "lstm", "initial_state", "additive"),
    ("soft", "look_with_word", "gru", "initial_every", "additive"),
    ("soft", "look_after", "gru", "first_step", "dot_product"),
    ("soft", "adaptive", "lstm", "every_step", "additive"),
    ("soft", "up_down", "rnn", "initial_first", "dot_product"),
    ("none", "look_first", "gru", "every_step", "additive"),
]
every_model = pytest.mark.parametrize(
    "parts", [*PARTS, "ensemble"], ids=lambda parts: parts if isinstance(parts, str) else "-".join(parts)
)
some_models = pytest.mark.parametrize("parts", [PARTS[2], PARTS[4], "ensemble"], ids=lambda parts: parts[1])
RULES = {"min_length": 3, "no_repeat_ngram": 2, "avoid_endings": (4,), "avoid": (6,), "length_normalization": 0.6}
WORDS = V - len(FORBIDDEN)  # <end> among them


def make(parts):
    """Build a small model of these parts, or an ensemble of two, and images for it."""
    if parts == "ensemble":
        (first, images), (second, vectors) = make(PARTS[0]), make(PARTS[-1])
        return Ensemble([first, second]), (images, vectors)
    attention, recurrence, cell, conditioning, scorer = parts
    model = build_captioner(
        cell=CELLS[cell], attention=ATTENTIONS[attention], scorer=SCORERS[scorer], recurrence=RECURRENCES[recurrence],
        conditioning=CONDITIONINGS[conditioning], vocabulary_size=V, feature_size=12, grid=attention != "none",
        width=16, embedding_size=8, feature_width=16 if recurrence == "adaptive" else None,
    ).eval()  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model, torch.randn(IMAGES, *([] if attention == "none" else [4]), 12)


class Searched:
    """A model over some images in one precision; runs a full search in it, as the product does."""

    def __init__(self, model, images, dtype=torch.float32, *, autocast=False):
        self.dtype, self.largest = dtype, 0.0
        # The members of an ensemble too; everything except the model's numbers stays as it is.
        self.model = model if autocast else model.to(dtype)
        self.context = partial(torch.autocast, "cpu", dtype) if autocast else nullcontext
        with torch.inference_mode(), self.context():
            self.state, memory = self.model.begin(images)
        self.inner = partial(self.model.step, memory=memory)

    def step(self, token, state):
        made = self.inner(token, state)
        # An ensemble's logits are log-probabilities, which are summed in 32 bits.
        assert made.logits.dtype == (torch.float32 if isinstance(self.model, Ensemble) else self.dtype)
        self.largest = max(self.largest, made.logits.abs().max().item())
        return made

    def search(self, method, **arguments):
        with torch.inference_mode(), self.context():
            return method(self.step, self.state, **IDS | arguments)

    def scores(self, tokens):
        """Return the log-probabilities of the words of [B, K, 1 + T] tokens, by `score_tokens`."""
        with torch.inference_mode(), self.context():
            return score_tokens(self.step, self.state, tokens, pad=PAD)

    @torch.inference_mode()
    def word_log_probs(self, captions):
        """Return the log-probability of each word of each caption of each image, from the logits in 64 bits."""
        made = []
        for image, group in enumerate(captions):
            found = []
            for tokens in group:
                state, parts, word = self.state, [], START
                for token in tokens:
                    logits, state, _ = self.inner(torch.full((IMAGES, 1), word), state)
                    parts.append(logits[image, 0].double().log_softmax(-1))
                    self.largest = max(self.largest, logits[image].abs().max().item())
                    word = token
                found.append(parts)
            made.append(found)
        return made


def tolerance(full, dtype):
    """Return the tolerance of a word's log-probability: 2 u √R S."""
    assert 0.5 < full.largest < 20
    return 2 * {torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype] * math.sqrt(4 * T + 3) * full.largest


def both(parts, dtype, autocast, seed=0):
    """Build the same model in float32 and in half precision."""
    torch.manual_seed(seed)
    model, images = make(parts)
    full = Searched(model, images)
    torch.manual_seed(seed)
    model, images = make(parts)
    return full, Searched(model, images, dtype, autocast=autocast)


def total(parts, tokens):
    return math.fsum(part[token].item() for part, token in zip(parts, tokens, strict=True))


SEARCHES = {
    "greedy": greedy_search,
    "beam": partial(beam_search, beam_size=3, n_best=3, length_normalization=0.6),
    "rules": partial(beam_search, beam_size=6, n_best=2, require=(7,), **RULES),
    "diverse": partial(diverse_beam_search, beam_size=6, groups=3, n_best=4, diversity=0.7),
    "sample": partial(sample, samples=5, seed=0),
    "nucleus": partial(sample, samples=5, seed=1, temperature=0.7, top_k=4, top_p=0.8, length_penalty=0.5),
    "consensus": partial(consensus_search, beam_size=6, finalists=3, samples=6, seed=0, n_best=3),
    "forced": partial(forced_decoding, tokens=[[5, 7, 4, END], [END], [6, 6]]),
}


@half
@every_model
def test_the_log_probability_of_what_a_search_writes_is_near_float32s(parts, dtype, autocast):
    full, lower = both(parts, dtype, autocast)
    for name, method in SEARCHES.items():
        arguments = {"max_length": T} if name != "forced" else {}
        if name == "forced":
            ids = {key: value for key, value in IDS.items() if key != "max_length"}
            with torch.inference_mode(), lower.context():
                results = method(lower.step, lower.state, **ids)
        else:
            results = lower.search(method, **arguments)
        exact = full.word_log_probs([[h.tokens for h in group] for group in results])
        for group, captions in zip(results, exact, strict=True):
            assert group
            for hypothesis, words in zip(group, captions, strict=True):
                near = len(words) * tolerance(full, dtype)
                assert hypothesis.log_prob == pytest.approx(total(words, hypothesis.tokens), abs=near), name
                assert math.isfinite(hypothesis.score)
                if hypothesis.weights is not None and parts[1] != "adaptive":
                    ones = hypothesis.weights.double().sum(-1)  # each is at most 1, rounded by at most u of itself
                    assert (ones - 1).abs().max() <= 4 * 2**-8
                if name == "rules":
                    assert obeys(tuple(hypothesis.tokens), RULES | {"require": (7,)}, max_length=T)
                    power = len(hypothesis.tokens) ** 0.6
                    assert hypothesis.score == pytest.approx(hypothesis.log_prob / power, rel=1e-6)
    table = torch.tensor([[[START, 5, 4, 7, END], [START, 6, END, PAD, PAD]]] * IMAGES)
    assert (lower.scores(table) - full.scores(table)).abs().max() <= tolerance(full, dtype)
    assert lower.scores(table).dtype == torch.float32


@half
@some_models
def test_a_search_that_sees_every_caption_finds_the_best_or_one_as_good(parts, dtype, autocast):
    """A beam as wide as the space ranks all captions by their scores in half precision.

    If it selects another caption than float32 does, both scores have an error: it is worse by at most twice a caption's
    tolerance.
    """
    full, lower = both(parts, dtype, autocast, seed=1)
    for rules in ({}, RULES, {"length_penalty": 1.0, "require": (5,)}):
        for method in (
            partial(beam_search, beam_size=WORDS**T),
            partial(diverse_beam_search, beam_size=2 * WORDS**T, groups=2),
        ):
            best, found = (searched.search(method, **rules) for searched in (full, lower))
            exact = full.word_log_probs([[group[0].tokens] for group in found])
            for (first,), (chosen,), (words,) in zip(best, found, exact, strict=True):
                worth = score(total(words, chosen.tokens), len(chosen.tokens), rules)
                assert worth >= first.score - 2 * T * tolerance(full, dtype)
                assert worth <= first.score + 1e-5
                assert obeys(tuple(chosen.tokens), rules | {"forbidden": FORBIDDEN}, max_length=T)


@half
@some_models
def test_every_greedy_word_is_the_best_or_one_as_good(parts, dtype, autocast):
    full, lower = both(parts, dtype, autocast, seed=2)
    for rules in ({}, {key: RULES[key] for key in ("min_length", "no_repeat_ngram", "avoid_endings", "avoid")}):
        found = lower.search(greedy_search, **rules)
        exact = full.word_log_probs([[h.tokens for h in group] for group in found])
        for (chosen,), (words,) in zip(found, exact, strict=True):
            for t, (log_probs, token) in enumerate(zip(words, chosen.tokens, strict=True)):
                prefix, known = tuple(chosen.tokens[:t]), rules | {"forbidden": FORBIDDEN}
                allowed = [w for w in range(V) if permitted(prefix, w, known, max_length=T)]
                assert token in allowed
                best = max(log_probs[word].item() for word in allowed)
                assert log_probs[token].item() >= best - 2 * tolerance(full, dtype)


@half
@some_models
def test_every_sampled_word_is_drawn_by_its_uniform_number(parts, dtype, autocast):
    """The bounds of a word's interval are sums of probabilities.

    They are wrong by a factor of at most e to the word's tolerance, before and after normalization over the allowed
    words.
    """
    full, lower = both(parts, dtype, autocast, seed=3)
    samples = 20
    found = lower.search(sample, samples=samples, seed=5)
    exact, generator = (
        full.word_log_probs([[h.tokens for h in group] for group in found]),
        torch.Generator().manual_seed(5),
    )
    near = math.expm1(2 * tolerance(full, dtype))
    longest = max(len(h.tokens) for group in found for h in group)
    uniforms = [torch.rand(IMAGES, samples, 1, dtype=torch.float64, generator=generator) for _ in range(longest)]
    for image, (group, captions) in enumerate(zip(found, exact, strict=True)):
        for k, (hypothesis, words) in enumerate(zip(group, captions, strict=True)):
            for t, (log_probs, token) in enumerate(zip(words, hypothesis.tokens, strict=True)):
                shares = [0.0 if word in FORBIDDEN else log_probs[word].exp().item() for word in range(V)]
                low, high = (sum(shares[:end]) / sum(shares) for end in (token, token + 1))
                assert low - near <= uniforms[t][image, k].item() < high + near
    assert len({tuple(h.tokens) for group in found for h in group}) > 5


@half
def test_hard_attention_looks_elsewhere_only_where_two_places_weigh_alike(dtype, autocast):
    """Hard attention is not a continuous function of its numbers.

    A caption's log-probability is close to that of float32 only while it attends to the same locations. If it attends
    to another one, that location has the same weight except for rounding.
    """
    parts = ("hard", "look_after", "gru", "initial_state", "dot_product")
    same = 0
    for seed in range(6):
        full, lower = both(parts, dtype, autocast, seed)
        captions = [[5, 7, 4, END], [6, END], [4, 4, 7, 5]]
        ids = {"batch": IMAGES, "start": START, "end": END, "tokens": captions}
        with torch.inference_mode():
            wide = forced_decoding(full.step, full.state, **ids)
            with lower.context():
                narrow = forced_decoding(lower.step, lower.state, **ids)
        for (one,), (other,) in zip(wide, narrow, strict=True):
            alike = one.places == other.places
            if alike.all():
                same += 1
                near = len(one.tokens) * tolerance(full, dtype)
                assert other.log_prob == pytest.approx(one.log_prob, abs=near)
            else:
                t = int(alike.logical_not().nonzero()[0])  # the steps after it have another state
                weights = one.weights[t].log()
                gap = (weights[one.places[t]] - weights[other.places[t]]).item()
                assert 0 <= gap <= 2 * tolerance(full, dtype)
    assert same >= 9


TABLES = [
    (greedy_search, {}),
    (beam_search, {"beam_size": 3, "n_best": 3}),
    (beam_search, {"beam_size": 200, "n_best": 4}),
    (diverse_beam_search, {"beam_size": 6, "groups": 3, "n_best": 4, "diversity": 0.7}),
    (sample, {"samples": 6, "seed": 0}),
    (sample, {"samples": 6, "seed": 1, "temperature": 0.7, "top_p": 0.8}),
    (consensus_search, {"beam_size": 5, "finalists": 3, "samples": 5, "seed": 0, "n_best": 2}),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("method", "options"), TABLES)
def test_half_precision_logits_are_worth_what_they_are_in_64_bits(method, options, dtype):
    """Rounding of logits is the model's own; searches add none.

    They sum in 32 bits, where words that are equally probable in half precision remain so.
    """

    for seed in range(7000, 7008):
        rules = draw_rules(random.Random(seed), 5, 4)
        exact, rounded = (PrefixModel(2, vocabulary=5, length=4, seed=seed, impossible=seed % 2 * 0.2) for _ in "ab")
        exact.logits = rounded.logits.to(dtype).double()
        exact.log_probs = exact.logits.log_softmax(-1).tolist()
        rounded.logits = rounded.logits.to(dtype)
        for image, (ours, theirs) in enumerate(
            zip(exact.search(method, **options, **rules), rounded.search(method, **options, **rules), strict=True)
        ):
            assert [h.score for h in theirs] == pytest.approx([h.score for h in ours], abs=1e-5)
            assert len({tuple(h.tokens) for h in theirs}) == len({tuple(h.tokens) for h in ours})
            for one in theirs:
                assert one.log_prob == pytest.approx(exact.log_prob(image, one.tokens), abs=2e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_words_that_tie_are_all_kept_and_none_twice(dtype):
    """Logits are equal in half precision: the beam has different captions of equal probability."""

    class Constant(torch.nn.Module):
        def __call__(self, token, state):
            logits = torch.full((*token.shape, 6), 1.0, dtype=dtype)
            return logits, state, type("Glimpse", (), {"weights": torch.zeros(*token.shape, 0, dtype=dtype)})

    class State(tuple):
        def select(self, index):
            return self

    arguments = {"batch": 2, "start": 1, "end": 2, "forbidden": (0, 1), "max_length": 3}
    for group in beam_search(Constant(), State((torch.zeros(2),)), beam_size=100, n_best=40, **arguments):
        captions = [tuple(h.tokens) for h in group]
        assert len(captions) == len(set(captions)) == 1 + 3 + 9
        assert [h.log_prob for h in group] == pytest.approx([-len(c) * math.log(6) for c in captions], abs=1e-6)
        assert sorted(captions) == sorted(
            (*words, 2) for n in range(3) for words in itertools.product((3, 4, 5), repeat=n)
        )
