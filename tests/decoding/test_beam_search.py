"""Compare beam search with the enumeration of all captions, on random toy models."""

import itertools
from functools import partial

import pytest
import torch
from toys import END, START

from captioning.decoding import beam_search, greedy_search
from captioning.errors import ConfigError

V, T = 5, 4


@pytest.fixture
def model(toy):
    model = toy(vocabulary_size=V)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=1.5)
    return model


def search(model, images, method=beam_search, **arguments):
    state, memory = model.begin(images)
    step = partial(model.step, memory=memory)
    return method(step, state, batch=len(images), start=START, end=END, **arguments)


def enumerate_captions(model, image, *, max_length=T):
    """Return {tokens: log-probability} of every caption that ends within max_length."""
    state, memory = model.begin(image[None])
    found, live = {}, {(): (0.0, state)}
    for _ in range(max_length):
        grown = {}
        for prefix, (log_prob, state) in live.items():
            out = model.step(torch.tensor([[prefix[-1] if prefix else START]]), state, memory)
            for token, p in enumerate(out.logits[0, 0].log_softmax(-1).tolist()):
                if token == END:
                    found[(*prefix, token)] = log_prob + p
                else:
                    grown[(*prefix, token)] = (log_prob + p, out.state)
        live = grown
    return found


@pytest.mark.parametrize("seed", range(12))
def test_a_beam_as_wide_as_the_space_finds_the_true_best(toy, seed):
    torch.manual_seed(seed)
    model = toy(vocabulary_size=V, attention=("soft", "none")[seed % 2], cell=("lstm", "gru", "rnn")[seed % 3])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=1.5)
    images = torch.randn(2, 4, 6, dtype=torch.float64)
    captions = [enumerate_captions(model, image) for image in images]
    for power, forbidden in itertools.product((0.0, 0.7, 1.0), ((), (0, 1, 3))):
        arguments = {"n_best": 4, "max_length": T, "length_normalization": power, "forbidden": forbidden}
        results = search(model, images, beam_size=V**T, **arguments)
        for every, hypotheses in zip(captions, results, strict=True):
            scores = {c: p / len(c) ** power for c, p in every.items() if not set(c) & set(forbidden)}
            best = sorted(scores, key=scores.get, reverse=True)[:4]
            assert [tuple(h.tokens) for h in hypotheses] == best
            for hypothesis, tokens in zip(hypotheses, best, strict=True):
                assert hypothesis.log_prob == pytest.approx(every[tokens], rel=1e-9)
                assert hypothesis.score == pytest.approx(scores[tokens], rel=1e-9)


def test_width_one_equals_a_greedy_loop(model):
    images = torch.randn(20, 4, 6, dtype=torch.float64)
    for results in (
        search(model, images, beam_size=1, max_length=6),
        search(model, images, greedy_search, max_length=6),
    ):
        for image, (hypothesis,) in zip(images, results, strict=True):
            (state, memory), token, tokens = model.begin(image[None]), START, []
            while token != END and len(tokens) < 6:
                out = model.step(torch.tensor([[token]]), state, memory)
                state, token = out.state, int(out.logits.argmax())
                tokens.append(token)
            assert hypothesis.tokens == tokens


@pytest.mark.parametrize("beam_size", [1, 2, 3, 7])
def test_batched_equals_one_by_one_in_any_order(model, beam_size):
    images = torch.randn(12, 4, 6, dtype=torch.float64)
    arguments = {"beam_size": beam_size, "max_length": 8, "length_normalization": 0.5}
    together = [best.tokens for (best, *_) in search(model, images, **arguments)]
    alone = [search(model, image[None], **arguments)[0][0].tokens for image in images]
    reversed_ = [best.tokens for (best, *_) in search(model, images.flip(0), **arguments)][::-1]
    assert together == alone == reversed_
    assert len(set(map(tuple, together))) > 1  # the images make a difference


