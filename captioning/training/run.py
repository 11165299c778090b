"""Train the model of a checked configuration, and write checkpoints and a log to its run folder.

The task (`captioning.tasks`) builds the model, its objective, scores and data. Run folder, seed, trainer, checkpoints
and log are the same for all tasks. Lightning is imported late, so that configuration errors are reported without
waiting for this import.
"""

import inspect
import logging
import pydoc
import random
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from captioning.config import build
from captioning.errors import ConfigError, TrainingError, must_be
from captioning.io import need_package
from captioning.training.freed_memory import keep_freed_memory
from captioning.training.loggers import check_loggers, count_images, make_loggers
from captioning.training.monitor import choose_monitor, stopped_early
from captioning.training.outcome import forget_outcome, has_finished, keep_outcome, starts_again

FINISHED_BEFORE = "skipped, already finished"  # shown in the table of a sweep


def train(config: dict[str, Any]) -> str | None:
    """Train one run.

    Writes checkpoints/best.ckpt, checkpoints/last.ckpt, config.yaml, metrics.csv, provenance.json, outcome.json and
    TensorBoard files to `run_dir`, and sends numbers and images to the trackers in `logger`.

    Args:
        config: the checked settings of `captioning-train`.

    Returns:
        `FINISHED_BEFORE` if the run to resume has already finished; None otherwise.

    Raises:
        ConfigError: a setting or a combination of settings cannot work, or Lightning is not installed.
        DataError: the data set is missing or damaged.
        CheckpointError: a checkpoint cannot be read, or does not fit.
        TrainingError: a loss or gradient was not finite.
    """
    need_package("lightning", extra="train", wanted_by="captioning-train")
    check_loggers(config)
    import torch

    from captioning.checkpoints import read_checkpoint
    from captioning.checkpoints import resume as continuing
    from captioning.training.freezing import train_only

    run_dir, task = Path(config["run_dir"]), build(config["task"])
    config = _with_commit(_without(config, "weight_averaging", "early_stopping"))
    config = _with_last(config, run_dir, task=task.name)
    _guard(run_dir, config)
    resumed, started = (
        read_checkpoint(Path(config[key]), task=task.name) if config[key] else None for key in ("resume", "start_from")
    )
    continuing.can_go_on(resumed, config["resume"])
    if resumed:
        continuing.has_ahead(resumed, config["trainer"], config["resume"])
    # The same as Lightning's seed_everything, without the slow import: errors below should be reported at once.
    random.seed(config["seed"])
    torch.manual_seed(config["seed"])
    parts = task(config, resumed=resumed, started=started)
    if resumed:
        continuing.same_settings(resumed, config, parts.digest)
    parts.metadata.update(settings=continuing.settings(config), data=parts.digest)
    task = _task(config, parts)
    _quiet()
    monitor = choose_monitor(parts, resumed)
    trainer = _trainer(config, run_dir, resumed, monitor, parts)
    if started:
        continuing.take_over(parts.model, started, Path(config["start_from"]))
    train_only(parts.model, config["train_only"])
    if (started or resumed) and hasattr(parts.objective, "remember"):
        parts.objective.remember(parts.model)  # a resumed run then gets the copy of its checkpoint
    if resumed:
        continuing.same_parts(resumed["state_dict"], task, parts.encoder)
        if _is_of(run_dir, config["resume"]) and has_finished(run_dir, config, step=resumed["global_step"]):
            print(f"run_dir={run_dir} has already finished with these settings: there is nothing left to do")
            return FINISHED_BEFORE

    loaders, about = parts.load()
    if not resumed and choose_monitor(parts, None) != monitor:  # unreadable images were left out
        monitor = choose_monitor(parts, None)
        trainer = _trainer(config, run_dir, resumed, monitor, parts)
    _open_run(config, run_dir, trainer, resumed, {"sha256": parts.digest, "images": parts.metadata.get("images")})
    weights = sum(parameter.numel() for parameter in parts.model.parameters() if parameter.requires_grad)
    print(f"{about}\nmodel: {weights:,} trainable weights")
    _print_monitor(config, parts, monitor[0])
    torch.set_float32_matmul_precision("high")
    keep_freed_memory()
    if trainer.compile:
        _compile(task, trainer)
    try:
        trainer.fit(task, loaders, ckpt_path=config["resume"], weights_only=True)
    except TrainingError as error:
        if trainer.is_global_zero:
            keep_outcome(run_dir, "failed", config, step=trainer.global_step, why=str(error))
        raise
    early = stopped_early(trainer)
    if trainer.is_global_zero:
        why = early or f"all {trainer.current_epoch} epochs are done"
        keep_outcome(run_dir, "finished", config, step=trainer.global_step, why=why)
    if early:
        print(early)
    best = trainer.checkpoint_callbacks[0]
    if best.best_model_score is None:
        print(f"no validation was run; the last checkpoint is {run_dir / 'checkpoints' / 'last.ckpt'}")
    else:
        path = run_dir / "checkpoints" / Path(best.best_model_path).name
        print(f"best {best.monitor} {float(best.best_model_score):.3f}: {path}")
    print(f"log and configuration: {run_dir}")
    return None


