"""Search with a transformer: the enumeration of all captions, rules, and ensembles with a recurrent captioner."""

import itertools
import math
from functools import partial

import pytest
import torch
from tiny_transformers import tiny_transformer
from toys import END, PAD, START, UNKNOWN

from captioning.decoding import (
    beam_search,
    consensus_search,
    diverse_beam_search,
    forced_decoding,
    greedy_search,
    sample,
    score_tokens,
)
from captioning.inference.ensemble import Ensemble

V, T = 5, 4
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
    return method(partial(model.step, memory=memory), state, batch=count, start=START, end=END, **arguments)


def every_caption(model, image):
    """Return {tokens: log-probability} of every caption that ends within T words, by teacher forcing."""
    captions = [
        (*words, END)
        for length in range(T)
        for words in itertools.product([w for w in range(V) if w not in (PAD, END)], repeat=length)
    ]
    tokens = torch.full((1, len(captions), T + 1), PAD)
    for row, words in zip(tokens[0], captions, strict=True):
        row[: len(words) + 1] = torch.tensor([START, *words])
    decoded = model(image[None], tokens)
    targets = tokens[..., 1:].flatten()
    log_probs = decoded.logits.log_softmax(-1).gather(-1, targets[decoded.index, None]).squeeze(-1)
    sums = torch.zeros(len(targets), dtype=torch.float64).index_copy(0, decoded.index, log_probs).view(-1, T).sum(-1)
    return dict(zip(captions, sums.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_as_wide_as_the_space_finds_the_true_best(seed):
    torch.manual_seed(seed)
    maps = ("last_layer", "all_layers", "rollout")[seed % 3]
    model = tiny_transformer(std=1.2, vocabulary_size=V, maps=maps, encoder_layers=seed % 2)
    images = torch.randn(2, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        captions = [every_caption(model, image) for image in images]
    for power in (0.0, 0.7):
        arguments = {"n_best": 4, "max_length": T, "length_normalization": power, "forbidden": (PAD,)}
        for every, found in zip(captions, search(model, images, beam_size=V**T, **arguments), strict=True):
            scores = {words: p / len(words) ** power for words, p in every.items()}
            best = sorted(scores, key=scores.get, reverse=True)[:4]
            assert [tuple(hypothesis.tokens) for hypothesis in found] == best
            for hypothesis, words in zip(found, best, strict=True):
                assert hypothesis.log_prob == pytest.approx(every[words], rel=1e-9)


@pytest.mark.parametrize(("method", "options"), METHODS)
@pytest.mark.parametrize("maps", ["last_layer", "rollout"])
def test_words_and_maps_of_every_search_are_those_of_teacher_forcing(method, options, maps):
    model = tiny_transformer(std=0.9, maps=maps)
    images = torch.randn(3, 4, 6, dtype=torch.float64)
    for image, hypotheses in zip(
        images, search(model, images, method, max_length=7, forbidden=(PAD, START, UNKNOWN), **options), strict=True
    ):
        for hypothesis in hypotheses:
            with torch.no_grad():
                decoded = model(image[None], torch.tensor([[[START, *hypothesis.tokens]]]))
            log_probs = decoded.logits.log_softmax(-1).gather(-1, torch.tensor(hypothesis.tokens)[:, None])
            assert hypothesis.log_prob == pytest.approx(log_probs.sum().item(), abs=1e-5)
            torch.testing.assert_close(hypothesis.weights, decoded.glimpse.weights[0, 0].clone(), rtol=0, atol=1e-10)


def test_rules_and_forced_words():
    model, images = tiny_transformer(std=0.9), torch.randn(4, 4, 6, dtype=torch.float64)
    rules = {"min_length": 3, "no_repeat_ngram": 1, "require": (7,), "avoid": (8,), "max_length": 8}
    for (best,) in search(model, images, beam_size=4, **rules):
        words = best.tokens[:-1]
        assert len(words) >= 3 and len(set(words)) == len(words) and 7 in words and 8 not in words
    given = [[5, 6, END], [7, END], [9, 9, 4, END], [END]]
    led = search(model, images, forced_decoding, tokens=given)
    table = torch.full((4, 1, 5), PAD)
    for row, words in zip(table, given, strict=True):
        row[0, : len(words) + 1] = torch.tensor([START, *words])
    state, memory = model.begin(images)
    scored = score_tokens(partial(model.step, memory=memory), state, table, pad=PAD)
    for (hypothesis,), total in zip(led, scored.sum(-1).squeeze(1).tolist(), strict=True):
        assert hypothesis.log_prob == pytest.approx(total, abs=1e-5)


def test_an_ensemble_with_a_recurrent_captioner(toy):
    """Probabilities are averaged word by word; both members attend to the same grid."""
    first, second = tiny_transformer(std=0.9, vocabulary_size=V), toy(vocabulary_size=V)
    for parameter in second.parameters():
        torch.nn.init.normal_(parameter, std=1.0)
    images = torch.randn(3, 4, 6, dtype=torch.float64)
    both = Ensemble([first, second], one_grid=True)
    found = search(both, (images, images), beam_size=3, n_best=3, max_length=6)
    for b, hypotheses in enumerate(found):
        for hypothesis in hypotheses:
            tokens = torch.tensor([[[START, *hypothesis.tokens]]])
            shares, weights = [], []
            for model in (first, second):
                with torch.no_grad():
                    decoded = model(images[b : b + 1], tokens)
                words = decoded.logits[decoded.index.argsort()].softmax(-1)
                shares.append(words.gather(-1, torch.tensor(hypothesis.tokens)[:, None]).squeeze(-1))
                weights.append(decoded.glimpse.weights[0, 0])
            by_hand = sum(math.log(p) for p in torch.stack(shares).mean(0).tolist())
            if PAD not in hypothesis.tokens:  # teacher forcing leaves out padding
                assert hypothesis.log_prob == pytest.approx(by_hand, abs=1e-5)
                torch.testing.assert_close(hypothesis.weights, torch.stack(weights).mean(0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("maps", ["last_layer", "rollout"])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision(dtype, maps, autocast):
    """Log-probabilities differ from float32 by the rounding of a few dozen products."""
    exact = tiny_transformer(std=0.3, maps=maps).float()
    images = torch.randn(3, 4, 6)
    words = torch.tensor([[[START, 5, 6, 7, 4, END]]] * 3)
    half = tiny_transformer(maps=maps)
    half.load_state_dict(exact.state_dict())
    half = half.float() if autocast else half.to(dtype)

    def scores(model):
        state, memory = model.begin(images)
        return score_tokens(partial(model.step, memory=memory), state, words, pad=PAD)

    with torch.inference_mode():
        wanted = scores(exact)
        with torch.autocast("cpu", dtype, enabled=autocast):
            found = scores(half)
            forced = half(images, words)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.2 if dtype == torch.bfloat16 else 0.03)
    assert forced.glimpse.weights.isfinite().all() and not torch.equal(found, wanted)
