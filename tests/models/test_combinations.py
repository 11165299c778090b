"""Every combination of cell, layers, place of the image, attention and objective trains: no part is idle or NaN."""

import itertools

import pytest
import torch
from toys import CELLS, CONDITIONINGS, LOOKS, OBJECTIVES, SCORERS

from captioning.data import CaptionBatch


@pytest.mark.parametrize(("attention", "recurrence"), LOOKS)
@pytest.mark.parametrize("cell", CELLS)
def test_two_steps_move_every_parameter(toy, toy_tokens, cell, attention, recurrence):
    images = torch.randn(3, 4, 6, dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False], [True] * 4, [False, True, True, True]])
    batch = CaptionBatch(torch.arange(3), images, mask, toy_tokens)
    for layers, conditioning, (number, name) in itertools.product((1, 2), CONDITIONINGS, enumerate(OBJECTIVES)):
        scorer, readout = list(SCORERS)[number % 2], ("deep", "linear")[layers % 2]
        model = toy(
            cell=cell, layers=layers, conditioning=conditioning, attention=attention, recurrence=recurrence,
            scorer=scorer, readout=readout, dropout=0.1,
        ).train()  # fmt: skip
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
