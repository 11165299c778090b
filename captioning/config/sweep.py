"""Run the jobs of a sweep (-m) one after another, each on its own, and print a table of what became of them.

Hydra's own sweeper ends with the first job that fails. This one takes its place; other sweepers and launchers that a
user installs and chooses are left as they are.
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
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
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
_QUOTED = re.compile(r"=(['\"])([\w./-]+)\1$")  # by hydra or before it: of plain words, quotes tell nothing


def register() -> None:
    """Have hydra make this module's sweeper where its own would be made."""
    known = Plugins.instance().class_name_to_class
    if known[HYDRAS] is not SweeperOfJobs:
        SweeperOfJobs.hydras, known[HYDRAS] = known[HYDRAS], SweeperOfJobs


@dataclass
class _Job:
    """One row of the table. `settings`: the overrides in which it differs from other jobs."""

    number: int
    overrides: list[str]
    settings: str
    folder: str = ""
    status: str = NEVER
    failed: bool = False
    mistyped: bool = False  # its settings are at fault


class SweeperOfJobs(Sweeper):
    """Hydra's basic sweeper, in which a job that fails does not end the others."""

    hydras: ClassVar[type]  # hydra executes its module anew when it looks for plug-ins: not to be derived from

    def __init__(self, **settings: Any):
        self.basic = self.hydras(**settings)

    def setup(self, **parts: Any) -> None:
        """Called by hydra with the configuration and the command."""
        self.basic.setup(**parts)
        self.config, self.hydra_context = parts["config"], parts["hydra_context"]
        self.task_function = parts["task_function"]

    def sweep(self, arguments: list[str]) -> Any:
        """Run all jobs and print the table.

        Raises:
            SystemExit: a job failed (status 1), or the sweep was stopped by a signal (128 + its number).
        """
        if type(self.basic.launcher).__name__ != "BasicLauncher":
            return self.basic.sweep(arguments)
        jobs = self._jobs(arguments)
        folder = make_folder(Path(str(self.config.hydra.sweep.dir)))
        OmegaConf.save(self.config, folder / "multirun.yaml")
        state, signals = _State(), _Signals()
        results, stopped = [], None
        try:
            for job in jobs:
                print(f"job {job.number} ({job.number + 1} of {len(jobs)}): {job.settings}", flush=True)
                signals.listen()
                try:
                    results.append(self._run(job))
                finally:
                    state.restore()
                if signals.received:  # and yet the job has ended by itself
                    job.status, job.failed = (NEVER, False) if job.failed else (job.status, False)
                    raise SystemExit(128 + signals.received)
        except (KeyboardInterrupt, SystemExit) as ending:
            stopped = signals.received or _signal_of(ending)
            if job.status == NEVER:
                job.status = f"stopped by {stopped.name}"
        finally:
            signals.restore()
        _tell(jobs, folder, stopped, resumes="resume" in self.config)
        return [results]

    def _jobs(self, arguments: Sequence[str]) -> list[_Job]:
        given = [*self.basic._parse_config(), *arguments]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        every = self.basic.split_arguments(parser.parse_overrides(given), None)[0]
        shown = [[_QUOTED.sub(r"=\2", item) for item in filter_overrides(overrides)] for overrides in every]
        common = set.intersection(*map(set, shown)) if len(shown) > 1 else set()
        settings = [" ".join(item for item in items if item not in common) for items in shown]
        return [_Job(n, list(every[n]), settings[n]) for n in range(len(every))]

    def _run(self, job: _Job) -> Any:
        """Run one job, as hydra's basic launcher does, and note what became of it."""
        setup_globals()
        try:
            config = self.hydra_context.config_loader.load_sweep_config(self.config, job.overrides)
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = job.number
            job.folder = str(Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir)))
            done = run_job(
                hydra_context=self.hydra_context,
                task_function=self.task_function,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        except SystemExit as ending:
            if _signal_of(ending):
                raise
            self._note(job, ending)
            return None
        except Exception as error:  # the settings cannot be composed, or there is no folder for the job
            self._note(job, error)
            return None
        if done.status == JobStatus.FAILED:
            self._note(job, done._return_value)
            return None
        job.status = done.return_value if isinstance(done.return_value, str) else DONE
        return done

    def _note(self, job: _Job, error: BaseException) -> None:
        """Print why a job failed at once, and keep a line of it: the error itself would keep the job's memory."""
        if isinstance(error, SystemExit):
            if error.code in (None, 0):
                job.status = DONE
                return
            text = str(error.code) if isinstance(error.code, str) else f"it ended with exit status {error.code}"
            reason = text.removeprefix("error: ")
        elif isinstance(error, CaptioningError | HydraException | OmegaConfBaseException):
            reason = self.task_function.explain(error, overrides=job.overrides)
        elif isinstance(error, OSError) and error.filename and Path(str(error.filename)) == Path(job.folder):
            reason = f"cannot create the folder '{job.folder}' ({error.strerror}): choose another one"
        else:
            traceback.print_exception(error)
            reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        reason = " ".join(reason.split())
        job.mistyped = isinstance(error, ConfigError | HydraException | OmegaConfBaseException)
        job.status, job.failed = f"FAILED: {reason}", True
        print(f"error: job {job.number} ({job.settings}): {reason}", file=sys.stderr, flush=True)


def _tell(jobs: Sequence[_Job], folder: Path, stopped: signal.Signals | None, *, resumes: bool) -> None:
    """Print the table, and leave with a failing status where a job failed or never ran."""
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
    told = [f"{len(failed)} of {len(jobs)} jobs failed"] if failed else []
    told += [f"stopped by {stopped.name}, {len(never)} of {len(jobs)} jobs never ran"] if stopped else []
    again = ""
    if failed and not stopped and all(job.mistyped for job in failed):
        again = ". Correct the settings of these jobs: with the same ones they fail again"
    elif resumes:
        again = f". The same command with run_dir={folder} resume=auto goes on: finished jobs are skipped"
    print(f"error: {'; '.join(told)}{again}", file=sys.stderr, flush=True)
    sys.exit(128 + stopped if stopped else 1)


def _signal_of(ending: BaseException) -> signal.Signals | None:
    """Return the signal that an exception stands for: Ctrl-C, or a status above 128 as a run leaves with."""
    if isinstance(ending, KeyboardInterrupt):
        return signal.SIGINT
    with suppress(TypeError, ValueError):
        return signal.Signals(ending.code - 128)
    return None


class _Signals:
    """Listens for Ctrl-C and SIGTERM, which stop the whole sweep, and not one job."""

    def __init__(self):
        self.received: signal.Signals | None = None
        self.former = {}
        if threading.current_thread() is threading.main_thread():
            former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            self.former = {n: handler for n, handler in former.items() if handler not in (signal.SIG_IGN, None)}

    def listen(self) -> None:
        """Before each job: a training takes the signals over, and Lightning may leave them ignored."""
        for number in self.former:
            signal.signal(number, self._hear)

    def restore(self) -> None:
        for number, handler in self.former.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: Any) -> None:
        self.received = self.received or signal.Signals(number)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


class _State:
    """The process as it was before the first job: random generators, torch's switches, environment, folder.

    A job starts from it whatever the jobs before it did, so that its results are those of the job alone.
    """

    def __init__(self):
        import numpy
        import torch

        self.environment, self.folder = dict(os.environ), os.getcwd()
        self.filters, self.path = warnings.filters[:], sys.path[:]
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
        """Set all of it again, and let go of the memory of the last job."""
        import numpy
        import torch

        gc.collect()
        for key in os.environ.keys() - self.environment.keys():
            del os.environ[key]
        os.environ.update(self.environment)
        os.chdir(self.folder)
        warnings.filters[:], sys.path[:] = self.filters, self.path
        warnings._filters_mutated()
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
