"""Plant one-line faults in copies of the package, run the tests that cover each, and print the faults that survive.

    make mutants                                          every fault of the lists in this folder, about 10 minutes
    make mutants ARGS="--only decoding"                   faults whose list, file or text contains "decoding"
    make mutants ARGS="--generated captioning/data/lengths.py"
                                                          faults made from the syntax of one file instead of a list
    make mutants ARGS="--generated captioning/models/attention.py --tests tests/models/test_attention.py --limit 50"

A list is a TOML file per folder of the package, here `FOLDER.toml`:

    [[fault]]
    file = "captioning/data/lengths.py"
    old = "reverse=True"                       # occurs exactly once in the file; may be a part of a line
    new = "reverse=False"
    tests = ["tests/data/test_lengths.py"]     # files, folders or single tests; what is quick and should notice it
    equivalent = "…"                           # only if no test can notice it: the reason

`tests` may be left out: then the tests are `tests/FOLDER`, the file that is named like the faulty one first.

The tree itself is never touched. Each worker has a copy of what git tracks or would track. A warm parent imports the
large libraries, but not the package, once, and forks a process for every fault. All tests are first run without any
fault: where one fails then, nothing is planted. The real photographs (`--shared`) are not used. The exit status is 1 if
a fault survived, or if one that is listed as equivalent was noticed.
"""

import argparse
import gc
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from generate import generated_faults

ROOT = Path(__file__).parents[2]
LISTS = "tests/mutants"  # in the root
PACKAGE = "captioning"
# Imported once for all faults.
WARM = ("numpy", "torch", "torchvision", "lightning", "hydra", "pytest", "hypothesis", "matplotlib.figure", "PIL.Image")
WARM += ("nltk.translate.bleu_score", "safetensors.torch", "pycocotools.mask", "jinja2", "filelock", "tqdm")
PYTEST = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:unraisableexception"]
PYTEST += ["--hypothesis-seed=0", "--basetemp=../tmp"]
MEMORY = 24 << 30  # bytes of address space


@dataclass(frozen=True)
class Fault:
    """One planted fault: `old`, at byte `start` of `file`, becomes `new`."""

    file: str
    start: int
    old: str
    new: str
    tests: tuple[str, ...]
    line: int
    equivalent: str = ""

    def __str__(self) -> str:
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.file}:{self.line}  {old}  ->  {new}"

    def planted(self, source: bytes) -> bytes:
        old = self.old.encode()
        assert source[self.start : self.start + len(old)] == old, f"the source of {self} has changed"
        return source[: self.start] + self.new.encode() + source[self.start + len(old) :]


def default_tests(root: Path, file: str) -> tuple[str, ...]:
    """Return the test files named like the file, then the folder of tests of its folder."""
    folder = Path(file).parent.relative_to(PACKAGE)
    named = [root / "tests" / folder / f"test_{Path(file).stem}.py", root / "tests" / folder]
    found = [str(path.relative_to(root)) for path in named if path.exists()]
    return tuple(found) or default_tests(root, str(Path(file).parent))


