"""Captioners whose vocabulary has parts of words: words, texts, maps, endings and rules are those of whole words."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from toys import END, START

from captioning.data import Vocabulary
from captioning.decoding import Hypothesis, beam_search, greedy_search, sample
from captioning.errors import CheckpointError, ConfigError
from captioning.inference import Predictor, generate
from captioning.inference.generation import with_words
from captioning.models import Glimpse, Step
from captioning.text import make_tokenizer

CAPTIONS = ["a dogsled", "a dog sleds", "dogs sled a dog"] * 3


@pytest.fixture(scope="module")
def vocabulary():
    tokenizer = make_tokenizer("bpe:24").fit(CAPTIONS)
    return Vocabulary.build([tokenizer(caption) for caption in CAPTIONS], min_count=5, tokenizer=tokenizer)


class Fixed:
    """A model whose next word has fixed scores, whatever it read."""

    longest = None

    def __init__(self, scores):
        self.scores = scores

    def begin(self, images, mask=None):
        return Still(torch.zeros(len(images), 1)), None

    def step(self, token, state, memory):
        logits = self.scores.expand(*token.shape, -1).clone()
        return Step(logits, state, Glimpse(logits[..., :0], logits[..., :0]))


class Still(NamedTuple):
    rows: torch.Tensor  # [B, K]

    def select(self, index):
        return Still(self.rows.gather(1, index))


def test_all_learned_pieces_are_words_of_the_vocabulary(vocabulary):
    tokenizer = vocabulary.tokenizer
    assert set(tokenizer.learned_pieces()) == set(vocabulary.words[4:])
    assert len(vocabulary.words[4:]) == 24  # although many occur less often than min_count
    for caption in CAPTIONS:
        ids = vocabulary.encode_text(caption)
        assert vocabulary.unknown not in ids and vocabulary.text(ids) == caption
        assert vocabulary.decode(ids) == caption.split()
    assert vocabulary.coverage([["dog"], ["zebra"]]) < 1


def test_a_cut_caption_ends_with_a_whole_word(vocabulary):
    words = ["a", "gogo", "a"]
    pieces = vocabulary.tokenizer.pieces(words)
    assert len(pieces) > 4
    for length in range(len(pieces) + 1):
        ids = vocabulary.encode(words, max_length=length)
        assert ids[0] == START and ids[-1] == END and len(ids) <= length + 2
        kept = vocabulary.decode(ids)
        assert kept == words[: len(kept)]
    assert vocabulary.decode(vocabulary.encode(words)) == words


@pytest.mark.parametrize("search", [greedy_search, partial(beam_search, beam_size=4), partial(sample, samples=6)])
def test_no_caption_ends_within_a_word(vocabulary, search):
    """A model that loves unfinished pieces, and then <end>."""
    scores = torch.zeros(len(vocabulary), dtype=torch.float64)
    scores[vocabulary.unfinished], scores[END] = 3.0, 2.0
    torch.manual_seed(0)
    found = generate(Fixed(scores), torch.zeros(3, 1), search=search, vocabulary=vocabulary, max_length=5)
    for group in found:
        for hypothesis in group:
            pieces = vocabulary.pieces(hypothesis.tokens)
            assert len(hypothesis.tokens) <= 5 and (not pieces or vocabulary.tokenizer.is_finished(pieces[-1]))


def test_the_model_limits_a_search_that_has_no_limit(vocabulary):
    assert with_words(partial(beam_search), vocabulary, max_length=7).keywords["max_length"] == 7
    assert with_words(partial(beam_search, max_length=None), vocabulary, max_length=7).keywords["max_length"] == 7
    assert with_words(partial(beam_search, max_length=9), vocabulary, max_length=7).keywords["max_length"] == 9
    assert "max_length" not in with_words(partial(beam_search), vocabulary).keywords


@pytest.mark.parametrize("rule", ["avoid", "require", "avoid_endings"])
def test_rules_about_words_need_whole_words(vocabulary, rule):
    """ "dog" may be written as "do@@ g", and the piece "dog" may end another word."""
    with pytest.raises(ConfigError, match=rf"^decoding\.{rule} is for vocabularies of whole words.*tokenizer=ptb$"):
        with_words(partial(beam_search, **{rule: ["dog"]}), vocabulary)
    free = with_words(partial(beam_search, **{rule: []}, allow=["<unk>"]), vocabulary).keywords
    assert free["allow"] == [vocabulary.unknown] and free["avoid_endings"] == sorted(vocabulary.unfinished)


def test_rewards_compare_the_words_that_scores_compare():
    tokenizer = make_tokenizer("unicode")
    vocabulary = Vocabulary(["小狗", "dog"], tokenizer)  # an entry of two characters, as a dictionary's word
    assert vocabulary.scored_words([4, 5, END]) == ["小", "狗", "dog"]
    assert Vocabulary(["a", "'s"]).scored_words([4, 5, END]) == ["a", "'s"]


def test_a_word_has_the_mean_map_of_its_pieces(vocabulary, toy):
    metadata = {
        "vocabulary": vocabulary.state_dict(),
        "tokenizer": vocabulary.tokenizer.state_dict(),
        "config": {"transform": {"_target_": "captioning.data.Transform", "size": 8}, "data": {"max_length": 11}},
        "features": {"size": 6, "grid": True},
    }
    model = toy(vocabulary_size=len(vocabulary), recurrence="adaptive")
    made = Predictor(model, metadata, encoder_weights=None, path=Path("x.ckpt"))
    assert made.max_length == 11
    ids = vocabulary.encode(["a", "gogo", "dog"])[1:]
    groups = vocabulary.tokenizer.groups(vocabulary.pieces(ids))
    random = np.random.default_rng(0)
    weights = torch.tensor(random.dirichlet(np.ones(5), len(ids)))[:, :4]  # the fifth is the sentinel's
    places = torch.tensor([3, 1, 1, 2, 0, 1, 2, 3][: len(ids)])
    caption = made.as_caption(Hypothesis(ids, -2.0, -1.0, weights, places), (30, 20))
    assert (caption.text, caption.tokens) == ("a gogo dog", ["a", "gogo", "dog"])
    means = [weights[group].mean(0).tolist() for group in groups]
    np.testing.assert_allclose(caption.attention, means, rtol=1e-6)
    np.testing.assert_allclose(caption.sentinel, 1 - np.sum(means, 1), rtol=1e-5)
    assert len(groups[1]) > 1 and caption.places[0] == 3
    assert caption.places[1] == np.bincount(places[groups[1]]).argmax()


def test_texts_are_joined_as_the_language_writes_them():
    chinese = make_tokenizer("unicode")
    vocabulary = Vocabulary.build([chinese("一只红色的狗。"), chinese("狗 dog")], min_count=1, tokenizer=chinese)
    assert vocabulary.text(vocabulary.encode_text("红色的狗 dog！")) == "红色的狗 dog"


def test_a_damaged_tokenizer_is_a_damaged_checkpoint():
    with pytest.raises(CheckpointError, match=r"'tokenizer' is damaged"):
        Vocabulary.from_state_dict(Vocabulary(["a"]).state_dict(), {"name": "no such"})


def test_a_given_word_with_unknown_characters_is_one_word(vocabulary, toy):
    metadata = {
        "vocabulary": vocabulary.state_dict(),
        "tokenizer": vocabulary.tokenizer.state_dict(),
        "config": {"transform": {"_target_": "captioning.data.Transform", "size": 8}},
        "features": {"size": 6, "grid": True},
    }
    made = Predictor(toy(vocabulary_size=len(vocabulary)), metadata, encoder_weights=None, path=Path("x.ckpt"))
    made.encode = lambda pictures: torch.ones(len(pictures), 4, 6, dtype=torch.float64)
    (caption,) = made.forced_captions(np.zeros((8, 8, 3), np.uint8), "a dñog ñ ñdog ñdañ dog")
    assert caption.tokens == ["a", "d<unk>og", "<unk>", "<unk>dog", "<unk>da<unk>", "dog"]
    assert caption.attention.shape[0] == 6
    assert caption.text == " ".join(caption.tokens)
