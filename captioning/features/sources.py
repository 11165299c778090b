"""Choose where a run's features come from: a store, the encoder in each step, a detector's files, or nowhere.

All functions share one signature and give a `Source`; a run's configuration picks one (conf/features).
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock
from torch import Tensor, nn
from tqdm import tqdm

from captioning.data import Record, Transform, View, may_be_mirrored, open_picture
from captioning.errors import ConfigError, DataError, must_be
from captioning.features.extraction import extract
from captioning.features.regions import RegionFolder
from captioning.features.store import FeatureStore, store_folder
from captioning.features.views import views_of

BATCH_SIZES = {True: 8, False: 64}  # on a CPU, whose caches few feature maps fit; on a GPU


class Source(NamedTuple):
    """read: record -> feature or picture tensor, picklable for loader processes. encoder: what is left to do with a
    batch of them in the step. records: those that can be read. unreadable: (path, reason) of the others.
    workers: loader processes that suit. views: other views of training pictures."""

    read: Callable[[Record], Tensor]
    encoder: nn.Module
    records: list[Record]
    unreadable: list[tuple[Path, str]]
    workers: int
    views: Sequence[View] = ()


class StoredFeatures:
    """Reads one picture's features [P, D] or [D] (fp16) from a store."""

    def __init__(self, store: FeatureStore):
        self.store = store

    def __call__(self, record: Record) -> Tensor:
        return torch.from_numpy(self.store[record.image_id])


class Pictures:
    """Reads one picture as the encoder's input, [3, S, S] uint8."""

    def __init__(self, transform: Transform):
        self.transform = transform

    def __call__(self, record: Record) -> Tensor:
        return self.transform(open_picture(record.path))


def stored(
    encoder: nn.Module,
    transform: Transform,
    records: Sequence[Record],
    *,
    name: str,
    root: str,
    batch_size: int | str = "auto",
    extract_workers: int = 1,
    workers: int = 0,
    device: str = "auto",
    mirror: bool = False,
    crops: float | None = None,
    skip_unreadable: bool = False,
    progress: bool | None = None,
) -> Source:
    """Features from the store of this data set and encoder, made first for the pictures that it lacks.

    Args:
        encoder, transform: what makes the features; frozen.
        records: pictures wanted.
        name: of the data set; with the encoder's it names the store's folder.
        root: folder of all stores.
        batch_size, extract_workers, device: for making features; device "auto" takes a GPU where there is one, and
            batch_size "auto" what suits the device.
        workers: loader processes for training; a CPU needs none, as it reads faster than it learns.
        mirror: store those of the mirror images of training pictures too, in a store of their own.
        crops: store those of the corners of training pictures too, of this share of both sides; see `views_of`.
        skip_unreadable: leave unreadable pictures out, and report them, instead of stopping.
        progress: show a bar while features are made; None where stderr is a terminal.
    """
    must_be("features.batch_size", None if batch_size == "auto" else batch_size, least=1)
    must_be("features.extract_workers", extract_workers, least=0)
    must_be("features.workers", workers, least=0)
    if any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ConfigError(
            "encoder.unfreeze_from changes the encoder as it trains: stored features would be stale; "
            "set features=online"
        )
    if encoder.output == "regions":
        raise ConfigError(
            "encoder=regions has no pictures to look at: set features=regions features.root=DIR beside it"
        )
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    options = {
        "batch_size": BATCH_SIZES[torch.device(device).type == "cpu"] if batch_size == "auto" else batch_size,
        "workers": extract_workers,
        "device": device,
        "skip_unreadable": skip_unreadable,
        "progress": sys.stderr.isatty() if progress is None else progress,
    }
    store, unreadable = _complete(encoder, transform, records, root, name, **options)
    kept, views = [record for record in records if record.image_id in store], []
    for seen, turned in views_of(transform, mirror=mirror, crops=crops):
        shown = [record for record in kept if record.split == "train" and (may_be_mirrored(record) or not turned)]
        views.append(View(StoredFeatures(_complete(encoder, seen, shown, root, name, **options)[0]), turned))
    return Source(StoredFeatures(store), nn.Identity(), kept, unreadable, workers, views)


def _complete(encoder: nn.Module, transform: Transform, records: Sequence[Record], root: str, name: str, **options):
    """The store with the features of all records that can be read, and (path, reason) of the others."""
    folder, key = _place(encoder, transform, name=name, root=root)
    store, unreadable = FeatureStore(folder, key), []
    if store.missing(records):
        # One process makes them; others (of several devices, or another run) wait, and then find them there.
        with _lock(folder):
            store = FeatureStore(folder, key)
            unreadable = extract(encoder, transform, records, store, **options).unreadable
    return store, unreadable


def refuse_views(features: Mapping[str, Any]) -> None:
    """Of pictures with questions, whose answers may be others of another view; `features` is a configuration."""
    if features.get("mirror"):
        raise ConfigError("features.mirror=true is for captions: a question may ask what is on the left")
    if features.get("crops"):
        raise ConfigError("features.crops is for captions: a question may ask what is in the corner")