def listed_faults(root: Path) -> tuple[list[tuple[str, Fault]], list[str]]:
    """Return (name of the list, fault) of all lists, and what is wrong with entries that cannot be planted."""
    faults, wrong = [], []
    for path in sorted((root / LISTS).glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["fault"]:
            source, old = (root / entry["file"]).read_bytes(), entry["old"].encode()
            if source.count(old) != 1:
                wrong.append(f"{path.name}: not once but {source.count(old)} times in {entry['file']}: {entry['old']}")
                continue
            start = source.index(old)
            tests = tuple(entry.pop("tests", ())) or default_tests(root, entry["file"])
            faults.append((path.stem, Fault(start=start, tests=tests, line=source.count(b"\n", 0, start) + 1, **entry)))
    return faults, wrong


def snapshot(root: Path, copy: Path) -> None:
    """Copy all files that git tracks or would track."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(command, text=True).split("\0"):
        if name and (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)


class Recorder:
    """A plugin of pytest that keeps the name of the first test that failed."""

    failed = ""

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    pytest_collectreport = pytest_runtest_logreport


def child(copy: Path, tests: Sequence[str]) -> None:
    """Run tests in a copy, and write the outcome beside it. Does not return."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    os.chdir(copy)
    with open("../log.txt", "w") as log, open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    sys.path.insert(0, str(copy))
    sys.dont_write_bytecode = True
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    import pytest

    recorder = Recorder()
    status = int(pytest.main([*PYTEST, *tests], plugins=[recorder]))
    module = sys.modules.get(PACKAGE)
    where = str(module.__file__) if module else str(copy)
    Path("../outcome.json").write_text(json.dumps({"status": status, "failed": recorder.failed, "where": where}))
    sys.stdout.flush()
    os._exit(0)


@dataclass
class Job:
    """Tests that run in a worker's copy, with a fault or without."""

    folder: Path  # the worker's; `tree` in it is the copy
    tests: Sequence[str]
    fault: Fault | None
    limit: float  # seconds

    def start(self) -> "Job":
        self.copy = self.folder / "tree"
        shutil.rmtree(self.copy / ".hypothesis", ignore_errors=True)  # examples that an earlier fault was found with
        (self.folder / "outcome.json").unlink(missing_ok=True)
        if self.fault:
            self.path = self.copy / self.fault.file
            self.source = self.path.read_bytes()
            self.path.write_bytes(self.fault.planted(self.source))
        self.started_at = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                child(self.copy, self.tests)
            finally:
                os._exit(1)
        return self

    def outcome(self) -> str | None:
        """ "" if all tests passed, else what failed; None while they run."""
        self.seconds = time.monotonic() - self.started_at
        done, _ = os.waitpid(self.pid, os.WNOHANG)
        if not done and self.seconds < self.limit:
            return None
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # what the tests started, too
        if not done:
            os.waitpid(self.pid, 0)
        if self.fault:
            self.path.write_bytes(self.source)
        if not done:
            return f"timeout after {self.limit:.0f} s"
        if not (self.folder / "outcome.json").exists():
            return "crash"
        result = json.loads((self.folder / "outcome.json").read_text())
        if not Path(result["where"]).is_relative_to(self.copy):
            raise SystemExit(f"error: the tests imported {result['where']}, not the copy in {self.copy}")
        return (result["failed"] or f"pytest's exit status {result['status']}") if result["status"] else ""


def run_all(jobs: Iterable[tuple], folders: list[Path]) -> Iterator[tuple[Job, str]]:
    """Run jobs (tests, fault, limit), one at a time in each worker's folder, and yield each with its outcome."""
    jobs, idle, running = iter(jobs), list(folders), []
    try:
        while True:
            while idle and (job := next(jobs, None)):
                running.append(Job(idle.pop(), *job).start())
            if not running:
                return
            time.sleep(0.02)
            for job in list(running):
                if (outcome := job.outcome()) is not None:
                    running.remove(job)
                    idle.append(job.folder)
                    yield job, outcome
    finally:
        for job in running:
            os.killpg(job.pid, signal.SIGKILL)


def plant(faults: Sequence[Fault], folders: list[Path]) -> list[Fault]:
    """Run the tests without any fault, then once per fault, and return the faults with the wrong outcome."""
    seconds, clean = {}, defaultdict(set)  # by file or folder
    for test in {test for fault in faults for test in fault.tests}:
        clean[test.partition("::")[0]].add(test)
    for job, outcome in run_all(((sorted(clean[path]), None, 1800) for path in sorted(clean)), folders):
        path = job.tests[0].partition("::")[0]
        if outcome:
            print((job.folder / "log.txt").read_text()[-4000:])
            raise SystemExit(f"error: {path} fails without any fault: {outcome}")
        seconds[path] = job.seconds
    print(
        f"{len(clean)} files or folders of tests pass without any fault, in {sum(seconds.values()):.0f} s", flush=True
    )
    wrong, count = [], Counter()
    limits = (60 + 5 * sum(seconds[test.partition("::")[0]] for test in fault.tests) for fault in faults)
    jobs = ((fault.tests, fault, limit) for fault, limit in zip(faults, limits, strict=True))
    for number, (job, outcome) in enumerate(run_all(jobs, folders), 1):
        kind = "killed" if outcome else "equivalent" if job.fault.equivalent else "SURVIVED"
        count[kind] += 1
        if kind == "SURVIVED" or (outcome and job.fault.equivalent):
            wrong.append(job.fault)
        print(f"[{number}/{len(faults)}] {kind} {job.seconds:.0f} s  {job.fault}  {outcome}", flush=True)
    print(", ".join(f"{count[kind]} {kind}" for kind in ("killed", "SURVIVED", "equivalent") if count[kind]))
    return wrong


def chosen_faults(root: Path, options: argparse.Namespace) -> tuple[list[Fault], list[str]]:
    """Return the faults that the options ask for, and what is wrong with entries of lists."""
    if options.generated:
        tests = default_tests(root, options.generated)
        made = generated_faults((root / options.generated).read_bytes())
        named, wrong = [("", Fault(options.generated, tests=tests, **each)) for each in made], []
    else:
        named, wrong = listed_faults(root)
    faults = [fault for name, fault in named if options.only in f"{name} {fault}"]
    if options.limit and options.limit < len(faults):
        chosen = set(random.Random(options.seed).sample(range(len(faults)), options.limit))
        faults = [fault for index, fault in enumerate(faults) if index in chosen]
    if options.tests:
        faults = [replace(fault, tests=tuple(options.tests)) for fault in faults]
    return faults, wrong


def main(arguments: Sequence[str], *, root: Path = ROOT, warm: Sequence[str] = WARM) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", metavar="TEXT", help="faults whose list, file or text contains it")
    parser.add_argument("--generated", metavar="FILE", help="faults made from this file's syntax, instead of the lists")
    parser.add_argument("--tests", nargs="+", metavar="PATH", help="tests to run instead of the listed or default ones")
    parser.add_argument("--limit", type=int, metavar="N", help="no more than N faults, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of --limit")
    options = parser.parse_args(arguments)
    started_at = time.monotonic()
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in warm:
        importlib.import_module(name)
    assert PACKAGE not in sys.modules
    gc.collect()
    gc.freeze()  # else every process would go through all of the libraries' objects, several times
    with tempfile.TemporaryDirectory(prefix="mutants") as temporary:
        folders = [Path(temporary).resolve() / str(worker) for worker in range(options.workers)]
        for folder in folders:
            snapshot(root, folder / "tree")
        faults, unusable = chosen_faults(folders[0] / "tree", options)
        wrong = plant(faults, folders)
    print(f"{len(faults)} faults in {(time.monotonic() - started_at) / 60:.1f} min")
    for fault in wrong:
        print(f"{'killed, though listed as equivalent' if fault.equivalent else 'SURVIVED'}: {fault}")
    for line in unusable:
        print(f"error: {line}")
    return 1 if wrong or unusable else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
