"""Ensembles of toy captioners: probabilities averaged by hand, and one model with itself."""

import math
from functools import partial

import pytest
import torch
from toys import END, START

from captioning.decoding import beam_search, consensus_search, diverse_beam_search, greedy_search, sample
from captioning.inference.ensemble import Ensemble

METHODS = [
    (greedy_search, {}),
    (beam_search, {"beam_size": 4, "n_best": 3}),
    (diverse_beam_search, {"beam_size": 4, "groups": 2, "n_best": 3}),
    (sample, {"samples": 3, "seed": 0}),
    (consensus_search, {"beam_size": 4, "finalists": 2, "samples": 3, "seed": 0, "n_best": 2}),
]


def search(model, images, method=beam_search, **arguments):
    state, memory = model.begin(images)
    count = len(images[0] if isinstance(images, tuple) else images)
    arguments = {"max_length": 6} | arguments
    return method(partial(model.step, memory=memory), state, batch=count, start=START, end=END, **arguments)


@pytest.fixture
def member(toy):
    def make(**options):
        model = toy(vocabulary_size=5, **options)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=1.0)
        return model

    return make


@pytest.mark.parametrize(("method", "options"), METHODS)
def test_one_model_with_itself_is_that_model(member, method, options):
    model, images = member(), torch.randn(5, 4, 6, dtype=torch.float64)
    twice = Ensemble([model, model], one_grid=True)
    for alone, both in zip(
        search(model, images, method, **options), search(twice, (images, images), method, **options), strict=True
    ):
        assert [h.tokens for h in alone] == [h.tokens for h in both]
        for one, two in zip(alone, both, strict=True):
            assert two.log_prob == pytest.approx(one.log_prob, rel=1e-12)
            torch.testing.assert_close(two.weights, one.weights)


def test_two_models_average_their_probabilities_word_by_word(member):
    first, second = member(), member(cell="gru", attention="none", conditioning="every_step", feature_size=3)
    images = (torch.randn(4, 4, 6, dtype=torch.float64), torch.randn(4, 2, 3, dtype=torch.float64))
    both = Ensemble([first, second], one_grid=True)
    for b, hypotheses in enumerate(search(both, images, beam_size=3, n_best=3)):
        for hypothesis in hypotheses:
            probabilities = []
            for model, features in zip((first, second), images, strict=True):
                (state, memory), token, own = model.begin(features[b : b + 1]), START, []
                for word in hypothesis.tokens:
                    out = model.step(torch.tensor([[token]]), state, memory)
                    own.append(out.logits[0, 0].softmax(-1)[word].item())
                    state, token = out.state, word
                probabilities.append(own)
            by_hand = sum(math.log((p + q) / 2) for p, q in zip(*probabilities, strict=True))
            assert hypothesis.log_prob == pytest.approx(by_hand, rel=1e-12)
            assert hypothesis.weights is None  # the second attends to nothing


def test_attention_is_the_mean_over_members_with_one_grid(member):
    models = [member(), member(cell="gru")]
    images = torch.randn(2, 4, 6, dtype=torch.float64)
    shown = search(Ensemble(models, one_grid=True), (images, images), beam_size=2)
    for b, (best, *_) in enumerate(shown):
        rows = []
        for model in models:
            (state, memory), token, own = model.begin(images[b : b + 1]), START, []
            for word in best.tokens:
                out = model.step(torch.tensor([[token]]), state, memory)
                own.append(out.glimpse.weights[0, 0])
                state, token = out.state, word
            rows.append(torch.stack(own))
        torch.testing.assert_close(best.weights, (rows[0] + rows[1]) / 2)
    hidden = search(Ensemble(models), (images, images), beam_size=2)
    assert all(best.weights is None for best, *_ in hidden)
    assert [best.tokens for best, *_ in hidden] == [best.tokens for best, *_ in shown]
    coarse = search(Ensemble(models, one_grid=True), (images, images[:, :2]), beam_size=2)
    assert all(best.weights is None for best, *_ in coarse)


def test_members_have_masks_of_their_own(member):
    models = [member(), member()]
    images = torch.randn(3, 4, 6, dtype=torch.float64)
    both, mask = Ensemble(models), torch.tensor([[True, True, False, False]] * 3)
    token = torch.full((3, 1), START)
    padded = both.step(token, *both.begin((images, images), (None, mask))).logits
    cut = both.step(token, *both.begin((images, images[:, :2]))).logits
    torch.testing.assert_close(padded, cut)