def verify(encoder: nn.Module, transform: Transform, *, name: str, root: str) -> str:
    """Holds every shard of the store that `stored` would use against its checksum; what was found, in a sentence.

    Raises:
        DataError: there is no such store, or shards are damaged: they are named, and left out of the store from now on.
    """
    folder, key = _place(encoder, transform, name=name, root=root)
    if not (folder / "manifest.json").is_file():
        raise DataError(f"{folder}: no features are stored there: run captioning-prepare without verify=true")
    with _lock(folder):
        store = FeatureStore(folder, key)
        damaged = store.verify()
    if damaged:
        told = "; ".join(f"{damage.file} {damage.fault} ({damage.pictures} pictures)" for damage in damaged)
        raise DataError(f"{told}. Run captioning-prepare again without verify=true: it makes their features anew")
    return f"{folder}: features of {len(store)} pictures, all as they were written"


def _place(encoder: nn.Module, transform: Transform, *, name: str, root: str) -> tuple[Path, dict]:
    """Folder and key of the store of a data set and encoder."""
    key = encoder.describe() | {"transform": transform.describe()}
    return store_folder(root, name, key), key


def _lock(folder: Path) -> FileLock:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{folder}.lock")
        lock.acquire()
    except OSError as error:
        raise DataError(
            f"{folder}: features cannot be stored there ({error.strerror or error}): set features.root"
        ) from error
    return lock


def online(
    encoder: nn.Module,
    transform: Transform,
    records: Sequence[Record],
    *,
    name: str,
    workers: int = 1,
    mirror: bool = False,
    crops: float | None = None,
    skip_unreadable: bool = False,
) -> Source:
    """Pictures go through the encoder in every step: for fine-tuning, or where there is no room for a store.

    With `skip_unreadable` every picture is opened once beforehand, so that each epoch has the same pictures.
    """
    must_be("features.workers", workers, least=0)
    unreadable = _unreadable(records) if skip_unreadable else {}
    kept = [record for record in records if record.path not in unreadable]
    views = [View(Pictures(seen), turned) for seen, turned in views_of(transform, mirror=mirror, crops=crops)]
    return Source(Pictures(transform), encoder, kept, list(unreadable.items()), workers, views)


class NoEncoder:
    """Zeros of one picture's features, whatever the picture."""

    def __init__(self, *shape: int):
        self.shape = shape

    def __call__(self, record: Record) -> Tensor:
        return torch.zeros(self.shape)


def blank(
    encoder: nn.Module,
    transform: Transform,
    records: Sequence[Record],
    *,
    name: str,
    skip_unreadable: bool = False,
) -> Source:
    """Every feature 0: what is left to a model that is shown no picture, in training or in evaluation."""
    if encoder.output == "regions":
        raise ConfigError("features=blank stands for a CNN's features: not with encoder=regions")
    shape = (encoder.size,) if encoder.output == "fc" else (encoder.places, encoder.size)
    return Source(NoEncoder(*shape), nn.Identity(), list(records), [], 0)


class StoredRegions:
    """Reads one picture's region features [R, D] (fp16), more or fewer of them."""

    def __init__(self, folder: RegionFolder):
        self.folder = folder

    def __call__(self, record: Record) -> Tensor:
        return torch.from_numpy(self.folder[record].features)


def detector_regions(
    encoder: nn.Module,
    transform: Transform,
    records: Sequence[Record],
    *,
    name: str,
    root: str,
    max_regions: int = 100,
    workers: int = 1,
    skip_unreadable: bool = False,
) -> Source:
    """Region features that a detector left in files, one a picture (see data.regions).

    Args:
        encoder: models.encoder.RegionEncoder, which tells their width.
        root: folder of the files.
        max_regions: at most so many a picture.
        skip_unreadable: leave pictures without a file out, and report them, instead of stopping.

    Raises:
        DataError: files are missing. ConfigError: the encoder is one for pictures.
    """
    must_be("features.workers", workers, least=0)
    if encoder.output != "regions":
        raise ConfigError("features=regions reads a detector's files: set encoder=regions beside it")
    folder = RegionFolder(root, size=encoder.size, max_regions=max_regions)
    missing = folder.missing(records)
    if missing and not skip_unreadable:
        raise DataError(
            f"{folder.path(missing[0])}: no region features of {missing[0].path}, nor of {len(missing) - 1} other "
            "pictures: put them there, or set data.skip_unreadable=true"
        )
    absent = {record.image_id for record in missing}
    kept = [record for record in records if record.image_id not in absent]
    unreadable = [(record.path, f"{folder.path(record)}: no region features of {record.path}") for record in missing]
    return Source(StoredRegions(folder), nn.Identity(), kept, unreadable, workers)


def report_unreadable(source: Source) -> None:
    """Names the first pictures that were left out on stderr, and counts all."""
    if source.unreadable:
        print(f"{len(source.unreadable)} unreadable pictures left out:", file=sys.stderr)
        for _, reason in source.unreadable[:10]:
            print(f"  {reason}", file=sys.stderr)


def _unreadable(records: Sequence[Record]) -> dict[Path, str]:
    found = {}
    for record in tqdm(records, desc="opening pictures", unit="picture", disable=None):
        try:
            open_picture(record.path)
        except DataError as error:
            found[record.path] = str(error)
    return found
