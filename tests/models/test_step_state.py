"""Test parts that keep statistics from step to step: which sums they use, and when."""

import copy

import pytest
import torch
from torch import nn

from captioning.models import StepState, defer, drop_batch, drop_step, end_step, keep_batch


class Remembers(StepState):
    """Keep every vector of sums passed to `take`."""

    def __init__(self):
        super().__init__()
        self.taken = []

    def forward(self, values):
        self.note(values)

    def take(self, sums):
        self.taken.append(sums.tolist())


@pytest.fixture
def parts():
    return nn.ModuleDict({"one": Remembers(), "inner": nn.Sequential(Remembers())})


def both(parts):
    return parts["one"], parts["inner"][0]


def see(parts, *values):
    for part in both(parts):
        part(torch.tensor(values))


def test_in_a_plain_loop_every_forward_pass_is_a_step(parts):
    see(parts, 1.0, 2.0)
    see(parts, 3.0, 4.0)
    for part in both(parts):
        assert part.taken == [[1.0, 2.0], [3.0, 4.0]]
    end_step(parts)  # no sums are left
    assert both(parts)[0].taken == [[1.0, 2.0], [3.0, 4.0]]


def test_a_step_takes_in_its_kept_batches_together(parts):
    defer(parts)
    for batch in ([1.0, 2.0], [3.0, 4.0], [10.0, 20.0]):
        see(parts, *batch)
        keep_batch(parts)
        assert not both(parts)[0].taken
    end_step(parts)
    see(parts, 5.0, 6.0)
    keep_batch(parts)
    end_step(parts)
    end_step(parts)
    for part in both(parts):
        assert part.taken == [[14.0, 26.0], [5.0, 6.0]]


def test_a_batch_may_be_noted_in_several_passes(parts):
    defer(parts)
    see(parts, 1.0)
    see(parts, 2.0)
    keep_batch(parts)
    end_step(parts)
    assert both(parts)[1].taken == [[3.0]]


def test_a_dropped_batch_is_in_no_step(parts):
    defer(parts)
    for value, keep in ((1.0, True), (float("nan"), False), (4.0, True)):
        see(parts, value)
        (keep_batch if keep else drop_batch)(parts)
    end_step(parts)
    see(parts, 7.0)  # neither kept nor dropped, so not part of the step
    end_step(parts)
    for part in both(parts):
        assert part.taken == [[5.0]]


def test_a_dropped_step_leaves_nothing(parts):
    defer(parts)
    see(parts, 1.0)
    keep_batch(parts)
    see(parts, 2.0)
    drop_step(parts)
    keep_batch(parts)
    end_step(parts)
    assert not both(parts)[0].taken and not both(parts)[1].taken


def test_deferring_ends(parts):
    defer(parts)
    defer(parts, False)
    see(parts, 1.0)
    assert both(parts)[0].taken == [[1.0]]


def test_the_sums_of_an_unfinished_step_are_not_saved_and_have_no_history(parts):
    defer(parts)
    value = torch.ones(1, requires_grad=True)
    both(parts)[0](2 * value)
    keep_batch(parts)
    assert not parts.state_dict()
    copy.deepcopy(parts)  # a tensor with gradient history cannot be copied
    end_step(parts)
    assert both(parts)[0].taken == [[2.0]]


def test_a_part_must_say_what_it_takes_in():
    with pytest.raises(NotImplementedError):
        StepState().note(torch.ones(1))
