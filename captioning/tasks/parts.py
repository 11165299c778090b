"""Declare what a task gives the training command: a model, its objective, its data and its scores.

A task is a class without arguments, named by `task._target_` (conf/task). It has

    name     as checkpoints keep it
    schema   the dataclass (config/schemas.py) that its configuration is checked against
    task(config, resumed=checkpoint or None, started=checkpoint or None) -> Parts
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn


class Parts(NamedTuple):
    """The built and tried parts of a run. Every error in the configuration has been raised by then.

    Attributes:
        model: what is trained; `model.encoder` is what it looks through (nn.Identity for nothing).
        objective: (model, batch) -> objectives.Loss.
        predict: (model, batch, loss) -> {id: finding}, of a validation batch: a caption, an answer, a count.
        score: {id: finding} of the whole validation split -> {full name of a score: value}.
        monitor, mode: the score that best.ckpt and early stopping go by, and whether "max" or "min" of it is best.
        metadata: plain containers that travel in every checkpoint and rebuild the model.
        load: () -> the loaders, and a line about the data; what may take long (features) is done here.
        digest: of the data that are learnt from and scored against (`provenance`), by which a resumed run knows them.
        encoder: what becomes `model.encoder`, at the latest by `load`.
        encoder_lr, encoder_warmup: of its unfrozen layers, where it may have any.
        monitor_fault: () -> why that score cannot tell epochs apart on these validation data, or "": the validation
            loss then takes its place.
    """

    model: nn.Module
    objective: Callable
    predict: Callable[..., dict[int, Any]]
    score: Callable[[dict[int, Any]], Mapping[str, float]]
    monitor: str
    mode: str
    metadata: dict[str, Any]
    load: Callable[[], tuple[Any, str]]
    digest: str
    encoder: nn.Module
    encoder_lr: float | None = None
    encoder_warmup: int = 0
    monitor_fault: Callable[[], str] = str
