"""Measure preparing features in images per second, from files to the store, compared with a simple loop.

    python tests/benchmarks/preparing.py [--quick] [--output bench.json]

`prepare/efficientnet_lite0` reads drawn photographs of 224–640 pixels per side from JPEG files, and stores their
features of EfficientNet-Lite0, as captioning-prepare does, with its batch size and loader processes. `floor_ratio` is
the time divided by that of the network's convolutions at the machine's matrix rate. Depthwise convolutions never reach
this rate, because memory limits them.

The rival uses the same files and weights, one loader process, float images in channels-first order, and batches of 32.
It keeps its features in memory, which is less work. `same_batch_ratio` is the ratio if its batches are as large as
ours.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from measure import matrix_job, matrix_operations, peak_mebibytes, run, seconds
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from captioning.data import Record, Transform
from captioning.features.extraction import extract
from captioning.features.sources import BATCH_SIZES
from captioning.features.store import FeatureStore
from captioning.models import efficientnet_lite_encoder
from captioning.models.efficientnet_lite import LITE_MEAN, LITE_STD
from captioning.models.encoder import Encoder

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIDES, WORKERS = (224, 640), 1  # features.extract_workers in conf/features/store.yaml
BATCH_SIZE, RIVAL_BATCH_SIZE = BATCH_SIZES[DEVICE == "cpu"], 32


def draw_pictures(folder: Path, count: int, *, seed: int = 0) -> list[Record]:
    """Create JPEG files with as much detail as a photograph: blurred colors of several sizes, and grain."""
    random, records = np.random.default_rng(seed), []
    for number in range(count):
        width, height = random.integers(*SIDES, size=2, endpoint=True).tolist()
        picture = np.zeros((height, width, 3), np.float32)
        for cells, share in ((4, 0.5), (16, 0.25), (64, 0.15)):
            colors = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8))
            picture += share * np.asarray(colors.resize((width, height), Image.Resampling.BICUBIC))
        picture += 0.1 * random.integers(0, 256, picture.shape)
        path = folder / f"{number:06d}.jpg"
        Image.fromarray(picture.astype(np.uint8)).save(path, quality=90)
        records.append(Record(number, path, "train", ("a picture",)))
    return records


class PlainPictures(Dataset):
    """A data set of float images [3, S, S], each normalized separately."""

    def __init__(self, records: list[Record], size: int):
        self.records, self.size = records, size

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.records[index].path) as picture:
            picture = picture.convert("RGB").resize((self.size, self.size), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float() / 255
        return (pixels - torch.tensor(LITE_MEAN)[:, None, None]) / torch.tensor(LITE_STD)[:, None, None]


@torch.inference_mode()
def rival(network: nn.Module, records: list[Record], size: int, *, batch_size: int = RIVAL_BATCH_SIZE) -> Tensor:
    """Compute features [N, L, D] in half precision, in a loop over batches."""
    loader = DataLoader(PlainPictures(records, size), batch_size=batch_size, num_workers=1)
    return torch.cat([network(batch.to(DEVICE)).flatten(2).transpose(1, 2).half().cpu() for batch in loader])


def prepare(encoder: Encoder, records: list[Record], store: FeatureStore | None = None) -> FeatureStore:
    """Prepare all features, in `store` or in a temporary one."""
    with TemporaryDirectory() as folder:
        store = FeatureStore(folder, encoder.describe()) if store is None else store
        options = {"batch_size": BATCH_SIZE, "workers": WORKERS, "device": DEVICE}
        extract(encoder, Transform(encoder.image_size), records, store, progress=False, **options)
    return store


def same(encoder: Encoder, network: nn.Module, records: list[Record]) -> None:
    """Check that both ways give the same features, up to the rounding of half precision."""
    with TemporaryDirectory() as folder:
        store = prepare(encoder, records, FeatureStore(folder, encoder.describe()))
        found = np.stack([store[record.image_id] for record in records])
    np.testing.assert_allclose(found, rival(network, records, encoder.image_size).numpy(), rtol=0.01, atol=0.01)


def measure(*, pictures: int, repeats: int) -> dict[str, Any]:
    """Measure both ways in turns, after checking that they give the same features for some images."""
    encoder = efficientnet_lite_encoder().to(DEVICE)
    network = efficientnet_lite_encoder().network.to(DEVICE, memory_format=torch.contiguous_format)
    with TemporaryDirectory() as folder:
        records = draw_pictures(Path(folder), pictures)
        same(encoder, network, records[:4])
        ours, theirs = partial(prepare, encoder, records), partial(rival, network, records, encoder.image_size)
        alike = partial(theirs, batch_size=BATCH_SIZE)
        product, operations = matrix_job(device=DEVICE)
        jobs = (ours, theirs, alike, product)
        spent, rival_spent, alike_spent, product_spent = seconds(*jobs, repeats=repeats, elsewhere=True)
        peak = peak_mebibytes(ours)
    image = torch.zeros(1, 3, encoder.image_size, encoder.image_size, dtype=torch.uint8, device=DEVICE)
    floor = pictures * matrix_operations(partial(encoder, image)) * product_spent / operations
    return {
        "value": pictures / spent,
        "unit": "pictures/s",
        "rival_ratio": rival_spent / spent,
        "floor_ratio": spent / floor,
        "peak_MiB": peak,
        "same_batch_ratio": alike_spent / spent,
    }


def cases(arguments) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the only case."""
    sizes = {"pictures": 24, "repeats": 1} if arguments.quick else {"pictures": 400, "repeats": 3}
    yield "prepare/efficientnet_lite0", partial(measure, **sizes)


if __name__ == "__main__":
    run(cases, __doc__.splitlines()[0])
