"""Save whole checkpoint files at the ends of epochs and between steps, by Lightning's callbacks."""

import signal
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.plugins.environments import SLURMEnvironment

from captioning.io import write_whole
from captioning.training.signals import StopRequest


class WholeFiles(TorchCheckpointIO):
    """Checkpoint files that are never half written. Lightning's own writes to the system's folder of temporary files
    and copies from there where that is another disk, so that a kill can leave half a file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Replaces the file in one step."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(Path(path), lambda file: torch.save(checkpoint, file))


class Checkpoint(ModelCheckpoint):
    """Lightning's, that knows its best score again after the run's folder was moved: paths in it are names only."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the state of a checkpoint file for that of the folder that this one writes to, if its best is there."""
        folder = Path(self.dirpath)

        def moved(path: str) -> str:
            # A stranger's checkpoint may name other files, and Lightning deletes what it takes for its own.
            return str(folder / Path(path).name) if path and Path(path).suffix == ".ckpt" else ""

        keys = ("best_model_path", "kth_best_model_path", "last_model_path")
        paths = {key: moved(state_dict.get(key, "")) for key in keys}
        scores = {moved(path): score for path, score in state_dict.get("best_k_models", {}).items() if moved(path)}
        state_dict = state_dict | paths | {"best_k_models": scores}
        if paths["best_model_path"] and Path(paths["best_model_path"]).is_file():
            state_dict["dirpath"] = str(folder)
        super().load_state_dict(state_dict)
        self.current_score = state_dict.get("current_score")


class SaveBetweenSteps(lightning.Callback):
    """Saves last.ckpt between two steps every `trainer.save_every_minutes`, and when the run is asked to stop.

    The ends of epochs are Checkpoint's. A run that is asked to stop in a validation saves what was before it. Several
    processes stop together, and only before a step: their validations have different numbers of batches.

    Args:
        path: of last.ckpt.
    """

    def __init__(self, path: Path):
        self.path, self.stop, self.saved_at = path, StopRequest(), 0.0

    def on_train_start(self, trainer, module) -> None:
        """Listens from here on, in place of Lightning, which would stop wherever a batch ends and save nothing."""
        self.stop.listen(slurm=SLURMEnvironment.detect())
        if trainer.received_sigterm:  # Lightning has listened for a moment
            self.stop.received = signal.SIGTERM
        self.saved_at = perf_counter()

    def on_train_batch_start(self, trainer, module, batch, batch_index: int) -> None:
        """The one place where nothing of a step is in flight: all callbacks and loggers are done with the last one."""
        loop = trainer.fit_loop.epoch_loop
        loop._batches_that_stepped = trainer.global_step  # on resuming after a validation, Lightning counts one twice
        if loop.batch_progress.current.completed % trainer.accumulate_grad_batches:
            return
        stops = self.stop.received is not None
        every = trainer.save_every_minutes
        due = every is not None and perf_counter() - self.saved_at > 60 * every
        if trainer.strategy.reduce_boolean_decision(stops or due, all=False):
            self._save(trainer)
            if trainer.strategy.reduce_boolean_decision(stops, all=False):
                self._leave(trainer)

    def on_validation_batch_start(self, trainer, module, batch, batch_index: int, dataloader_index: int = 0) -> None:
        """Stops before the end of a long validation, which is then made anew."""
        if self.stop.received and trainer.world_size == 1 and not trainer.sanity_checking:
            for callback in trainer.callbacks:
                if isinstance(callback, WeightAveraging):  # has put the average in the model's place
                    callback.on_validation_epoch_end(trainer, module)
            self._save(trainer)
            self._leave(trainer)

    def on_train_epoch_end(self, trainer, module) -> None:
        """Checkpoint saves now."""
        self.saved_at = perf_counter()

    def _save(self, trainer) -> None:
        trainer.save_checkpoint(self.path)
        self.saved_at = perf_counter()

    def _leave(self, trainer) -> None:
        """Lightning shuts down on the way out; the first process tells."""
        if self.stop.received is None:  # another process was asked
            raise SystemExit(1)
        if trainer.is_global_zero:
            name, run_dir = self.stop.received.name, self.path.parents[1]
            told = (
                f"stopped by {name} before step {trainer.global_step}: go on with resume={self.path} run_dir={run_dir}"
            )
            print(told, file=sys.stderr)
            self.stop.requeue()
        raise SystemExit(self.stop.status)
