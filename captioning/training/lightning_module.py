"""Train any model with any objective: the one LightningModule of the package.

It trains, validates, scores, and saves what a resumed run needs. Model, objective, prediction and scoring are given.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, cast

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from captioning.errors import ConfigError, TrainingError, must_be
from captioning.models import defer, drop_batch, drop_step, end_step, keep_batch
from captioning.training.accumulation import Accumulation, not_zero, validates_inside_steps
from captioning.training.csv_logger import RunLog
from captioning.training.loop_progress import Position, go_to, position
from captioning.training.lr_schedules import rise
from captioning.training.processes import faults_of_all, gather_by_id, generator_states, of_all, own_state, world_size
from captioning.training.trainer import Trainer

# Keys of a checkpoint that contain weights. With weight averaging, Lightning stores the average under the first key and
# the weights in training under the second.
_WEIGHTS = {"state_dict", "current_model_state"}


class CaptioningTask(lightning.LightningModule):
    """A LightningModule that trains a model with an objective, and scores its predictions at every validation.

    A batch is a NamedTuple whose first field contains the ids [B] of its items. Error messages name this field and the
    ids of the batch.

    Args:
        captioner: the model: a `captioning.models.CaptionModel`, or the model of another task; it has an `encoder`.
        objective: function (model, batch) -> `captioning.objectives.Loss`; its state is saved in checkpoints.
        predict: function (captioner, batch, loss) -> {id: prediction} of a validation batch, such as one caption per
            image.
        score: function from the predictions {id: prediction} of all processes to {name: value}, logged by these names.
        optimizer: function from parameter groups to an optimizer.
        schedule: function from the number of steps of the run to a function from a step to its learning-rate factor.
        metadata: plain containers that are saved in every checkpoint and from which the model can be rebuilt.
        encoder_lr: learning rate of the encoder's unfrozen parameters; None if it has none.
        encoder_warmup: steps over which `encoder_lr` rises linearly from 0, multiplied by the schedule's factor.

    Raises:
        ConfigError: `encoder_lr` is not above 0, or `encoder_warmup` is negative.
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
        self.skipped = 0  # batches skipped because their loss or gradient was not finite
        self._accumulation = Accumulation()
        self._val_loss: torch.Tensor | None = None  # [2]: sum over items, and number of items so far
        self._predictions: dict[int, Any] = {}
        self.validated: dict[int, Any] = {}  # the predictions of the last validation, of all processes
        self._faults: dict[int, str] = {}  # of validation batches, by the first id of the batch
        self._generators: dict[str, Any] | None = None  # states of a loaded checkpoint, restored when training starts
        self._before_validation: dict[str, Any] | None = None
        self._before_step: dict[str, Any] | None = None  # generator states at the start of an accumulated step
        self._clock = perf_counter()

    @property
    def _own_trainer(self) -> Trainer:
        """The trainer, with this package's own options."""
        return cast(Trainer, self.trainer)

    @property
    def _encoder(self) -> nn.Module:
        return cast(nn.Module, self.captioner.encoder)

    def training_step(self, batch: NamedTuple, batch_index: int) -> torch.Tensor | None:
        """Return the loss of one batch; log each of its parts and the objective's statistics under their own names.

        Raises:
            TrainingError: the loss is not finite, and no further batch may be skipped.
        """
        if self.trainer.accumulate_grad_batches > 1 and not self._before_step:
            self._before_step = generator_states()
        loss = self.objective(self.captioner, batch)
        self._ids = _name_of_ids(batch), batch[0]
        if self._not_finite("" if loss.total.isfinite() else _fault(loss, "train")):
            drop_batch(self)
            # If None were returned, the loss scaler of 16-bit precision would skip the other accumulated batches too.
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
        """Divide the gradient by the number of items of all accumulated batches, and drop it if it is not finite.

        In 16-bit precision the loss scaler already skips gradients that are not finite.

        Raises:
            TrainingError: the gradient is not finite, and no further batch may be skipped.
        """
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        skip = not self._accumulation.finish(gradients, self.trainer.accumulate_grad_batches)
        if not str(self.trainer.precision).startswith("16"):
            finite = not gradients or torch.nn.utils.get_total_norm(gradients).isfinite()
            skip |= self._not_finite("" if finite else "the gradient is not finite")
        if skip:
            optimizer.zero_grad()  # sets None, which optimizers skip; with zeros, momentum would still move the weights
            drop_step(self)
        else:
            end_step(self)
        self._before_step = None  # only here: a run that stops above resumes from the beginning of the step

    def _nothing(self) -> torch.Tensor:
        """Return a loss whose gradient is zero: several processes wait for one another in the backward pass."""
        sums = [parameter.sum() for parameter in self.parameters() if parameter.requires_grad]
        return 0.0 * torch.stack(sums).sum()

    def _not_finite(self, what: str) -> bool:
        """Return whether to skip the batch. All processes skip it if any of them has a fault.

        Args:
            what: the fault of this process; "" for none.

        Raises:
            TrainingError: no further batch may be skipped. All processes have saved last.ckpt together.
        """
        faults = faults_of_all(what, self._ids[1], self.device)
        if not faults:
            return False
        reasons = "; ".join(f"{what} (batch with {self._ids[0]} {_listed(ids)})" for what, ids in faults)
        where = f"step {self.trainer.global_step}: {reasons}"
        allowed = self._own_trainer.skip_nonfinite
        if self.skipped < allowed:
            self.skipped += 1
            if self.trainer.is_global_zero:
                skipped = f"Skipped this batch ({self.skipped} of at most trainer.skip_nonfinite={allowed})"
                print(f"warning: {where}. {skipped}", file=sys.stderr)
            return True
        last = Path(self.trainer.default_root_dir, "checkpoints", "last.ckpt")
        self.trainer.save_checkpoint(last)
        if not self.trainer.is_global_zero:
            raise SystemExit(1)  # only the first process prints the error
        raise TrainingError(
            f"{where}. The weights from before this step are in {last}. Resume with resume={last} and a lower "
            "trainer.gradient_clip_val, or with trainer.skip_nonfinite=10 to skip up to 10 such batches; or start "
            "again with a lower optimizer.lr"
        )

    def on_fit_start(self) -> None:
        """Make parts with running statistics update them once per step, over all its processes and batches."""
        defer(self)

    def on_fit_end(self) -> None:
        """Make parts with running statistics update them at once again, as outside training."""
        defer(self, False)

    def on_train_epoch_start(self) -> None:
        """Restart the clock of words/s."""
        self._clock = perf_counter()

    def on_train_batch_end(self, *args) -> None:
        """Validate also when `max_steps` ends the run inside an epoch, so that there is a best checkpoint."""
        if self.trainer.global_step == self.trainer.max_steps:
            self.trainer.should_stop = True

    def on_validation_start(self) -> None:
        """Remember the generator states from before this validation: decoding by sampling changes them."""
        self._before_validation, self._val_loss = generator_states(), None

    def on_validation_end(self) -> None:
        """Restart the clock of words/s: a validation does not count."""
        self._before_validation = None
        self._clock = perf_counter()

    def validation_step(self, batch: NamedTuple, batch_index: int) -> None:
        """Add up the objective's loss and keep the predictions, to be scored at the end of the validation.

        A loss that is not finite is also reported at the end: processes have different numbers of batches and must
        stop together.
        """
        loss = self.objective(self.captioner, batch)
        if not loss.total.isfinite():
            ids = batch[0].tolist()
            self._faults[ids[0]] = f"{_fault(loss, 'val')} (batch with {_name_of_ids(batch)} {_listed(ids)})"
            return
        sums = torch.stack((loss.total * loss.count, loss.count.to(loss.total.dtype)))
        sums = sums if self.device.type == "mps" else sums.double()
        self._val_loss = sums if self._val_loss is None else self._val_loss + sums
        self._predictions.update(self.predict(self.captioner, batch, loss))

    def on_validation_epoch_end(self) -> None:
        """Log the mean loss over all items, and score the predictions of all processes; every item counts once.

        Raises:
            TrainingError: a loss was not finite. No checkpoint is saved, because the score would be of the other items.
        """
        faults, self._faults = gather_by_id(self._faults), {}
        if faults:
            self._stop(list(faults.values()))
        sums, self._val_loss = self._val_loss, None
        if sums is None:  # this process had no batch
            sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        if world_size() > 1:
            torch.distributed.all_reduce(sums)
        self.log("val/loss", sums[0] / not_zero(sums[1]))
        self.validated, self._predictions = gather_by_id(self._predictions), {}
        if not self.trainer.sanity_checking:
            self.log_dict(dict(self.score(self.validated)), prog_bar=False, rank_zero_only=False)

    def _stop(self, faults: Sequence[str]) -> None:
        """Stop all processes because of validation losses that are not finite."""
        if not self.trainer.is_global_zero:
            raise SystemExit(1)  # only the first process prints the error
        more = f" (and {len(faults) - 1} more batches)" if len(faults) > 1 else ""
        last = Path(self.trainer.default_root_dir, "checkpoints", "last.ckpt")
        advice = "start again with a lower optimizer.lr"
        if last.is_file():
            advice = f"resume with resume={last} and a lower trainer.gradient_clip_val, or {advice}"
        raise TrainingError(
            f"validation after step {self.trainer.global_step}: {faults[0]}{more}. The checkpoints are those from "
            f"before this validation: {advice}"
        )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return optimizer and schedule: `encoder_lr` for unfrozen encoder parameters, the optimizer's for the rest."""
        encoder = [parameter for parameter in self._encoder.parameters() if parameter.requires_grad]
        inside = set(encoder)
        rest = [parameter for parameter in self.captioner.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [{"params": [parameter for parameter in rest if parameter not in inside]}]
        if encoder:
            groups.append({"params": encoder, "lr": self.encoder_lr})
        optimizer = self.optimizer(groups)
        factor = self.schedule(int(self.trainer.estimated_stepping_batches))
        factors = [factor, lambda step: factor(step) * rise(step, self.encoder_warmup)]
        schedule = LambdaLR(optimizer, factors[: len(groups)])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add metadata, position and generator states to a checkpoint, remove a frozen encoder, and write the log.

        The log is written here so that the file on disk is never behind a checkpoint. A frozen encoder is rebuilt from
        the metadata and compared with its fingerprint. If its weights cannot be obtained again (a file of the user's
        own), the metadata contains them.
        """
        checkpoint["captioning"] = self.metadata
        checkpoint["skipped"] = self.skipped
        checkpoint["position"] = asdict(position(self.trainer))
        # A resumed run repeats the batches of an unfinished step, with the same random numbers.
        checkpoint["generators"] = of_all(self._before_validation or self._before_step or generator_states())
        if not any(parameter.requires_grad for parameter in self._encoder.parameters()):
            for key in _WEIGHTS & checkpoint.keys():
                kept = {k: v for k, v in checkpoint[key].items() if not k.startswith("captioner.encoder.")}
                checkpoint[key] = kept
        for logger in self.loggers:
            if isinstance(logger, RunLog):
                logger.write()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the position in the run, and add the weights of a frozen encoder to the loaded ones.

        The generator states are restored later, when training starts.

        Raises:
            ConfigError: the checkpoint is of a run with another number of processes.
        """
        own = {f"captioner.encoder.{name}": value for name, value in self._encoder.state_dict().items()}
        for key in _WEIGHTS & checkpoint.keys():
            checkpoint[key] = own | checkpoint[key]
        self._generators, self.skipped = own_state(checkpoint["generators"], self.trainer), checkpoint["skipped"]
        if "position" in checkpoint:  # earlier versions did not save it, and saved only at the end of an epoch
            loops = checkpoint.pop("loops")["fit_loop"]
            go_to(self.trainer, Position(**checkpoint["position"]), loops)
        self._stop_early(checkpoint["callbacks"])

    def _stop_early(self, states: dict[str, Any]) -> None:
        """Stop a run again that early stopping had ended, unless its patience is longer now."""
        for callback in self._own_trainer.callbacks:
            if isinstance(callback, EarlyStopping) and (state := states.get(callback.state_key)):
                state["patience"] = callback.patience
                self.trainer.should_stop |= state["wait_count"] >= callback.patience

    def on_train_start(self) -> None:
        """Restore the random generators of a resumed run, so that it draws the same numbers as an uninterrupted one.

        Raises:
            ConfigError: a validation would fall between two accumulated batches; checkpoints do not contain their
                gradients.
        """
        self._clock = perf_counter()
        if validates_inside_steps(self.trainer):
            batches = self.trainer.accumulate_grad_batches
            raise ConfigError(
                "trainer.val_check_interval puts a validation between two batches of one optimizer step "
                f"(trainer.accumulate_grad_batches={batches}). Set it to a multiple of {batches}, or remove it to "
                "validate at the end of each epoch"
            )
        if self._generators is None and self.trainer.global_rank:  # otherwise all processes would draw the same numbers
            torch.manual_seed(torch.initial_seed() + self.trainer.global_rank)
        if self._generators is not None:
            torch.set_rng_state(self._generators["cpu"].cpu())
            if len(self._generators["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([state.cpu() for state in self._generators["cuda"]])
            self._generators = None


def _name_of_ids(batch: NamedTuple) -> str:
    """Return the name of the batch's ids for messages, such as "image ids"."""
    return batch._fields[0].replace("_", " ")


def _fault(loss, split: str) -> str:
    """Return the parts of a loss that are not finite, by the names under which they are logged."""
    parts = {name: float(part) for name, part in loss.parts.items()}
    names = [f"{split}/{name} is {value}" for name, value in parts.items() if not isfinite(value)]
    return ", ".join(names) or f"{split}/loss is {float(loss.total)}"


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids))
