"""Searches by name, their words, seeds and defaults, and what happens to scores that are not finite."""

import math
from functools import partial
from typing import NamedTuple

import pytest
import torch
from toys import END, PAD, START, UNKNOWN

from captioning.data import Vocabulary
from captioning.decoding import beam_search, consensus_search, greedy_search, sample
from captioning.errors import ConfigError, DataError
from captioning.inference import generate, generate_texts, get_search, with_generator
from captioning.inference.generation import _count, _Watched, get_search, most_required, with_words
from captioning.models import Glimpse, Step

VOCABULARY = Vocabulary(["dog", "cat", "runs", "far"])
V = len(VOCABULARY)


class Steps(NamedTuple):
    number: torch.Tensor  # [B, K] of the image
    t: int = 0

    def select(self, index):
        return self._replace(number=self.number.gather(1, index))


class Written:
    """A model whose logits of image b at step t are table[b, t], whatever was written before."""

    longest = None

    def __init__(self, table):
        self.table, self.asked = table, []

    def begin(self, images, mask=None):
        self.asked.append((images, mask))
        return Steps(torch.arange(self.table.shape[0])[:, None]), "memory"

    def step(self, token, state, memory):
        assert memory == "memory" and token.shape == state.number.shape
        logits = self.table[state.number, state.t]
        return Step(logits, state._replace(t=state.t + 1), Glimpse(logits[..., :0], logits[..., :0]))


def table(*captions, dtype=torch.float64):
    """[B, T, V] logits in which the words of a caption, and then <end>, have four times the probability of the others;
    padding, <start> and <unk> have more than all."""
    length = 1 + max(map(len, captions))
    made = torch.zeros(len(captions), length, V, dtype=dtype)
    made[..., [PAD, START, UNKNOWN]] = 3.0
    for row, words in zip(made, captions, strict=True):
        for t, word in enumerate([*VOCABULARY.ids(words), END]):
            row[t, word] = math.log(4.0)
    return made


def written(model, search=greedy_search, **arguments):
    images = torch.zeros(model.table.shape[0], 1)
    return generate(model, images, search=partial(search, **arguments), vocabulary=VOCABULARY)


TOTAL = 4 + 4 + 3 * math.exp(3.0)  # of exp(logits): the word, four others, three specials


def test_the_specials_are_never_written_and_keep_their_probability():
    model = Written(table(["dog", "runs"], ["cat"]))
    images, mask = torch.zeros(2, 1), torch.ones(2, 1, dtype=torch.bool)
    (first,), (second,) = generate(model, images, mask, search=greedy_search, vocabulary=VOCABULARY)
    assert model.asked[0][0] is images and model.asked[0][1] is mask
    assert first.tokens == [*VOCABULARY.ids(["dog", "runs"]), END] and second.tokens == [*VOCABULARY.ids(["cat"]), END]
    assert first.log_prob == pytest.approx(3 * math.log(4 / TOTAL), abs=1e-12)
    assert second.log_prob == pytest.approx(2 * math.log(4 / TOTAL), abs=1e-12)
    texts = generate_texts(model, images, search=greedy_search, vocabulary=VOCABULARY)
    assert texts == ["dog runs", "cat"]


def test_the_images_of_an_ensemble_are_counted_by_the_first_members():
    model = Written(table(["dog"], ["cat"], ["far"]))
    found = generate(model, (torch.zeros(3, 1), torch.zeros(3, 5)), search=greedy_search, vocabulary=VOCABULARY)
    assert [VOCABULARY.decode(best.tokens) for (best,) in found] == [["dog"], ["cat"], ["far"]]


