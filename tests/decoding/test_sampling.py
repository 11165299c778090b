"""Sampling against the model's own probabilities and a slow reference of its filters."""

import math
from functools import partial

import pytest
import torch
from prefixes import PrefixModel, every_caption
from toys import END, START

from captioning.decoding import sample
from captioning.decoding.sampling import draw_tokens
from captioning.errors import ConfigError
from captioning.inference import with_generator


def run(model, images, **arguments):
    state, memory = model.begin(images)
    step = partial(model.step, memory=memory)
    return sample(step, state, batch=len(images), start=START, end=END, **arguments)


@pytest.fixture
def model(toy):
    model = toy(vocabulary_size=5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    return model


def log_prob_of(model, image, tokens):
    """Σ log p by teacher forcing; token 0, written here as a word, is scored too."""
    model.decoder.pad = -1
    logits = model(image[None], torch.tensor([[[START, *tokens]]])).logits
    model.decoder.pad = 0
    return logits.log_softmax(-1)[range(len(tokens)), tokens].sum().item()


def deviation(counts, probabilities, draws):
    """Pearson's chi-square as standard deviations of a normal variable (Wilson and Hilferty 1931), and its cells.

    Cells that expect fewer than five are pooled.
    """
    expected = {key: draws * p for key, p in probabilities.items()}
    large = [key for key, value in expected.items() if value >= 5]
    cells = [(counts.get(key, 0), expected[key]) for key in large]
    rest = sum(expected.values()) - sum(expected[key] for key in large)
    if rest >= 1:
        cells.append((sum(counts.values()) - sum(counts.get(key, 0) for key in large), rest))
    if (freedom := len(cells) - 1) == 0:
        return 0.0, 1
    statistic = sum((seen - wanted) ** 2 / wanted for seen, wanted in cells)
    spread = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread), len(cells)


def test_frequencies_are_the_models_probabilities():
    tables, draws = PrefixModel(2, vocabulary=5, length=3, seed=6, spread=0.7), 4000
    for image, hypotheses in enumerate(tables.search(sample, samples=draws, seed=3)):
        finished, cut = every_caption(tables, image, {}, max_length=3)
        probabilities = {key: math.exp(p) for key, p in (finished | cut).items()}
        assert sum(probabilities.values()) == pytest.approx(1)
        counts = {}
        for hypothesis in hypotheses:
            counts[tuple(hypothesis.tokens)] = counts.get(tuple(hypothesis.tokens), 0) + 1
        assert counts.keys() <= probabilities.keys()
        sigmas, cells = deviation(counts, probabilities, draws)
        assert cells > 20 and sigmas < 4
        # The test has power: the same counts do not fit probabilities that are somewhat sharper.
        sharper = {key: p**1.3 for key, p in probabilities.items()}
        wrong = {key: p / sum(sharper.values()) for key, p in sharper.items()}
        assert deviation(counts, wrong, draws)[0] > 6


def slow_filter(log_probs, *, temperature, top_k, top_p):
    """{id: probability} of one row, by sorting a list."""
    weights = [(math.exp(value / temperature), index) for index, value in enumerate(log_probs)]
    kept = sorted(weights, reverse=True)[: top_k or len(weights)]
    total, reached, nucleus = sum(weight for weight, _ in kept), 0.0, []
    for weight, index in kept:
        if top_p is None or reached < top_p:
            nucleus.append((weight, index))
        reached += weight / total
    total = sum(weight for weight, _ in nucleus)
    return {index: weight / total for weight, index in nucleus if weight > 0}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(None, None), (3, None), (None, 0.7), (4, 0.6), (99, 1.0), (1, None)])
def test_draws_equal_a_slow_reference(temperature, top_k, top_p):
    torch.manual_seed(5)
    rows = torch.randn(2, 3, 8, dtype=torch.float64).mul(2).log_softmax(-1)
    rows[0, 1, [2, 5]] = -torch.inf
    draws, generator = 3000, torch.Generator().manual_seed(7)
    arguments = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    many = torch.stack([draw_tokens(rows, **arguments, generator=generator) for _ in range(draws)])
    for b in range(2):
        for k in range(3):
            wanted = slow_filter(rows[b, k].tolist(), **arguments)
            values, counts = many[:, b, k].unique(return_counts=True)
            counts = dict(zip(values.tolist(), counts.tolist(), strict=True))
            assert counts.keys() <= wanted.keys()
            assert deviation(counts, wanted, draws)[0] < 4.5  # of some hundred such tests


def test_a_word_without_probability_is_never_drawn(monkeypatch):
    log_probs = torch.tensor([[[-torch.inf, 0.3, -torch.inf, 0.2, -torch.inf]]], dtype=torch.float64)
    for uniform, wanted in ((0.0, 1), (1 - 2**-53, 3)):  # the ends of what torch.rand gives
        value = torch.full((1, 1, 1), uniform, dtype=torch.float64)
        monkeypatch.setattr(torch, "rand", lambda *shape, value=value, **options: value)
        assert draw_tokens(log_probs).item() == draw_tokens(log_probs, top_p=1.0).item() == wanted


def test_log_probability_is_the_models_own_and_attention_belongs_to_the_words(model):
    images = torch.randn(3, 4, 6, dtype=torch.float64)
    results = run(model, images, samples=4, temperature=2.0, top_k=4, max_length=6, seed=1)
    for image, hypotheses in zip(images, results, strict=True):
        assert len(hypotheses) == 4
        for hypothesis in hypotheses:
            assert hypothesis.log_prob == pytest.approx(log_prob_of(model, image, hypothesis.tokens), rel=1e-9)
            assert END not in hypothesis.tokens[:-1]
            assert hypothesis.tokens[-1] == END or len(hypothesis.tokens) == 6
            model.decoder.pad = -1
            decoded = model(image[None], torch.tensor([[[START, *hypothesis.tokens]]]))
            model.decoder.pad = 0
            torch.testing.assert_close(hypothesis.weights, decoded.glimpse.weights[0, 0])


def test_seeds_and_generators(model):
    images = torch.randn(3, 4, 6, dtype=torch.float64)

    def tokens(**arguments):
        return [h.tokens for group in run(model, images, samples=5, **arguments) for h in group]

    assert tokens(seed=1) == tokens(seed=1) == tokens(generator=torch.Generator().manual_seed(1)) != tokens(seed=2)
    generator = torch.Generator().manual_seed(1)
    assert tokens(generator=generator) != tokens(generator=generator)  # it draws on
    assert len(set(map(tuple, tokens(seed=1)))) > 5


def test_a_seed_lasts_for_all_batches_once_it_is_a_generator(model):
    images = torch.randn(1, 4, 6, dtype=torch.float64)

    def tokens(method):
        state, memory = model.begin(images)
        found = method(partial(model.step, memory=memory), state, batch=1, start=START, end=END)
        return [hypothesis.tokens for hypothesis in found[0]]

    plain, lasting = partial(sample, samples=6, seed=3), with_generator(partial(partial(sample, samples=6), seed=3))
    assert tokens(plain) == tokens(plain) == tokens(lasting) != tokens(lasting)


@pytest.mark.parametrize(
    "bad",
    [
        {"samples": 0},
        {"temperature": 0.0},
        {"temperature": math.inf},
        {"temperature": 1e-310},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"max_length": 0},
    ],
)
def test_impossible_arguments_are_named(model, bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        run(model, torch.randn(1, 4, 6, dtype=torch.float64), **bad)
