"""Rules about phrases in English: correct captions are allowed, and broken ones are not."""

import pytest
import torch

from captioning.data import Vocabulary
from captioning.decoding import Rules
from captioning.decoding.constraints import ConstraintState
from captioning.inference.borrowed_words import ExtendedVocabulary
from captioning.inference.english_phrases import english_phrases

SENTENCES = [
    "a black and white dog is running through the grass",
    "a man in black and white is standing in front of a building",
    "two young children are playing with three dogs in a large , red car",
    "a group of sheep near a dog",
    "a couple of zebras and another zebra are on the grass .",
    "a little brown haired boy is wearing a red and blue shirt",
]
BROKEN = {
    "a black and white is": "is",
    "a group of young are": "are",
    "two little <end>": "<end>",
    "a small brown and white .": ".",
    "a dog and a dog": "dog",
    "a white and white": "white",
    "a haired haired": "haired",
    "a dogs": "dogs",
    "another zebras": "zebras",
    "a group of zebra": "zebra",
    "a pile of car": "car",
    "a group of a": "a",
}
THINGS = ["dog", "dogs", "car", "cars", "sheep", "zebra", "zebras"]


@pytest.fixture(scope="module")
def words():
    every = sorted({word for line in [*SENTENCES, *BROKEN] for word in line.split()} - {"<end>", "zebra", "zebras"})
    return ExtendedVocabulary(Vocabulary([*every, "horse", "horses"]), {"zebra": "horse", "zebras": "horses"})


def refused(line, words):
    """Return the words of a caption that the rules exclude, in their order."""
    vocabulary, out = words.words, []
    phrases = english_phrases(words, THINGS)
    referee = ConstraintState(
        Rules(phrases=phrases), forbidden=(), end=vocabulary.end, batch=1, device=torch.device("cpu")
    )
    for word in line.split():
        log_probs = torch.zeros(1, 1, len(vocabulary))
        referee.rule_out(log_probs)
        if log_probs[0, 0, words.ids[word]] < 0:
            out.append(word)
        referee.advance(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[words.ids[word]]]))
    return out


@pytest.mark.parametrize("line", SENTENCES)
def test_correct_captions_are_allowed(line, words):
    assert refused(f"{line} <end>", words) == []


@pytest.mark.parametrize("line", BROKEN)
def test_broken_captions_are_refused_at_the_word_that_breaks_them(line, words):
    assert refused(line, words) == [BROKEN[line]]
