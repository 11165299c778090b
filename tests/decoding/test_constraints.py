"""Test every search under every rule, against enumeration and against slow searches over lists."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prefixes import (
    END,
    START,
    PrefixModel,
    draw_rules,
    draw_world,
    every_caption,
    obeys,
    permitted,
    score,
    slow_search,
)

from captioning.decoding import beam, beam_search, diverse_beam_search, greedy_search, sample
from captioning.errors import ConfigError


def facts(hypotheses):
    return [
        (tuple(h.tokens), pytest.approx(h.log_prob, abs=1e-9), pytest.approx(h.score, abs=1e-9)) for h in hypotheses
    ]


@pytest.mark.parametrize("block", range(4))
def test_a_beam_as_wide_as_the_space_finds_the_true_best_under_every_rule(block):
    unfinished_seen = required_seen = 0
    for seed in range(block * 150, block * 150 + 150):
        model, rules, generator = draw_world(seed)
        length = model.length
        n_best = generator.randint(1, 4)
        results = model.search(beam_search, beam_size=model.vocabulary**length + 3, n_best=n_best, **rules)
        for image, hypotheses in enumerate(results):
            finished, unfinished = every_caption(model, image, rules, max_length=length)
            captions = finished or unfinished
            ranked = [(tokens, p, score(p, len(tokens), rules)) for tokens, p in captions.items()]
            ranked = sorted(ranked, key=lambda item: -item[2])[:n_best]
            assert ranked == facts(hypotheses), (seed, rules)
            unfinished_seen += not finished
            required_seen += bool(finished and rules.get("require"))
    assert unfinished_seen and required_seen  # both kinds of world occurred


@pytest.mark.parametrize("block", range(4))
def test_narrow_beams_and_groups_equal_a_slow_search_that_never_ends_early(block):
    for seed in range(1000 + block * 150, 1150 + block * 150):
        model, rules, generator = draw_world(seed)
        groups, width = generator.randint(1, 3), generator.randint(1, 4)
        n_best = generator.randint(1, groups * width)
        arguments = {"beam_size": groups * width, "n_best": n_best, **rules}
        if groups == 1:
            diversity, results = 0.0, model.search(beam_search, **arguments)
        else:
            diversity = generator.choice([0.3, 1.1, 4.0])  # ties between equal prefixes of two groups cannot matter
            results = model.search(diverse_beam_search, groups=groups, diversity=diversity, **arguments)
        for image, hypotheses in enumerate(results):
            wanted = slow_search(
                model,
                image,
                [width] * groups,
                n_best=n_best,
                rules=rules,
                max_length=model.length,
                diversity=diversity,
            )
            assert wanted == facts(hypotheses), (seed, rules)


# Worlds, out of about 6000 each, in which a group that has ended would have changed the words of a later group.
@pytest.mark.parametrize(
    ("world", "image", "widths", "rules"),
    [
        ({"seed": 12, "vocabulary": 7, "length": 4, "spread": 1.5, "end_bias": 0.5}, 3, [2] * 3, {}),
        ({"seed": 295, "vocabulary": 6, "length": 5, "spread": 1.0, "end_bias": 0.5}, 11, [3] * 3, {}),
        ({"seed": 545, "vocabulary": 5, "length": 5, "spread": 1.5, "end_bias": -1.0}, 4, [2] * 3, {}),
        (
            {"seed": 56, "vocabulary": 4, "length": 4, "spread": 1.5, "end_bias": 0.5},
            2,
            [3] * 3,
            {"length_normalization": 0.6},
        ),
    ],
)
def test_a_group_that_cannot_win_still_penalizes_those_behind_it(world, image, widths, rules):
    model = PrefixModel(16, **world)
    arguments = {"beam_size": sum(widths), "groups": len(widths), "diversity": 3.0, **rules}
    (found,) = model.search(diverse_beam_search, [image], **arguments)
    options = {"n_best": 1, "rules": rules, "max_length": model.length, "diversity": 3.0}
    assert slow_search(model, image, widths, **options) == facts(found)
    assert facts(model.search(diverse_beam_search, **arguments)[image]) == facts(found)


@pytest.mark.parametrize("seed", range(40))
def test_width_one_equals_greedy_and_a_loop(seed):
    model, rules, _ = draw_world(2000 + seed)
    results = model.search(greedy_search, **rules)
    assert [h.tokens for (h,) in results] == [h.tokens for (h,) in model.search(beam_search, beam_size=1, **rules)]
    for image, (hypothesis,) in enumerate(results):
        tokens = ()
        while len(tokens) < model.length and tokens[-1:] != (END,):
            log_probs = model.log_probs[model.at(image, tokens)]
            words = [
                word
                for word, p in enumerate(log_probs)
                if p > -math.inf and permitted(tokens, word, rules, max_length=model.length)
            ]
            if not words:
                break
            tokens = (*tokens, max(words, key=log_probs.__getitem__))
        assert tuple(hypothesis.tokens) == tokens


def test_ending_early_changes_nothing(monkeypatch):
    models = [draw_world(3000 + seed, end_bias=1.0) for seed in range(60)]

    def results():
        return [
            [facts(hypotheses) for hypotheses in model.search(beam_search, beam_size=4, n_best=2, **rules)]
            for model, rules, _ in models
        ]

    steps = count_steps(monkeypatch)
    early, early_steps = results(), len(steps)
    monkeypatch.setattr(beam, "_end_early", lambda groups: None)
    steps.clear()
    assert [[[f[0] for f in h] for h in r] for r in early] == [[[f[0] for f in h] for h in r] for r in results()]
    assert early_steps < len(steps)


def count_steps(monkeypatch):
    steps, original = [], beam._choose
    monkeypatch.setattr(beam, "_choose", lambda *args, **kwargs: steps.append(1) or original(*args, **kwargs))
    return steps


def check_hypothesis(model, image, hypothesis, rules):
    """Check what must be true of a hypothesis of any search, by the tables."""
    tokens = tuple(hypothesis.tokens)
    assert END not in tokens[:-1] and len(tokens) <= model.length
    if tokens[-1:] == (END,):
        assert obeys(tokens, rules, max_length=model.length)
    assert all(permitted(tokens[:t], w, rules, max_length=model.length) for t, w in enumerate(tokens))
    assert hypothesis.log_prob == pytest.approx(model.log_prob(image, tokens), abs=1e-9)
    assert hypothesis.score == pytest.approx(score(hypothesis.log_prob, len(tokens), rules), abs=1e-9)
    rows = [model.at(image, tokens[:t]) for t in range(len(tokens))]
    assert torch.equal(hypothesis.weights, model.weights[rows])
    assert torch.equal(hypothesis.places, model.places[rows])


METHODS = [
    (greedy_search, {}),
    (beam_search, {"beam_size": 3, "n_best": 3}),
    (diverse_beam_search, {"beam_size": 6, "groups": 3, "n_best": 4, "diversity": 0.7}),
    (sample, {"samples": 3, "seed": 0}),
    (sample, {"samples": 2, "seed": 1, "temperature": 0.7, "top_k": 3, "top_p": 0.8}),
]


@pytest.mark.parametrize(("method", "options"), METHODS)
def test_words_probabilities_attention_and_rules_of_every_search(method, options):
    for seed in range(4000, 4060):
        model, rules, _ = draw_world(seed)
        for image, hypotheses in enumerate(model.search(method, **options, **rules)):
            assert 1 <= len(hypotheses) <= options.get("n_best", options.get("samples", 1))
            for hypothesis in hypotheses:
                check_hypothesis(model, image, hypothesis, rules)
            if method is not sample:
                scores = [hypothesis.score for hypothesis in hypotheses]
                assert scores == sorted(scores, reverse=True)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**20),
    images=st.integers(1, 4),
    vocabulary=st.integers(3, 6),
    length=st.integers(1, 4),
    beam_size=st.integers(1, 12),
    groups=st.integers(1, 3),
    end_bias=st.sampled_from([-50.0, -3.0, 0.0, 50.0]),  # nothing finishes … everything ends at the first step
    data=st.data(),
)
def test_batches_change_nothing(seed, images, vocabulary, length, beam_size, groups, end_bias, data):
    model = PrefixModel(images, vocabulary=vocabulary, length=length, seed=seed, end_bias=end_bias)
    rules = draw_rules(random.Random(seed), vocabulary, length)
    n_best = data.draw(st.integers(1, beam_size))
    order = data.draw(st.permutations(range(images)))
    for method, options in (
        (beam_search, {"beam_size": beam_size}),
        (diverse_beam_search, {"beam_size": beam_size * groups, "groups": groups}),
    ):
        options = {**options, "n_best": n_best, **rules}
        together = [facts(hypotheses) for hypotheses in model.search(method, **options)]
        alone = [facts(model.search(method, [image], **options)[0]) for image in range(images)]
        other = model.search(method, order, **options)
        strip = [[item[0] for item in hypotheses] for hypotheses in together]
        assert strip == [[item[0] for item in hypotheses] for hypotheses in alone]
        assert [strip[image] for image in order] == [[tuple(h.tokens) for h in hypotheses] for hypotheses in other]
        for image, hypotheses in zip(order, other, strict=True):
            assert 1 <= len(hypotheses) <= n_best
            for hypothesis in hypotheses:
                check_hypothesis(model, image, hypothesis, rules)
        if end_bias == 50.0 and not rules:
            assert all(hypotheses[0] == (END,) for hypotheses in strip)
        if end_bias == -50.0 and vocabulary**length > beam_size * length * 2 and not rules:
            assert all(len(hypotheses[0]) == length for hypotheses in strip)


def test_groups_without_diversity_are_copies_and_with_it_differ():
    model = PrefixModel(6, vocabulary=5, length=4, seed=1)
    alone = model.search(beam_search, beam_size=2, n_best=2)
    copies = model.search(diverse_beam_search, beam_size=6, groups=3, diversity=0.0, n_best=6)
    for once, thrice in zip(alone, copies, strict=True):
        assert [h.tokens for h in thrice] == [h.tokens for h in once for _ in range(3)]
    one = model.search(diverse_beam_search, beam_size=3, groups=1, diversity=9.0, n_best=3)
    assert [[h.tokens for h in hs] for hs in one] == [
        [h.tokens for h in hs] for hs in model.search(beam_search, beam_size=3, n_best=3)
    ]
    endless = PrefixModel(6, vocabulary=5, length=4, seed=1, end_bias=-99.0)
    apart = endless.search(diverse_beam_search, beam_size=3, groups=3, diversity=50.0, n_best=3)
    for hypotheses in apart:  # a word that an earlier group took is never worth it
        assert len({h.tokens[0] for h in hypotheses}) == 3, hypotheses


def test_required_words_come_at_any_width_and_in_every_search():
    model = PrefixModel(8, vocabulary=6, length=6, seed=2, end_bias=2.0)
    for method, options in METHODS:
        for hypotheses in model.search(method, require=(3, 5), **options):
            for hypothesis in hypotheses:
                assert {3, 5} <= set(hypothesis.tokens)


def test_banks_find_better_captions_than_words_forced_at_the_end():
    model = PrefixModel(30, vocabulary=6, length=6, seed=3, end_bias=1.0)

    def mean(width):
        found = model.search(beam_search, require=(3, 5), beam_size=width)
        return sum(best.log_prob for best, *_ in found) / len(found)

    assert mean(1) < mean(3) < mean(9)


def test_a_caption_the_rules_leave_without_a_word_is_returned_as_it_stands():
    model = PrefixModel(2, vocabulary=4, length=6, seed=4)
    rules = {"no_repeat_ngram": 1, "min_length": 6}  # three words, each once; then no word is allowed
    for method, options in METHODS:
        for hypotheses in model.search(method, **rules, **options):
            assert all(sorted(hypothesis.tokens) == [0, 1, 3] for hypothesis in hypotheses)
    everything = {"avoid": (0, 1, 3), "min_length": 2}
    for method, options in METHODS:
        for hypotheses in model.search(method, **everything, **options):
            assert all(hypothesis.tokens == [] and hypothesis.log_prob == 0 for hypothesis in hypotheses)


def test_the_logits_of_a_model_are_left_alone():
    model = PrefixModel(2, vocabulary=5, length=4, seed=5)
    before = model.logits.clone()

    def step(token, state):
        return model.logits[None, :1].expand(2, token.shape[1], -1), state, inner(token, state)[2]

    for method, options in METHODS:
        inner, state = model.begin()
        method(step, state, batch=2, start=START, end=END, avoid=(1,), min_length=3, max_length=4, **options)
    assert torch.equal(model.logits, before)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"min_length": -1}, "min_length"),
        ({"no_repeat_ngram": -2}, "no_repeat_ngram"),
        ({"length_penalty": -0.1}, "length_penalty"),
        ({"min_length": 5, "max_length": 4}, r"min_length \(5\) must not exceed decoding\.max_length \(4\)"),
        ({"require": (3, 4), "max_length": 2}, r"require \(2 words\)"),
        ({"require": (3,), "avoid": (3,)}, r"require contains words that are never generated .*3"),
        ({"require": (END,)}, "require"),
        ({"avoid": (END,)}, r"avoid must not contain <end>"),
        ({"avoid": "dog"}, r"avoid must be a list of words, not 'dog'"),
        ({"avoid": ["dog"]}, r"avoid contains 'dog', but a search takes ids"),
    ],
)
def test_impossible_rules_are_named(bad, message):
    for method, options in METHODS:
        with pytest.raises(ConfigError, match=message):
            PrefixModel(1, vocabulary=6, length=4, seed=0).search(method, **options, **bad)


@pytest.mark.parametrize("bad", [{"groups": 4}, {"groups": 0}, {"diversity": -1.0}, {"n_best": 7}])
def test_impossible_groups_are_named(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        PrefixModel(1, vocabulary=5, length=4, seed=0).search(diverse_beam_search, **bad)
