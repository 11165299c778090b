"""Choose where a run's features come from: a store, the encoder in each step, a detector's files, or zeros.

These functions have the same first arguments and return a `Source`; the group `features` of a configuration chooses
one.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from captioning.data import (
    Record,
    Transform,
    View,
    chosen_records,
    image_ids_of,
    make_augmentation,
    may_be_mirrored,
    open_picture,
)
from captioning.errors import CaptioningError, ConfigError, DataError, must_be
from captioning.features.extraction import Extraction, extract
from captioning.features.ranks import launched_rank
from captioning.features.regions import RegionFolder
from captioning.features.source import Source
from captioning.features.store import FeatureStore, store_folder
from captioning.features.stored_parts import store_parts
from captioning.features.views import views_of
from captioning.io import counted

BATCH_SIZES = {True: 8, False: 64}  # True: on a CPU, whose caches have room for few feature maps; False: on a GPU


class StoredFeatures:
    """Reader of what is stored for one image (fp16): features [L, D] or [D], or the output of a frozen part."""

    def __init__(self, store: FeatureStore):
        self.store = store

    def __call__(self, record: Record) -> Tensor:
        return torch.from_numpy(self.store[record.image_id])


class Pictures:
    """Reader of one image as the encoder's input, [3, S, S] uint8."""

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
    check_images: bool = True,
    augment: Any = None,
) -> Source:
    """Return features from the store of this data set and encoder, after computing those that it lacks.

    Several processes share the computation: ranks of torchrun or srun, tasks of a job array, and separate runs.

    If the encoder is fine-tuned (`encoder.unfreeze_from`), the store has the output of its frozen part, and
    `Source.encoder` is the part that is trained: it computes the features in every step.

    Args:
        encoder: the encoder.
        transform: the encoder's transform.
        records: the images.
        name: name of the data set, a part of the store's folder name.
        root: folder of all stores.
        batch_size: images per forward pass of the encoder; "auto" is 8 on a CPU and 64 on a GPU.
        extract_workers: processes that read images while features are computed.
        workers: loader processes for training; a CPU needs none, as reading is faster than training.
        device: where features are computed; "auto" is a GPU if there is one, another one for each rank.
        mirror: also store the features of mirrored training images, in a store of their own.
        crops: also store the features of the corners of training images; see `views_of`.
        skip_unreadable: leave out unreadable images and report them, instead of stopping.
        progress: show a progress bar; None shows it if stderr is a terminal. Only the first rank shows it.
        check_images: compare every image file with its size and time when its features were stored.
        augment: refused: an image that changes in every epoch has no stored features.

    Raises:
        ConfigError: a setting is out of range, or the encoder has no input images or cannot be split.
        DataError: an image or the store is unreadable.
    """
    must_be("features.batch_size", None if batch_size == "auto" else cast(int, batch_size), least=1)
    must_be("features.extract_workers", extract_workers, least=0)
    must_be("features.workers", workers, least=0)
    if augment is not None:
        raise ConfigError(
            "features.augment changes each image at random in every epoch, so its features cannot be stored. Set "
            "features=online, or use features.mirror and features.crops, whose features are stored"
        )
    if encoder.output == "regions":
        raise ConfigError(
            "encoder=regions computes no features from images: set features=regions features.root=FOLDER too"
        )
    if hasattr(encoder, "parts"):
        same: dict[str, Any] = {"batch_size": batch_size, "extract_workers": extract_workers, "workers": workers}
        same |= {"device": device, "mirror": mirror, "crops": crops, "skip_unreadable": skip_unreadable}
        same |= {"check_images": check_images}
        make = partial(stored, name=name, root=root, progress=progress, **same)
        return store_parts(make, encoder, transform, records)
    rank = launched_rank()
    if device == "auto":
        device = f"cuda:{rank.local % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    shown = sys.stderr.isatty() if progress is None else progress
    options = {
        "batch_size": BATCH_SIZES[torch.device(device).type == "cpu"] if batch_size == "auto" else batch_size,
        "workers": extract_workers,
        "device": device,
        "skip_unreadable": skip_unreadable,
        "check_images": check_images,
        "progress": shown and not rank.number,
        "rank": rank,
    }
    first, rest = _parts(encoder)
    store, done = _complete(first, transform, records, root, name, **options)
    there = store.locations(image_ids_of(records))[:, 0] >= 0
    kept, views, encoded = chosen_records(records, there), [], done.encoded
    for seen, turned in views_of(transform, mirror=mirror, crops=crops):
        shared = [record for record in kept if record.split == "train" and (may_be_mirrored(record) or not turned)]
        of_view, also = _complete(first, seen, shared, root, name, **options)
        views.append(View(StoredFeatures(of_view), turned))
        encoded += also.encoded
    return Source(StoredFeatures(store), rest, kept, done.unreadable, workers, views, encoded=encoded)


