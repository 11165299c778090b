"""Extend Lightning's Trainer by the options of a captioning run, and show its progress bar."""

import shutil
import sys
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_only

from captioning.errors import ConfigError, must_be
from captioning.training.callbacks import WholeFiles


class Trainer(lightning.Trainer):
    """Lightning's Trainer, that also says how many batches may be left out, when a long epoch is saved inside, and
    whether parts are compiled.

    Args:
        skip_nonfinite: batches whose loss or gradient is not finite that are left out before the run stops.
        save_every_minutes: last.ckpt is saved between two steps so often, beside the ends of epochs; None: only there.
        compile: whether torch.compile is wanted (captioning.training.compile), before `fit`.
        arguments: Lightning's.
    """

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
                raise ConfigError(f"trainer.{name}=0 trains nothing: give at least 1, or -1 for no such limit")
        if steps == -1 and epochs == -1:
            raise ConfigError("trainer.max_epochs=-1 has no end, which a schedule needs: give trainer.max_steps")
        given = arguments.pop("plugins", None) or []
        plugins = [*(given if isinstance(given, list) else [given]), WholeFiles()]
        super().__init__(**arguments, plugins=plugins)
        self.skip_nonfinite, self.save_every_minutes, self.compile = skip_nonfinite, save_every_minutes, compile


@rank_zero_only
def clear_run(run_dir: Path) -> None:
    """Removes what an earlier run left in its folder: its best.ckpt would be taken for the new run's."""
    for path in (*run_dir.glob("checkpoints/*.ckpt"), run_dir / "metrics.csv", run_dir / "outcome.json"):
        path.unlink(missing_ok=True)
    shutil.rmtree(run_dir / "tensorboard", ignore_errors=True)


class ProgressBar(TQDMProgressBar):
    """Lightning's bar with loss and words/s, without its version number, which a run named by its folder has not.

    Only on a terminal: in a file or a pipe every update would be a line of its own.
    """

    def __init__(self, refresh_rate: int = 10):
        super().__init__(refresh_rate=refresh_rate if sys.stdout.isatty() else 0)  # 0: no bar

    def get_metrics(self, trainer, model) -> dict[str, Any]:
        """What stands right of the bar."""
        return {name: value for name, value in super().get_metrics(trainer, model).items() if name != "v_num"}
