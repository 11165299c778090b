"""Measure how much faster two processes fill one feature store than one process: images/s, in one run.

    python tests/benchmarks/sharing.py [--quick] [--output bench.json]

`share/1` and `share/2` are the images/s of one process and of two, from drawn JPEG files to one new store, as
captioning-prepare fills it. Every process has one thread, and reads its images itself (features.extract_workers=0), so
that each uses one core. They are started once and take turns: one process, then both on another new store. The time
is from the moment when all may begin until the last one has ended. `gain` is the median of the ratios of neighboring
measurements.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from measure import run
from preparing import draw_pictures

from captioning.data import Record, Transform
from captioning.features.extraction import extract
from captioning.features.ranks import Rank
from captioning.features.store import FeatureStore
from captioning.models import efficientnet_lite_encoder

PORTION = 32  # images that a process claims at once; a store of a large data set has 512


def serve(connection, records: list[Record], rank: int) -> None:
    """Fill the stores that are asked for, and return how many images this process has encoded."""
    torch.set_num_threads(1)
    encoder = efficientnet_lite_encoder().eval()
    transform = Transform(encoder.image_size)
    connection.send(None)
    while folder := connection.recv():
        store = FeatureStore(folder, encoder.describe(), shard_pictures=PORTION)
        connection.send(
            extract(encoder, transform, records, store, workers=0, rank=Rank(rank, 2, rank, 2), progress=False).encoded
        )


def fill(connections: list, folder: Path, images: int) -> float:
    """Fill a new store with some processes. Return the images/s.

    Raises:
        SystemExit: an image was encoded twice, or not at all.
    """
    started_at = time.perf_counter()
    for each in connections:
        each.send(str(folder))
    counts = [each.recv() for each in connections]
    spent = time.perf_counter() - started_at
    if sum(counts) != images:
        raise SystemExit(f"error: {counts} images were encoded, not {images} in all")
    return images / spent


def measure(*, images: int, repeats: int) -> dict[int, dict[str, Any]]:
    """Measure one and two processes in turns, after a turn to warm up."""
    context, rates = multiprocessing.get_context("spawn"), {1: [], 2: []}  # type: ignore[var-annotated]
    with TemporaryDirectory() as name:
        folder = Path(name)
        records, connections, processes = draw_pictures(folder, images), [], []
        for rank in range(2):
            own, other = context.Pipe()
            processes.append(context.Process(target=serve, args=(other, records, rank)))
            processes[-1].start()
            connections.append(own)
        for each in connections:
            each.recv()
        for turn in range(-1, repeats):
            for count in (1, 2):
                rate = fill(connections[:count], folder / f"store_{turn}_{count}", images)
                if turn >= 0:
                    rates[count].append(rate)
        for each, process in zip(connections, processes, strict=True):
            each.send(None)
            process.join()
    found: dict[int, dict[str, Any]] = {n: {"value": median(own), "unit": "images/s"} for n, own in rates.items()}
    found[2]["gain"] = median(two / one for one, two in zip(rates[1], rates[2], strict=True))
    return found


def cases(arguments) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield one process and two; both are measured when the first is asked for."""
    sizes = {"images": 96, "repeats": 1} if arguments.quick else {"images": 256, "repeats": 5}
    found: dict[int, dict[str, Any]] = {}

    def of(count: int) -> dict[str, Any]:
        if not found:
            found.update(measure(**sizes))
        return found[count]

    for count in (1, 2):
        yield f"share/{count}", partial(of, count)


if __name__ == "__main__":
    run(cases, __doc__.splitlines()[0])
