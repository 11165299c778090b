"""Learning-rate schedules: functions from the number of steps of a run to (step -> factor on the learning rate)."""

import math
from collections.abc import Callable

from captioning.errors import must_be

Factor = Callable[[int], float]


def constant(steps: int, *, warmup: int = 0) -> Factor:
    """Keep the optimizer's learning rate constant, after a linear rise over `warmup` steps.

    Args:
        steps: number of steps of the run; unused.
        warmup: steps over which the rate rises linearly from 0; 0 for none.

    Raises:
        ConfigError: `warmup` is negative.
    """
    must_be("schedule.warmup", warmup, least=0)
    return lambda step: rise(step, warmup)


def cosine(steps: int, *, warmup: int = 0, final: float = 0.0) -> Factor:
    """Lower the learning rate along half a cosine (Loshchilov and Hutter 2017).

    Args:
        steps: number of steps of the run.
        warmup: steps over which the rate first rises linearly from 0; 0 for none.
        final: factor on the optimizer's rate at the last step.

    Raises:
        ConfigError: `warmup` or `final` is negative.
    """
    must_be("schedule.warmup", warmup, least=0)
    must_be("schedule.final", final, least=0)

    def factor(step: int) -> float:
        done = min(1.0, max(0, step - warmup) / max(1, steps - warmup))
        return rise(step, warmup) * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))

    return factor


def decay(steps: int, *, factor: float = 0.8, every: int = 1000, warmup: int = 0) -> Factor:
    """Multiply the learning rate by `factor` after every `every` steps (the schedule of ImageCaptioning.pytorch).

    Args:
        steps: number of steps of the run; unused.
        factor: factor applied each time.
        every: number of steps between two reductions.
        warmup: steps over which the rate first rises linearly from 0; 0 for none.

    Raises:
        ConfigError: `warmup` is negative, `factor` is not above 0, or `every` is below 1.
    """
    must_be("schedule.warmup", warmup, least=0)
    must_be("schedule.factor", factor, above=0)
    must_be("schedule.every", every, least=1)
    return lambda step: rise(step, warmup) * factor ** (step // every)


def rise(step: int, warmup: int) -> float:
    """Return a factor that rises linearly from 0 to 1 over the first `warmup` steps, and is 1 afterwards."""
    return min(1.0, (step + 1) / warmup) if warmup else 1.0
