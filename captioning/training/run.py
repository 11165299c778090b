"""Train the model of a checked configuration: from its task's parts to a run folder with checkpoints and a log.

The task (`captioning.tasks`) makes the model, its objective, scores and data. The run's folder, its seed, trainer,
checkpoints and log are the same for all tasks. Lightning is imported late: no configuration error waits for it.
"""

import inspect
import logging
import pydoc
import random
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from captioning.config import build
from captioning.errors import ConfigError, TrainingError, must_be
from captioning.training.monitor import choose_monitor, stopped_early
from captioning.training.outcome import forget_outcome, has_finished, keep_outcome, starts_again

FINISHED_BEFORE = "skipped, already finished"  # in the table of a sweep


def train(config: dict[str, Any]) -> str | None:
    """One run; leaves checkpoints/{best,last}.ckpt, config.yaml, metrics.csv and outcome.json in its `run_dir`.

    Returns:
        `FINISHED_BEFORE` where a run to go on with has nothing left to do.
    """
    import torch

    from captioning.checkpoints import read_checkpoint
    from captioning.checkpoints import resume as continuing

    run_dir, task = Path(config["run_dir"]), build(config["task"])
    config = _with_last(_without(config, "weight_averaging", "early_stopping"), run_dir, task=task.name)
    _guard(run_dir, config)
    resumed, started = (
        read_checkpoint(Path(config[key]), task=task.name) if config[key] else None for key in ("resume", "start_from")
    )
    continuing.can_go_on(resumed, config["resume"])
    if resumed:
        continuing.has_ahead(resumed, config["trainer"], config["resume"])
    # As Lightning's seed_everything: importing that takes longer than any fault below should wait for.
    random.seed(config["seed"])
    torch.manual_seed(config["seed"])
    parts = task(config, resumed=resumed, started=started)
    if resumed:
        continuing.same_settings(resumed, config, parts.digest)
    parts.metadata.update(settings=continuing.settings(config), data=parts.digest)
    task = _task(config, parts)
    _quiet()
    monitor = choose_monitor(parts, resumed)
    trainer = _trainer(config, run_dir, resumed, monitor)
    if started:
        continuing.take_over(parts.model, started, Path(config["start_from"]))
    if resumed:
        continuing.same_parts(resumed["state_dict"], task, parts.encoder)
        if _is_of(run_dir, config["resume"]) and has_finished(run_dir, config, step=resumed["global_step"]):
            print(f"{run_dir} has finished already, by these settings: nothing is left to do")
            return FINISHED_BEFORE

    loaders, about = parts.load()
    if not resumed and choose_monitor(parts, None) != monitor:  # unreadable images were left out
        monitor = choose_monitor(parts, None)
        trainer = _trainer(config, run_dir, resumed, monitor)
    _open_run(config, run_dir, trainer, resumed, {"sha256": parts.digest, "images": parts.metadata.get("images")})
    weights = sum(parameter.numel() for parameter in parts.model.parameters() if parameter.requires_grad)
    print(f"{about}; {weights / 1e6:.1f} M weights")
    _tell_monitor(config, parts, monitor[0])
    torch.set_float32_matmul_precision("high")
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
        why = early or f"all of its {trainer.current_epoch} epochs"
        keep_outcome(run_dir, "finished", config, step=trainer.global_step, why=why)
    if early:
        print(early)
    best = trainer.checkpoint_callbacks[0]
    if best.best_model_score is None:
        print(f"no validation was run; last checkpoint: {run_dir / 'checkpoints' / 'last.ckpt'}")
    else:
        path = run_dir / "checkpoints" / Path(best.best_model_path).name
        print(f"best {best.monitor} {float(best.best_model_score):.3f}: {path}")
    print(f"log and configuration: {run_dir}")
    return None


def _tell_monitor(config: Mapping[str, Any], parts, monitor: str) -> None:
    """One line where best.ckpt goes by something else than the task's score."""
    if config["trainer"].get("limit_val_batches") == 0:
        print(
            "no validation (trainer.limit_val_batches=0): the run trains to its last epoch, and checkpoints/last.ckpt "
            "is the checkpoint to use; there is no best.ckpt"
        )
    elif monitor != parts.monitor:
        stopping = " and early stopping" if config["early_stopping"] else ""
        why = parts.monitor_fault() or "as before"
        print(f"best.ckpt{stopping} go{'' if stopping else 'es'} by {monitor}, not by {parts.monitor}: {why}")


def _task(config: Mapping[str, Any], parts):
    """What a kind of run gave, with the optimizer and the schedule."""
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
    """Parameter groups -> optimizer; tried on one parameter."""
    import torch

    settings, precision = config["optimizer"], config["trainer"]["precision"]
    mixed = str(precision).endswith("-mixed") or str(precision) in ("16", "bf16")
    if mixed and settings.get("fused"):
        raise ConfigError(
            f"optimizer.fused=true: Lightning clips no gradient of it with trainer.precision={precision}; leave it out"
        )
    optimizer = build(settings)
    if not mixed and _has_fused(settings):
        optimizer = build({**settings, "fused": True})
    try:
        rates = [group["lr"] for group in optimizer([torch.nn.Parameter(torch.zeros(1))]).param_groups]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"optimizer: {' '.join(str(error).split())}") from error
    must_be("optimizer.lr", min(rates), above=0)
    return optimizer


def _has_fused(settings: Mapping[str, Any]) -> bool:
    """Whether an optimizer can make one pass over the weights, as torch's own, and nothing is said of another way."""
    takes = inspect.signature(pydoc.locate(settings["_target_"])).parameters
    return "fused" in takes and not settings.keys() & {"fused", "foreach", "differentiable"}


