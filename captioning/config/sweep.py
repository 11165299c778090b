"""Run the jobs of a sweep (-m) one after another, independently of each other, and print a table of their results.

Hydra's own sweeper stops at the first job that fails. The sweeper of this file replaces it. Other sweepers and
launchers that a user installs and chooses are not changed.
"""

import gc
import os
import random
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus, filter_overrides, run_job, setup_globals
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from captioning.errors import CaptioningError, ConfigError
from captioning.io import make_folder

HYDRAS = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
DONE, NEVER = "done", "never ran"
_QUOTED = re.compile(r"=(['\"])([\w./-]+)\1$")  # quotes around a plain word, which the table leaves out


def register(explain: Callable[..., CaptioningError]) -> None:
    """Make hydra use this file's sweeper instead of its own.

    Args:
        explain: turns an exception and the job's `overrides` into an error with a message of one line.
    """
    SweeperOfJobs.explain = staticmethod(explain)
    known = Plugins.instance().class_name_to_class
    if known[HYDRAS] is not SweeperOfJobs:
        SweeperOfJobs.hydras, known[HYDRAS] = known[HYDRAS], SweeperOfJobs


@dataclass
class _Job:
    """One row of the table. `settings`: the overrides that differ between jobs."""

    number: int
    overrides: list[str]
    settings: str
    folder: str = ""
    status: str = NEVER
    failed: bool = False
    mistyped: bool = False  # it failed because of its settings


