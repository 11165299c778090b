"""Shared code of the benchmarks: timing, the machine's matrix rate, peak memory, and one JSON file of results.

A benchmark is a script in this folder. It calls `run(cases)` with functions that each measure one named case.
`make bench` runs all of them and writes bench.json. All results in one file are from one machine. On a busy machine,
only ratios within one run can be compared.
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
    """Run a benchmark: measure its cases one after another, and merge each result into the file at once.

    Args:
        cases: function from the arguments to pairs of a name and a function that measures this case. Its result has
            "value" and "unit", and if applicable "rival_ratio" (value / value of the rival), "floor_ratio" (seconds /
            seconds of the floor) and "peak_MiB".
        description: description of the benchmark.
        options: function that adds arguments to those that all benchmarks have.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, default=Path("bench.json"), help="file into which results are merged")
    parser.add_argument("--quick", action="store_true", help="smallest sizes, only to test that it runs")
    parser.add_argument("--only", default="", help="run only cases whose name contains this")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch in this process")
    parser.add_argument("--shared", default="../shared", help="folder with flickr8k/, for cases that need real data")
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
    """Add results to the file; they replace older results of the same names."""
    before = json.loads(path.read_text(encoding="utf-8"))["results"] if path.is_file() else {}
    content = {
        "results": before | results,
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "commit": _output("git", "rev-parse", "HEAD"),
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Return a description of this machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": model, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": gpu}


def seconds(*jobs: Callable[[], Any], repeats: int = 3, warm_up: bool = True, elsewhere: bool = False) -> list[float]:
    """Return the shortest time of several runs of each job, after one warm-up run.

    The jobs take turns, so that all of them meet the same conditions. With one thread and no GPU these are CPU seconds,
    which other work on the machine disturbs less, unless a part of the work is done `elsewhere`: on a disk, or by other
    processes.
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
    """Wait until the GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matrix_job(
    *, size: int | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Callable[[], Any], int]:
    """Return a large matrix product and its floating-point operations, to measure the machine's matrix rate."""
    size = size or (1024 if device == "cpu" else 8192)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return partial(torch.mm, left, right, out=torch.empty_like(left)), 2 * size**3


def matrix_operations(job: Callable[[], Any]) -> int:
    """Count the floating-point operations of a job's matrix products, which give its floor at the matrix rate."""
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mv: _mv_operations}) as counter:
        job()
    return counter.get_total_flops()


def _mv_operations(matrix: torch.Size, vector: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * matrix[0] * matrix[1]  # torch's counter leaves out products with a vector


def matrix_share(job: Callable[[], Any]) -> float:
    """Return the share of a job's CPU time that is spent in matrix products, measured by the profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        job()
    events = profile.key_averages()
    return sum(e.self_cpu_time_total for e in events if e.key in MATRIX) / sum(e.self_cpu_time_total for e in events)


def peak_mebibytes(job: Callable[[], Any]) -> float | None:
    """Return how much a job adds to the peak resident memory (or allocated GPU memory); None if unknown."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        job()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # return freed memory to the system, so that it counts when reused
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak to the current resident memory
    except OSError:
        return None
    before = _status("VmRSS")
    job()
    return (_status("VmHWM") - before) / 2**10


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def round_(value: Any) -> Any:
    """Round a number to four digits, which is more than the precision of a benchmark."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _output(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
