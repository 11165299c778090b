"""Rules about phrases: what may follow some words, exact beams, a slow search, and samples that obey."""

import pytest
import torch

from captioning.decoding import PhraseRules, Rules, beam_search, consensus_search, greedy_search, sample
from captioning.decoding.constraints import ConstraintState
from captioning.errors import ConfigError
from tests.decoding.prefixes import (
    END,
    breaks,
    draw_world,
    every_caption,
    slow_search,
    worth,
)

A, BLACK, AND, DOG, RUNS, IN = 3, 4, 5, 6, 7, 8


def draw_phrases(generator, vocabulary):
    """Sample rules about phrases, with overlapping lists."""

    def some(most):
        return tuple(generator.sample(range(vocabulary), generator.randint(0, most)))

    words = [word for word in range(vocabulary) if word != END]
    never = tuple(tuple(generator.choices(words, k=generator.choice([1, 2, 2, 3]))) for _ in range(3))
    once = tuple(word for word in some(2) if word != END)
    modifiers = tuple(word for word in some(2) if word != END)
    return PhraseRules(
        some(2), modifiers, some(3), once, generator.choice([0, 0, 1, 2]), never[: generator.randint(0, 3)]
    )


def facts(hypotheses):
    return [
        (tuple(each.tokens), pytest.approx(each.log_prob, abs=1e-6), pytest.approx(each.score, abs=1e-6))
        for each in hypotheses
    ]


def follows(words, phrases, vocabulary=9):
    """Return the words that may follow some words, from the rules' own code."""
    referee = ConstraintState(Rules(phrases=phrases), forbidden=(), end=END, batch=1, device=torch.device("cpu"))
    for word in words:
        referee.advance(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[word]]))
    log_probs = torch.zeros(1, 1, vocabulary)
    referee.rule_out(log_probs)
    return {word for word, value in enumerate(log_probs[0, 0].tolist()) if value == 0}


@pytest.mark.parametrize(
    ("words", "may_end"),
    [
        ((A, BLACK), False),
        ((A, BLACK, AND, BLACK), False),
        ((A, BLACK, DOG), True),
        ((A, DOG, IN, BLACK), True),  # "a dog in black": no article opened the phrase
        ((A, DOG, AND, A, BLACK), False),
        ((A,), True),  # an opener alone does not wait
        ((BLACK, AND, BLACK), True),
        ((), True),
    ],
)
def test_a_noun_phrase_needs_a_noun(words, may_end):
    phrases = PhraseRules(openers=(A,), modifiers=(BLACK, AND), closers=(RUNS, IN, END))
    expected = set(range(9)) if may_end else set(range(9)) - {RUNS, IN, END}
    assert follows(words, phrases) == expected


def test_things_are_named_once_and_words_are_not_repeated_at_once():
    assert follows((A, DOG, IN), PhraseRules(once=(DOG, RUNS))) == set(range(9)) - {DOG}
    assert follows((A, BLACK, AND), PhraseRules(distance=2)) == set(range(9)) - {BLACK, AND}
    assert follows((A, BLACK, AND, DOG), PhraseRules(distance=1)) == set(range(9)) - {DOG}


def test_phrases_that_never_occur():
    phrases = PhraseRules(never=((A, DOG), (A, RUNS), (DOG, IN, A), (IN,)))
    assert follows((), phrases) == set(range(9)) - {IN}
    assert follows((BLACK, A), phrases) == set(range(9)) - {DOG, RUNS, IN}
    assert follows((DOG, IN), phrases) == set(range(9)) - {A, IN}
    assert follows((BLACK, IN), phrases) == set(range(9)) - {IN}


def test_words_after_those_of_the_rules_are_free():
    """Borrowed words have ids above all words of the rules."""
    phrases = PhraseRules(openers=(A,), modifiers=(BLACK,), closers=(END,), once=(BLACK,))
    assert END in follows((A, BLACK, 40), phrases, vocabulary=41)
    assert follows((40, 40), phrases, vocabulary=41) == set(range(41))


def test_wide_beams_with_rules_about_phrases_are_exact():
    changed = 0
    for seed in range(2000, 2160):
        model, rules, generator = draw_world(seed)
        rules["phrases"] = draw_phrases(generator, model.vocabulary)
        plain = model.search(beam_search, beam_size=model.vocabulary**model.length, **(rules | {"phrases": None}))
        found = model.search(beam_search, beam_size=model.vocabulary**model.length, n_best=2, **rules)
        for image, hypotheses in enumerate(found):
            finished, unfinished = every_caption(model, image, rules, max_length=model.length)
            ranked = [(tokens, p, worth(tokens, p, rules)) for tokens, p in (finished or unfinished).items()]
            assert sorted(ranked, key=lambda item: -item[2])[:2] == facts(hypotheses), (seed, rules)
            changed += [each.tokens for each in plain[image]] != [each.tokens for each in hypotheses[:1]]
    assert changed > 30


def test_narrow_beams_equal_a_slow_search():
    for seed in range(2200, 2320):
        model, rules, generator = draw_world(seed)
        rules["phrases"] = draw_phrases(generator, model.vocabulary)
        width = generator.randint(1, 4)
        for image, hypotheses in enumerate(model.search(beam_search, beam_size=width, **rules)):
            wanted = slow_search(model, image, [width], n_best=1, rules=rules, max_length=model.length)
            assert wanted == facts(hypotheses), (seed, rules)


def test_every_search_obeys():
    broken = words = 0
    for seed in range(60):
        model, rules, generator = draw_world(seed)
        phrases = draw_phrases(generator, model.vocabulary)
        for search, options in ((sample, {"samples": 4}), (greedy_search, {}), (consensus_search, {"samples": 4})):
            for given in (None, phrases):
                for image, hypotheses in enumerate(model.search(search, phrases=given, **options, **rules)):
                    known = rules | {"phrases": phrases}
                    for each in hypotheses:
                        tokens = tuple(each.tokens)
                        assert each.log_prob == pytest.approx(model.log_prob(image, tokens), abs=1e-5)
                        for t, word in enumerate(tokens):
                            if given is None:
                                broken += breaks(tokens[:t], word, known)
                            else:
                                words += 1
                                assert not breaks(tokens[:t], word, known)
    assert broken > 50 and words > 500


def test_other_values_are_one_clear_error():
    with pytest.raises(ConfigError, match=r"decoding\.phrases must be a PhraseRules.*set decoding\.avoid"):
        Rules(phrases=["a dog"])