class SweeperOfJobs(Sweeper):
    """Hydra's basic sweeper, except that a failing job does not stop the others."""

    # Hydra's class cannot be a base class: hydra executes its module again when it searches for plug-ins.
    hydras: ClassVar[type]
    explain: ClassVar[Callable[..., CaptioningError]]

    def __init__(self, **settings: Any) -> None:
        self.basic = self.hydras(**settings)

    def setup(self, **parts: Any) -> None:
        """Take over the configuration and the command; hydra calls this."""
        self.basic.setup(**parts)
        self.settings, self.context = parts["config"], parts["hydra_context"]
        self.job_function = parts["task_function"]

    def sweep(self, arguments: list[str]) -> Any:
        """Run all jobs and print the table.

        Raises:
            SystemExit: a job failed (status 1), or the sweep was stopped by a signal (128 + its number).
        """
        if type(self.basic.launcher).__name__ != "BasicLauncher":
            return self.basic.sweep(arguments)
        jobs = self._jobs(arguments)
        folder = make_folder(Path(str(self.settings.hydra.sweep.dir)))
        OmegaConf.save(self.settings, folder / "multirun.yaml")
        state, signals = _State(), _Signals()
        results: list[Any] = []
        stopped: signal.Signals | None = None
        try:
            for job in jobs:
                print(f"job {job.number} ({job.number + 1} of {len(jobs)}): {job.settings}", flush=True)
                signals.listen()
                try:
                    results.append(self._run(job))
                finally:
                    state.restore()
                if signals.received:  # but the job caught the signal and returned
                    job.status, job.failed = (NEVER, False) if job.failed else (job.status, False)
                    raise SystemExit(128 + signals.received)
        except (KeyboardInterrupt, SystemExit) as ending:
            stopped = signals.received or _signal_of(ending)
            if job.status == NEVER and stopped:
                job.status = f"stopped by {stopped.name}"
        finally:
            signals.restore()
        _print_table(jobs, folder, stopped, resumes="resume" in self.settings)
        return [results]

    def _jobs(self, arguments: Sequence[str]) -> list[_Job]:
        given = [*self.basic._parse_config(), *arguments]
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        every = self.basic.split_arguments(parser.parse_overrides(given), None)[0]
        shown = [[_QUOTED.sub(r"=\2", item) for item in filter_overrides(overrides)] for overrides in every]
        common = set.intersection(*map(set, shown)) if len(shown) > 1 else set()
        settings = [" ".join(item for item in items if item not in common) for items in shown]
        return [_Job(n, list(every[n]), settings[n]) for n in range(len(every))]

    def _run(self, job: _Job) -> Any:
        """Run one job, as hydra's basic launcher does, and record its result."""
        setup_globals()
        try:
            config = self.context.config_loader.load_sweep_config(self.settings, job.overrides)
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = job.number
            job.folder = str(Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir)))
            done = run_job(
                hydra_context=self.context,
                task_function=self.job_function,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        except SystemExit as ending:
            if _signal_of(ending):
                raise
            self._record(job, ending)
            return None
        except Exception as error:  # the settings cannot be composed, or the job's folder cannot be created
            self._record(job, error)
            return None
        if done.status == JobStatus.FAILED:
            self._record(job, done._return_value)
            return None
        job.status = done.return_value if isinstance(done.return_value, str) else DONE
        return done

    def _record(self, job: _Job, error: BaseException) -> None:
        """Print why a job failed, and keep this line only: the exception would keep the job's memory allocated."""
        if isinstance(error, SystemExit):
            if error.code in (None, 0):
                job.status = DONE
                return
            text = str(error.code) if isinstance(error.code, str) else f"ended with exit status {error.code}"
            reason = text.removeprefix("error: ")
        elif isinstance(error, CaptioningError | HydraException | OmegaConfBaseException):
            reason = str(self.explain(error, overrides=job.overrides))
        elif isinstance(error, OSError) and error.filename and Path(str(error.filename)) == Path(job.folder):
            reason = f"cannot create the folder '{job.folder}' ({error.strerror}): choose another one"
        else:
            traceback.print_exception(error)
            reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        reason = " ".join(reason.split())
        job.mistyped = isinstance(error, ConfigError | HydraException | OmegaConfBaseException)
        job.status, job.failed = f"FAILED: {reason}", True
        print(f"error: job {job.number} ({job.settings}): {reason}", file=sys.stderr, flush=True)


def _print_table(jobs: Sequence[_Job], folder: Path, stopped: signal.Signals | None, *, resumes: bool) -> None:
    """Print the table, and exit with a failing status if a job failed or never ran."""
    rows = [("job", "settings", "folder", "status")]
    rows += [(str(job.number), job.settings, job.folder, job.status) for job in jobs]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    sys.stdout.flush()
    failed = [job for job in jobs if job.failed]
    never = [job for job in jobs if job.status == NEVER]
    if not (failed or stopped):
        return
    problems = [f"{len(failed)} of {len(jobs)} jobs failed"] if failed else []
    problems += [f"stopped by {stopped.name}, {len(never)} of {len(jobs)} jobs never ran"] if stopped else []
    advice = ""
    if failed and not stopped and all(job.mistyped for job in failed):
        advice = ". Correct the settings of these jobs: with the same settings they will fail again"
    elif resumes:
        advice = f". To continue, run the same command with run_dir={folder} resume=auto: it skips finished jobs"
    print(f"error: {'; '.join(problems)}{advice}", file=sys.stderr, flush=True)
    sys.exit(128 + stopped if stopped else 1)


def _signal_of(ending: BaseException) -> signal.Signals | None:
    """Return the signal that ended a job: SIGINT for Ctrl-C, or the signal of an exit status above 128."""
    if isinstance(ending, KeyboardInterrupt):
        return signal.SIGINT
    if isinstance(ending, SystemExit) and isinstance(ending.code, int):
        with suppress(ValueError):
            return signal.Signals(ending.code - 128)
    return None


class _Signals:
    """Handlers of Ctrl-C and SIGTERM that stop the entire sweep instead of one job."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.former: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            self.former = {n: handler for n, handler in former.items() if handler not in (signal.SIG_IGN, None)}

    def listen(self) -> None:
        """Install the handlers. Call it before each job: training replaces them, and Lightning may ignore signals."""
        for number in self.former:
            signal.signal(number, self._receive)

    def restore(self) -> None:
        """Install the handlers from before the sweep."""
        for number, handler in self.former.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


class _State:
    """State of the process before the first job: random generators, torch's switches, environment, folder.

    Every job starts from this state, so that its results do not depend on the jobs before it.
    """

    def __init__(self) -> None:
        import numpy
        import torch

        self.environment, self.folder = dict(os.environ), os.getcwd()
        self.filters, self.path = list(warnings.filters), sys.path[:]
        self.hydra = GlobalHydra.instance().hydra
        self.drawn = random.getstate(), numpy.random.get_state(), torch.get_rng_state(), torch.initial_seed()  # noqa: NPY002
        self.switches = {
            "set_float32_matmul_precision": torch.get_float32_matmul_precision(),
            "set_default_dtype": torch.get_default_dtype(),
            "set_grad_enabled": torch.is_grad_enabled(),
            "set_num_threads": torch.get_num_threads(),
        }
        self.deterministic = torch.are_deterministic_algorithms_enabled()
        self.anomaly = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
        cudnn = torch.backends.cudnn
        self.cudnn = {name: getattr(cudnn, name) for name in ("benchmark", "deterministic", "enabled")}

    def restore(self) -> None:
        """Restore this state, and free the memory of the last job."""
        import numpy
        import torch

        gc.collect()
        for key in os.environ.keys() - self.environment.keys():
            del os.environ[key]
        os.environ.update(self.environment)
        os.chdir(self.folder)
        sys.path[:] = self.path
        warnings.filters[:] = self.filters  # type: ignore[index]  # a list, which typeshed types as a sequence
        warnings._filters_mutated()  # type: ignore[attr-defined]  # not public; clears the cache of the filters
        GlobalHydra.instance().hydra = self.hydra
        for name, value in self.switches.items():
            getattr(torch, name)(value)
        torch.use_deterministic_algorithms(self.deterministic)
        torch.autograd.set_detect_anomaly(*self.anomaly)
        for name, value in self.cudnn.items():
            setattr(torch.backends.cudnn, name, value)
        of_python, of_numpy, of_torch, seed = self.drawn
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
            torch.cuda.manual_seed_all(seed)
        random.setstate(of_python)
        numpy.random.set_state(of_numpy)  # noqa: NPY002
        torch.set_rng_state(of_torch)
