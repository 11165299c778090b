"""Test words that a captioner borrows from stand-ins: scores, states, ids and articles."""

import pytest
import torch

from captioning.data import Vocabulary
from captioning.inference.borrowed_words import BorrowedWords, ExtendedVocabulary, article_of
from captioning.models import build_captioner

WORDS = ["a", "an", "horse", "horses", "dog", "runs", "in"]


@pytest.fixture
def vocabulary():
    return Vocabulary(WORDS)


@pytest.fixture
def extended(vocabulary):
    return ExtendedVocabulary(vocabulary, {"zebra": "horse", "ostrich": "dog", "dog": "horse", "okapi": "goat"})


@pytest.fixture
def captioner():
    torch.manual_seed(0)
    model = build_captioner(
        feature_size=6, grid=True, vocabulary_size=4 + len(WORDS), width=8, embedding_size=5, dropout=0.0
    )
    return model.double().eval()


def test_known_words_and_words_without_a_known_stand_in_are_not_borrowed(extended):
    assert extended.borrowed == {"zebra": "horse", "ostrich": "dog"}
    assert extended.words.words[-2:] == ("zebra", "ostrich") and extended.size == 4 + len(WORDS)
    assert [extended.words.words[index] for index in extended.stand_ins] == ["horse", "dog"]


def test_a_borrowed_word_has_the_score_and_the_embedding_of_its_stand_in(captioner, extended):
    features, allowed = torch.randn(2, 4, 6).double(), torch.tensor([[True, True], [True, False]])
    wrapped = BorrowedWords(captioner, extended.stand_ins, size=extended.size, allowed=allowed)
    with torch.inference_mode():
        state, memory = wrapped.begin(features)
        plain_state, plain_memory = captioner.begin(features)
        for word in ("<start>", "a", "zebra", "runs"):
            token = torch.full((2, 1), extended.ids[word])
            stand_in = torch.full((2, 1), extended.plain([extended.ids[word]])[0])
            scored = wrapped.step(token, state, memory)
            plain = captioner.step(stand_in, plain_state, plain_memory)
            state, plain_state = scored.state, plain.state
            assert torch.equal(scored.logits[..., : extended.size], plain.logits)
            assert torch.equal(scored.logits[0, :, extended.size :], plain.logits[0][:, extended.stand_ins])
            assert scored.logits[1, 0, -2] == plain.logits[1, 0, extended.stand_ins[0]]
            probabilities = scored.logits.softmax(-1)
            assert probabilities[1, 0, -1] == 0  # not allowed for this image
            of_image = plain.logits[1, 0].exp()
            total = of_image.sum() + of_image[extended.stand_ins[0]]
            assert probabilities[1, 0, -2].item() == pytest.approx((of_image[extended.stand_ins[0]] / total).item())


def test_articles_fit_borrowed_words_in_every_language(extended):
    assert extended.with_articles(["a", "ostrich", "runs"]) == ["an", "ostrich", "runs"]
    assert extended.with_articles(["an", "zebra", "in", "a", "ostrich"]) == ["a", "zebra", "in", "an", "ostrich"]
    assert extended.with_articles(["a", "in", "an", "horse"]) == ["a", "in", "an", "horse"]  # without "the"


def test_articles_fit_all_words_of_an_english_captioner():
    english = ExtendedVocabulary(Vocabulary([*WORDS, "the"]), {"zebra": "horse"})
    found = english.with_articles(["a", "elephant", "and", "an", "horse", "near", "a", "zebra"])
    assert " ".join(found) == "an elephant and a horse near a zebra"
    assert english.with_articles(["a"]) == ["a"] and english.with_articles([]) == []


def test_articles_follow_the_sound_of_a_word():
    for word in ("hour", "honest", "heirloom", "umbrella", "uncut", "unusual", "usher", "suv", "x-ray", "orange", "8"):
        assert article_of(word) == "an", word
    for word in ("uniform", "uniformed", "university", "unicycle", "european", "one", "one-legged", "unit", "useful",
                 "utensil", "horse", "house", "yellow", "tv", "9"):  # fmt: skip
        assert article_of(word) == "a", word


def test_plain_replaces_borrowed_words(extended):
    ids = extended.ids
    assert extended.plain([ids["a"], ids["zebra"], ids["<end>"]]) == [ids["a"], ids["horse"], ids["<end>"]]
