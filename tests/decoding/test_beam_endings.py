"""Test when a beam search ends and what it returns then, on small worlds with exact probabilities."""

import math

import pytest
from prefixes import END
from trees import by_hand

from captioning.decoding import beam_search, diverse_beam_search, greedy_search
from captioning.errors import ConfigError

A, B, C, D = 3, 4, 5, 6


def searched(world, method=beam_search, **arguments):
    """Return [(tokens, probability)] and the number of steps of the search."""
    steps, inner = [], world.step

    def counted(token, state):
        steps.append(token.tolist())
        return inner(token, state)

    world.step = counted
    (found,) = world.search(method, **arguments)
    world.step = inner
    return [(h.tokens, pytest.approx(math.exp(h.log_prob), rel=1e-12)) for h in found], len(steps)


def world(nodes, *, length=5):
    """Build a tree in which eight words share the probability that a node does not define."""
    return by_hand(nodes, vocabulary=8, length=length)


SURE = {(A,): {B: 1.0}, (A, B): {C: 1.0}, (A, B, C): {END: 1.0}}


def test_a_search_ends_when_no_live_beam_can_become_better():
    """<end> has 1/2 at once. A beam of 1/2 beside it can at best tie with it; one of slightly more can win."""
    tie = world({(): {END: 0.5, A: 0.5}} | SURE)
    assert searched(tie, beam_size=2) == ([([END], 0.5)], 1)
    ahead = world({(): {END: 0.4375, A: 0.5625}} | SURE)
    assert searched(ahead, beam_size=2) == ([([A, B, C, END], 0.5625)], 4)
    behind = world({(): {END: 0.5625, A: 0.4375}} | SURE)
    assert searched(behind, beam_size=2) == ([([END], 0.5625)], 1)
    assert searched(behind, greedy_search) == ([([END], 0.5625)], 1)
    assert searched(ahead, greedy_search) == ([([A, B, C, END], 0.5625)], 4)


def test_greedy_decoding_is_a_beam_of_one():
    """A is slightly more probable than B, but its continuations are much less probable."""
    nodes = {(): {A: 0.5, B: 0.4375}, (A,): {END: 0.25}, (B,): {END: 1.0}} | {(A, w): {END: 1.0} for w in range(8)}
    assert searched(world(nodes), greedy_search) == ([([A, END], 0.125)], 2)
    assert searched(world(nodes), beam_size=1) == ([([A, END], 0.125)], 2)
    assert searched(world(nodes), beam_size=2) == ([([B, END], 0.4375)], 2)


@pytest.mark.parametrize("rules", [{"length_normalization": 1.0}, {"length_penalty": 1.0}])
def test_the_longest_caption_that_may_come_is_what_a_live_beam_can_reach(rules):
    """<end> has 0.7 at once. A beam of 0.23, slightly less than 0.7⁴, wins only if divided by slightly more than 4.

    log 0.23 / 4 < log 0.7 < log 0.23 / 4.17.
    """
    longest = 4 if "length_normalization" in rules else 19  # (5 + 19) / 6 = 4, (5 + 20) / 6 = 4.17
    nodes = {(): {END: 0.7, A: 0.23}} | {(A,) * n: {A: 1.0} for n in range(1, longest + 1)}
    found = searched(world(nodes | {(A,) * (longest - 1): {END: 1.0}}, length=longest), beam_size=2, **rules)
    assert found == ([([END], 0.7)], 1)
    found = searched(world(nodes | {(A,) * longest: {END: 1.0}}, length=longest + 1), beam_size=2, **rules)
    assert found == ([([A] * longest + [END], 0.23)], longest + 1)  # with one more step it wins with its last word