def test_rules_take_words():
    model = Written(table(["dog", "runs"], ["cat"]))
    (first,), (second,) = written(model, avoid=["dog"], allow=["<unk>"], max_length=2)
    assert first.tokens == second.tokens == [UNKNOWN, UNKNOWN]  # more probable than any word that is left
    # Two words and <end>: the best that hold "far" and do not end in it.
    rules = {"require": ["far"], "avoid_endings": ["far"], "beam_size": 30, "max_length": 3}
    (first,), (second,) = written(model, beam_search, **rules)
    assert VOCABULARY.decode(first.tokens) == ["far", "runs"] and first.tokens[-1] == END
    assert VOCABULARY.decode(second.tokens)[0] == "far" and second.tokens[-1] == END


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"avoid": ["dgo"]}, r"decoding\.avoid: 'dgo' is not in the vocabulary\. Did you mean 'dog'\?$"),
        (
            {"require": ["q"]},
            r"decoding\.require: 'q' is not in the vocabulary\. Choose a word of the training captions$",
        ),
        ({"allow": [2]}, r"decoding\.allow contains 2, which is not text\. Put the word in quotes"),
        ({"avoid_endings": "dog"}, r"decoding\.avoid_endings must be a list of words such as \[dog,ball\], not 'dog'"),
        ({"avoid": None}, r"decoding\.avoid must be a list of words such as \[dog,ball\], not null"),
    ],
)
def test_words_that_are_none_are_one_clear_error(arguments, message):
    with pytest.raises(ConfigError, match=message):
        written(Written(table(["dog"])), **arguments)


def test_a_word_is_an_id_and_rarity_is_given_to_the_search_that_asks_for_it():
    found = with_words(partial(partial(consensus_search, avoid=["far"], samples=3), avoid=["cat", "dog"]), VOCABULARY)
    assert found.func is consensus_search
    assert found.keywords == {"avoid": [5, 4], "samples": 3, "rarity": VOCABULARY.rarity()}
    own = with_words(partial(consensus_search, rarity=[1.0] * V), VOCABULARY)
    assert own.keywords == {"rarity": [1.0] * V}
    assert with_words(beam_search, VOCABULARY).keywords == {}


def test_names_and_their_defaults():
    """Beams are normalized by T^0.6 unless told otherwise, greedy decoding and samples not; consensus has a seed."""
    model = Written(table(["dog", "runs"], ["cat"]))
    for name, power in (("greedy", 0.0), ("beam", 0.6), ("diverse_beam", 0.6), ("sample", 0.0)):
        for group in written(model, get_search(name, max_length=3)):
            for one in group:
                assert one.score == pytest.approx(one.log_prob / len(one.tokens) ** power, abs=1e-12)
    for name in ("beam", "diverse_beam"):
        assert get_search(name).keywords == {"length_normalization": 0.6}
    for (best,) in written(model, get_search("beam", length_normalization=0.0, beam_size=2, max_length=3)):
        assert best.score == best.log_prob
    assert get_search("consensus").keywords == {"length_normalization": 0.6, "seed": 0}
    assert get_search("consensus", seed=3, samples=2).keywords["seed"] == 3
    assert get_search(len, key=1).func is len
    with pytest.raises(
        ConfigError, match=r"method='beams' does not exist\. Choose one of greedy, beam, diverse_beam, sample, con"
    ):
        get_search("beams")


def test_a_generator_takes_the_place_of_a_seed():
    found = with_generator(partial(sample, seed=5, samples=2))
    assert found.func is sample and set(found.keywords) == {"samples", "generator"}
    fresh = torch.Generator().manual_seed(5)
    assert torch.equal(found.keywords["generator"].get_state(), fresh.get_state())
    assert with_generator(partial(sample, samples=2)).keywords == {"samples": 2}
    assert with_generator(partial(sample, seed=None)).keywords == {}
    for seed in (-(2**63), 2**64 - 1, 0):
        assert "generator" in with_generator(partial(sample, seed=seed)).keywords
    for seed in (-(2**63) - 1, 2**64):
        with pytest.raises(ConfigError, match=rf"decoding\.seed={seed} must be at least -2\*\*63 and below 2\*\*64"):
            with_generator(partial(sample, seed=seed))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("search", [greedy_search, partial(beam_search, beam_size=3), partial(sample, samples=2)])