def _print_monitor(config: Mapping[str, Any], parts, monitor: str) -> None:
    """Print one line if best.ckpt is not selected by the task's score."""
    if config["trainer"].get("limit_val_batches") == 0:
        print(
            "no validation (trainer.limit_val_batches=0): the run trains to its last epoch and writes no best.ckpt; "
            "use checkpoints/last.ckpt"
        )
    elif monitor != parts.monitor:
        use = "best.ckpt and early stopping use" if config["early_stopping"] else "best.ckpt uses"
        why = parts.monitor_fault() or "The resumed run did so"
        print(f"{why}, so {use} the validation loss ({monitor})")


def _task(config: Mapping[str, Any], parts):
    """Return the Lightning module of a task's parts, with optimizer and schedule."""
    optimizer, schedule = _optimizer(config), _schedule(config)
    from captioning.training import CaptioningTask

    return CaptioningTask(
        parts.model,
        parts.objective,
        predict=parts.predict,
        score=parts.score,
        optimizer=optimizer,
        schedule=schedule,
        encoder_lr=parts.encoder_lr,
        encoder_warmup=parts.encoder_warmup,
        metadata=parts.metadata,
    )


def _optimizer(config: Mapping[str, Any]) -> Callable:
    """Return a function from parameter groups to an optimizer, after a trial with one parameter."""
    import torch

    settings, precision = config["optimizer"], config["trainer"]["precision"]
    mixed = str(precision).endswith("-mixed") or str(precision) in ("16", "bf16")
    if mixed and settings.get("fused"):
        raise ConfigError(
            f"optimizer.fused=true does not work with trainer.precision={precision}, because Lightning cannot clip its "
            "gradients. Remove optimizer.fused from the command"
        )
    optimizer = build(settings)
    if not mixed and _has_fused(settings):
        optimizer = build({**settings, "fused": True})
    try:
        rates = [group["lr"] for group in optimizer([torch.nn.Parameter(torch.zeros(1))]).param_groups]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"optimizer: {' '.join(str(error).split())}. Check the optimizer.* settings") from error
    must_be("optimizer.lr", min(rates), above=0)
    return optimizer


def _has_fused(settings: Mapping[str, Any]) -> bool:
    """Return whether an optimizer has a fused version, as torch's own have, and no other version is set."""
    takes = inspect.signature(cast(Callable, pydoc.locate(settings["_target_"]))).parameters
    return "fused" in takes and not settings.keys() & {"fused", "foreach", "differentiable"}


def _schedule(config: Mapping[str, Any]) -> Callable:
    """Return a function from the steps of the run to (step -> factor), after a trial with one step."""
    schedule = build(config["schedule"])
    schedule(1)
    return schedule


def _trainer(config: Mapping[str, Any], run_dir: Path, resumed: Mapping | None, monitor: tuple[str, str], parts):
    """Return the trainer; its first logger is the run's RunLog. Nothing is written yet."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        return build(
            config["trainer"],
            logger=make_loggers(config, run_dir, resumed),
            callbacks=[
                _log_validation(config, monitor, parts),
                *_callbacks(config, monitor=monitor[0], mode=monitor[1]),
            ],
            default_root_dir=str(run_dir),
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(f"trainer: {reason}. Check the trainer.* settings") from error


def _log_validation(config: Mapping[str, Any], monitor: tuple[str, str], parts):
    """Return the callback that logs images and the best scores."""
    from captioning.training.validation_images import LogValidation

    if config["log_images"] and parts.illustrate is None:
        raise ConfigError(
            f"log_images={config['log_images']} is for image captioning; this task draws no images: set log_images=0"
        )
    drawn = {"images": count_images(config), "illustrate": parts.illustrate}
    return LogValidation(*monitor, **drawn, intervals=parts.intervals)


def _compile(task, trainer) -> None:
    """Compile parts of the model; without a working compiler, print a warning and continue."""
    from captioning.training import compile_parts

    fault = compile_parts(task, trainer.strategy.root_device)
    if fault and trainer.is_global_zero:
        print(f"warning: trainer.compile=true has no effect: torch cannot compile here ({fault})", file=sys.stderr)


def _open_run(
    config: Mapping[str, Any], run_dir: Path, trainer, resumed: Mapping[str, Any] | None, about: Mapping[str, Any]
) -> None:
    """Create the run folder and write its configuration; remove the files of an earlier run, unless it is resumed."""
    from captioning.io import clear_temporary, make_folder
    from captioning.training import clear_run, describe_run, record
    from captioning.training.trackers import Tracker

    if not trainer.is_global_zero:
        return

    if not resumed:
        clear_run(run_dir)  # allowed by _guard
    make_folder(run_dir)
    for folder in (run_dir, run_dir / "checkpoints"):
        clear_temporary(folder)
    forget_outcome(run_dir)
    if resumed:
        trainer.loggers[0].resume(resumed["global_step"])
    _write_config(config, run_dir)
    start = describe_run(config["seed"], about, start_from=config["start_from"])
    record(run_dir / "provenance.json", start, anew=not resumed)
    for logger in trainer.loggers:
        if isinstance(logger, Tracker):
            logger.open(config, resumed=bool(resumed))


def _quiet() -> None:
    """Silence Lightning's tips and its warnings about its own internals.

    Lightning sets its log level when it is imported, so this must come later.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\..*")


