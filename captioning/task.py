"""The one LightningModule, and the log of a run. Glue: what is trained, decoded and scored is passed in."""

import csv
import os
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from captioning.data.datasets import CaptionBatch


class CaptioningTask(lightning.LightningModule):
    """Trains a captioner by an objective, and each epoch writes captions for the validation split and scores them.

    Args:
        captioner: models.captioner.Captioner.
        objective: (model, batch) -> objectives.Loss.
        write: (captioner, images) -> one caption text an image; the decoding used for validation.
        score: {image id: caption} -> {name: value}, logged as val/DECODING/name.
        decoding: name of the decoding, part of the names of the scores.
        optimizer: parameter groups -> optimiser.
        schedule: (optimiser, steps) -> scheduler.
        encoder_lr: learning rate of the encoder's unfrozen parameters.
        recipe: plain containers that travel in every checkpoint and rebuild the captioner.
    """

    def __init__(
        self,
        captioner: nn.Module,
        objective: Callable,
        *,
        write: Callable,
        score: Callable[[dict[int, str]], dict[str, float]],
        decoding: str,
        optimizer: Callable,
        schedule: Callable,
        encoder_lr: float,
        recipe: dict[str, Any],
    ):
        super().__init__()
        self.captioner, self.objective, self.write, self.score = captioner, objective, write, score
        self.decoding, self.optimizer, self.schedule, self.encoder_lr = decoding, optimizer, schedule, encoder_lr
        self.recipe = recipe
        self._captions: dict[int, str] = {}
        self._generators: dict[str, Any] | None = None
        self._clock = perf_counter()

    def training_step(self, batch: CaptionBatch, batch_index: int) -> torch.Tensor:
        """One step; logs every part of the loss under its own name, per caption, and nats per word."""
        loss = self.objective(self.captioner, batch)
        images = len(batch.image_ids)
        self.log("train/loss", loss.total.detach(), prog_bar=True, batch_size=images)
        for name, part in loss.parts.items():
            self.log(f"train/{name}", part, batch_size=images)
        now, self._clock = self._clock, perf_counter()
        self.log("words/s", loss.words / (self._clock - now), prog_bar=True, batch_size=images)
        return loss.total

    def on_train_epoch_start(self) -> None:
        """Starts the clock of words/s anew."""
        self._clock = perf_counter()

    def on_train_batch_end(self, *args) -> None:
        """A run that `max_steps` ends inside an epoch is validated there too, and so has a best checkpoint."""
        if self.trainer.global_step == self.trainer.max_steps:
            self.trainer.should_stop = True

    def validation_step(self, batch: CaptionBatch, batch_index: int) -> None:
        """Loss by teacher forcing, to be looked at; captions by decoding, to be scored."""
        loss = self.objective(self.captioner, batch)
        self.log("val/loss", loss.total, batch_size=len(batch.image_ids), sync_dist=True)
        texts = self.write(self.captioner, batch.images)
        self._captions.update(zip(batch.image_ids.tolist(), texts, strict=True))

    def on_validation_epoch_end(self) -> None:
        """Scores the captions of all processes together; every image counts once."""
        captions, self._captions = _gather(self._captions), {}
        if not self.trainer.sanity_checking:
            scores = {f"val/{self.decoding}/{name}": value for name, value in self.score(captions).items()}
            self.log_dict(scores, prog_bar=False, rank_zero_only=False)
        self._clock = perf_counter()

    def configure_optimizers(self) -> dict[str, Any]:
        """The decoder's parameters at the optimiser's rate, the encoder's unfrozen ones at `encoder_lr`."""
        encoder = [parameter for parameter in self.captioner.encoder.parameters() if parameter.requires_grad]
        inside = set(encoder)
        rest = [parameter for parameter in self.captioner.parameters() if parameter.requires_grad]
        groups = [{"params": [parameter for parameter in rest if parameter not in inside]}]
        if encoder:
            groups.append({"params": encoder, "lr": self.encoder_lr})
        optimizer = self.optimizer(groups)
        schedule = self.schedule(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what rebuilds the captioner, and the random generators; leaves a frozen encoder out.

        A frozen encoder is rebuilt from its recipe and held against its fingerprint; where the recipe cannot give its
        weights again (a file of the user's), they are in the recipe itself.
        """
        checkpoint["captioning"] = self.recipe
        checkpoint["generators"] = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
        if not any(parameter.requires_grad for parameter in self.captioner.encoder.parameters()):
            weights = checkpoint["state_dict"]
            checkpoint["state_dict"] = {k: v for k, v in weights.items() if not k.startswith("captioner.encoder.")}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Puts a frozen encoder's weights back beside the loaded ones; keeps the generators for the first step."""
        own = {f"captioner.encoder.{name}": value for name, value in self.captioner.encoder.state_dict().items()}
        checkpoint["state_dict"] = own | checkpoint["state_dict"]
        self._generators = checkpoint["generators"]

    def on_train_start(self) -> None:
        """A resumed run draws on as if it had never stopped."""
        if self._generators is not None:
            torch.set_rng_state(self._generators["cpu"].cpu())
            if len(self._generators["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([state.cpu() for state in self._generators["cuda"]])
            self._generators = None


class ProgressBar(TQDMProgressBar):
    """Lightning's bar with loss and words/s, without its version number, which a run named by its folder has not."""

    def get_metrics(self, trainer, model) -> dict[str, Any]:
        """What stands right of the bar."""
        return {name: value for name, value in super().get_metrics(trainer, model).items() if name != "v_num"}


class RunLog(Logger):
    """All logged numbers as one CSV file, a row a step; a resumed run appends to it.

    Lightning's own CSV logger deletes the file of a run that is resumed in its folder.

    Args:
        path: of the file; written to a temporary name and renamed, so that it is whole at any time.
    """

    SECONDS = 10.0  # between two writes of the whole file
    name = version = None

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.rows, self.saved_at = path, {}, 0.0

    def resume(self, step: int) -> None:
        """Reads the rows before `step`; later ones belong to steps that will be made again."""
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    if int(row["step"]) < step:
                        self.rows[int(row["step"])] = {name: value for name, value in row.items() if value}

    @rank_zero_only
    def log_hyperparams(self, *args, **kwargs) -> None:
        """The configuration lies beside the log as config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds numbers to a step's row."""
        self.rows.setdefault(step, {"step": step}).update(metrics)

    @rank_zero_only
    def save(self) -> None:
        """Called by the trainer after every logged step; writes the file when the last time was a while ago."""
        if perf_counter() - self.saved_at > self.SECONDS:
            self._write()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """The last rows."""
        self._write()

    def _write(self) -> None:
        columns = sorted({name for row in self.rows.values() for name in row} - {"step", "epoch"})
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["step", "epoch", *columns])
            writer.writeheader()
            writer.writerows(self.rows[step] for step in sorted(self.rows))
        os.replace(temporary, self.path)
        self.saved_at = perf_counter()


def _gather(captions: dict[int, str]) -> dict[int, str]:
    """The captions of all processes, in the order of their ids."""
    parts = [captions]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        parts = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, captions)
    return dict(sorted(pair for part in parts for pair in part.items()))
