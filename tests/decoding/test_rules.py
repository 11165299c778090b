"""Test each rule at its boundaries: scores by hand, and the allowed words after every prefix."""

import dataclasses
import inspect
import itertools
import math
import random

import pytest
import torch
from prefixes import END, PAD, START, draw_rules, permitted

from captioning.decoding import Rules, beam_search, consensus_search, diverse_beam_search, greedy_search, sample
from captioning.decoding.constraints import ConstraintState
from captioning.errors import ConfigError

INF = math.inf


@pytest.mark.parametrize(
    ("rules", "length", "score"),
    [
        ({}, 4, -6.0),
        ({"length_normalization": 1.0}, 4, -1.5),
        ({"length_normalization": 0.5}, 4, -3.0),
        ({"length_normalization": 2.0}, 2, -1.5),
        ({"length_penalty": 1.0}, 1, -6.0),
        ({"length_penalty": 1.0}, 7, -3.0),  # (5 + 7) / 6 = 2
        ({"length_penalty": 2.0}, 7, -1.5),
        ({"length_penalty": 0.5}, 19, -3.0),
        ({"length_penalty": 1.0, "length_normalization": 1.0}, 7, -3.0),  # it replaces the other one
    ],
)
def test_scores_by_hand(rules, length, score):
    log_prob = torch.tensor([-6.0, -INF], dtype=torch.float64)
    for given in (length, torch.tensor(length), torch.tensor([length, length])):
        assert Rules(**rules).score(log_prob, given).tolist() == pytest.approx([score, -INF], rel=1e-15)
    # The best score that a row can still reach: its current log_prob at the greatest length.
    assert Rules(**rules, max_length=length).bound(log_prob).tolist() == pytest.approx([score, -INF], rel=1e-15)


def test_the_defaults_are_no_rule_at_all():
    rules = Rules()
    assert rules.max_length is None and rules.limit == 20 and rules.min_length == rules.no_repeat_ngram == 0
    assert rules.length_normalization == rules.length_penalty == 0
    assert rules.avoid == rules.allow == rules.require == rules.avoid_endings == ()


def test_the_least_and_the_most_that_rules_take():
    assert Rules(max_length=1).max_length == 1
    assert Rules(min_length=4, max_length=4).min_length == 4
    assert Rules(require=(3, 4, 4, 3), max_length=3)  # two words and <end>
    assert Rules(length_normalization=0, length_penalty=0, no_repeat_ngram=0, min_length=0)


def possible(referee, vocabulary, rows):
    """Return for each row the words that may come next; their log-probabilities must not change."""
    log_probs = torch.arange(1.0, 1 + rows * vocabulary, dtype=torch.float64).neg().view(1, rows, vocabulary)
    before = log_probs.clone()
    referee.rule_out(log_probs)
    kept = log_probs > -INF
    assert torch.equal(log_probs[kept], before[kept])
    return [{word for word in range(vocabulary) if row[word]} for row in kept[0].tolist()]


BY_HAND = [
    {"min_length": 1},
    {"min_length": 3},
    {"min_length": 4},
    {"no_repeat_ngram": 1},
    {"no_repeat_ngram": 2},
    {"no_repeat_ngram": 3},
    {"no_repeat_ngram": 4},
    {"avoid_endings": (0, 3)},
    {"avoid_endings": (0, 1, 3)},
    {"require": (3,)},
    {"require": (0, 3)},
    {"require": (0, 1, 3)},
    {"require": (3, 0, 3), "no_repeat_ngram": 1},
    {"require": (3,), "avoid_endings": (3,)},
    {"require": (1,), "forbidden": (0, 1), "allow": (1,), "min_length": 3},
    {"forbidden": (0, 1)},
    {"forbidden": (0, 1), "allow": (0,)},
    {"forbidden": (0, 1), "allow": (0,), "avoid": (0,)},  # avoided nevertheless
    {"avoid": (3,), "allow": (3,)},
]