def test_log_probability_and_attention_belong_to_the_returned_words(model):
    images = torch.randn(6, 4, 6, dtype=torch.float64)
    for image, hypotheses in zip(images, search(model, images, beam_size=4, n_best=3, max_length=7), strict=True):
        for hypothesis in hypotheses:
            tokens = torch.tensor([[[START, *hypothesis.tokens]]])
            model.decoder.pad = -1  # so that token 0, which is a word here, is scored
            decoded = model(image[None], tokens)
            model.decoder.pad = 0
            log_probs = decoded.logits.log_softmax(-1)[range(len(hypothesis.tokens)), hypothesis.tokens]
            assert hypothesis.log_prob == pytest.approx(log_probs.sum().item(), rel=1e-9)
            torch.testing.assert_close(hypothesis.weights, decoded.glimpse.weights[0, 0])


def test_places_of_hard_attention_belong_to_the_returned_words(toy):
    model = toy(vocabulary_size=V, attention="hard")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=1.5)
    images = torch.randn(4, 6, 6, dtype=torch.float64)
    seen = set()
    for image, hypotheses in zip(images, search(model, images, beam_size=4, n_best=3, max_length=7), strict=True):
        for hypothesis in hypotheses:
            (state, memory), token, places = model.begin(image[None]), START, []
            for word in hypothesis.tokens:
                out = model.step(torch.tensor([[token]]), state, memory)
                places.append(out.glimpse.places.item())
                state, token = out.state, word
            assert hypothesis.places.tolist() == places
            assert hypothesis.places.tolist() == hypothesis.weights.argmax(-1).tolist()
            seen |= set(places)
    assert len(seen) > 1


def never_ending(favoured, end_logit):
    """Build a model whose logits are constant."""

    def step(token, state):
        logits = torch.full((*token.shape, V), -5.0, dtype=torch.float64)
        logits[..., favoured], logits[..., END] = 5.0, end_logit
        return logits, state, type("G", (), {"weights": torch.zeros(*token.shape, 0)})

    return step


class Nothing(tuple):
    """A state without content."""

    def select(self, index):
        return self


def test_unfinished_captions_only_where_nothing_finished():
    state = Nothing((torch.zeros(1),))
    ((best,),) = beam_search(
        never_ending(3, -torch.inf), state, batch=1, start=START, end=END, beam_size=2, max_length=3
    )
    assert best.tokens == [3, 3, 3] and best.weights is None
    ((best,),) = beam_search(never_ending(3, -4.0), state, batch=1, start=START, end=END, beam_size=5, max_length=3)
    assert best.tokens[-1] == END  # worse than [3, 3, 3], but finished


def test_ends_early_when_no_live_beam_can_win():
    calls = []

    def step(token, state):
        calls.append(token.shape)
        return never_ending(3, 9.0)(token, state)

    ((best,),) = beam_search(
        step, Nothing((torch.zeros(1),)), batch=1, start=START, end=END, beam_size=3, max_length=50
    )
    assert best.tokens == [END] and len(calls) == 1


def test_a_vocabulary_smaller_than_the_beam(model):
    images = torch.randn(2, 4, 6, dtype=torch.float64)
    results = search(model, images, beam_size=40, n_best=40, max_length=2)
    for image, hypotheses in zip(images, results, strict=True):
        every = enumerate_captions(model, image, max_length=2)
        assert {tuple(h.tokens) for h in hypotheses} == set(every)


def test_forbidden_tokens_are_never_written(model):
    images = torch.randn(30, 4, 6, dtype=torch.float64)
    for beam_size in (1, 3):
        for best, *_ in search(model, images, beam_size=beam_size, max_length=9, forbidden=(0, 1, 3)):
            assert not set(best.tokens) & {0, 1, 3}


def test_longer_captions_may_be_favoured_but_only_when_asked(model):
    images = torch.randn(40, 4, 6, dtype=torch.float64)
    lengths = [
        sum(len(best.tokens) for (best, *_) in search(model, images, beam_size=8, max_length=9, length_normalization=a))
        for a in (0.0, 1.0)
    ]
    assert lengths[0] < lengths[1]


@pytest.mark.parametrize("bad", [{"n_best": 3, "beam_size": 2}, {"max_length": 0}, {"length_normalization": -1.0}])
def test_impossible_arguments_are_named(model, bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        search(model, torch.randn(1, 4, 6, dtype=torch.float64), **bad)