def _schedule(config: Mapping[str, Any]) -> Callable:
    """Steps of the run -> (step -> factor); tried on a run of one step."""
    schedule = build(config["schedule"])
    schedule(1)
    return schedule


def _trainer(config: Mapping[str, Any], run_dir: Path, resumed: Mapping | None, monitor: tuple[str, str]):
    """Writes nothing yet; its first logger is the run's RunLog."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from captioning.training import RunLog

    try:
        return build(
            config["trainer"],
            logger=[RunLog(run_dir / "metrics.csv"), *_tensorboard(run_dir, resumed)],
            callbacks=_callbacks(config, monitor=monitor[0], mode=monitor[1]),
            default_root_dir=str(run_dir),
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error


def _compile(task, trainer) -> None:
    """Where there is no compiler the run goes on without, and says so."""
    from captioning.training import compile_parts

    fault = compile_parts(task, trainer.strategy.root_device)
    if fault and trainer.is_global_zero:
        print(f"trainer.compile=true: nothing is compiled, the run goes on without ({fault})", file=sys.stderr)


def _open_run(
    config: Mapping[str, Any], run_dir: Path, trainer, resumed: Mapping[str, Any] | None, about: Mapping[str, Any]
) -> None:
    """The run's folder and its configuration; what an earlier run left there goes, unless it is gone on with."""
    from captioning.io import clear_temporary, make_folder
    from captioning.training import clear_run, describe_run, record

    if not trainer.is_global_zero:
        return

    if not resumed:
        clear_run(run_dir)  # what _guard let pass
    make_folder(run_dir)
    for folder in (run_dir, run_dir / "checkpoints"):
        clear_temporary(folder)
    forget_outcome(run_dir)
    if resumed:
        trainer.loggers[0].resume(resumed["global_step"])
    _write_config(config, run_dir)
    record(run_dir / "provenance.json", describe_run(config["seed"], about), anew=not resumed)


def _quiet() -> None:
    """Lightning's tips and remarks on its own insides are not news to whoever trains a captioner.

    It sets its own level as it is imported, so this comes after.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\..*")


def _without(config: Mapping[str, Any], *groups: str) -> dict[str, Any]:
    """GROUP=none beside an experiment that sets its arguments leaves these without what takes them: it is none."""
    return {**config, **{key: None for key in groups if "_target_" not in (config[key] or {})}}


def _with_last(config: Mapping[str, Any], run_dir: Path, *, task: str) -> dict[str, Any]:
    """resume=auto in words: last.ckpt where there is one. One that was killed before it had any starts anew, and one
    that was killed right before the first goes on from the best.ckpt that is saved before it. One that failed by itself
    starts anew, unless settings that may change were changed for it to go on.

    Raises:
        ConfigError: a best.ckpt of a later epoch alone, which no kill leaves: what is to become of it is not guessed.
    """
    if config["resume"] != "auto":
        return dict(config)
    from captioning.checkpoints import read_checkpoint

    last, best = (run_dir / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    if why := starts_again(run_dir, config):
        print(f"resume=auto: the run in {run_dir} failed, and starts again from the beginning ({why})")
        return {**config, "resume": None, "overwrite": True}
    if last.is_file():
        return {**config, "resume": str(last)}
    if not best.is_file() or config["overwrite"]:
        return {**config, "resume": None, "overwrite": True}
    if read_checkpoint(best, task=task).get("position", {}).get("epoch") == 1:
        return {**config, "resume": str(best)}
    raise ConfigError(
        f"resume=auto: {best} is there, but no last.ckpt beside it: go on from it with resume={best}, or start again "
        "with overwrite=true"
    )


def _guard(run_dir: Path, config: Mapping[str, Any]) -> None:
    """A finished or broken-off run is never overwritten by accident."""
    resumed_here = config["resume"] and _is_of(run_dir, config["resume"])
    if any((run_dir / "checkpoints").glob("*.ckpt")) and not (resumed_here or config["overwrite"]):
        last = run_dir / "checkpoints" / "last.ckpt"
        go_on = f"go on with resume={last}, " if last.is_file() else ""  # a kill may have come before there was one
        raise ConfigError(f"{run_dir} already holds a run: {go_on}give another run_dir, or set overwrite=true")


def _is_of(run_dir: Path, checkpoint: str) -> bool:
    return Path(checkpoint).resolve().parent == (run_dir / "checkpoints").resolve()


def _callbacks(config: Mapping[str, Any], *, monitor: str, mode: str) -> list:
    from lightning.pytorch.callbacks import LearningRateMonitor

    from captioning.training import Checkpoint, ProgressBar, SaveBetweenSteps

    folder = {
        "dirpath": Path(config["run_dir"], "checkpoints"),
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
    }
    callbacks = [
        # Without the epoch or score in its name, so that scripts find it; the score is in metrics.csv.
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
                "trainer.limit_val_batches=0 leaves no score for early stopping to watch: set early_stopping=none"
            )
        must_be("early_stopping.patience", config["early_stopping"].get("patience"), least=0)
        callbacks.append(build(config["early_stopping"], monitor=monitor, mode=mode))
    return callbacks


def _tensorboard(run_dir: Path, resumed: Mapping[str, Any] | None) -> list:
    """Of a resumed run, TensorBoard hides what the killed one told of steps that are made again."""
    from lightning.pytorch.loggers import TensorBoardLogger

    purge = {"purge_step": resumed["global_step"]} if resumed else {}
    return [TensorBoardLogger(run_dir, name="tensorboard", version="", **purge)]


def _write_config(config: Mapping[str, Any], run_dir: Path) -> None:
    """All settings but how this process came to the run: from them it can be made again."""
    import yaml

    from captioning.io import write_text

    settings = {**config, "resume": None, "overwrite": False}
    write_text(run_dir / "config.yaml", yaml.safe_dump(settings, sort_keys=False))