def test_scores_that_are_not_finite_name_their_pictures(value, search):
    """In any word, and at any step, of any row: an error after the search, which goes on with zeros meanwhile."""
    for image, t, word in ((1, 0, PAD), (0, 1, 5), (2, 2, V - 1)):
        model = Written(table(["dog", "runs"], ["dog", "runs"], ["dog", "runs"]))
        model.table[image, t, word] = value
        model.table[..., END] = -20.0  # so that all rows come to every step
        images, arguments = torch.zeros(3, 1), {"search": partial(search, max_length=3), "vocabulary": VOCABULARY}
        with pytest.raises(
            DataError, match=rf" 1 of \d+ images are not finite: number {image} of the batch\. Their features"
        ):
            generate(model, images, **arguments)
        with pytest.raises(DataError, match=rf" 1 of \d+ images are not finite: {'abc'[image]}\. Their features"):
            generate(model, images, names=["a", "b", "c"], **arguments)
    model.table[:] = value
    with pytest.raises(DataError, match=r" 3 of 3 images are not finite: a, b, c\. Their features"):
        generate(model, images, names=["a", "b", "c"], **arguments)


def test_one_row_of_an_image_is_enough():
    """Scores that are not finite after "cat" alone, which one of the first picture's two beams has written."""

    class AfterCat(Written):
        def step(self, token, state, memory):
            made = super().step(token, state, memory)
            return made._replace(logits=made.logits.masked_fill((token == 5)[..., None], math.nan))

    model = AfterCat(table(["dog", "runs"], ["far", "runs"]))
    model.table[0, 0, 5] = 1.0  # nearly as probable as "dog"
    model.table[1, 0, 6] = 1.0
    with pytest.raises(DataError, match=r" 1 of \d+ images are not finite: number 0 of the batch"):
        written(model, beam_search, beam_size=2, max_length=2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_many_words_of_large_scores_are_finite(dtype):
    """Their sum is 80 000, which float16 does not hold."""
    words = Vocabulary([f"w{number}" for number in range(7996)])
    model = Written(torch.full((1, 2, 8000), -10.0, dtype=dtype))
    model.table[0, 0, 9], model.table[0, 1, END] = 0.0, 0.0
    ((best,),) = generate(model, torch.zeros(1, 1), search=greedy_search, vocabulary=words)
    assert best.tokens == [9, END]
    assert best.log_prob == pytest.approx(-2 * math.log1p(7999 * math.exp(-10)), abs=1e-4)


def test_one_row_that_is_not_finite_is_enough_and_goes_on_with_zeros():
    logits = torch.ones(3, 2, V, dtype=torch.float64)
    logits[1, 1, 4] = math.nan
    logits[2, 0, 0] = math.inf
    watched = _Watched(lambda token, state: Step(logits, state, Glimpse(None, None)))
    expected = torch.ones(3, 2, V, dtype=torch.float64)
    expected[1, 1] = expected[2, 0] = 0
    assert torch.equal(watched(None, None).logits, expected)
    with pytest.raises(DataError, match=r" 2 of \d+ images are not finite: b, c\. "):
        watched.check("abc")


def test_images_are_counted_by_the_first_member():
    assert _count((torch.zeros(3, 2), torch.zeros(3, 5))) == _count(torch.zeros(3, 2)) == 3


def test_the_outer_settings_of_a_search_go_before_the_inner():
    inner = partial(greedy_search, max_length=3, seed=1)
    inner.note = "a partial with attributes is not joined with one around it"
    found = with_words(partial(inner, max_length=5), VOCABULARY)
    assert found.func is greedy_search and found.keywords == {"max_length": 5, "seed": 1}


def test_words_that_are_no_text_are_counted_before_they_are_refused():
    assert most_required(get_search("beam", require=[["dog"], "cat"]), max_length=11) == 3
    assert most_required(get_search("beam", require=["dog", "dog"], max_length=9)) == 3
    assert most_required(get_search("beam"), max_length=2) == 0
