"""Save checkpoints at the end of each epoch and between steps, with Lightning callbacks."""

import signal
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, WeightAveraging
from lightning.pytorch.plugins.environments import SLURMEnvironment

from captioning.io import write_whole
from captioning.training.signals import StopRequest


class WholeFiles(TorchCheckpointIO):
    """Atomic writing of checkpoint files: a killed process never leaves half a file.

    Lightning's own plug-in writes to the system's temporary folder first. If that folder is on another disk, it then
    copies the file, and a process killed during the copy leaves half a checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the checkpoint to a temporary file, then rename it to `path`."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(Path(path), lambda file: torch.save(checkpoint, file))


class Checkpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which also finds its best checkpoint after the run folder was moved.

    Lightning stores absolute paths in its state. On loading, only the file names of these paths are used.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the callback's state, with all its paths moved to this callback's folder.

        The best score is restored only if the best checkpoint is in this folder.
        """
        assert self.dirpath is not None  # every run sets it
        folder = Path(self.dirpath)

        def moved(path: str) -> str:
            # A downloaded checkpoint may name any file, and Lightning deletes files that it believes to be its own.
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
    """A callback that saves last.ckpt between two steps: every `trainer.save_every_minutes`, and on a stop signal.

    `Checkpoint` saves at the end of each epoch. A run that is stopped during a validation saves the state from before
    that validation. Several processes stop together, and only before a training step, because their validations have
    different numbers of batches.

    Args:
        path: path of last.ckpt.
    """

    def __init__(self, path: Path):
        self.path, self.stop, self.saved_at = path, StopRequest(), 0.0

    def on_train_start(self, trainer, module) -> None:
        """Handle stop signals from here on.

        Lightning's own handlers would stop after any batch and save nothing.
        """
        self.stop.listen(slurm=SLURMEnvironment.detect())
        if trainer.received_sigterm:  # a SIGTERM that arrived while Lightning's handler was active
            self.stop.received = signal.SIGTERM
        self.saved_at = perf_counter()

    def on_train_batch_start(self, trainer, module, batch, batch_index: int) -> None:
        """Save and stop here if requested.

        Only at this point is no step in progress: all callbacks and loggers have finished the previous step.
        """
        loop = trainer.fit_loop.epoch_loop
        # After resuming from a validation, Lightning counts one step twice.
        loop._batches_that_stepped = trainer.global_step
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
        """Stop during a validation if requested; the resumed run repeats this validation from its beginning."""
        if self.stop.received and trainer.world_size == 1 and not trainer.sanity_checking:
            for callback in trainer.callbacks:
                if isinstance(callback, WeightAveraging):  # put the model's own weights back, instead of their average
                    callback.on_validation_epoch_end(trainer, module)
            self._save(trainer)
            self._leave(trainer)

    def on_train_epoch_end(self, trainer, module) -> None:
        """Restart the interval of `trainer.save_every_minutes`: `Checkpoint` saves now."""
        self.saved_at = perf_counter()

    def _save(self, trainer) -> None:
        trainer.save_checkpoint(self.path)
        self.saved_at = perf_counter()

    def _leave(self, trainer) -> None:
        """Exit the process, which lets Lightning shut down; only the first process prints the reason."""
        if self.stop.received is None:  # another process received the signal
            raise SystemExit(1)
        if trainer.is_global_zero:
            name, run_dir = self.stop.received.name, self.path.parents[1]
            print(
                f"stopped by {name} before step {trainer.global_step}. To resume, repeat the command with: "
                f"resume={self.path} run_dir={run_dir}",
                file=sys.stderr,
            )
            self.stop.requeue()
        raise SystemExit(self.stop.status)


class AveragedWeights(EMAWeightAveraging):
    """Exponential moving average of the weights in which a frozen weight stays exactly as it is.

    Lightning's average of equal numbers drifts by rounding. Then every checkpoint of a fine-tuned encoder would have
    another frozen part, with a feature store of its own.
    """

    def __init__(self, **given: Any):
        super().__init__(**given)
        average = self._kwargs["avg_fn"]
        self._kwargs["avg_fn"] = lambda mean, now, count: torch.where(mean == now, mean, average(mean, now, count))

    @property
    def state_key(self) -> str:
        """The name of this callback in checkpoints, the same as in those of earlier versions."""
        return EMAWeightAveraging.__qualname__