def _parts(encoder: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return the part of an encoder whose output is stored, and the part that computes features from it.

    Raises:
        ConfigError: the encoder is fine-tuned and cannot be split.
    """
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        return encoder, nn.Identity()
    if not hasattr(encoder, "split"):
        raise ConfigError(
            f"encoder.unfreeze_from: {type(encoder).__name__} cannot be split into a frozen part for the store and a "
            "part to train. Set features=online"
        )
    return cast(Callable[[], tuple[nn.Module, nn.Module]], encoder.split)()


def _complete(
    encoder: nn.Module, transform: Transform, records: Sequence[Record], root: str, name: str, **options: Any
) -> tuple[FeatureStore, Extraction]:
    """Return the store with the features of all readable records, and what was done for it."""
    folder, key = _folder_and_key(encoder, transform, name=name, root=root)
    store = FeatureStore(folder, key)
    if store.missing(records, check_images=options["check_images"]):
        return store, extract(encoder, transform, records, store, **options)
    if store.unmerged:
        # The process that would have updated the manifest was killed. A reader may not be allowed to do it.
        with suppress(CaptioningError):
            store.flush()
        if store.missing(records, check_images=False):  # another process has removed damaged shards meanwhile
            return store, extract(encoder, transform, records, store, **options)
    return store, Extraction(0, len(records), [], 0.0)


def refuse_views(features: Mapping[str, Any]) -> None:
    """Refuse mirroring and cropping for visual question answering: they can change the answer.

    Args:
        features: the settings `features` of a configuration.

    Raises:
        ConfigError: `mirror`, `crops` or `augment` is set.
    """
    if features.get("mirror"):
        raise ConfigError(
            "features.mirror=true is for captions only, as questions may ask what is on the left: set "
            "features.mirror=false"
        )
    if features.get("crops"):
        raise ConfigError(
            "features.crops is for captions only, as questions may ask what is in a corner: set features.crops=null"
        )
    if features.get("augment"):
        raise ConfigError(
            "features.augment is for captions only, as it can change the answer to a question: set "
            "features.augment=null"
        )


def verify(encoder: nn.Module, transform: Transform, *, name: str, root: str) -> str:
    """Compare every shard of the store that `stored` would use with its checksum, and return the result as a sentence.

    Args:
        encoder: the encoder.
        transform: the encoder's transform.
        name: name of the data set.
        root: folder of all stores.

    Raises:
        DataError: there is no such store, or shards are damaged. The message names the damaged shards; they are removed
            from the store.
    """
    if hasattr(encoder, "parts"):
        parts = zip(cast(Any, encoder).parts, cast(Any, transform).parts, strict=True)
        return "\n".join(verify(part, its, name=name, root=root) for part, its in parts)
    folder, key = _folder_and_key(_parts(encoder)[0], transform, name=name, root=root)
    if not (folder / "manifest.json").is_file():
        raise DataError(f"{folder} has no stored features: run captioning-prepare without verify=true")
    store = FeatureStore(folder, key)
    damaged = store.verify()
    if damaged:
        shards = "; ".join(f"{damage.file} {damage.fault} ({damage.pictures} images)" for damage in damaged)
        raise DataError(f"{shards}. Run captioning-prepare without verify=true to compute these features again")
    return f"{folder}: features of {counted(len(store), 'image')}, no damage found"


def _folder_and_key(encoder: nn.Module, transform: Transform, *, name: str, root: str) -> tuple[Path, dict[str, Any]]:
    """Return the folder and the key of the store of a data set and encoder."""
    describe = cast(Callable[[], dict[str, Any]], encoder.describe)
    key = describe() | {"transform": transform.describe()}
    return store_folder(root, name, key), key


def online(
    encoder: nn.Module,
    transform: Transform,
    records: Sequence[Record],
    *,
    name: str,
    workers: int = 1,
    mirror: bool = False,
    crops: float | None = None,
    augment: str | Callable[..., Tensor] | None = None,
    skip_unreadable: bool = False,
) -> Source:
    """Return images that pass through the encoder in every step: for fine-tuning, or if a store needs too much space.

    Args:
        encoder: the encoder.
        transform: the encoder's transform.
        records: the images.
        name: name of the data set; not used.
        workers: loader processes.
        mirror: also read mirrored training images.
        crops: also read the corners of training images; see `views_of`.
        augment: "light" or "strong", or a `captioning.data.Augmentation`: how each training image is changed at random
            in every epoch; None for not at all.
        skip_unreadable: leave out unreadable images. Each image is opened once beforehand, so that all epochs have the
            same images.

    Raises:
        ConfigError: a setting is out of range.
    """
    must_be("features.workers", workers, least=0)
    unreadable = _unreadable(records) if skip_unreadable else {}
    kept = [record for record in records if record.path not in unreadable] if unreadable else records
    views = [View(Pictures(seen), turned) for seen, turned in views_of(transform, mirror=mirror, crops=crops)]
    change = make_augmentation(augment)
    if change is not None and hasattr(encoder, "parts"):
        raise ConfigError(
            "features.augment changes one input per image, but encoder=side_by_side has several. Set "
            "features.augment=null, or use one encoder"
        )
    return Source(Pictures(transform), encoder, kept, list(unreadable.items()), workers, views, change)


class NoEncoder:
    """Reader that returns zeros in the shape of one image's features, for every image."""

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
    """Return zeros as features, to measure what a model can do without seeing the image.

    Args:
        encoder: the encoder whose feature shape is used.
        transform: not used.
        records: the images.
        name: name of the data set; not used.
        skip_unreadable: not used: no image is read.

    Raises:
        ConfigError: the encoder is encoder=regions.
    """
    if encoder.output == "regions":
        raise ConfigError(
            "features=blank needs the feature shape of a CNN, not encoder=regions: choose another encoder"
        )
    shape = (encoder.size,) if encoder.output == "fc" else (encoder.places, encoder.size)
    return Source(NoEncoder(*shape), nn.Identity(), records, [], 0)


class StoredRegions:
    """Reader of one image's region features, [R, D] (fp16); R differs between images."""

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
    """Return region features from a detector's files, one file per image (see `RegionFolder`).

    Args:
        encoder: a `captioning.models.RegionEncoder`; its `size` is the feature size.
        transform: not used.
        records: the images.
        name: name of the data set; not used.
        root: folder of the files.
        max_regions: number of regions to use per image, at most.
        workers: loader processes.
        skip_unreadable: leave out images without a file and report them, instead of stopping.

    Raises:
        DataError: files are missing, or two images have the same file.
        ConfigError: the encoder computes features from images.
    """
    must_be("features.workers", workers, least=0)
    if encoder.output != "regions":
        raise ConfigError("features=regions reads a detector's files: set encoder=regions too")
    folder = RegionFolder(root, size=cast(int, encoder.size), max_regions=max_regions)
    folder.check_own(records)
    missing = folder.missing(records)
    if missing and not skip_unreadable:
        raise DataError(
            f"{folder.path(missing[0])} is missing: no region features of {missing[0].path} and of {len(missing) - 1} "
            "other images. Add the files, or set data.skip_unreadable=true"
        )
    absent = {record.image_id for record in missing}
    kept = [record for record in records if record.image_id not in absent]
    unreadable = [
        (record.path, f"{folder.path(record)} is missing: no region features of {record.path}") for record in missing
    ]
    return Source(StoredRegions(folder), nn.Identity(), kept, unreadable, workers)


def report_unreadable(source: Source) -> None:
    """Print to stderr how many images were left out, and the reasons for the first ten."""
    if source.unreadable:
        print(f"left out: {counted(len(source.unreadable), 'unreadable image')}:", file=sys.stderr)
        for _, reason in source.unreadable[:10]:
            print(f"  {reason}", file=sys.stderr)


def _unreadable(records: Sequence[Record]) -> dict[Path, str]:
    found = {}
    for record in tqdm(records, desc="opening images", unit="images", disable=None):
        try:
            open_picture(record.path)
        except DataError as error:
            found[record.path] = str(error)
    return found
