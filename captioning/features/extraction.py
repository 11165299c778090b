"""Run an encoder once per image and store the features. Only this file uses both encoders and the store.

Processes and machines that fill a store share the work: `_Portions` cuts the images into fixed portions, and each
process claims one portion after the other.
"""

import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from captioning.data import Record, Transform, image_ids_of, open_picture
from captioning.errors import DataError
from captioning.features.claims import Ids, ImageClaims
from captioning.features.index import Stamp
from captioning.features.ranks import ONLY, Rank
from captioning.features.store import FeatureStore, stamp_picture
from captioning.io import counted

POLL_SECONDS = (0.05, 2.0)  # between two looks at what other processes still work on: at first, and at last
NOTICE_SECONDS = 5.0  # without work, before a process says what it waits for
PASSES = 5  # over what is missing at the end; one more per damaged store that `verify` clears during the run


class Extraction(NamedTuple):
    """What one call of `extract` did.

    Attributes:
        encoded: number of images whose features this process has computed.
        reused: number of images whose features were stored before.
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
    check_images: bool = True,
    rank: Rank = ONLY,
) -> Extraction:
    """Compute and store the features of all records that the store lacks or whose image has changed.

    Any number of processes may do this at a time, on one store, with the same records or others. They share the work,
    and each returns when the features of all its records are stored. If a process dies, the others do its work.

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
        check_images: compare the files of all stored images with their stamps first.
        rank: the place of this process among those that were started together: they begin with different images.

    Returns:
        The numbers of images encoded and reused, the unreadable images, and the time.

    Raises:
        DataError: an image is unreadable, its features are not finite in float16, or another process removes features
            again and again.
        ConfigError: the store cannot be written.
    """
    started_at = time.perf_counter()
    todo = _each_once(store.missing(records, check_images=check_images))
    reused = len(np.unique(image_ids_of(records))) - len(todo)
    work, encoded, faults = records, 0, dict[int, tuple[Path, str]]()
    if todo:
        encoder.to(device).eval()
        store.create()
    passes = 0
    while todo:
        passes += 1
        if passes > PASSES:
            raise DataError(
                f"{store.folder}: features of {counted(len(todo), 'image')} (first: {todo[0].path}) were removed again "
                "and again by another process: wait until captioning-prepare verify=true has ended, and run "
                "captioning-prepare again"
            )
        options: dict[str, Any] = {"batch_size": batch_size, "check_images": check_images, "rank": rank}
        with tqdm(total=len(todo), desc="features", unit="images", disable=not progress) as bar:
            try:
                with ImageClaims(store.folder) as claims:
                    portions = _Portions(work, todo, store, claims, **options)
                    store.claims = claims
                    try:
                        for batch in portions.loaded(_loader(work, transform, workers=workers, device=device)):
                            if batch.faults and not skip_unreadable:
                                raise DataError(batch.faults[0][1])
                            for number, reason in batch.faults:
                                faults[work[number].image_id] = work[number].path, reason
                            store.make_room(len(batch.read))
                            pairs = zip(batch.read, _encode(encoder, batch.images, device), strict=True)
                            for (number, stamp), features in pairs:
                                store.append(work[number].image_id, stamp, features)
                                encoded += 1
                            portions.finish_batch()
                            bar.update(len(todo) - portions.left - bar.n)
                    finally:
                        store.write()
            finally:
                store.claims = None
                store.discard()  # what could not be written, as other processes may have claimed these images by now
                store.flush()
        # Another process may have removed damaged shards with images that were not to be computed.
        store.refresh()
        absent = _each_once(store.missing(records, check_images=False))
        work = todo = [record for record in absent if record.image_id not in faults]
    return Extraction(encoded, reused, list(faults.values()), time.perf_counter() - started_at)


def _each_once(records: Sequence[Record]) -> list[Record]:
    """Return one record per image."""
    return list({record.image_id: record for record in records}.values())


class _Portion(NamedTuple):
    """A part of the work. numbers: indices of its records, sorted by image id. todo: how many were missing at first."""

    ids: Ids
    numbers: np.ndarray
    todo: int


class _Portions:
    """The portions of the work that are left, and those that this process has claimed.

    All records, not only the missing ones, are sorted by image id and cut into portions of whole batches. So every
    process that has the same records makes the same portions and batches, at any time, and what it computes does not
    depend on which process died before. Correctness needs none of this, only claims.

    Args:
        records: all records.
        todo: those whose features were missing when the process started.
        store: the store.
        claims: the claims of this process.
        batch_size: images per batch.
        check_images: whether stored images are compared with their files.
        rank: the place of this process among those that were started together.

    Attributes:
        left: number of images in portions that are not finished yet.
    """

    def __init__(
        self,
        records: Sequence[Record],
        todo: Sequence[Record],
        store: FeatureStore,
        claims: ImageClaims,
        *,
        batch_size: int,
        check_images: bool,
        rank: Rank,
    ):
        self.check_images = check_images
        self.records, self.store, self.claims, self.batch_size = records, store, claims, batch_size
        self.left = len(todo)
        self._ids = image_ids_of(records)
        missing = np.isin(self._ids, [record.image_id for record in todo])
        size = -(-store.shard_pictures // batch_size) * batch_size
        order = np.unique(self._ids, return_index=True)[1]  # sorted by id, and each image once
        made = []
        for start in range(0, len(order), size):
            numbers = order[start : start + size]
            if count := int(missing[numbers].sum()):
                ids = self._ids[numbers]
                made.append(_Portion(Ids.of([int(ids[0]), int(ids[-1])]), numbers, count))
        first = rank.number * len(made) // rank.world
        self._waiting = made[first:] + made[:first]  # not claimed so far
        self._held: list[_Portion] = []  # finished, but the last features may not be written yet
        # Of each batch in the loader: its number of images, and the portion that it completes.
        self._batches: deque[tuple[int, _Portion | None]] = deque()

    def loaded(self, loader: DataLoader) -> Iterator[Any]:
        """Yield the loader's batches until the features of all records are stored.

        Call `finish_batch` after each batch. If other processes have claimed all that is left, wait for them; if one of
        them dies, take over what it had.
        """
        pause, waited, noticed = POLL_SECONDS[0], 0.0, False
        while self._waiting:
            batches = self._claim()
            first = next(batches, None)
            if first is None:
                if self._waiting:
                    if waited >= NOTICE_SECONDS and not noticed:
                        noticed = True
                        left = counted(sum(portion.todo for portion in self._waiting), "image")
                        message = f"{self.store.folder}: waits for another process that works on the last {left}"
                        tqdm.write(message, file=sys.stderr)
                    time.sleep(pause)
                    waited += pause
                    pause = min(2 * pause, POLL_SECONDS[1])
                    self.store.refresh()
                continue
            pause, waited = POLL_SECONDS[0], 0.0
            loader.batch_sampler.batches = chain([first], batches)  # type: ignore[union-attr]
            yield from loader
            self._let_go()

    def finish_batch(self) -> None:
        """Give claims back if the oldest batch has completed a portion."""
        images, portion = self._batches.popleft()
        self.left -= images
        if portion is not None:
            self._held.append(portion)
            # Portions with few missing images are collected for one shard.
            if not self.store.pending or self.store.half_full:
                self._let_go()

    def _let_go(self) -> None:
        self.store.write()
        for portion in self._held:
            self.claims.drop(portion.ids)
        self._held = []

    def _claim(self) -> Iterator[list[int]]:
        """Yield batches of the portions that can be claimed now, each portion when the loader asks for it.

        Never waits: the loader has batches of other portions in progress, for which other processes may be waiting.
        """
        for portion in list(self._waiting):
            ids = self._ids[portion.numbers]
            if (self.store.locations(ids)[:, 0] >= 0).all():  # another process has finished it
                self._forget(portion)
            elif self.claims.take(portion.ids):
                # Sees what the last holder of the claim has stored, because that is written before a claim is dropped.
                self.store.refresh()
                records = [self.records[number] for number in portion.numbers]
                absent = self.store.missing(records, check_images=self.check_images)
                if not absent:
                    self.claims.drop(portion.ids)
                    self._forget(portion)
                    continue
                self._waiting.remove(portion)
                self.left -= portion.todo - len(absent)
                missing = {record.image_id for record in absent}
                batches = []
                for at in range(0, len(ids), self.batch_size):
                    numbers = portion.numbers[at : at + self.batch_size].tolist()
                    if chosen := [number for number in numbers if self.records[number].image_id in missing]:
                        batches.append(chosen)
                for batch in batches:
                    self._batches.append((len(batch), portion if batch is batches[-1] else None))
                    yield batch

    def _forget(self, portion: _Portion) -> None:
        self.left -= portion.todo
        self._waiting.remove(portion)


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


class _Batches:
    """What a loader takes its batches from: lists of indices, made when the loader asks for them."""

    batches: Iterator[list[int]] = iter(())

    def __iter__(self) -> Iterator[list[int]]:
        return self.batches


def _loader(records: Sequence[Record], transform: Transform, *, workers: int, device: str | torch.device) -> DataLoader:
    return DataLoader(
        _Pictures(records, transform),
        batch_sampler=cast(Any, _Batches()),
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=torch.device(device).type == "cuda",
        generator=torch.Generator(),  # its own, so that training's random numbers do not change
    )


@torch.inference_mode()
def _encode(encoder: nn.Module, images: Tensor, device: str | torch.device) -> Sequence[np.ndarray]:
    """Return float16 features [B, L, D], [B, D] or [B, H, W, C], converted on the device to halve the transfer."""
    if not len(images):
        return []
    return encoder(images.to(device, non_blocking=True)).half().cpu().numpy()