def test_all_of_the_n_best_must_be_safe():
    nodes = {(): {END: 0.5, A: 0.25, B: 0.25}, (A,): {END: 0.5, C: 0.5}, (B,): {C: 1.0}, (B, C): {END: 1.0}}
    nodes |= {(A, C): {C: 1.0}, (A, C, C): {END: 1.0}}
    assert searched(world(nodes), beam_size=3) == ([([END], 0.5)], 1)
    assert searched(world(nodes), beam_size=3, n_best=2) == ([([END], 0.5), ([B, C, END], 0.25)], 3)
    found, steps = searched(world(nodes), beam_size=4, n_best=4)
    assert sorted(found, key=str) == sorted(
        [([END], 0.5), ([B, C, END], 0.25), ([A, END], 0.125), ([A, C, C, END], 0.125)], key=str
    )
    assert steps == 4  # then all four beams are finished


def test_a_beam_that_ends_takes_its_place_with_it():
    """Of two beams the first ends at 3/8; only one continues, with the better of A C and A D."""
    nodes = {(): {END: 0.375, A: 0.625}, (A,): {C: 0.5, D: 0.4375}, (A, C): {END: 0.25}, (A, D): {END: 1.0}}
    nodes |= {(A, C, word): {END: 1.0} for word in range(8) if word != END}
    assert searched(world(nodes), beam_size=2, n_best=2) == ([([END], 0.375), ([A, C, END], 0.625 * 0.5 * 0.25)], 3)
    assert searched(world(nodes), beam_size=3, n_best=2)[0] == [([END], 0.375), ([A, D, END], 0.625 * 0.4375)]


def test_captions_that_did_not_end_come_only_where_none_did():
    nodes = {(): {A: 0.75, B: 0.25}, (A,): {A: 1.0}, (A, A): {A: 1.0}, (B,): {END: 0.125, C: 0.875}, (B, C): {D: 1.0}}
    assert searched(world(nodes, length=3), beam_size=2) == ([([A, A, A], 0.75)], 3)  # B ended in third rank
    assert searched(world(nodes, length=3), beam_size=2, n_best=2)[0] == [([A, A, A], 0.75), ([B, C, D], 0.25 * 0.875)]
    assert searched(world(nodes, length=3), beam_size=3, n_best=3)[0] == [([B, END], 0.25 * 0.125)]
    # If no word is possible, the words so far are the result, but finished captions come first.
    nodes = {(): {A: 0.75, B: 0.25}, (A,): {A: 1.0}, (B,): {A: 0.5, END: 0.5}, (B, A): {END: 0.5, B: 0.5}}
    rules = {"no_repeat_ngram": 1, "min_length": 3}
    assert searched(world(nodes, length=4), beam_size=2, n_best=2, **rules) == ([([B, A, END], 0.0625)], 3)
    assert searched(world(nodes, length=4), beam_size=2, n_best=2, **rules | {"min_length": 4}) == (
        [([A], 0.75), ([B, A], 0.125)],
        3,
    )


@pytest.mark.parametrize("rules", [{}, {"length_normalization": 1.0}, {"length_penalty": 1.0}])
def test_a_caption_that_may_not_even_begin_is_empty_and_sure(rules):
    every = {"avoid": tuple(word for word in range(8) if word != END), "min_length": 2}
    for method in (greedy_search, beam_search, diverse_beam_search):
        ((one,),) = world({}).search(method, **every, **rules)
        assert one.tokens == [] and one.log_prob == one.score == 0


def test_banks_share_the_room_that_is_left():
    """Four beams, D is required. Two beams end with it at once, so that two remain, one per bank.

    The second caption with D, which has rank three, is kept only because captions without it may have at most one of
    the two.
    """
    nodes = {(): {D: 0.5, A: 0.3, B: 0.1, C: 0.06}, (D,): {END: 0.9, C: 0.02}, (D, C): {END: 0.9}}
    nodes |= {(A,): {A: 0.5, B: 0.45}, (A, A): {A: 0.9}, (A, B): {A: 0.9}, (A, A, A): {A: 0.9, D: 0.05}}
    nodes |= {(A, B, A): {A: 0.9}, (A, A, A, D): {END: 0.9}, (B,): {D: 0.0}, (C,): {D: 0.0}}
    found, _ = searched(world(nodes, length=6), beam_size=4, n_best=4, require=(D,))
    assert found == [
        ([D, END], 0.45),
        ([D, C, END], 0.5 * 0.02 * 0.9),
        ([A, A, A, D, END], 0.3 * 0.5 * 0.9 * 0.05 * 0.9),
    ]


