"""Test that every combination of parts trains: every part has a gradient, and no number is NaN."""

import itertools

import pytest
import torch
from toys import CELLS, CONDITIONINGS, LOOKS, OBJECTIVES, SCORERS

from captioning.data import CaptionBatch


def moves_every_parameter(toy, tokens, looks, cell, layers, conditioning, number):
    """Train two steps with the objective of a given index."""
    images = torch.randn(3, 4, 6, dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False], [True] * 4, [False, True, True, True]])
    batch = CaptionBatch(torch.arange(3), images, mask, tokens)
    scorer, readout = list(SCORERS)[number % 2], ("deep", "linear")[layers % 2]
    model = toy(
        cell=cell, layers=layers, conditioning=conditioning, attention=looks[0], recurrence=looks[1],
        scorer=scorer, readout=readout, dropout=0.1,
    ).train()  # fmt: skip
    name = list(OBJECTIVES)[number]
    objective, what = OBJECTIVES[name](), f"{layers} layers, {conditioning}, {name}"
    optimizer = torch.optim.Adam(model.parameters())
    moved = dict.fromkeys(dict(model.named_parameters()), 0.0)
    for _ in range(2):
        optimizer.zero_grad()
        loss = objective(model, batch)
        assert loss.total.isfinite(), what
        loss.total.backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), f"{what}: {key}"
            moved[key] += parameter.grad.abs().sum().item()
        optimizer.step()
    assert not [key for key, size in moved.items() if not size], what


# The other parts: [(layers, conditioning, index of the objective)].
OTHERS = list(itertools.product((1, 2), CONDITIONINGS, range(len(OBJECTIVES))))


@pytest.mark.parametrize("looks", LOOKS, ids="-".join)
@pytest.mark.parametrize("cell", CELLS)
def test_two_steps_move_every_parameter(toy, toy_tokens, cell, looks):
    """Each combination gets a few of the other parts, so that every part is combined with every other one somewhere."""
    turn = LOOKS.index(looks) + len(LOOKS) * list(CELLS).index(cell)
    for layers, conditioning, number in OTHERS[turn % 7 :: 7]:
        moves_every_parameter(toy, toy_tokens, looks, cell, layers, conditioning, number)


@pytest.mark.slow
@pytest.mark.parametrize("looks", LOOKS, ids="-".join)
@pytest.mark.parametrize("cell", CELLS)
def test_two_steps_move_every_parameter_with_all_other_parts(toy, toy_tokens, cell, looks):
    for layers, conditioning, number in OTHERS:
        moves_every_parameter(toy, toy_tokens, looks, cell, layers, conditioning, number)
