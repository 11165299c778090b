"""Send the numbers and images of a run to experiment trackers: Weights & Biases, MLflow, Trackio.

Each tracker stores and shows runs in its own way, which its own environment variables change: WANDB_MODE,
MLFLOW_TRACKING_URI, TRACKIO_DIR and others. Its package is imported when a run starts.
"""

import json
import secrets
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from captioning.errors import ConfigError
from captioning.io import make_folder, write_json


class Service(Protocol):
    """A tracker's own functions.

    Attributes:
        name: its name in `logger=[…]`.
        advice: what to do if a run cannot be started.
    """

    name: ClassVar[str]
    advice: ClassVar[str]

    def start(self, run: str | None, settings: Mapping[str, Any]) -> str:
        """Continue the run with this id; or start a run with these settings. Return the run's id."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers."""

    def log_image(self, name: str, image: Image.Image, text: str, step: int) -> None:
        """Log an image with a text."""

    def finish(self, failed: bool) -> None:
        """End the run."""


class Tracker(Logger):
    """A logger that sends a run's numbers and images to a tracker; a resumed run continues its run there.

    A resumed run repeats the steps since its checkpoint. Trackers cannot replace values, so what was logged before is
    not logged again: of a repeated step, a tracker has the first values. If the tracker fails during a run, the run
    continues without it.

    Args:
        service: the tracker.
        path: file for the id of the tracker's run, and for the last step that was logged under each name.
    """

    name = version = None

    def __init__(self, service: Service, path: Path):
        super().__init__()
        self.service, self.path = service, path
        self.run: str | None = None
        self.works = False
        self.logged: dict[str, int] = {}  # name -> the last step with a value
        self.earlier: dict[str, int] = {}  # the same, when this process started

    @rank_zero_only
    def open(self, settings: Mapping[str, Any], *, resumed: bool) -> None:
        """Start a run of the tracker, or continue that of a resumed run.

        Raises:
            ConfigError: the tracker cannot start or find the run.
        """
        run = None
        if resumed and self.path.exists():
            try:
                saved = json.loads(self.path.read_text(encoding="utf-8"))
                run, self.logged = str(saved["run"]), {str(key): int(step) for key, step in saved["logged"].items()}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ConfigError(f"{self.path} is damaged: delete it, then the tracker starts a new run") from error
            self.earlier = dict(self.logged)
        try:
            self.run = self.service.start(run, settings)
        except Exception as error:  # trackers raise errors of many libraries
            new = f", or delete {self.path} to start a new run there" if run else ""
            raise ConfigError(
                f"logger={self.service.name}: cannot {'continue' if run else 'start'} a run ({_reason(error)}). "
                f"{self.service.advice}{new}"
            ) from error
        self.works = True
        make_folder(self.path.parent)
        self._keep()

    @rank_zero_only
    def log_hyperparams(self, *args, **kwargs) -> None:
        """Do nothing: the tracker has received all settings when its run started."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log numbers that were not logged before the run was resumed."""
        assert step is not None  # Lightning always passes it
        fresh = {name: float(value) for name, value in metrics.items() if self._is_new(name, step)}
        self._send(fresh, step, lambda: self.service.log(fresh, step))

    @rank_zero_only
    def log_image(self, name: str, image: Image.Image, text: str, step: int) -> None:
        """Log an image with a text, unless it was logged before the run was resumed."""
        if self._is_new(name, step):
            self._send([name], step, lambda: self.service.log_image(name, image, text, step))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the tracker's run; Lightning calls this twice after a failure."""
        if self.works:
            self.works = False
            try:
                self.service.finish(failed=status == "failed")
            except Exception as error:
                print(f"warning: logger={self.service.name} could not end its run ({_reason(error)})", file=sys.stderr)

    def _is_new(self, name: str, step: int) -> bool:
        return step > self.earlier.get(name, -1)

    def _send(self, names: Iterable[str], step: int, send: Callable[[], None]) -> None:
        """Log values, and note their step; stop logging at the first failure, which would repeat and slow the run."""
        if not self.works or not names:
            return
        try:
            send()
        except Exception as error:
            self.works = False
            print(
                f"warning: logger={self.service.name} failed at step {step} ({_reason(error)}). The run continues "
                "without it; metrics.csv has all numbers",
                file=sys.stderr,
            )
            return
        self.logged |= dict.fromkeys(names, step)
        self._keep()

    def _keep(self) -> None:
        write_json(self.path, {"run": self.run, "logged": self.logged})