@pytest.mark.parametrize("seed", range(len(BY_HAND) + 60))
def test_what_may_be_written_after_every_prefix(seed):
    """Use all prefixes of four words, <end> included, as parallel rows.

    There are many parents with few children, in an order of their own, so that a row's history must follow its parents.
    """
    vocabulary, length = 4, 4
    generator = random.Random(seed)
    rules = BY_HAND[seed] if seed < len(BY_HAND) else draw_rules(generator, vocabulary, length)
    given = {key: value for key, value in rules.items() if key != "forbidden"}
    forbidden = rules.get("forbidden", ())
    referee = ConstraintState(
        Rules(max_length=length, **given), forbidden=forbidden, end=END, batch=1, device=torch.device("cpu")
    )
    prefixes, seen = [()], set()
    for _ in range(length):
        found = possible(referee, vocabulary, len(prefixes))
        for prefix, words in zip(prefixes, found, strict=True):
            assert words == {w for w in range(vocabulary) if permitted(prefix, w, rules, max_length=length)}, prefix
            seen |= words
        grown = [(k, word) for k, words in enumerate(found) for word in sorted(words - {END})]
        generator.shuffle(grown)
        if not grown:
            break
        parents, tokens = (torch.tensor([part]) for part in zip(*grown, strict=True))
        required = sorted(set(rules.get("require", ())))
        if required:
            held = [len({*prefixes[k], word} & set(required)) for k, word in grown]
            assert referee.banks(parents, tokens).tolist() == [held]
        referee.advance(parents, tokens)
        prefixes = [(*prefixes[k], word) for k, word in grown]
    assert seen or not set(range(vocabulary)) - set(forbidden)


def test_images_of_a_batch_have_histories_of_their_own():
    rules = {"no_repeat_ngram": 2, "avoid_endings": (4,), "require": (3,), "min_length": 2}
    both = {"forbidden": (PAD, START), "end": END, "device": torch.device("cpu")}
    together = ConstraintState(Rules(max_length=5, **rules), batch=2, **both)
    apart = [ConstraintState(Rules(max_length=5, **rules), batch=1, **both) for _ in range(2)]
    generator = torch.Generator().manual_seed(0)
    for t in range(4):
        log_probs = torch.rand(2, 1 if t == 0 else 3, 6, generator=generator)
        alone = [log_probs[b : b + 1].clone() for b in range(2)]
        together.rule_out(log_probs)
        for b in range(2):
            apart[b].rule_out(alone[b])
            assert torch.equal(log_probs[b], alone[b][0])
        parents = torch.randint(0, 1 if t == 0 else 3, (2, 3), generator=generator)
        tokens = torch.randint(3, 6, (2, 3), generator=generator)
        counts = together.banks(parents, tokens)
        together.advance(parents, tokens)
        for b in range(2):
            assert torch.equal(apart[b].banks(parents[b : b + 1], tokens[b : b + 1])[0], counts[b])
            apart[b].advance(parents[b : b + 1], tokens[b : b + 1])


def test_a_repeated_n_gram_is_one_of_the_words_before_and_of_no_others():
    """After 3 4 3 4 3 with n = 3, only 3 4 3 → 4 has occurred; with n = 2, 3 → 4 and not 3 → 3."""
    for n, out in ((1, {3, 4}), (2, {4}), (3, {4}), (4, {4}), (5, set())):
        referee = ConstraintState(Rules(no_repeat_ngram=n), forbidden=(), end=END, batch=1, device=torch.device("cpu"))
        for word in (3, 4, 3, 4, 3):
            referee.advance(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[word]]))
        assert possible(referee, 6, 1) == [set(range(6)) - out], n


def test_required_words_are_pressed_for_when_the_room_is_just_enough():
    """Of six tokens two must be 3 and 4 and the last <end>: three may be anything, then only these are left."""
    rules = Rules(max_length=6, require=(3, 4))

    def after(*words):
        referee = ConstraintState(rules, forbidden=(), end=END, batch=1, device=torch.device("cpu"))
        for word in words:
            referee.advance(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[word]]))
        return possible(referee, 6, 1)[0]

    anything = set(range(6)) - {END}
    assert after(5, 5) == anything
    assert after(5, 5, 5) == {3, 4}
    assert after(5, 5, 5, 3) == {4}
    assert after(5, 5, 3) == anything
    assert after(5, 5, 3, 3) == {4}
    assert after(5, 3, 5, 4) == anything | {END}
    assert after(4, 3) == anything | {END}
    assert after(5, 5, 5, 3, 4) == anything | {END}


