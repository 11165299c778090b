"""Every combination of cell, layers, place of the image, attention and objective trains: no part is idle or NaN."""

import itertools
from functools import partial

import pytest
import torch
from conftest import ATTENTIONS, CELLS, CONDITIONINGS, END, PAD, RECURRENCES, SCORERS, START, UNKNOWN

from captioning.data import CaptionBatch
from captioning.objectives import CrossEntropy, LeaveOneOut, Reinforce, ScheduledSampling, SelfCritical


def length_reward(image_ids, captions):
    return [len(caption) * 0.1 + image * 0.01 for image, caption in zip(image_ids, captions, strict=True)]


OBJECTIVES = {
    "cross_entropy": CrossEntropy,
    "leave_one_out": lambda: CrossEntropy(location_loss=Reinforce(baseline=LeaveOneOut(), reward_to_go=True)),
    "scheduled_sampling": lambda: CrossEntropy(inputs=ScheduledSampling(increase=1.0, every=1, maximum=0.9)),
    "self_critical": partial(
        SelfCritical, length_reward, start=START, end=END, forbidden=(PAD, START, UNKNOWN), samples=3, max_length=6
    ),
}
LOOKS = [(attention, "look_first") for attention in ATTENTIONS] + [("none", "up_down"), ("none", "look_with_word")]
LOOKS += itertools.product(
    [name for name in ATTENTIONS if name != "none"], [n for n in RECURRENCES if n != "look_first"]
)


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
