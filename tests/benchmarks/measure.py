"""What the benchmarks share: timing, the machine's matrix rate, peak memory, and one JSON file of results.

A benchmark is a script beside this one: it calls `run(cases)` with functions that each measure one named case.
`make bench` runs them all into bench.json. Figures of one file are from one machine; those of a busy machine are
worth comparing only as ratios within one run.
"""

import argparse
import ctypes
import gc
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

MATRIX = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::addmv", "aten::mv", "aten::dot")


def run(
    cases: Callable[[argparse.Namespace], Iterable[tuple[str, Callable[[], dict[str, Any]]]]],
    description: str,
    *,
    options: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> None:
    """A benchmark's main: measures its cases one after another and merges each into the file as soon as it is known.

    Args:
        cases: (arguments) -> pairs of a name and a function that measures it. Its result has "value" and "unit", and
            where they mean something "rival_ratio" (value over the rival's), "floor_ratio" (seconds over the floor's)
            and "peak_MiB".
        description: of the benchmark.
        options: adds arguments of its own to those that all benchmarks have.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, default=Path("bench.json"), help="results are merged into it")
    parser.add_argument("--quick", action="store_true", help="smallest sizes, to see that it runs; no figures to quote")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, in this process")
    parser.add_argument("--shared", default="../shared", help="folder that holds flickr8k/, where real data are wanted")
    options(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name, case in cases(arguments):
        if arguments.only not in name:
            continue
        result = case()
        empty = {"value": None, "unit": None, "rival_ratio": None, "floor_ratio": None, "peak_MiB": None}
        result = {key: round_(value) for key, value in (empty | result).items()}
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in result.items() if value is not None))
        merge(arguments.output, {name: result})


def merge(path: Path, results: dict[str, dict[str, Any]]) -> None:
    """Adds results to the file, in the place of older ones of the same names."""
    before = json.loads(path.read_text(encoding="utf-8"))["results"] if path.is_file() else {}
    content = {
        "results": before | results,
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "commit": _output("git", "rev-parse", "HEAD"),
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": model, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": gpu}


def seconds(*jobs: Callable[[], Any], repeats: int = 3, warm_up: bool = True, elsewhere: bool = False) -> list[float]:
    """The shortest of several runs of each job, in turns so that all see the same machine, after one that warms up.

    With one thread and no GPU these are CPU seconds, which other work on the machine disturbs less, unless a part of
    the work is done `elsewhere`: on a disk, or by other processes.
    """
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available() and not elsewhere
    clock = process_time if alone else perf_counter
    for job in jobs if warm_up else ():
        job()
    rounds = [[_timed(job, clock) for job in jobs] for _ in range(repeats)]
    return [min(times) for times in zip(*rounds, strict=True)]


def _timed(job: Callable[[], Any], clock: Callable[[], float]) -> float:
    synchronize()
    started_at = clock()
    job()
    synchronize()
    return clock() - started_at


def synchronize() -> None:
    """Waits for a GPU's work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matrix_job(
    *, size: int | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Callable[[], Any], int]:
    """A large product and its floating-point operations: over its seconds, the machine's matrix rate."""
    size = size or (1024 if device == "cpu" else 8192)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return partial(torch.mm, left, right, out=torch.empty_like(left)), 2 * size**3


def matrix_operations(job: Callable[[], Any]) -> int:
    """Floating-point operations of all matrix products of a job; over the matrix rate, its floor in seconds."""
    with FlopCounterMode(display=False) as counter:
        job()
    return counter.get_total_flops()


def matrix_share(job: Callable[[], Any]) -> float:
    """Share of a job's CPU time that is spent in matrix products, by the profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        job()
    events = profile.key_averages()
    return sum(e.self_cpu_time_total for e in events if e.key in MATRIX) / sum(e.self_cpu_time_total for e in events)


def peak_mebibytes(job: Callable[[], Any]) -> float | None:
    """What a job adds to the process's resident memory (a GPU's allocated memory) at its peak; None where unknown."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        job()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # gives back what was freed, so that it counts again when it is used
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
    except OSError:
        return None
    before = _status("VmRSS")
    job()
    return (_status("VmHWM") - before) / 2**10


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def round_(value: Any) -> Any:
    """Four digits are more than a benchmark knows."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _output(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
