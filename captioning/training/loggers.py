"""Choose the loggers of a run: metrics.csv, TensorBoard, and experiment trackers. Lightning is imported late."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captioning.errors import ConfigError, must_be
from captioning.io import need_package

# Name of a logger in `logger=[…]` -> the extra with its package, which has the same name as the logger.
TRACKERS = {"wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}
LOGGERS = ("csv", "tensorboard", *TRACKERS)
_IMAGES = 4  # images per validation that trackers receive, by default


def check_loggers(config: Mapping[str, Any]) -> None:
    """Check `logger` and `log_images` without importing a logger.

    Raises:
        ConfigError: there is no such logger, its package is not installed, or no logger shows images.
    """
    names = logger_names(config)
    for name in names:
        if name not in LOGGERS:
            nearest = difflib.get_close_matches(str(name), LOGGERS, n=1, cutoff=0)[0]
            raise ConfigError(f"logger={name} does not exist (nearest: {nearest}). Choose from {', '.join(LOGGERS)}")
        if name != "csv":
            need_package(name, extra=TRACKERS.get(name, "train"), wanted_by=f"logger={name}")
    must_be("log_images", config["log_images"], least=0)
    if config["log_images"] and not set(names) - {"csv"}:
        raise ConfigError(f"log_images={config['log_images']} needs a logger that shows images: set logger=tensorboard")


def logger_names(config: Mapping[str, Any]) -> list[str]:
    """Return the names in `logger`, which may be one name or a list."""
    given = config["logger"]
    return [given] if isinstance(given, str) else list(given)


def count_images(config: Mapping[str, Any]) -> int:
    """Return how many validation images to draw: `log_images`, or 4 with a tracker and 0 without one."""
    if config["log_images"] is None:
        return _IMAGES if TRACKERS.keys() & logger_names(config) else 0
    return config["log_images"]


def make_loggers(config: Mapping[str, Any], run_dir: Path, resumed: Mapping[str, Any] | None) -> list:
    """Return the loggers of a run: first its `RunLog`, which every run has, then the chosen ones. Nothing is written.

    Args:
        config: the checked settings of the run.
        run_dir: the run folder.
        resumed: the checkpoint that the run resumes from; None for a new run.
    """
    from captioning.training.csv_logger import RunLog
    from captioning.training.trackers import SERVICES, Tracker

    names = logger_names(config)
    loggers: list = [RunLog(run_dir / "metrics.csv")]
    if "tensorboard" in names:
        from lightning.pytorch.loggers import TensorBoardLogger

        # Steps that a resumed run repeats: TensorBoard hides their earlier values.
        purge = {"purge_step": resumed["global_step"]} if resumed else {}
        loggers.append(TensorBoardLogger(run_dir, name="tensorboard", version="", **purge))
    for name in dict.fromkeys(names):
        if name in TRACKERS:
            service = SERVICES[name](project=config["project"], run_dir=run_dir)
            loggers.append(Tracker(service, run_dir / "trackers" / f"{name}.json"))
    return loggers
