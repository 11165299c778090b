"""Run an encoder once over images and store their features; only here do encoders and the store meet."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from captioning.data import Record, Transform, open_picture
from captioning.errors import DataError
from captioning.features.store import FeatureStore, Stamp, stamp_picture


class Extraction(NamedTuple):
    """encoded, reused: pictures whose features were made now, or were there. unreadable: (path, reason) of those left
    out. seconds: taken in all."""

    encoded: int
    reused: int
    unreadable: list[tuple[Path, str]]
    seconds: float


def extract(
    encoder: nn.Module,
    transform: Transform,
    records: Sequence[Record],
    store: FeatureStore,
    *,
    batch_size: int = 8,
    workers: int = 2,
    device: str | torch.device = "cpu",
    skip_unreadable: bool = False,
    progress: bool = True,
) -> Extraction:
    """Stores the features of every record that the store lacks or whose picture has changed.

    Stopped by an error or Ctrl-C, it stores what was encoded first; after a kill, finished shards are there. Either
    way the next call goes on from there. An encoder that is needed is moved to `device`, and stays there in eval mode.

    Args:
        encoder, transform: those of the store's key.
        batch_size: pictures that go through the encoder together. Few on a CPU: the feature maps of 32 no longer fit
            its caches, and take nearly twice the time a picture of those of 8. A GPU wants 32 or more.
        workers: processes that read and shrink pictures; 0 reads them in this one.
        skip_unreadable: leave unreadable pictures out and return them, instead of stopping at the first.
        progress: show a bar with images/s on stderr.

    Raises:
        DataError: an unreadable picture, or features that float16 cannot hold. ConfigError: a store that cannot be
            written.
    """
    started_at = time.perf_counter()
    todo = store.missing(records)
    if todo:
        encoder.to(device).eval()
    unreadable: list[tuple[Path, str]] = []
    try:
        with tqdm(total=len(todo), desc="features", unit="images", disable=not (progress and todo)) as bar:
            loader = _loader(todo, transform, batch_size=batch_size, workers=workers, device=device)
            for batch in loader:
                if batch.faults and not skip_unreadable:
                    raise DataError(batch.faults[0][1])
                unreadable += [(todo[index].path, reason) for index, reason in batch.faults]
                for (index, stamp), features in zip(batch.read, _encode(encoder, batch.images, device), strict=True):
                    store.append(todo[index].image_id, stamp, features)
                bar.update(len(batch.read) + len(batch.faults))
    finally:
        store.flush()
    encoded, reused = len(todo) - len(unreadable), len(records) - len(todo)
    return Extraction(encoded, reused, unreadable, time.perf_counter() - started_at)


class _Item(NamedTuple):
    index: int
    stamp: Stamp | None
    image: Tensor | None
    reason: str  # why there is none


class _Batch(NamedTuple):
    """read: (index, stamp) of the pictures in `images` [B, 3, S, S]. faults: (index, reason) of the others."""

    read: list[tuple[int, Stamp]]
    images: Tensor
    faults: list[tuple[int, str]]


class _Pictures(Dataset):
    """Reads pictures; one that cannot be read is an item too, as errors lose their type between processes."""

    def __init__(self, records: Sequence[Record], transform: Transform):
        self.records, self.transform = records, transform

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> _Item:
        path = self.records[index].path
        try:
            stamp = stamp_picture(path)
            return _Item(index, stamp, self.transform(open_picture(path)), "")
        except DataError as error:
            return _Item(index, None, None, str(error))
        except OSError as error:
            return _Item(index, None, None, f"{path}: cannot be read: {error.strerror or error}")


def _collate(items: Sequence[_Item]) -> _Batch:
    read = [item for item in items if item.image is not None]
    images = torch.stack([item.image for item in read]) if read else torch.empty(0, dtype=torch.uint8)
    faults = [(item.index, item.reason) for item in items if item.image is None]
    return _Batch([(item.index, item.stamp) for item in read], images, faults)


def _loader(
    records: Sequence[Record], transform: Transform, *, batch_size: int, workers: int, device: str | torch.device
) -> DataLoader:
    return DataLoader(
        _Pictures(records, transform),
        batch_size=batch_size,
        collate_fn=_collate,
        num_workers=min(workers, -(-len(records) // batch_size)),
        pin_memory=torch.device(device).type == "cuda",
        generator=torch.Generator(),  # its own: nothing is drawn from the one that training uses
    )


@torch.inference_mode()
def _encode(encoder: nn.Module, images: Tensor, device: str | torch.device) -> Sequence[np.ndarray]:
    """Features as a float16 array [B, P, D] or [B, D], converted before they leave the device."""
    if not len(images):
        return []
    return encoder(images.to(device, non_blocking=True)).half().cpu().numpy()
