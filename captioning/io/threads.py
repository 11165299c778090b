"""Choose torch's threads for machines that are shared with other programs, before torch is loaded.

The wheels of torch for Linux bring GNU OpenMP (libgomp), and MKL and oneDNN inside them use it too. It reads the
environment once, when torch is imported. A thread that waits for the others spins for GOMP_SPINCOUNT turns before it
sleeps. By default it spins for milliseconds. If another program has one of the cores, this takes the time that the
other thread needs to finish.
"""

import math
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

SPINS = 6000  # turns, about 0.1 to 0.3 ms, as long as most serial parts of a step; docs/speed.md has the scan

_chosen: dict[str, str] = {}  # what `set_threads` has set in this process


def set_threads() -> None:
    """Set the variables of `choose_threads` in the environment of this process and of those that it starts.

    If torch is loaded already, they would have no effect here, and nothing is set.
    """
    if "torch" not in sys.modules:
        _chosen.update(choose_threads(os.environ, affinity=_affinity(), quota=cpu_quota()))
        os.environ.update(_chosen)


def choose_threads(environment: Mapping[str, str], *, affinity: int, quota: float | None) -> dict[str, str]:
    """Return the variables to set: how long threads spin, and how many there are if a quota allows fewer than cores.

    Variables that the user has set are not changed. The number of threads does not depend on what other programs do at
    the moment: another number rounds sums differently, so that a run could not be repeated.

    Args:
        environment: the variables that are set.
        affinity: number of cores on which the process may run. Without a quota, torch uses so many threads by itself.
        quota: cores whose time the process may use (`cpu_quota`); None without a limit.
    """
    chosen = {}
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & environment.keys():
        chosen["GOMP_SPINCOUNT"] = str(SPINS)
    threads = _cores(affinity, quota)
    if threads < affinity and not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & environment.keys():
        chosen["OMP_NUM_THREADS"] = str(threads)
    return chosen


def share_threads(processes: int) -> None:
    """Divide the threads that a quota allows between the processes of a run on this machine.

    Lightning divides the cores, but only if OMP_NUM_THREADS is not set, and it does not know the quota. So this does
    nothing unless `set_threads` has set OMP_NUM_THREADS. The processes that are started later inherit the number.
    """
    own = _chosen.get("OMP_NUM_THREADS")
    if processes > 1 and own:
        import torch

        threads = max(1, int(own) // processes)
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)


def usable_cores() -> int:
    """Return how many cores this process may keep busy: those of its affinity, or fewer with a quota."""
    return _cores(_affinity(), cpu_quota())


def _cores(affinity: int, quota: float | None) -> int:
    return affinity if quota is None else min(affinity, max(1, math.ceil(quota)))


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def cpu_quota(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the smallest limit of the control groups around this process, in cores; None without a limit.

    Containers set such limits (`docker run --cpus=1.5`).

    Args:
        groups: the file that lists the control groups of the process.
        root: the folder of all control groups, of version 1 or 2.
    """
    return min((limit for folder in _folders(groups, root) if (limit := _limit(folder))), default=None)


def _folders(groups: Path, root: Path) -> Iterator[Path]:
    """Yield the folder of the process's group and of all groups around it.

    Inside a container, the file may name folders of the host that are not visible. The container's own limit is then
    in the outermost folder.
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:  # not on Linux
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if not kinds or "cpu" in kinds.split(","):
            base = root / kinds if kinds and (root / kinds).is_dir() else root / "cpu" if kinds else root
            inside = PurePosixPath(path.lstrip("/"))
            yield from (base / each for each in (inside, *inside.parents))


def _limit(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period")
            )
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # ValueError: "max", no limit
        return None
