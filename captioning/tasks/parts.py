"""Declare what a task passes to the training command: a model, its objective, its data and its scores.

A task is a class without arguments, named by `task._target_` (conf/task). It has

    name     the name of the task in checkpoints
    schema   the dataclass (config/schemas.py) that defines its settings
    task(config, resumed=checkpoint or None, started=checkpoint or None) -> Parts
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from PIL import Image
from torch import nn


class Parts(NamedTuple):
    """The parts of a run, built and tested: every error in the configuration has been raised before.

    Attributes:
        model: the model to train; its `encoder` is an nn.Identity if it needs none.
        objective: function (model, batch) -> `captioning.objectives.Loss`.
        predict: function (model, batch, loss) -> {id: prediction} of a validation batch. A prediction is a caption, an
            answer or a count.
        score: function from the predictions {id: prediction} of the validation split to {full name of a score: value}.
        monitor: the score that selects best.ckpt and that early stopping watches.
        mode: "max" or "min": which values of `monitor` are better.
        metadata: plain containers that are saved in every checkpoint and from which the model can be rebuilt.
        load: function without arguments that returns the loaders and a line about the data. Slow work, such as
            computing features, is done here.
        digest: digest of the training and validation data (`captioning.training.digest`), which a resumed run compares.
        encoder: the encoder, which is set as `model.encoder` by `load` at the latest.
        encoder_lr: learning rate of the encoder's unfrozen layers, if it has any.
        encoder_warmup: steps over which `encoder_lr` rises from 0.
        monitor_fault: function without arguments that returns why `monitor` cannot compare epochs on these validation
            data, or "". If there is a reason, the validation loss is monitored instead.
        illustrate: function (model, number of images) -> [(text, image)] that draws predictions for validation images,
            the same ones each time, after `load`; None if the task draws none.
        intervals: function from predictions, as `score` takes them, to {full name of a score: (score, low, high)} with
            95 % intervals; None if the task has none.
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
    illustrate: Callable[[Any, int], list[tuple[str, Image.Image]]] | None = None
    intervals: Callable[[dict[int, Any]], Mapping[str, tuple[float, float, float]]] | None = None
