"""Compare diverse beam search with a slow search that never ends early, where ending early could change the result."""

import itertools
import math
import random

import pytest
from prefixes import END, PrefixModel, draw_rules, slow_search
from trees import by_hand, drawn, outlived

from captioning.decoding import beam_search, diverse_beam_search

A, B, C, D, X, SURE, LATE, OTHER = range(3, 11)


def close(value):
    return pytest.approx(value, abs=1e-9)


def found(hypotheses):
    return [(tuple(each.tokens), close(each.log_prob), close(each.score)) for each in hypotheses]


def test_a_group_that_cannot_win_penalizes_later_groups_by_hand():
    """Two groups of two beams, λ = 2.

    The first group writes A and B, ends B at 0.3 · 0.1, and continues with A X at 0.32 · 0.08, which is worse: none of
    its live beams can win. The second group writes C SURE and D SURE. At the third word the best word of A X is LATE,
    and so it is for both beams of the second group. Penalized, they write OTHER and end. Without the penalty both write
    LATE, after which 16 words are equally probable, and B would be the best caption.
    """
    world = by_hand(
        {
            (): {A: 0.32, B: 0.3, C: 0.18, D: 0.17},
            (A,): {X: 0.08},
            (B,): {END: 0.1},
            (C,): {SURE: 0.97},
            (D,): {SURE: 0.97},
            (A, X): {LATE: 0.9},
            (C, SURE): {LATE: 0.52, OTHER: 0.46},
            (D, SURE): {LATE: 0.52, OTHER: 0.46},
            (C, SURE, OTHER): {END: 0.9},
            (D, SURE, OTHER): {END: 0.9},
        },
        vocabulary=16,
        length=5,
    )
    ((best,),) = world.search(diverse_beam_search, beam_size=4, groups=2, diversity=2.0)
    assert best.tokens == [C, SURE, OTHER, END]
    assert best.log_prob == best.score == pytest.approx(math.log(0.18 * 0.97 * 0.46 * 0.9), abs=1e-12)  # −2.629
    ((first, second),) = world.search(diverse_beam_search, beam_size=4, groups=2, diversity=2.0, n_best=2)
    assert (first.tokens, second.tokens) == ([C, SURE, OTHER, END], [D, SURE, OTHER, END])
    # Without a penalty both groups choose LATE, and the best caption is B's.
    ((best,),) = world.search(diverse_beam_search, beam_size=4, groups=2, diversity=0.0)
    assert best.tokens == [B, END] and best.log_prob == pytest.approx(math.log(0.03), abs=1e-12)


RULES = [
    {},
    {"length_normalization": 0.6},
    {"length_penalty": 0.8},
    {"length_normalization": 0.7, "length_penalty": 0.4},
    {"min_length": 2, "no_repeat_ngram": 2},
    {"avoid": (0,), "avoid_endings": (1, 4), "no_repeat_ngram": 1},
]


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "-".join(rules) or "none")
@pytest.mark.parametrize(("groups", "width", "n_best"), [(2, 2, 1), (3, 2, 1), (2, 3, 1), (2, 3, 2), (3, 3, 2)])
def test_ending_early_changes_no_caption_where_a_penalty_outlives_its_group(rules, groups, width, n_best):
    told_apart = 0
    for seed, delay in itertools.product(range(2), (1, 2)):
        for middle in (False, True)[: groups - 1]:
            world = outlived(seed, groups=groups, width=width, delay=delay, ends=n_best, middle=middle)
            arguments = {"beam_size": groups * width, "groups": groups, "n_best": n_best, **rules}
            for diversity in (1.0, 3.0):
                (captions,) = world.search(diverse_beam_search, diversity=diversity, **arguments)
                options = {"n_best": n_best, "rules": rules, "max_length": world.length, "diversity": diversity}
                wanted = slow_search(world, 0, [width] * groups, **options)
                assert wanted == found(captions), (seed, delay, diversity)
                told_apart += wanted != slow_search(world, 0, [width] * groups, forgetful=True, **options)
    assert told_apart >= 2  # an earlier, wrong rule for ending early fails here


@pytest.mark.parametrize("n_best", [1, 2])
def test_ending_early_changes_no_caption_with_required_words(n_best):
    told_apart = 0
    for seed, delay, groups in itertools.product(range(3), (1, 2), (2, 3)):
        # Two of the five beams of each group are without the required word, which is the second word.
        world = outlived(seed, groups=groups, width=3, delay=delay, ends=n_best, prefix=(5, 4))
        rules = {"require": (4,), "no_repeat_ngram": 2}
        options = {"n_best": n_best, "rules": rules, "max_length": world.length, "diversity": 2.0}
        arguments = {"beam_size": groups * 5, "groups": groups, "n_best": n_best, "diversity": 2.0, **rules}
        (captions,) = world.search(diverse_beam_search, **arguments)
        wanted = slow_search(world, 0, [5] * groups, **options)
        assert wanted == found(captions), (seed, delay)
        told_apart += wanted != slow_search(world, 0, [5] * groups, forgetful=True, **options)
    assert told_apart >= 3


@pytest.mark.parametrize(("groups", "width"), [(1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (3, 3)])
def test_groups_equal_a_slow_search_in_drawn_worlds(groups, width):
    generator = random.Random(100 * groups + width)
    for seed in range(25):
        vocabulary, length = generator.randint(4, 9), generator.randint(3, 6)
        worlds = drawn(seed, vocabulary=vocabulary, length=length, images=2, wanted=generator.randint(1, 2))
        if seed % 3 == 0:
            worlds = PrefixModel(2, vocabulary=5, length=4, seed=seed, end_bias=generator.choice([-1.0, 0.5]))
        rules = draw_rules(generator, worlds.vocabulary, worlds.length)
        n_best, diversity = generator.randint(1, groups * width), generator.choice([0.3, 1.1, 4.0])
        arguments = {"beam_size": groups * width, "n_best": n_best, **rules}
        if groups > 1:
            arguments |= {"groups": groups, "diversity": diversity}
        results = worlds.search(diverse_beam_search if groups > 1 else beam_search, **arguments)
        options = {"n_best": n_best, "rules": rules, "max_length": worlds.length, "diversity": diversity}
        for image, captions in enumerate(results):
            assert slow_search(worlds, image, [width] * groups, **options) == found(captions), (seed, rules)
