"""Measure how much of its speed this package keeps if another program keeps a core busy.

    python tests/benchmarks/neighbor.py [--quick] [--only beam5] [--output bench.json]

Every case runs in two processes: with the variables that the commands set before torch is loaded
(`captioning.io.choose_threads`), and without them, as in any program with torch. The processes take turns, alone and
with a neighbor, a program in an endless loop, so that all figures of a case come from the same minutes. Variables
that you have set yourself, such as OMP_WAIT_POLICY, count in both.

`value` is the rate with the commands' variables and the neighbor. `rival_ratio` divides it by the rate without these
variables, also with the neighbor. `quiet_ratio` is the same ratio without a neighbor: below 1, it is what the
variables cost on a quiet machine. `kept` and `rival_kept` divide the rates with the neighbor by the quiet rate of
torch's own defaults. All are medians.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import decoding
import torch
import training
from measure import run

from captioning.io import choose_threads, cpu_quota
from captioning.models import efficientnet_lite_encoder

UNITS = {"beam5/49x1280": "images/s", "train/soft/49x1280": "words/s", "encode/efficientnet_lite0": "images/s"}


def work(name: str, images: int) -> tuple[int, Callable[[], Any]]:
    """Return a job of a case, and how many images or words it processes."""
    if name.startswith("beam5"):
        sizes = {"feature_size": 1280, "vocabulary_size": decoding.VOCABULARY, "width": decoding.WIDTH}
        model = decoding.build_captioner(grid=True, **sizes).eval()
        return images, partial(decoding.search, model, torch.rand(images, 49, 1280), tokens=decoding.TOKENS)
    if name.startswith("train"):
        batch = training.draw_batch(images, (49, 1280))
        words = int((batch.tokens[..., 1:] != training.PAD).sum())
        return words, training.ours("soft", training.build("soft", 1280), batch)
    encoder = efficientnet_lite_encoder().eval()
    pictures = torch.zeros(images, 3, encoder.image_size, encoder.image_size, dtype=torch.uint8)
    return images, torch.inference_mode()(partial(encoder, pictures))


def serve(connection, name: str, images: int) -> None:
    """Run the job once for each message, and answer with its rate."""
    amount, job = work(name, images)
    job()
    connection.send("ready")
    while connection.recv():
        started_at = perf_counter()
        job()
        connection.send(amount / (perf_counter() - started_at))


@contextmanager
def served(variables: Mapping[str, str], name: str, images: int) -> Iterator[Callable[[], float]]:
    """Start a process with further environment variables. Yield a function that runs the job there once."""
    before = dict(os.environ)
    os.environ.update(variables)
    context = multiprocessing.get_context("spawn")  # a new interpreter, because torch reads the variables only once
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, name, images), daemon=True)
    process.start()
    os.environ.clear()
    os.environ.update(before)
    ours.recv()

    def once() -> float:
        ours.send(True)
        return ours.recv()

    try:
        yield once
    finally:
        ours.send(False)
        process.join()


@contextmanager
def neighbor() -> Iterator[Callable[[bool], None]]:
    """Start a program in an endless loop. Yield a function that lets it run or stops it."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    process.send_signal(signal.SIGSTOP)
    try:
        yield lambda busy: process.send_signal(signal.SIGCONT if busy else signal.SIGSTOP)
    finally:
        process.kill()
        process.wait()


def measure(name: str, *, images: int, rounds: int) -> dict[str, Any]:
    """Measure a case in turns: both processes alone, and every third time with the neighbor."""
    variables = choose_threads(os.environ, affinity=len(os.sched_getaffinity(0)), quota=cpu_quota())
    with served(variables, name, images) as ours, served({}, name, images) as rival, neighbor() as let_run:
        rates: dict[tuple[bool, bool], list[float]] = {
            (who, busy): [] for who in (True, False) for busy in (True, False)
        }
        for turn in range(rounds):
            for busy in (False, True)[: 1 + (turn % 3 == 0)]:
                let_run(busy)
                for is_ours in (True, False) if turn % 2 else (False, True):
                    rates[is_ours, busy].append((ours if is_ours else rival)())
                let_run(False)
    value, theirs, quiet, usual = (
        median(rates[key]) for key in ((True, True), (False, True), (True, False), (False, False))
    )
    return {
        "value": value,
        "unit": UNITS[name],
        "rival_ratio": value / theirs,
        "quiet_ratio": quiet / usual,
        "kept": value / usual,
        "rival_kept": theirs / usual,
        "quiet_value": quiet,
    }


def cases(arguments) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the cases."""
    images, rounds = (1, 1) if arguments.quick else (16, 24)
    for name in UNITS:
        yield f"neighbor/{name}/{images}", partial(measure, name, images=images, rounds=rounds)


if __name__ == "__main__":
    run(cases, __doc__.splitlines()[0])
