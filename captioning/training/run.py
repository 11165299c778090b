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
from captioning.errors import ConfigError, must_be


def train(config: dict[str, Any]) -> None:
    """One run; leaves checkpoints/{best,last}.ckpt, config.yaml and metrics.csv in its `run_dir`."""
    import torch

    from captioning.checkpoints import read_checkpoint
    from captioning.checkpoints import resume as continuing

    run_dir, task = Path(config["run_dir"]), build(config["task"])
    config = _with_last(_without(config, "weight_averaging", "early_stopping"), run_dir, task=task.name)
    _guard(run_dir, config)
    resumed, started = (
        read_checkpoint(Path(config[key]), task=task.name) if config[key] else None for key in ("resume", "start_from")
    )
    continuing.can_go_on(resumed)
    # As Lightning's seed_everything: importing that takes longer than any fault below should wait for.
    random.seed(config["seed"])
    torch.manual_seed(config["seed"])
    parts = task(config, resumed=resumed, started=started)
    if resumed:
        continuing.same_settings(resumed, config, parts.digest)
    parts.metadata.update(settings=continuing.settings(config), data=parts.digest)
    task = _task(config, parts)
    _quiet()
    trainer = _trainer(config, run_dir, resumed, monitor=parts.monitor, mode=parts.mode)
    if started:
        continuing.take_over(parts.model, started, Path(config["start_from"]))
    if resumed:
        continuing.same_parts(resumed["state_dict"], task, parts.encoder)

    loaders, about = parts.load()
    _open_run(config, run_dir, trainer, resumed, {"sha256": parts.digest, "images": parts.metadata.get("images")})
    weights = sum(parameter.numel() for parameter in parts.model.parameters() if parameter.requires_grad)
    print(f"{about}; {weights / 1e6:.1f} M weights")
    torch.set_float32_matmul_precision("high")
    if trainer.compile:
        _compile(task, trainer)
    trainer.fit(task, loaders, ckpt_path=config["resume"], weights_only=True)
    best = trainer.checkpoint_callbacks[0]
    if best.best_model_score is None:
        print(f"no validation was run; last checkpoint: {run_dir / 'checkpoints' / 'last.ckpt'}")
    else:
        path = run_dir / "checkpoints" / Path(best.best_model_path).name
        print(f"best {best.monitor} {float(best.best_model_score):.3f}: {path}")
    print(f"log and configuration: {run_dir}")


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


def _trainer(config: Mapping[str, Any], run_dir: Path, resumed: Mapping | None, *, monitor: str, mode: str):
    """Writes nothing yet; its first logger is the run's RunLog."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from captioning.training import RunLog

    try:
        return build(
            config["trainer"],
            logger=[RunLog(run_dir / "metrics.csv"), *_tensorboard(run_dir, resumed)],
            callbacks=_callbacks(config, monitor=monitor, mode=mode),
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
    that was killed right before the first goes on from the best.ckpt that is saved before it.

    Raises:
        ConfigError: a best.ckpt of a later epoch alone, which no kill leaves: what is to become of it is not guessed.
    """
    if config["resume"] != "auto":
        return dict(config)
    from captioning.checkpoints import read_checkpoint

    last, best = (run_dir / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
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
    resumed_here = config["resume"] and Path(config["resume"]).resolve().parent == (run_dir / "checkpoints").resolve()
    if any((run_dir / "checkpoints").glob("*.ckpt")) and not (resumed_here or config["overwrite"]):
        last = run_dir / "checkpoints" / "last.ckpt"
        go_on = f"go on with resume={last}, " if last.is_file() else ""  # a kill may have come before there was one
        raise ConfigError(f"{run_dir} already holds a run: {go_on}give another run_dir, or set overwrite=true")


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
        if not config["trainer"].get("limit_val_batches", 1):
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
