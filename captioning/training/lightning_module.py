"""Train any model by any objective: one LightningModule, which validates, scores and saves what resumes a run.

Glue: what is trained, looked at and scored is passed in."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from captioning.errors import ConfigError, TrainingError, must_be
from captioning.models import defer, drop_batch, drop_step, end_step, keep_batch
from captioning.training.accumulation import Accumulation, not_zero, validates_inside_steps
from captioning.training.csv_logger import RunLog
from captioning.training.loop_progress import Position, go_to, position
from captioning.training.lr_schedules import rise
from captioning.training.processes import faults_of_all, gather_by_id, generator_states, of_all, own_state, world_size

# Where a checkpoint holds weights; the second is Lightning's, for those in training where the first are their average.
_WEIGHTS = {"state_dict", "current_model_state"}


class CaptioningTask(lightning.LightningModule):
    """Trains a model by an objective, and each epoch looks at what it does on the validation split and scores that.

    A batch is a NamedTuple whose first field are the ids [B] of its items, by whose name and numbers a fault is told.

    Args:
        captioner: the model: models.captioner.Captioner, or what another kind of run trains; has an `encoder`.
        objective: (model, batch) -> objectives.Loss; what it remembers travels in checkpoints.
        predict: (captioner, batch, loss) -> {id: finding} of a validation batch, such as one caption an image.
        score: {id: finding} of all processes together -> {name: value}, logged by these names.
        optimizer: parameter groups -> optimizer.
        schedule: steps of the run -> (step -> factor on the learning rates).
        encoder_lr: learning rate of the encoder's unfrozen parameters; may be None where it has none.
        encoder_warmup: steps over which that rate rises from 0, beside the schedule.
        metadata: plain containers that travel in every checkpoint and rebuild the model.
    """

    def __init__(
        self,
        captioner: nn.Module,
        objective: Callable,
        *,
        predict: Callable[..., dict[int, Any]],
        score: Callable[[dict[int, Any]], Mapping[str, float]],
        optimizer: Callable,
        schedule: Callable,
        metadata: dict[str, Any],
        encoder_lr: float | None = None,
        encoder_warmup: int = 0,
    ):
        super().__init__()
        must_be("encoder_lr", encoder_lr, above=0)
        must_be("encoder_warmup", encoder_warmup, least=0)
        self.captioner, self.objective, self.predict, self.score = captioner, objective, predict, score
        self.optimizer, self.schedule = optimizer, schedule
        self.encoder_lr, self.encoder_warmup, self.metadata = encoder_lr, encoder_warmup, metadata
        self.skipped = 0  # batches left out for a loss or gradient that is not finite
        self._accumulation = Accumulation()
        self._val_loss: torch.Tensor | None = None  # sum over items and their number, of the validation so far
        self._predictions: dict[int, Any] = {}
        self._faults: dict[int, str] = {}  # of validation batches, by the first of their ids
        self._generators: dict[str, Any] | None = None  # to be set when training starts
        self._before_validation: dict[str, Any] | None = None
        self._before_step: dict[str, Any] | None = None  # of a step of several batches, once its first has begun
        self._clock = perf_counter()

    def training_step(self, batch: NamedTuple, batch_index: int) -> torch.Tensor | None:
        """Loss of one batch; logs every part of it, and what else the objective reports, under its own name."""
        if self.trainer.accumulate_grad_batches > 1 and not self._before_step:
            self._before_step = generator_states()
        loss = self.objective(self.captioner, batch)
        self._ids = batch._fields[0].replace("_", " "), batch[0]
        if self._not_finite("" if loss.total.isfinite() else _fault(loss, "train")):
            drop_batch(self)
            # Without a loss, the loss scaler of 16-bit precision would leave out the accumulated batches too.
            return self._nothing() if world_size() > 1 or self.trainer.accumulate_grad_batches > 1 else None
        keep_batch(self)
        size = len(batch[0])
        self.log("train/loss", loss.total.detach(), prog_bar=True, batch_size=size)
        for name, value in (loss.parts | loss.stats).items():
            self.log(f"train/{name}", value.detach(), batch_size=size)
        now, self._clock = self._clock, perf_counter()
        self.log("words/s", loss.words / (self._clock - now), prog_bar=True, batch_size=size)
        return self._accumulation.weigh(loss, self.trainer.accumulate_grad_batches)

    def on_before_optimizer_step(self, optimizer) -> None:
        """Divide the gradient by the items of all accumulated batches.

        A gradient that is not finite is never applied; in 16-bit precision the loss scaler sees to that.
        """
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        left_out = not self._accumulation.finish(gradients, self.trainer.accumulate_grad_batches)
        if not str(self.trainer.precision).startswith("16"):
            finite = not gradients or torch.nn.utils.get_total_norm(gradients).isfinite()
            left_out |= self._not_finite("" if finite else "the gradient is not finite")
        if left_out:
            optimizer.zero_grad()  # None, by which an optimizer does not move: by zeros its momentum would
            drop_step(self)
        else:
            end_step(self)
        self._before_step = None  # not before: a run that stops in here goes on from the step's beginning

    def _nothing(self) -> torch.Tensor:
        """A loss without a gradient. Several processes need it, as they wait for one another in the backward pass."""
        sums = [parameter.sum() for parameter in self.parameters() if parameter.requires_grad]
        return 0.0 * torch.stack(sums).sum()

    def _not_finite(self, what: str) -> bool:
        """Whether the batch is left out, on all processes for what went wrong on any (here: `what`, if anything).

        Where the trainer does not allow it any more, all processes save last.ckpt together and stop.
        """
        faults = faults_of_all(what, self._ids[1], self.device)
        if not faults:
            return False
        told = "; ".join(f"{what}; {self._ids[0]} {_listed(ids)}" for what, ids in faults)
        where = f"step {self.trainer.global_step}: {told}"
        if self.skipped < self.trainer.skip_nonfinite:
            self.skipped += 1
            if self.trainer.is_global_zero:
                print(f"left out ({self.skipped} of at most {self.trainer.skip_nonfinite}): {where}", file=sys.stderr)
            return True
        last = Path(self.trainer.default_root_dir, "checkpoints", "last.ckpt")
        self.trainer.save_checkpoint(last)
        if not self.trainer.is_global_zero:
            raise SystemExit(1)  # one process tells
        raise TrainingError(
            f"{where}. The weights from before this step are in {last}: go on from there (resume=) with a lower "
            "trainer.gradient_clip_val or with trainer.skip_nonfinite=N, which leaves such batches out, or start anew "
            "with a lower optimizer.lr"
        )

    def on_fit_start(self) -> None:
        """Parts with a memory wait for the end of each step, of all its processes and accumulated batches."""
        defer(self)

    def on_fit_end(self) -> None:
        """Parts with a memory are again as in a plain loop."""
        defer(self, False)

    def on_train_epoch_start(self) -> None:
        """Starts the clock of words/s anew."""
        self._clock = perf_counter()

    def on_train_batch_end(self, *args) -> None:
        """A run that `max_steps` ends inside an epoch is validated there too, and so has a best checkpoint."""
        if self.trainer.global_step == self.trainer.max_steps:
            self.trainer.should_stop = True

    def on_validation_start(self) -> None:
        """A decoding that samples draws from here."""
        self._before_validation, self._val_loss = generator_states(), None

    def on_validation_end(self) -> None:
        """The clock of words/s stood still."""
        self._before_validation = None
        self._clock = perf_counter()

    def validation_step(self, batch: NamedTuple, batch_index: int) -> None:
        """Log the objective's loss, and keep the predictions to be scored. A loss that is not finite is reported at
        the end of the validation: processes have different numbers of batches, and must stop together."""
        loss = self.objective(self.captioner, batch)
        if not loss.total.isfinite():
            ids = batch[0].tolist()
            self._faults[ids[0]] = f"{_fault(loss, 'val')}; {batch._fields[0].replace('_', ' ')} {_listed(ids)}"
            return
        sums = torch.stack((loss.total * loss.count, loss.count.to(loss.total.dtype)))
        sums = sums if self.device.type == "mps" else sums.double()
        self._val_loss = sums if self._val_loss is None else self._val_loss + sums
        self._predictions.update(self.predict(self.captioner, batch, loss))

    def on_validation_epoch_end(self) -> None:
        """Log the mean loss of all items, and score the predictions, of all processes together; every item counts once.

        Raises:
            TrainingError: a loss was not finite; nothing is saved, as it would be by a score of what is left.
        """
        faults, self._faults = gather_by_id(self._faults), {}
        if faults:
            self._stop(list(faults.values()))
        sums, self._val_loss = self._val_loss, None
        if world_size() > 1:
            sums = torch.zeros(2, dtype=torch.float64, device=self.device) if sums is None else sums  # no batch here
            torch.distributed.all_reduce(sums)
        self.log("val/loss", sums[0] / not_zero(sums[1]))
        predictions, self._predictions = gather_by_id(self._predictions), {}
        if not self.trainer.sanity_checking:
            self.log_dict(dict(self.score(predictions)), prog_bar=False, rank_zero_only=False)

    def _stop(self, faults: Sequence[str]) -> None:
        """On all processes, for losses of a validation."""
        if not self.trainer.is_global_zero:
            raise SystemExit(1)  # one process tells
        more = f" (and {len(faults) - 1} more batches)" if len(faults) > 1 else ""
        last = Path(self.trainer.default_root_dir, "checkpoints", "last.ckpt")
        go_on = f"go on from {last} (resume=) with a lower trainer.gradient_clip_val, or " if last.is_file() else ""
        raise TrainingError(
            f"validation after step {self.trainer.global_step}: {faults[0]}{more}. Checkpoints are left as they were "
            f"before it: {go_on}start anew with a lower optimizer.lr"
        )

    def configure_optimizers(self) -> dict[str, Any]:
        """All but the encoder's parameters at the optimizer's rate, the encoder's unfrozen ones at `encoder_lr`."""
        encoder = [parameter for parameter in self.captioner.encoder.parameters() if parameter.requires_grad]
        inside = set(encoder)
        rest = [parameter for parameter in self.captioner.parameters() if parameter.requires_grad]
        groups = [{"params": [parameter for parameter in rest if parameter not in inside]}]
        if encoder:
            groups.append({"params": encoder, "lr": self.encoder_lr})
        optimizer = self.optimizer(groups)
        factor = self.schedule(int(self.trainer.estimated_stepping_batches))
        factors = [factor, lambda step: factor(step) * rise(step, self.encoder_warmup)]
        schedule = LambdaLR(optimizer, factors[: len(groups)])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what rebuilds the model, the place in the run and the random generators; leaves a frozen encoder
        out. The log on disk is never behind a checkpoint.

        A frozen encoder is rebuilt from its metadata and compared with its fingerprint; where the metadata cannot give
        its weights again (a file of the user's), they are in the metadata itself.
        """
        checkpoint["captioning"] = self.metadata
        checkpoint["skipped"] = self.skipped
        checkpoint["position"] = asdict(position(self.trainer))
        # Batches of an unfinished step are computed again, with the numbers that they drew.
        checkpoint["generators"] = of_all(self._before_validation or self._before_step or generator_states())
        if not any(parameter.requires_grad for parameter in self.captioner.encoder.parameters()):
            for key in _WEIGHTS & checkpoint.keys():
                kept = {k: v for k, v in checkpoint[key].items() if not k.startswith("captioner.encoder.")}
                checkpoint[key] = kept
        for logger in self.loggers:
            if isinstance(logger, RunLog):
                logger.write()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Puts a frozen encoder's weights back beside the loaded ones, and the run where it was; keeps the generators
        for the first step."""
        own = {f"captioner.encoder.{name}": value for name, value in self.captioner.encoder.state_dict().items()}
        for key in _WEIGHTS & checkpoint.keys():
            checkpoint[key] = own | checkpoint[key]
        self._generators, self.skipped = own_state(checkpoint["generators"], self.trainer), checkpoint["skipped"]
        if "position" in checkpoint:  # else of an earlier version, at an epoch's end
            loops = checkpoint.pop("loops")["fit_loop"]
            go_to(self.trainer, Position(**checkpoint["position"]), loops)
        self._stop_early(checkpoint["callbacks"])

    def _stop_early(self, states: dict[str, Any]) -> None:
        """A run that had stopped early does so again, unless its patience is longer now."""
        for callback in self.trainer.callbacks:
            state = states.get(callback.state_key) if isinstance(callback, EarlyStopping) else None
            if state:
                state["patience"] = callback.patience
                self.trainer.should_stop |= state["wait_count"] >= callback.patience

    def on_train_start(self) -> None:
        """A resumed run draws on as if it had never stopped.

        Raises:
            ConfigError: a validation would come between two accumulated batches, whose gradients no checkpoint holds.
        """
        self._clock = perf_counter()
        if validates_inside_steps(self.trainer):
            batches = self.trainer.accumulate_grad_batches
            raise ConfigError(
                "trainer.val_check_interval puts a validation inside an optimizer step of "
                f"trainer.accumulate_grad_batches={batches}: set it to a whole number of batches that "
                f"{batches} divides, or leave it out to validate at the ends of epochs"
            )
        if self._generators is None and self.trainer.global_rank:  # else all processes would draw the same numbers
            torch.manual_seed(torch.initial_seed() + self.trainer.global_rank)
        if self._generators is not None:
            torch.set_rng_state(self._generators["cpu"].cpu())
            if len(self._generators["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([state.cpu() for state in self._generators["cuda"]])
            self._generators = None


def _fault(loss, split: str) -> str:
    """The parts of a loss that are not finite, by the names that they are logged under."""
    parts = {name: float(part) for name, part in loss.parts.items()}
    names = [f"{split}/{name} is {value}" for name, value in parts.items() if not isfinite(value)]
    return ", ".join(names) or f"{split}/loss is {float(loss.total)}"


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids))
