"""Every factor of a learning-rate schedule, by hand."""

import math

import pytest

from captioning.errors import ConfigError
from captioning.training import constant, cosine, decay


def factors(schedule, count: int) -> list[float]:
    return [schedule(step) for step in range(count)]


def test_a_constant_rate_rises_in_equal_parts():
    assert factors(constant(3), 4) == [1, 1, 1, 1]
    assert factors(constant(9, warmup=4), 6) == [0.25, 0.5, 0.75, 1, 1, 1]
    assert factors(constant(9, warmup=1), 2) == [1, 1]


def test_half_a_cosine_ends_at_the_last_step_and_stays_there():
    assert factors(cosine(4), 6) == pytest.approx(
        [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0, 0], abs=1e-15
    )
    assert factors(cosine(4, final=0.2), 6) == pytest.approx(
        [1, 0.6 + 0.4 * math.sqrt(0.5), 0.6, 0.6 - 0.4 * math.sqrt(0.5), 0.2, 0.2], rel=1e-15
    )


def test_the_cosine_begins_after_the_rise():
    assert factors(cosine(7, warmup=3, final=0.5), 9) == pytest.approx(
        [1 / 3, 2 / 3, 1, 1, *(0.75 + 0.25 * math.cos(math.pi * done / 4) for done in (1, 2, 3, 4)), 0.5], rel=1e-15
    )


def test_a_run_that_ends_within_the_rise_never_falls():
    assert factors(cosine(2, warmup=4), 4) == [0.25, 0.5, 0.75, 1]
    assert factors(cosine(4, warmup=4, final=0.1), 6) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.1])


def test_decay_multiplies_after_every_so_many_steps():
    assert factors(decay(9, factor=0.5, every=3), 8) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert factors(decay(9, factor=0.5, every=2, warmup=4), 5) == [0.25, 0.5, 0.375, 0.5, 0.25]
    by_default = decay(9000)
    assert [by_default(step) for step in (999, 1000, 1999, 2000)] == pytest.approx([1, 0.8, 0.8, 0.64])


@pytest.mark.parametrize(
    ("schedule", "right", "wrong", "told"),
    [
        (constant, {"warmup": 0}, {"warmup": -1}, "warmup must be at least 0, not -1"),
        (cosine, {"warmup": 0}, {"warmup": -1}, "warmup must be at least 0, not -1"),
        (cosine, {"final": 0}, {"final": -0.1}, "final must be at least 0, not -0.1"),
        (decay, {"warmup": 0}, {"warmup": -1}, "warmup must be at least 0, not -1"),
        (decay, {"factor": 0.01}, {"factor": 0}, "factor must be above 0, not 0"),
        (decay, {"every": 1}, {"every": 0}, "every must be at least 1, not 0"),
    ],
)
def test_ranges(schedule, right, wrong, told):
    schedule(5, **right)
    with pytest.raises(ConfigError, match=rf"^schedule\.{told}$"):
        schedule(5, **wrong)
