"""The script that measures the noise of hard attention's gradient computes it for locations alone."""

import pytest
import torch
from docs_scripts import load_script

from captioning.data import CaptionBatch
from captioning.models import HardAttention, ScoreFunction, StraightThrough
from captioning.objectives import MovingAverage


@pytest.fixture(scope="module")
def script():
    return load_script("gradient_noise")


@pytest.fixture
def batch(toy_tokens):
    images = torch.randn(3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return CaptionBatch(torch.arange(3), images, None, toy_tokens)


def test_moments(script):
    found = script.moments([torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0]), torch.tensor([2.0, 3.0])])
    assert found.mean.tolist() == [2.0, 1.0]
    assert found.variance == pytest.approx(1 + 3)
    assert found.squared_length == pytest.approx(4 + 1 - 4 / 3)


def test_the_captioner_keeps_its_weights(script, toy, batch):
    """The weighted mean of all locations is what soft attention computes."""
    model = toy(attention="soft")
    soft = model(batch.images, batch.tokens).logits
    attention = script.with_draws(model, ScoreFunction())
    attention.decode = "expectation"
    assert isinstance(model.decoder.attention, HardAttention)
    torch.testing.assert_close(model.eval()(batch.images, batch.tokens).logits, soft, rtol=1e-12, atol=1e-12)


def test_a_captioner_without_attention_is_refused(script, toy):
    with pytest.raises(SystemExit, match="must have one soft or hard attention"):
        script.with_draws(toy(attention="none"), ScoreFunction())


def test_only_the_locations_are_random(script, toy, batch):
    """Without noise every draw has the same gradient, although the captioner has dropout; with noise they differ."""
    model = toy(attention="soft", dropout=0.5, word_dropout=0.5)
    still = script.Estimator("still", lambda: StraightThrough(noise=0.0), MovingAverage)
    scorer, everything = script.gradients_of(model, batch, still, 3)
    assert script.moments(scorer).variance == script.moments(everything).variance == 0.0
    assert script.moments(scorer).squared_length > 0
    assert len(scorer[0]) == sum(parameter.numel() for parameter in model.decoder.attention.parameters())
    for estimator in script.ESTIMATORS:
        torch.manual_seed(0)
        assert script.moments(script.gradients_of(model, batch, estimator, 3)[0]).variance > 0
