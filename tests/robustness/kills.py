"""Kill real training processes, resume them, and compare all their files with an uninterrupted run.

    python tests/robustness/kills.py --kills 20 --stops 6 --seed 0

Each trial chooses a point in the code (all of PLACES in turn, or any moment in time), a run that passes it (RUNS), and
how often the run passes it before the process ends there. The process ends by SIGKILL, or for `--stops` by SIGTERM or
SIGINT: then it must save its state and exit with the right status. Some runs are killed twice. Each run is then resumed
to its end. Its checkpoints must be equal bit for bit (weights, their average, optimizer, schedule, generators,
callbacks), and so must metrics.csv, except for the speeds.

The processes are forked from this one, which has imported everything but computed nothing, so that they start quickly.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

import captioning.train
from captioning.metrics import Reward
from captioning.training import CaptioningTask, Checkpoint, RunLog, SaveBetweenSteps

WORLD = [
    "data=scenes", "data.reader.train=14", "data.reader.val=6", "data.reader.test=2", "data.min_count=1",
    "encoder.image_size=64", "model.width=16", "model.embedding_size=8", "loader.batch_size=2",
    "loader.val_batch_size=2", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1", "trainer.max_epochs=3", "resume=auto",
]  # fmt: skip
OFTEN = "trainer.save_every_minutes=0.0003"  # tens of milliseconds: enough for some steps, but not all
RUNS = {
    "hard attention, scheduled sampling, averaged, accumulated": [
        "model/attention=hard", "objective=scheduled_sampling", "objective.inputs.every=2", "weight_averaging=ema",
        "weight_averaging.decay=0.5", "trainer.accumulate_grad_batches=2", "schedule=cosine", OFTEN,
    ],
    "self-critical": ["model/attention=soft", "objective=self_critical", OFTEN],
    "epochs only, to a step": ["trainer.save_every_minutes=null", "trainer.max_steps=17", "decoding=sample"],
}  # fmt: skip
PLACES = {
    "step": (CaptioningTask, "training_step"),
    "gradient": (CaptioningTask, "on_before_optimizer_step"),
    "after step": (CaptioningTask, "on_train_batch_end"),
    "validation": (CaptioningTask, "validation_step"),
    "scoring": (CaptioningTask, "on_validation_epoch_end"),
    "epoch end": (Checkpoint, "on_train_epoch_end"),
    "between steps": (SaveBetweenSteps, "on_train_batch_start"),
    "log": (RunLog, "write"),
    "reward": (Reward, "__call__"),
    "half a file": (torch, "save"),
    "before the rename": (os, "replace"),
    "after the rename": (os, "replace"),
}


class Cut:
    """A file that writes half of its first long write, and then ends the process."""

    def __init__(self, file):
        self.file = file

    def write(self, data) -> int:
        if len(data) < 1000:
            return self.file.write(data)
        self.file.write(bytes(data)[: len(data) // 2])
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def __getattr__(self, name: str):
        return getattr(self.file, name)


def arm(place: str, count: int, number: int) -> None:
    """Send the process a signal when it passes a point in the code for the `count`-th time."""
    owner, name = PLACES[place]
    original, passed = getattr(owner, name), []

    def passing(*arguments, **named):
        passed.append(1)
        if len(passed) == count and place == "half a file":
            return original(arguments[0], Cut(arguments[1]), **named)
        if len(passed) != count:
            return original(*arguments, **named)
        if place != "after the rename":
            os.kill(os.getpid(), number)
        result = original(*arguments, **named)
        if place == "after the rename":
            os.kill(os.getpid(), number)
        return result

    setattr(owner, name, passing)


def count(place: str, counts: dict[str, int], report: Path) -> None:
    """Count how often the process passes a point in the code."""
    owner, name = PLACES[place]
    original = getattr(owner, name)

    def counting(*arguments, **named):
        counts[place] += 1
        report.write_text(json.dumps(counts))
        return original(*arguments, **named)

    setattr(owner, name, counting)


def start(arguments: list[str], log: Path, armed: tuple[str, int, int] | None = None) -> int:
    """Start captioning-train in a fork of this process, and return its process id."""
    if child := os.fork():
        return child
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    status = 1
    try:
        if armed:
            arm(*armed)
        sys.argv = ["captioning-train", *arguments]
        captioning.train.main()
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1 if leaving.code else 0
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(child: int) -> int:
    """Wait for a process and return its exit status; −9 if SIGKILL ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def left(run_dir: Path) -> dict:
    """Read all files of a run, without values that depend on its folder, its speed or its process."""

    def plain(value):
        if isinstance(value, dict):
            return {plain(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value.replace(str(run_dir.resolve()), "RUN") if isinstance(value, str) else value

    found = {}
    for name in ("last", "best"):
        checkpoint = torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)
        del checkpoint["loops"]  # counters, some of which are never read
        found[name] = plain(checkpoint)
    with (run_dir / "metrics.csv").open(newline="") as file:
        found["log"] = [{key: value for key, value in row.items() if key != "words/s"} for row in csv.DictReader(file)]
    found["files"] = sorted(
        str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if "tensorboard" not in str(path)
    )
    return found


def differing(first, second, path: str = "") -> list[str]:
    """Return the dotted names of all values that are not equal bit for bit."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = first.keys() | second.keys()
        return [name for key in keys for name in differing(first.get(key), second.get(key), f"{path}.{key}")]
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [name for index, (one, other) in pairs for name in differing(one, other, f"{path}[{index}]")]
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return [] if first.dtype == second.dtype and torch.equal(first, second) else [path]
    return [] if first == second else [path]


def passes(arguments: list[str], folder: Path, run_dir: Path) -> dict[str, int]:
    """Train the uninterrupted run that others are compared with; return how often it passes each point."""
    counts = dict.fromkeys(PLACES, 0)
    report = folder / "counts.json"
    child = os.fork()
    if not child:
        for place in PLACES:
            count(place, counts, report)
        sys.argv = ["captioning-train", *arguments, f"run_dir={run_dir}"]
        log = os.open(folder / "whole.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        captioning.train.main()
        os._exit(0)
    if wait(child):
        raise SystemExit(f"the whole run failed:\n{(folder / 'whole.log').read_text()}")
    return json.loads(report.read_text())


def end(
    arguments: list[str], log: Path, place: str, chances: random.Random, counts: dict, seconds: float, number
) -> str:
    """Run one process and end it at a point in the code.

    Returns:
        What was done to the process; "" if it had finished before.

    Raises:
        AssertionError: the process exited with a wrong status.
    """
    if place == "clock":
        moment = chances.uniform(0.1, 0.9) * seconds
        child = start(arguments, log)
        time.sleep(moment)
        os.kill(child, number)
        told, status = f"{number.name} after {moment:.2f} s", wait(child)
    else:
        count = chances.randint(1, max(1, counts[place] * 3 // 4))
        told, status = f"{number.name} at {place} {count}", wait(start(arguments, log, (place, count, number)))
    expected = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    if status not in (0, expected):
        raise AssertionError(f"{told}: exit status {status}, not {expected}\n{log.read_text()}")
    return told if status else ""


def trial(folder: Path, arguments: list[str], place: str, chances: random.Random, *known) -> str:
    """End a run at a point in the code, and resume it to its end; a third of the killed runs are killed twice.

    Returns:
        What was done to the run; "" if it had finished before.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log, arguments = folder / "log", [*arguments, f"run_dir={folder / 'run'}"]
    told = [end(arguments, log, place, chances, *known)]
    if told[0] and known[-1] == signal.SIGKILL and chances.random() < 1 / 3:
        told.append(end(arguments, log, "clock", chances, *known))
    if told[0] and (status := wait(start(arguments, log))):
        raise AssertionError(f"{told}: resumed, exit status {status}\n{log.read_text()}")
    return " and ".join(filter(None, told))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--stops", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chances = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary).resolve()
        wholes = {}
        for index, (name, overrides) in enumerate(RUNS.items()):
            folder = root / f"whole{index}"
            folder.mkdir()
            arguments = [*WORLD, f"data.root={root}/data", f"features.root={root}/features", *overrides]
            counts = passes(arguments, folder, folder / "run")
            begun = time.perf_counter()  # data and features exist by now
            if status := wait(start([*arguments, f"run_dir={folder}/again"], folder / "log")):
                raise SystemExit(f"exit status {status}:\n{(folder / 'log').read_text()}")
            seconds = time.perf_counter() - begun
            whole = left(folder / "run")
            assert not (found := differing(whole, left(folder / "again"))), (
                f"{name}: two uninterrupted runs differ in: {found}"
            )
            print(f"{name}: {seconds:.1f} s, {counts}", flush=True)
            wholes[name] = (arguments, counts, seconds, whole)
        survived, tried, drawn = 0, options.kills + options.stops, []
        for index in range(tried):
            kills = index < options.kills
            told = ""
            while not told:  # if the run finished before that moment, this is not a trial
                drawn = drawn or chances.sample([*PLACES, *["clock"] * 4], len(PLACES) + 4)
                place, number = (
                    drawn.pop(),
                    signal.SIGKILL if kills else chances.choice((signal.SIGTERM, signal.SIGINT)),
                )
                runs = [name for name in RUNS if place == "clock" or wholes[name][1][place]]
                if not kills and place in ("half a file", "clock"):
                    continue
                name = chances.choice(runs)
                arguments, counts, seconds, whole = wholes[name]
                told = trial(root / f"trial{index}", arguments, place, chances, counts, seconds, number)
            found = differing(whole, left(root / f"trial{index}" / "run"))
            survived += not found
            print(f"{index + 1:3} {name}: {told}: {'the same' if not found else f'DIFFERS: {found[:8]}'}", flush=True)
        print(f"survived {survived} of {tried}")
        sys.exit(survived < tried)


if __name__ == "__main__":
    main()