def test_an_ending_is_avoided_before_the_end_and_at_the_last_step():
    rules = Rules(max_length=3, avoid_endings=(3, 5))
    for first, second in itertools.product((3, 4, 5), repeat=2):
        referee = ConstraintState(rules, forbidden=(), end=END, batch=1, device=torch.device("cpu"))
        assert possible(referee, 6, 1) == [set(range(6))]
        referee.advance(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[first]]))
        assert possible(referee, 6, 1) == [set(range(6)) - ({END} if first != 4 else set())]
        referee.advance(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[second]]))
        assert possible(referee, 6, 1) == [set(range(6)) - {3, 5} - ({END} if second != 4 else set())]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"max_length": 0}, r"decoding\.max_length \(0\) must be at least 1"),
        ({"min_length": 2, "max_length": 1}, r"decoding\.min_length \(2\) must not exceed decoding\.max_length \(1\)"),
        ({"require": (3, 4, 3), "max_length": 2}, r"decoding\.require \(2 words\) and <end> must fit .* \(2\)"),
        ({"min_length": -1}, r"decoding\.min_length \(-1\) must not be negative"),
        ({"length_normalization": -0.5}, r"decoding\.length_normalization \(-0\.5\) must not be negative"),
        ({"length_penalty": -0.5}, r"decoding\.length_penalty \(-0\.5\) must not be negative"),
        ({"no_repeat_ngram": -1}, r"decoding\.no_repeat_ngram \(-1\) must not be negative"),
        ({"require": {3}}, r"decoding\.require must be a list of words, not \{3\}"),
        ({"allow": "34"}, r"decoding\.allow must be a list of words, not '34'"),
        ({"avoid_endings": (3, True)}, r"decoding\.avoid_endings contains True, but a search takes ids"),
    ],
)
def test_rules_that_cannot_be(bad, message):
    with pytest.raises(ConfigError, match=message):
        Rules(**bad)


def test_rules_that_exclude_each_other():
    at = {"end": END, "batch": 1, "device": torch.device("cpu")}
    for bad, out in (({"avoid": (3, END)}, ()), ({}, (END,))):
        with pytest.raises(ConfigError, match=r"decoding\.avoid must not contain <end>"):
            ConstraintState(Rules(**bad), forbidden=out, **at)
    for bad, ids in (({"require": (5, 3)}, "3"), ({"require": (5, END)}, "2"), ({"require": (4,), "avoid": (4,)}, "4")):
        with pytest.raises(ConfigError, match=rf"decoding\.require contains words that are never .* \(ids \[{ids}\]\)"):
            ConstraintState(Rules(**bad), forbidden=(3,), **at)
    ConstraintState(Rules(require=(3,), allow=(3,)), forbidden=(3,), **at)


def test_a_search_takes_the_rules_one_by_one():
    """The configuration check sees the search's own arguments, then those of Rules."""
    for search in (greedy_search, beam_search, sample, consensus_search):
        names = list(inspect.signature(search).parameters)
        assert names[:2] == ["step", "state"] and names[-11:] == [field.name for field in dataclasses.fields(Rules)]
        assert "rules" not in names and len(names) == len(set(names))
        assert set(search.__annotations__) == set(names)
        assert inspect.signature(search).parameters["max_length"].default is None


@pytest.mark.parametrize(
    ("search", "defaults"),
    [
        (greedy_search, {}),
        (beam_search, {"beam_size": 3, "n_best": 1}),
        (diverse_beam_search, {"beam_size": 6, "groups": 3, "diversity": 0.5, "n_best": 1}),
        (sample, {"samples": 1, "temperature": 1.0, "top_k": None, "top_p": None, "generator": None, "seed": None}),
        (
            consensus_search,
            {"beam_size": 15, "finalists": 5, "samples": 40, "temperature": 0.7, "n_best": 1, "rarity": None,
             "generator": None, "seed": None},
        ),
    ],
)  # fmt: skip
def test_defaults(search, defaults):
    own = {name: each.default for name, each in inspect.signature(search).parameters.items()}
    rules = {field.name: field.default for field in dataclasses.fields(Rules)}
    needed = dict.fromkeys(("step", "state", "batch", "start", "end"), inspect.Parameter.empty)
    assert own == needed | {"forbidden": ()} | defaults | rules