def test_groups_are_over_when_all_of_them_are():
    """The first group ends at once; the penalty keeps the second from <end>, and it takes two more words."""
    nodes = {(): {END: 0.5, A: 0.375}, (A,): {B: 1.0}, (A, B): {END: 1.0}}
    arguments = {"beam_size": 2, "groups": 2}
    assert searched(world(nodes), diverse_beam_search, n_best=2, diversity=0.25, **arguments) == (
        [([END], 0.5), ([END], 0.5)],
        1,
    )
    assert searched(world(nodes), diverse_beam_search, n_best=2, diversity=0.5, **arguments) == (
        [([END], 0.5), ([A, B, END], 0.375)],
        3,
    )
    # The penalty is λ for each beam: 0.5 e^-0.3 < 0.375 is false, with two beams before it, it is true.
    assert math.exp(-0.25) * 0.5 > 0.375 > math.exp(-0.5) * 0.5
    three = searched(world(nodes), diverse_beam_search, n_best=3, diversity=0.25, beam_size=3, groups=3)
    assert three == ([([END], 0.5), ([END], 0.5), ([A, B, END], 0.375)], 3)


def test_one_image_of_a_batch_may_take_longer():
    """Search images together: the search continues until the last one ends, and the first result does not change."""
    nodes = {(): {END: 0.5, A: 0.5}, (A,): {B: 1.0}}
    first, second = world({(): {END: 0.75}}), world({(): {A: 1.0}, (A,): {B: 1.0}, (A, B): {END: 1.0}})
    worlds = world(nodes)
    worlds.images = 2
    worlds.probabilities = lambda image, prefix: (first, second)[image].probabilities(0, prefix)
    steps, inner = [], worlds.step

    def counted(token, state):
        steps.append(token.shape[1])
        return inner(token, state)

    worlds.step = counted
    found = worlds.search(beam_search, beam_size=2)
    assert [best.tokens for (best,) in found] == [[END], [A, B, END]]
    assert steps == [1, 2, 2]


@pytest.mark.parametrize(
    ("method", "bad", "message"),
    [
        (beam_search, {"n_best": 0}, r"decoding\.n_best \(0\) must be between 1 and decoding\.beam_size \(3\)"),
        (beam_search, {"beam_size": 2, "n_best": 3}, r"decoding\.n_best \(3\) must be between 1 and .* \(2\)"),
        (beam_search, {"beam_size": 0}, r"decoding\.n_best \(1\) must be between 1 and decoding\.beam_size \(0\)"),
        (diverse_beam_search, {"n_best": 0}, r"decoding\.n_best \(0\)"),
        (diverse_beam_search, {"n_best": 7}, r"decoding\.n_best \(7\)"),
        (diverse_beam_search, {"groups": 0}, r"decoding\.groups \(0\) must divide decoding\.beam_size \(6\)"),
        (diverse_beam_search, {"groups": -2}, r"decoding\.groups \(-2\)"),
        (diverse_beam_search, {"groups": 4}, r"decoding\.groups \(4\)"),
        (diverse_beam_search, {"diversity": -1e-9}, r"decoding\.diversity \(-1e-09\) must not be negative"),
    ],
)
def test_widths_that_cannot_be(method, bad, message):
    with pytest.raises(ConfigError, match=message):
        world({}).search(method, **bad)


def test_the_least_and_the_most_that_widths_may_be():
    assert len(world({}).search(beam_search, beam_size=1, n_best=1)[0]) == 1
    for groups, n_best in ((1, 6), (6, 6), (2, 1)):
        for diversity in (0.0, 1.0):
            arguments = {"beam_size": 6, "groups": groups, "n_best": n_best, "diversity": diversity}
            assert 1 <= len(world({}).search(diverse_beam_search, **arguments)[0]) <= n_best