def _without(config: Mapping[str, Any], *groups: str) -> dict[str, Any]:
    """Set groups without a `_target_` to None: `GROUP=none` also drops arguments that an experiment sets for them."""
    return {**config, **{key: None for key in groups if "_target_" not in (config[key] or {})}}


def _with_last(config: Mapping[str, Any], run_dir: Path, *, task: str) -> dict[str, Any]:
    """Replace `resume=auto` by the path of a checkpoint, or by a new start.

    The run resumes from last.ckpt if it exists. Without a checkpoint it starts from the beginning. If only the
    best.ckpt of the first epoch exists, it resumes from that, because best.ckpt is saved shortly before last.ckpt. A
    run that failed by itself starts from the beginning, unless settings that a resumed run may change were changed.

    Raises:
        ConfigError: only a best.ckpt of a later epoch exists. No kill causes this, so the user must decide.
    """
    if config["resume"] != "auto":
        return dict(config)
    from captioning.checkpoints import read_checkpoint

    last, best = (run_dir / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    if why := starts_again(run_dir, config):
        print(f"resume=auto: the run in {run_dir} failed earlier and starts again from the beginning (reason: {why})")
        return {**config, "resume": None, "overwrite": True}
    if last.is_file():
        return {**config, "resume": str(last)}
    if not best.is_file() or config["overwrite"]:
        return {**config, "resume": None, "overwrite": True}
    if read_checkpoint(best, task=task).get("position", {}).get("epoch") == 1:
        return {**config, "resume": str(best)}
    raise ConfigError(
        f"resume=auto: {best} exists, but last.ckpt is missing. Resume with resume={best}, or start again with "
        "overwrite=true"
    )


def _with_commit(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fetch a `start_from` on the hub, and add its commit: config.yaml and provenance.json then name these weights."""
    from captioning.checkpoints import hub_address_of, is_hub_address, local_checkpoint

    start = config["start_from"]
    fetched = {"start_from": hub_address_of(local_checkpoint(start))} if is_hub_address(start or "") else {}
    return {**config, **fetched}


def _guard(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Refuse to overwrite a finished or interrupted run, unless it is resumed or `overwrite` is true."""
    resumed_here = config["resume"] and _is_of(run_dir, config["resume"])
    if any((run_dir / "checkpoints").glob("*.ckpt")) and not (resumed_here or config["overwrite"]):
        last = run_dir / "checkpoints" / "last.ckpt"
        # A run killed early has no last.ckpt.
        resume = f"resume it with resume={last} (or resume=auto), " if last.is_file() else ""
        raise ConfigError(
            f"run_dir={run_dir} already contains a run: {resume}set another run_dir, or replace it with overwrite=true"
        )


def _is_of(run_dir: Path, checkpoint: str) -> bool:
    return Path(checkpoint).resolve().parent == (run_dir / "checkpoints").resolve()


def _callbacks(config: Mapping[str, Any], *, monitor: str, mode: str) -> list:
    from lightning.pytorch.callbacks import LearningRateMonitor

    from captioning.training import Checkpoint, ProgressBar, SaveBetweenSteps

    folder: dict[str, Any] = {
        "dirpath": Path(config["run_dir"], "checkpoints"),
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
    }
    callbacks = [
        # The name has no epoch or score, so that scripts find the file; the score is in metrics.csv.
        Checkpoint(filename="best", monitor=monitor, mode=mode, **folder),
        Checkpoint(filename="last", **folder),
        SaveBetweenSteps(folder["dirpath"] / "last.ckpt"),
        LearningRateMonitor(),
    ]
    if config["weight_averaging"]:
        must_be("weight_averaging.decay", config["weight_averaging"].get("decay"), least=0, below=1)
        callbacks.append(build(config["weight_averaging"]))
    if config["trainer"]["enable_progress_bar"]:
        callbacks.append(ProgressBar())
    if config["early_stopping"]:
        if config["trainer"].get("limit_val_batches") == 0:
            raise ConfigError(
                "trainer.limit_val_batches=0 turns validation off, but early stopping needs it: set early_stopping=none"
            )
        must_be("early_stopping.patience", config["early_stopping"].get("patience"), least=0)
        callbacks.append(build(config["early_stopping"], monitor=monitor, mode=mode))
    return callbacks


def _write_config(config: Mapping[str, Any], run_dir: Path) -> None:
    """Write config.yaml: all settings except `resume` and `overwrite`, so that the run can be reproduced from it."""
    import yaml

    from captioning.io import write_text

    settings = {**config, "resume": None, "overwrite": False}
    write_text(run_dir / "config.yaml", yaml.safe_dump(settings, sort_keys=False))
