"""Compute learning-rate schedules: functions (steps of the run) -> (step -> factor on the learning rate)."""

import math
from collections.abc import Callable

from captioning.errors import must_be

Factor = Callable[[int], float]


def constant(steps: int, *, warmup: int = 0) -> Factor:
    """The optimizer's rate throughout, after a linear rise over `warmup` steps."""
    must_be("schedule.warmup", warmup, least=0)
    return lambda step: rise(step, warmup)


def cosine(steps: int, *, warmup: int = 0, final: float = 0.0) -> Factor:
    """Half a cosine from the optimizer's rate to `final` times it at the last of `steps` (Loshchilov, Hutter 2017)."""
    must_be("schedule.warmup", warmup, least=0)
    must_be("schedule.final", final, least=0)

    def factor(step: int) -> float:
        done = min(1.0, max(0, step - warmup) / max(1, steps - warmup))
        return rise(step, warmup) * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))

    return factor


def decay(steps: int, *, factor: float = 0.8, every: int = 1000, warmup: int = 0) -> Factor:
    """The rate times `factor` after every `every` steps (the schedule of ImageCaptioning.pytorch)."""
    must_be("schedule.warmup", warmup, least=0)
    must_be("schedule.factor", factor, above=0)
    must_be("schedule.every", every, least=1)
    return lambda step: rise(step, warmup) * factor ** (step // every)


def rise(step: int, warmup: int) -> float:
    """Linear from 0 to 1 over the first `warmup` steps, then 1."""
    return min(1.0, (step + 1) / warmup) if warmup else 1.0
