"""Measure loading batches for training, from the feature store and from images, compared with the training step.

    python tests/benchmarks/loading.py [--quick] [--only load/store] [--output bench.json]

`load/store/49x1280/64` reads batches of 64 images with 49 locations of 1 280 features and five captions each, in random
order, from a store that is cached in memory. `load/pictures/16` decodes and resizes drawn photographs in one loader
process. `floor_ratio` is the time divided by the time to copy a batch's bytes once, at the measured bandwidth.
`step_share` is the time divided by the time of a training step of soft attention with this batch in the same run (for
images, the step includes the frozen encoder). If loading has its own process, a share below 1 costs no time.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from measure import peak_mebibytes, run, seconds
from preparing import draw_pictures
from training import CAPTIONS, DEVICE, LENGTHS, build, ours

from captioning.data import CaptionBatch, CaptionDataset, Record, Transform, Vocabulary, encode_captions
from captioning.features import Source
from captioning.features.sources import Pictures, StoredFeatures
from captioning.features.store import FeatureStore, Stamp
from captioning.models import efficientnet_lite_encoder
from captioning.training import CaptionModule

GRIDS, BATCHES, VOCABULARY = ((49, 1280), (196, 2048)), (16, 64), 9490


def draw_store(folder: Path, shape: tuple[int, int], images: int) -> FeatureStore:
    """Create a feature store of random numbers."""
    store, random = FeatureStore(folder, {"name": "drawn"}), np.random.default_rng(0)
    for number in range(images):
        store.append(number, Stamp(f"{number}.jpg", 1, 0, ""), random.random(shape, np.float32))
    store.flush()
    return store


def loader_of(source: Source, *, batch: int):
    """Return a training loader over all records of a source; captions have COCO's lengths and 9 490 different words."""
    random, words = Random(0), [f"w{number}" for number in range(VOCABULARY - 4)]

    def caption() -> list[str]:
        (length,) = random.choices(list(LENGTHS), weights=list(LENGTHS.values()))
        return random.choices(words, k=length)

    captions = [[caption() for _ in range(CAPTIONS)] for _ in source.records]
    data = CaptionDataset(source.records, encode_captions(captions, Vocabulary(words)), source=source.read)
    module = CaptionModule(data, data, batch_size=batch, val_batch_size=batch, workers=source.workers)
    return module.train_dataloader()


def load(loader) -> CaptionBatch:
    """Load an epoch, and return its last batch on the device of training."""
    for batch in loader:
        last = CaptionBatch(*(None if part is None else part.to(DEVICE) for part in batch))
    return last


def beside_step(source: Source, *, features: int, batch: int, repeats: int) -> dict[str, Any]:
    """Measure batches per second, and a batch's time relative to a training step and to a copy."""
    loader = loader_of(source, batch=batch)
    model = build("soft", features, vocabulary=VOCABULARY)
    model.encoder = source.encoder.to(DEVICE)
    last = load(loader)
    step, images = ours("soft", model, last), last.images.cpu()
    epoch, copy = partial(load, loader), partial(torch.empty_like(images).copy_, images)
    spent, step_spent, copied = seconds(epoch, step, copy, repeats=repeats, elsewhere=True)
    spent /= len(loader)
    return {
        "value": 1 / spent,
        "unit": "batches/s",
        "floor_ratio": spent / copied,
        "peak_MiB": peak_mebibytes(epoch),
        "step_share": spent / step_spent,
    }


def from_store(shape: tuple[int, int], *, images: int, batch: int, repeats: int) -> dict[str, Any]:
    """Measure reading features in half precision from a store, in this process."""
    with TemporaryDirectory() as folder:
        store = draw_store(Path(folder), shape, images)
        records = [Record(number, Path(f"{number}.jpg"), "train", ()) for number in range(images)]
        source = Source(StoredFeatures(store), torch.nn.Identity(), records, [], 0)
        return beside_step(source, features=shape[-1], batch=batch, repeats=repeats)


def from_pictures(*, images: int, batch: int, repeats: int) -> dict[str, Any]:
    """Measure reading images for an encoder that runs in the step, with one loader process."""
    encoder = efficientnet_lite_encoder()
    with TemporaryDirectory() as folder:
        records = draw_pictures(Path(folder), images)
        source = Source(Pictures(Transform(encoder.image_size)), encoder, records, [], 1)
        return beside_step(source, features=encoder.size, batch=batch, repeats=repeats)


def cases(arguments) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the cases: both grids, and images, for each batch size; an epoch has eight batches."""
    repeats, batches, count = (1, (4,), 2) if arguments.quick else (3, BATCHES, 8)
    for batch in batches:
        sizes = {"images": batch * count, "batch": batch, "repeats": repeats}
        for shape in GRIDS:
            yield f"load/store/{shape[0]}x{shape[1]}/{batch}", partial(from_store, shape, **sizes)
        yield f"load/pictures/{batch}", partial(from_pictures, **sizes)


if __name__ == "__main__":
    run(cases, __doc__.splitlines()[0])
