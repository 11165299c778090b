"""Measure the start of training on many images: seconds, and the memory that a process does not share with others.

    python tests/benchmarks/start_at_scale.py [--quick] [--only later] [--output bench.json]

`scale/first/100000` is the first start with 100 000 images of five captions each: it writes the files of captions
(`captioning/tasks/caption_files.py`), after the reader. `scale/later/100000` is each later start, in a new process: it
opens these files and a feature store of as many images, makes the vocabulary and the order of an epoch, and loads
batches. Imports are not included. `private_MiB` is the memory that the process does not share (Private_Dirty of
/proc/self/smaps_rollup) after the batches, and `order_MiB` the part of it for both orders and their batches.
"""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from measure import run

from captioning.data import CaptionDataset, Record, collate, select
from captioning.features.sources import StoredFeatures
from captioning.features.store import FeatureStore, Stamp
from captioning.tasks import caption_files
from captioning.training import CaptionModule

SIZES, WORDS, KEY = (100_000, 500_000, 2_000_000), 20_000, {"name": "drawn"}


def drawn_records(images: int) -> list[Record]:
    """Return records with five captions of 8 to 14 words; one in a thousand is for validation."""
    draw, numbers = random.Random(0), np.random.default_rng(0).zipf(1.3, 2**16) % WORDS
    words = [f"word{number}" for number in numbers]
    records = []
    for number in range(images):
        starts = (draw.randrange(2**16 - 14) for _ in range(5))
        captions = tuple(" ".join(words[start : start + draw.randint(8, 14)]) for start in starts)
        name = Path(f"images/{number:08d}.jpg")
        records.append(Record(2**33 + number, name, "train" if number % 1000 else "val", captions))
    return records


def settings(folder: Path) -> dict[str, Any]:
    """Return the settings that decide the files of captions."""
    reader = {"_target_": "captioning.data.read_csv", "root": str(folder)}
    return {
        "data": {"name": "drawn", "tokenizer": "ptb", "reader": reader},
        "features": {"_target_": "captioning.features.stored", "root": str(folder)},
    }


def private_mebibytes() -> float:
    """Return the memory that only this process uses."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024


def first(folder: Path, images: int) -> dict[str, Any]:
    """Write the files of captions, and then a feature store, which is not measured."""
    records = drawn_records(images)
    caption_files.build = lambda reader: records  # type: ignore[attr-defined]  # the reader is not measured
    started_at = perf_counter()
    caption_files.caption_files(settings(folder))
    spent = perf_counter() - started_at
    store, features = FeatureStore(folder / "store", KEY), np.zeros((1, 4), np.float32)
    for record in records:
        store.append(record.image_id, Stamp(record.path.name, 1, 0, "0" * 16), features)
    store.flush()
    bytes_ = sum(path.stat().st_size for path in (folder / "captions").iterdir())
    return {"value": spent, "unit": "s", "bytes_per_image": bytes_ / images}


def later(folder: Path, images: int) -> dict[str, Any]:
    """Start as a run does, and load some batches."""
    caption_files.build = None  # type: ignore[attr-defined]  # the reader is not called
    started_at = perf_counter()
    records, tokens, _ = caption_files.caption_files(settings(folder))
    train, val = select(records, "train"), select(records, "val")
    vocabulary = tokens.vocabulary(5)
    captions_at = perf_counter()
    store = FeatureStore(folder / "store", KEY)
    wanted = records[: len(train) + len(val)]
    assert not store.missing(wanted, check_images=False)
    locations = store.locations(train.image_ids)
    store_at = perf_counter()
    data, held = (
        [],
        [
            CaptionDataset(part, tokens.encoded(part.rows, vocabulary, 20), source=StoredFeatures(store))
            for part in (train, val)
        ],
    )
    before = private_mebibytes()
    for order in ("images", "shards"):
        module = CaptionModule(
            *held, batch_size=64, val_batch_size=64, collate=collate, order=order, locations=locations
        )
        batches = iter(module.train_dataloader())
        data += [next(batches) for _ in range(min(20, images // 200))]
    ended_at, private = perf_counter(), private_mebibytes()
    return {
        "value": ended_at - started_at,
        "unit": "s",
        "captions_s": captions_at - started_at,
        "store_s": store_at - captions_at,
        "batches_s": ended_at - store_at,
        "private_MiB": private,
        "order_MiB": private - before,
    }


def elsewhere(name: str, folder: Path, images: int) -> dict[str, Any]:
    """Measure in a new process. A later start needs a first one."""
    if name == "later" and not (folder / "captions").is_dir():
        elsewhere("first", folder, images)
    command = [sys.executable, __file__, name, str(folder), str(images)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def cases(arguments) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the first and a later start for each number of images."""
    for images in (1000,) if arguments.quick else SIZES:
        with TemporaryDirectory() as name:
            yield f"scale/first/{images}", partial(elsewhere, "first", Path(name), images)
            yield f"scale/later/{images}", partial(elsewhere, "later", Path(name), images)


if __name__ == "__main__":
    if sys.argv[1:2] in (["first"], ["later"]):
        job = first if sys.argv[1] == "first" else later
        print(json.dumps(job(Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        run(cases, __doc__.splitlines()[0])
