"""Losses against two-line formulas."""

import pytest
import torch
from conftest import PAD

from captioning.data.datasets import CaptionBatch
from captioning.objectives import CrossEntropy


@pytest.fixture
def batch(toy_tokens):
    return CaptionBatch(torch.arange(3), torch.randn(3, 4, 6, dtype=torch.float64), None, toy_tokens)


def test_cross_entropy_is_summed_over_words_and_averaged_over_captions(toy, batch):
    model = toy()
    loss = CrossEntropy(doubly_stochastic=0.0)(model, batch)
    decoded = model(batch.images, batch.tokens)
    targets = batch.tokens[..., 1:].flatten()[decoded.index]
    nll = -sum(row.log_softmax(-1)[target] for row, target in zip(decoded.logits, targets, strict=True))
    assert loss.parts["cross_entropy"].item() == pytest.approx(nll.item() / 8, rel=1e-6)  # 8 captions
    assert loss.words == (batch.tokens[..., 1:] != PAD).sum()


def test_doubly_stochastic_term_is_summed_over_places_and_averaged_over_captions(toy, batch):
    model = toy()
    loss = CrossEntropy(doubly_stochastic=0.7)(model, batch)
    alpha = model(batch.images, batch.tokens).glimpse.weights
    terms = [
        sum((1 - alpha[b, k, :, i].sum()) ** 2 for i in range(4))
        for b in range(3)
        for k in range(3)
        if (b, k) != (2, 2)  # the missing caption
    ]
    assert loss.parts["doubly_stochastic"].item() == pytest.approx(0.7 * sum(terms).item() / 8)
    assert loss.total.item() == pytest.approx(sum(part.item() for part in loss.parts.values()))


def test_label_smoothing(toy, batch):
    model = toy()
    loss = CrossEntropy(doubly_stochastic=0.0, label_smoothing=0.1)(model, batch)
    decoded = model(batch.images, batch.tokens)
    log_probs = decoded.logits.log_softmax(-1)
    targets = batch.tokens[..., 1:].flatten()[decoded.index]
    smooth = 0.9 * torch.nn.functional.one_hot(targets, 11) + 0.1 / 11
    assert loss.total.item() == pytest.approx(-(smooth * log_probs).sum().item() / 8, rel=1e-6)


def test_padding_and_missing_captions_change_no_loss(toy, batch):
    model, objective = toy(), CrossEntropy()
    padded = batch._replace(tokens=torch.nn.functional.pad(batch.tokens, (0, 3, 0, 2), value=PAD))
    torch.testing.assert_close(objective(model, padded).total, objective(model, batch).total)


def test_without_attention_there_is_no_doubly_stochastic_part(toy, batch):
    loss = CrossEntropy(doubly_stochastic=1.0)(toy(attention="none"), batch)
    assert loss.parts.keys() == {"cross_entropy"}
