"""Extend Lightning's Trainer with this package's options, and adapt its progress bar."""

import shutil
import sys
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_only

from captioning.errors import ConfigError, must_be
from captioning.io import share_threads
from captioning.training.callbacks import WholeFiles


class Trainer(lightning.Trainer):
    """Lightning's Trainer with three more options.

    Args:
        skip_nonfinite: maximal number of batches to skip because their loss or gradient is not finite, before the run
            stops.
        save_every_minutes: minutes between two saves of last.ckpt inside an epoch; None saves it only at the end of
            each epoch.
        compile: whether to compile parts of the model before training (`compile_parts`).
        arguments: Lightning's own arguments.

    Raises:
        ConfigError: an option is out of its range, or the run would train nothing or have no end.
    """

    callbacks: list[lightning.Callback]  # set by Lightning, which does not declare it

    def __init__(
        self,
        *,
        skip_nonfinite: int = 0,
        save_every_minutes: float | None = None,
        compile: bool = False,
        **arguments: Any,
    ):
        must_be("trainer.skip_nonfinite", skip_nonfinite, least=0)
        must_be("trainer.save_every_minutes", save_every_minutes, above=0)
        must_be("trainer.gradient_clip_val", arguments.get("gradient_clip_val"), least=0)
        must_be("trainer.limit_train_batches", arguments.get("limit_train_batches"), above=0)
        must_be("trainer.accumulate_grad_batches", arguments.get("accumulate_grad_batches"), least=1)
        must_be("trainer.check_val_every_n_epoch", arguments.get("check_val_every_n_epoch"), least=1)
        epochs, steps = arguments.get("max_epochs"), arguments.get("max_steps", -1)
        for name, value in (("max_epochs", epochs), ("max_steps", steps)):
            if value == 0:
                raise ConfigError(f"trainer.{name}=0 trains nothing: set it to 1 or more, or to -1 for no limit")
        if steps == -1 and epochs == -1:
            raise ConfigError(
                "trainer.max_epochs=-1 sets no end, but the learning-rate schedule needs one. Set trainer.max_steps=N"
            )
        given = arguments.pop("plugins", None) or []
        plugins = [*(given if isinstance(given, list) else [given]), WholeFiles()]
        super().__init__(**arguments, plugins=plugins)
        share_threads(self.num_devices)
        self.skip_nonfinite, self.save_every_minutes, self.compile = skip_nonfinite, save_every_minutes, compile


@rank_zero_only
def clear_run(run_dir: Path) -> None:
    """Remove checkpoints, log and outcome of an earlier run, so that they are not mistaken for those of the new run."""
    for path in (*run_dir.glob("checkpoints/*.ckpt"), run_dir / "metrics.csv", run_dir / "outcome.json"):
        path.unlink(missing_ok=True)
    for folder in ("tensorboard", "trackers"):
        shutil.rmtree(run_dir / folder, ignore_errors=True)


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar with the loss and words/s, without Lightning's version number of the run.

    It is shown only on a terminal: in a file or a pipe, every update would become a line.

    Args:
        refresh_rate: number of batches between two updates.
    """

    def __init__(self, refresh_rate: int = 10):
        super().__init__(refresh_rate=refresh_rate if sys.stdout.isatty() else 0)  # 0: no bar

    def get_metrics(self, trainer, model) -> dict[str, Any]:
        """Return the numbers to the right of the bar."""
        return {name: value for name, value in super().get_metrics(trainer, model).items() if name != "v_num"}
