"""Run an encoder once per image and store the features. Only this file uses both encoders and the store."""

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
    """What one call of `extract` did.

    Attributes:
        encoded: number of images whose features were computed now.
        reused: number of images whose features were stored already.
        unreadable: (path, reason) for each image that was left out.
        seconds: total time.
    """

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
    """Compute and store the features of all records that the store lacks or whose image has changed.

    After an error or Ctrl-C, all features computed so far are stored; after a kill, all finished shards are. In both
    cases the next call resumes. If features are missing, the encoder is moved to `device` and put in evaluation mode,
    and it stays so.

    Args:
        encoder: the encoder named in the store's key, or the frozen part of a fine-tuned one.
        transform: the transform named in the store's key.
        records: the images.
        store: the store to complete.
        batch_size: images per forward pass of the encoder. Small on a CPU: the feature maps of 32 images no longer fit
            its caches, and take nearly twice the time per image as those of 8. A GPU needs 32 or more.
        workers: processes that read and shrink images; 0 reads them in this process.
        device: where the encoder runs.
        skip_unreadable: leave out unreadable images and return them, instead of stopping at the first.
        progress: show a progress bar with images per second on stderr.

    Returns:
        The numbers of images encoded and reused, the unreadable images, and the time.

    Raises:
        DataError: an image is unreadable, or its features are not finite in float16.
        ConfigError: the store cannot be written.
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
                unreadable += [(todo[number].path, reason) for number, reason in batch.faults]
                for (number, stamp), features in zip(batch.read, _encode(encoder, batch.images, device), strict=True):
                    store.append(todo[number].image_id, stamp, features)
                bar.update(len(batch.read) + len(batch.faults))
    finally:
        store.flush()
    encoded, reused = len(todo) - len(unreadable), len(records) - len(todo)
    return Extraction(encoded, reused, unreadable, time.perf_counter() - started_at)


class _Item(NamedTuple):
    number: int  # index of its record
    stamp: Stamp | None
    image: Tensor | None
    reason: str  # why there is no image


class _Batch(NamedTuple):
    """read: (index, stamp) of each image in `images` [B, 3, S, S]. faults: (index, reason) of each unreadable image."""

    read: list[tuple[int, Stamp]]
    images: Tensor
    faults: list[tuple[int, str]]


class _Pictures(Dataset):
    """Images as items. An unreadable image is an item too, because errors lose their type between processes."""

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
            reason = error.strerror or error
            advice = "check the file, or set data.skip_unreadable=true to leave it out"
            return _Item(index, None, None, f"{path}: cannot be read ({reason}): {advice}")


def _collate(items: Sequence[_Item]) -> _Batch:
    read = [(item.number, item.stamp) for item in items if item.stamp is not None]
    images = [item.image for item in items if item.image is not None]
    stacked = torch.stack(images) if images else torch.empty(0, dtype=torch.uint8)
    return _Batch(read, stacked, [(item.number, item.reason) for item in items if item.image is None])


def _loader(
    records: Sequence[Record], transform: Transform, *, batch_size: int, workers: int, device: str | torch.device
) -> DataLoader:
    return DataLoader(
        _Pictures(records, transform),
        batch_size=batch_size,
        collate_fn=_collate,
        num_workers=min(workers, -(-len(records) // batch_size)),
        pin_memory=torch.device(device).type == "cuda",
        generator=torch.Generator(),  # its own, so that training's random numbers do not change
    )


@torch.inference_mode()
def _encode(encoder: nn.Module, images: Tensor, device: str | torch.device) -> Sequence[np.ndarray]:
    """Return float16 features [B, L, D], [B, D] or [B, H, W, C], converted on the device to halve the transfer."""
    if not len(images):
        return []
    return encoder(images.to(device, non_blocking=True)).half().cpu().numpy()
