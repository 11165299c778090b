"""Compare given captions and backpointers with tables; test log-probabilities of logits of any precision."""

import math
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from prefixes import END, PAD, START, PrefixModel

from captioning.decoding import device_of, forced_decoding, normalized, score_tokens
from captioning.decoding.hypothesis import Backpointers, looks

CAPTIONS = [[3, 4, END], [], [END], [4, 4, 1, 3], [1, END]]  # finished and cut, of all lengths


def test_given_captions_have_the_log_probabilities_and_looks_of_their_prefixes():
    model = PrefixModel(5, vocabulary=5, length=4, seed=1)
    step, state = model.begin()
    calls = []

    def counted(token, state):
        calls.append(token.flatten().tolist())
        return step(token, state)

    led = forced_decoding(counted, state, batch=5, start=START, end=END, tokens=CAPTIONS, forbidden=(4,))
    for image, ((one,), tokens) in enumerate(zip(led, CAPTIONS, strict=True)):
        assert one.tokens == tokens
        assert one.log_prob == one.score == pytest.approx(model.log_prob(image, tokens), abs=1e-12)
        rows = [model.at(image, tokens[:t]) for t in range(len(tokens))]
        assert torch.equal(one.weights, model.weights[rows]) and torch.equal(one.places, model.places[rows])
    assert len(calls) == 4 and calls[0] == [START] * 5
    assert [call[0] for call in calls[1:3]] == [3, 4] and [call[3] for call in calls[1:]] == [4, 4, 1]
    # The other captions of a batch make no difference.
    for image, tokens in enumerate(CAPTIONS):
        step, state = model.begin([image])
        ((alone,),) = forced_decoding(step, state, batch=1, start=START, end=END, tokens=[tokens])
        assert alone.tokens == tokens and alone.log_prob == led[image][0].log_prob


def test_an_empty_caption_takes_one_step():
    model, calls = PrefixModel(2, vocabulary=4, length=2, seed=0), []
    step, state = model.begin()

    def counted(token, state):
        calls.append(token)
        return step(token, state)

    for (one,) in forced_decoding(counted, state, batch=2, start=START, end=END, tokens=[[], []]):
        assert one.tokens == [] and one.log_prob == 0 and one.weights.shape == (0, 3)
    assert len(calls) == 1


def test_as_many_captions_as_images():
    step, state = PrefixModel(2, vocabulary=4, length=2, seed=0).begin()
    with pytest.raises(ValueError, match="2 images need one caption per image, not 1 captions"):
        forced_decoding(step, state, batch=2, start=START, end=END, tokens=[[3]])


def test_words_are_scored_after_the_true_words_before_them_and_padding_is_not():
    model = PrefixModel(2, vocabulary=6, length=4, seed=2)
    lines = [[[3, 4, 5, END], [5, END], [END]], [[4, 4, END], [1, 3, 3, END], []]]
    table = torch.full((2, 3, 5), PAD)
    table[..., 0] = START
    for row, group in zip(table, lines, strict=True):
        for slot, line in zip(row, group, strict=True):
            slot[1 : 1 + len(line)] = torch.tensor(line, dtype=torch.int64)
    step, state = model.begin()
    found = score_tokens(step, state, table, pad=PAD)
    assert found.shape == (2, 3, 4)
    for image, group in enumerate(lines):
        for k, line in enumerate(group):
            wanted = [model.log_probs[model.at(image, line[:t])][word] for t, word in enumerate(line)]
            assert found[image, k].tolist() == pytest.approx(wanted + [0.0] * (4 - len(line)), abs=1e-12)
    assert (found[0, 0] != 0).all() and (found[0, 2, 1:] == 0).all()


def test_backpointers_are_followed_by_hand():
    """Three steps of two images. Image 0: the parent of row 1 of the last step is row 0, whose parent is the first row.

    The weights of a step are those of the rows before it, so the first step has one row.
    """
    trail = Backpointers()
    weights = [torch.arange(2.0 * rows).view(2, rows, 1) + 100 * t for t, rows in enumerate((1, 3, 2))]
    places = [part.squeeze(-1).long() for part in weights]
    trail.add(torch.tensor([[10, 11, 12], [20, 21, 22]]), torch.zeros(2, 3, dtype=torch.int64), weights[0], places[0])
    trail.add(torch.tensor([[13, 14], [23, 24]]), torch.tensor([[2, 1], [0, 2]]), weights[1], places[1])
    trail.add(torch.tensor([[15, 16], [25, 26]]), torch.tensor([[1, 0], [1, 1]]), weights[2], places[2])
    assert len(trail) == 3
    rows, lengths = torch.tensor([[1, 1, 0], [0, 2, 1]]), torch.tensor([[3, 2, 0], [3, 1, 2]])
    log_prob = torch.tensor([[-1.0, -2.0, 0.0], [-3.0, -4.0, -5.0]])
    score = torch.tensor([[-0.5, -0.6, 0.0], [-0.7, -0.8, -math.inf]])
    found = trail.hypotheses(rows, lengths, log_prob=log_prob, score=score)
    facts = [
        [(h.tokens, h.log_prob, round(h.score, 6), h.weights.flatten().tolist(), h.places.tolist()) for h in group]
        for group in found
    ]
    assert facts == [
        [
            ([12, 13, 16], -1.0, -0.5, [0, 102, 200], [0, 102, 200]),
            ([11, 14], -2.0, -0.6, [0, 101], [0, 101]),
            ([], 0.0, 0.0, [], []),
        ],
        [
            ([22, 24, 25], -3.0, -0.7, [1, 105, 203], [1, 105, 203]),
            ([22], -4.0, -0.8, [1], [1]),
        ],
    ]


def test_without_attention_or_places_there_are_none():
    trail = Backpointers()
    trail.add(torch.tensor([[3]]), torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, 0), None)
    ((one,),) = trail.hypotheses(
        torch.tensor([[0]]), torch.tensor([[1]]), log_prob=torch.tensor([[-1.0]]), score=torch.tensor([[-1.0]])
    )
    assert one.tokens == [3] and one.weights is None and one.places is None
    weights = torch.ones(1, 1, 2)
    assert looks(SimpleNamespace(weights=weights)) == (weights, None)
    assert looks(SimpleNamespace(weights=weights, places=3)) == (weights, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_log_probabilities_are_summed_in_32_bits_at_the_least(dtype):
    """20 000 equal words have probability 1/20 000 each: a sum in bfloat16 would stop at 256, one in float16 at 2048.

    Log-probabilities in bfloat16 would be 1/16 apart near −9.9. Float32 loses about 1e-5 in so many additions.
    """
    logits = torch.zeros(1, 2, 20000, dtype=dtype)
    logits[0, 1, 7] = 3.0
    before, found = logits.clone(), normalized(logits)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found[0, 0].tolist() == pytest.approx([-math.log(20000)] * 20000, abs=1e-4)
    assert found[0, 1, 7].item() == pytest.approx(3 - math.log(19999 + math.exp(3)), abs=1e-4)
    found.fill_(0.0)  # a search writes into it
    assert torch.equal(logits, before)


class Inner(NamedTuple):
    part: torch.Tensor


class Outer(NamedTuple):
    inner: Inner
    other: int = 0


def test_a_state_is_where_its_first_tensor_is():
    tensor = torch.zeros(1, device="meta")
    assert device_of(tensor).type == device_of(Inner(tensor)).type == device_of(Outer(Inner(tensor))).type == "meta"
    assert device_of((torch.zeros(1), tensor)).type == "cpu"
