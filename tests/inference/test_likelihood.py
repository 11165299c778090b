"""Log-probabilities of given captions, by the model's steps taken one at a time and a softmax in NumPy."""

import math

import numpy as np
import pytest
import torch
from toys import END, START, UNKNOWN

from captioning.data import Vocabulary
from captioning.errors import DataError
from captioning.inference.likelihood import score_texts

VOCABULARY = Vocabulary(["dog", "cat", "runs"])
TEXTS = [["A dog runs.", "cat", "", "dog dog cat zebra runs"], [], ["runs"]]
IDS = [[[UNKNOWN, 4, 6, END], [5, END], [END], [4, 4, 5, UNKNOWN, 6, END]], [], [[6, END]]]
WORDS = [["<unk>", "dog", "runs"], ["cat"], [], ["dog", "dog", "cat", "<unk>", "runs"]]


@pytest.fixture
def captioner(toy):
    model = toy(vocabulary_size=7)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=1.0)
    return model


def by_hand(model, features, ids) -> list[float]:
    (state, memory), token, parts = model.begin(features[None]), START, []
    for word in ids:
        logits, state, _ = model.step(torch.tensor([[token]]), state, memory)
        scores = np.exp(logits[0, 0].detach().numpy())
        parts.append(math.log(scores[word] / scores.sum()))
        token = word
    return parts


def test_every_word_is_scored_after_the_true_ones_before_it(captioner):
    images = torch.randn(3, 4, 6, dtype=torch.float64)
    found = score_texts(captioner, images, TEXTS, vocabulary=VOCABULARY)
    assert [len(group) for group in found] == [4, 0, 1]
    for b, group in enumerate(found):
        for scored, text, ids in zip(group, TEXTS[b], IDS[b], strict=True):
            parts = by_hand(captioner, images[b], ids)
            assert scored.text == text
            assert scored.word_log_probs == pytest.approx(parts, rel=1e-10)
            assert scored.log_prob == pytest.approx(sum(parts), rel=1e-10)
            assert scored.perplexity == pytest.approx(np.prod(np.exp(parts)) ** (-1 / len(parts)), rel=1e-10)
            assert scored.unknown == ids.count(UNKNOWN)
    assert [scored.tokens for scored in found[0]] == WORDS


def test_no_captions_at_all(captioner):
    assert score_texts(captioner, torch.randn(2, 4, 6, dtype=torch.float64), [[], []], vocabulary=VOCABULARY) == [
        [],
        [],
    ]


def test_the_perplexity_ends_at_the_largest_exponent(captioner):
    with torch.no_grad():
        for parameter in captioner.decoder.readout.parameters():
            parameter.mul_(1e6)
    images = torch.randn(1, 4, 6, dtype=torch.float64)
    ((scored,),) = score_texts(captioner, images, [["dog cat dog cat runs dog"]], vocabulary=VOCABULARY)
    assert -scored.log_prob / 7 > 700 and scored.perplexity == math.exp(700)


def test_images_without_finite_scores_are_named(captioner):
    images = torch.randn(4, 4, 6, dtype=torch.float64)
    images[1, 2] = images[3, 0] = torch.nan
    with pytest.raises(DataError, match=r"images number \[1, 3\] of the batch"):
        score_texts(captioner, images, [["dog cat"], ["dog", "cat"], ["dog"], ["dog"]], vocabulary=VOCABULARY)
