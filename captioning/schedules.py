"""Learning-rate schedules: functions (optimizer, steps) -> torch scheduler, stepped once an optimiser step."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def constant(optimizer: Optimizer, steps: int, *, warmup: int = 0) -> LambdaLR:
    """The optimiser's rate throughout, after a linear rise over `warmup` steps."""
    return LambdaLR(optimizer, lambda step: _rise(step, warmup))


def cosine(optimizer: Optimizer, steps: int, *, warmup: int = 0, final: float = 0.0) -> LambdaLR:
    """Half a cosine from the optimiser's rate to `final` times it at the last of `steps` (Loshchilov, Hutter 2017)."""

    def factor(step: int) -> float:
        done = min(1.0, max(0, step - warmup) / max(1, steps - warmup))
        return _rise(step, warmup) * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))

    return LambdaLR(optimizer, factor)


def decay(optimizer: Optimizer, steps: int, *, factor: float = 0.8, every: int = 1000, warmup: int = 0) -> LambdaLR:
    """The rate times `factor` after every `every` steps (the schedule of ImageCaptioning.pytorch)."""
    return LambdaLR(optimizer, lambda step: _rise(step, warmup) * factor ** (step // every))


def _rise(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) if warmup else 1.0
