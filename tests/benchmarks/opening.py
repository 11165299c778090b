"""Measure opening a feature store: seconds and memory of one process, with a store of many small features.

    python tests/benchmarks/opening.py [--quick] [--output bench.json]

The store has features of shape [1, 4] in shards of 512 images. A new process opens it and then reads 1,000 images. The
figure is the time to open, without imports. `private_MiB` is the memory that opening and reading add to this process,
without what it shares with others.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from measure import run

from captioning.features import manifest
from captioning.features.index import entries_of, index_of
from captioning.features.journals import Shard
from captioning.features.store import FeatureStore, Stamp

SHARD, KEY = 512, {"name": "drawn"}
OPENS = """
import json, sys, time
import numpy as np
from captioning.features.store import FeatureStore

def private():
    fields = dict(line.split(":") for line in open("/proc/self/smaps_rollup") if ":" in line[:24])
    return int(fields["Private_Dirty"].split()[0]) / 1024  # unchanged pages of files are shared

images, before, started_at = int(sys.argv[2]), private(), time.perf_counter()
store = FeatureStore(sys.argv[1], {"name": "drawn"})
opened = time.perf_counter() - started_at
ids = np.random.default_rng(0).integers(0, images, 1000)
found = [store[int(image_id)][0, 0] for image_id in ids]
assert np.array_equal(found, ids % 1000)
print(json.dumps({"seconds": opened, "private_MiB": private() - before}))
"""


def draw_many(folder: Path, images: int) -> None:
    """Create a store whose features are the last three digits of the image ids."""
    shards, entries = [], []
    store = FeatureStore(folder, KEY)
    store.create()
    for number, start in enumerate(range(0, images, SHARD)):
        ids = np.arange(start, min(start + SHARD, images))
        file = folder / f"shard-{number:05d}.npy"
        np.save(file, np.broadcast_to((ids % 1000)[:, None, None], (len(ids), 1, 4)).astype(np.float16))
        stamps = ((image_id, Stamp(f"{image_id:012d}.jpg", 1, 1, "0" * 16)) for image_id in ids.tolist())
        entries.append(entries_of(stamps))
        shards.append(Shard(file.name, file.stat().st_size, "0" * 16, len(ids)))
    index = index_of(list(enumerate(entries)))
    listed = manifest.Manifest((1, 4), shards, index, len(shards), 1)
    manifest.write_manifest(folder, KEY, listed, iter(index.columns))


def measure(images: int) -> dict[str, Any]:
    """Open the store in a new process, and return what it reports."""
    with TemporaryDirectory() as folder:
        draw_many(Path(folder), images)
        command = [sys.executable, "-c", OPENS, folder, str(images)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return {"value": found["seconds"], "unit": "s", "rival_ratio": None, "private_MiB": found["private_MiB"]}


def cases(arguments) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the only case."""
    images = 4000 if arguments.quick else 2_000_000
    yield f"open/{images}", partial(measure, images)


if __name__ == "__main__":
    run(cases, __doc__.splitlines()[0])
