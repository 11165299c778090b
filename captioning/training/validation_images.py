"""Log images with attention maps after each validation, and the scores of the best validation at the end of a run."""

from collections.abc import Callable, Mapping
from typing import Any

import lightning
import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from PIL import Image

from captioning.training.trackers import Tracker

Illustrate = Callable[[Any, int], list[tuple[str, Image.Image]]]
Intervals = Callable[[dict[int, Any]], Mapping[str, tuple[float, float, float]]]


class LogValidation(lightning.Callback):
    """A callback that logs images after each validation, and the best scores with their intervals at the end.

    It must be the first callback: those that average weights put the model's own weights back at the end of a
    validation, before the callbacks after them.

    Args:
        monitor: the metric that selects best.ckpt.
        mode: "max" or "min": which values of `monitor` are better.
        images: number of images per validation.
        illustrate: function (model, number of images) -> [(text, image)], the same images each time; None: no images.
        intervals: function from the predictions of a validation to {full name of a score: (score, low, high)}; None if
            the task has no intervals.
    """

    def __init__(
        self, monitor: str, mode: str, *, images: int, illustrate: Illustrate | None, intervals: Intervals | None
    ):
        self.monitor, self.mode, self.images = monitor, mode, images
        self.illustrate, self.intervals = illustrate, intervals
        self.best: tuple[float, dict[int, Any] | None] | None = None  # value of `monitor`, and predictions

    def on_train_start(self, trainer, module) -> None:
        """Take the best value of a resumed run from its checkpoint, which does not have the predictions."""
        found = trainer.checkpoint_callbacks[0].best_model_score
        self.best = None if found is None else (float(found), None)

    def on_validation_epoch_end(self, trainer, module) -> None:
        """Log the images, with the weights that are validated."""
        if trainer.sanity_checking or not trainer.is_global_zero or not self.images or self.illustrate is None:
            return
        for number, (text, image) in enumerate(self.illustrate(module.captioner, self.images), start=1):
            for logger in trainer.loggers:
                _log_image(logger, f"images/{number}", image, text, trainer.global_step)

    def on_validation_end(self, trainer, module) -> None:
        """Keep the predictions of the best validation."""
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or value is None:
            return
        sign = 1 if self.mode == "max" else -1
        if self.best is None or sign * float(value) > sign * self.best[0]:
            self.best = float(value), module.validated

    def on_train_end(self, trainer, module) -> None:
        """Log the best value, and the scores of its predictions with 95 % intervals."""
        trackers = [logger for logger in trainer.loggers if isinstance(logger, Tracker)]
        if not trackers or self.best is None or not trainer.is_global_zero:
            return
        value, predictions = self.best
        found = {f"best/{self.monitor}": value}
        if predictions and self.intervals:
            for name, (score, low, high) in self.intervals(predictions).items():
                # Not "/low": MLflow's file store has one file per name, which cannot be a folder too.
                found |= {f"best/{name}": score, f"best/{name}_low": low, f"best/{name}_high": high}
        for tracker in trackers:
            tracker.log_metrics(found, trainer.global_step)


def _log_image(logger: Logger, name: str, image: Image.Image, text: str, step: int) -> None:
    if isinstance(logger, Tracker):
        logger.log_image(name, image, text, step)
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