class Wandb:
    """Weights & Biases, by Lightning's logger. Its files are in the folder `wandb` of the run folder."""

    name: ClassVar = "wandb"
    advice: ClassVar = "Log in with `wandb login`, or set WANDB_MODE=offline"

    def __init__(self, *, project: str, run_dir: Path):
        self.project, self.run_dir = project, run_dir

    def start(self, run: str | None, settings: Mapping[str, Any]) -> str:
        from lightning.pytorch.loggers import WandbLogger

        self.logger = WandbLogger(name=str(self.run_dir), project=self.project, save_dir=str(self.run_dir), id=run)
        experiment = self.logger.experiment
        if run is None:
            self.logger.log_hyperparams(dict(settings))
        return experiment.id

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.logger.log_metrics(values, step)

    def log_image(self, name: str, image: Image.Image, text: str, step: int) -> None:
        self.logger.log_image(name, [image], step, caption=[text])

    def finish(self, failed: bool) -> None:
        self.logger.experiment.finish(exit_code=int(failed))  # otherwise the next job of a sweep would continue it


class MLflow:
    """MLflow, by Lightning's logger. The store is MLflow's own default: the file mlflow.db in the current folder."""

    name: ClassVar = "mlflow"
    advice: ClassVar = "Check MLFLOW_TRACKING_URI"

    def __init__(self, *, project: str, run_dir: Path):
        self.project, self.run_dir = project, run_dir

    def start(self, run: str | None, settings: Mapping[str, Any]) -> str:
        import mlflow
        from lightning.pytorch.loggers import MLFlowLogger

        self.logger = MLFlowLogger(self.project, str(self.run_dir), mlflow.get_tracking_uri(), run_id=run)
        if run is None:
            self.logger.log_hyperparams(dict(settings))
        else:
            self.logger.experiment.update_run(run, status="RUNNING")
        found = self.logger.run_id
        assert found is not None
        return found

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.logger.log_metrics(values, step)

    def log_image(self, name: str, image: Image.Image, text: str, step: int) -> None:
        self.logger.experiment.log_image(self.logger.run_id, image, key=name, step=step)

    def finish(self, failed: bool) -> None:
        self.logger.finalize("failed" if failed else "success")


class Trackio:
    """Trackio, which Lightning has no logger for. The store is Trackio's own default, in the user's cache folder."""

    name: ClassVar = "trackio"
    advice: ClassVar = "Check TRACKIO_DIR and TRACKIO_SPACE_ID"

    def __init__(self, *, project: str, run_dir: Path):
        self.project, self.run_dir = project, run_dir

    def start(self, run: str | None, settings: Mapping[str, Any]) -> str:
        import trackio

        # A run is found again by its name, so the name must be unique in the project.
        name = run or f"{self.run_dir.name}-{secrets.token_hex(3)}"
        self.run = trackio.init(
            project=self.project,
            name=name,
            config=dict(settings),
            resume="must" if run else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return name

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def log_image(self, name: str, image: Image.Image, text: str, step: int) -> None:
        import trackio

        self.run.log({name: trackio.Image(image, caption=text)}, step=step)

    def finish(self, failed: bool) -> None:
        self.run.finish()


SERVICES: dict[str, Callable[..., Service]] = {each.name: each for each in (Wandb, MLflow, Trackio)}


def _reason(error: Exception) -> str:
    """Return the first line of an error's message, without its final period."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")[:200]
