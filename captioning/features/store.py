"""Store features in shards: one fp16 array per image, keyed by the encoder, weights and transform that computed it.

    folder/manifest.json      key, and list of the shards (see `captioning.features.manifest`)
    folder/index-00001.npy    where the features of each image are, and the stamp of its file
    folder/shard-00000.npy    [images, L, D] or [images, D] float16; maps of a frozen part: [images, H, W, C]
    folder/journals/          shards that the manifest does not list yet (see `captioning.features.journals`)
    folder/claims.lock        which images a process is working on (see `captioning.features.claims`)

Files are written atomically (`captioning.io`), and a shard is written before it is listed, so after a kill the store
has every finished shard. If an image is in several shards, because it has changed, the latest shard counts: the one
with the highest number, which no other process can have taken.
"""

import hashlib
import io
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from captioning.data import Record, image_ids_of
from captioning.errors import ConfigError, DataError
from captioning.features import manifest
from captioning.features.claims import ALL, Ids, ImageClaims
from captioning.features.index import (
    FIELDS,
    Index,
    Stamp,
    entries_of,
    hash_text,
    index_of,
    map_columns,
    merge,
    merge_all,
    merge_columns,
    stamp_numbers,
)
from captioning.features.journals import Addition, Journal, Journals, Shard
from captioning.features.manifest import Manifest
from captioning.io import file_status, read_file, write_whole

SHARD_BYTES = 64 * 2**20
CREATION_POLL_SECONDS = 0.02
RECENT_IMAGES = 1 << 16  # of shards beside the index, before they become part of it
RECORDS = 1 << 16  # records that are compared with the index at a time


def stamp_picture(path: Path) -> Stamp:
    """Return the stamp of an image file, which may be inside an archive.

    Raises:
        OSError: the file cannot be read.
        DataError: its archive is damaged.
    """
    status = file_status(path)  # before the content is read, so that the next comparison detects a change in between
    content = read_file(path)
    size = len(content) if status.size is None else status.size
    return Stamp(path.name, size, status.changed, hashlib.blake2b(content, digest_size=8).hexdigest())


class Damage(NamedTuple):
    """A shard that differs from what was written.

    Attributes:
        file: its path.
        pictures: number of images whose features are lost.
        fault: what is wrong.
    """

    file: Path
    pictures: int
    fault: str


class _Compared(NamedTuple):
    """What an image file was compared with: a row of a shard's file, and the numbers of the stamp stored for it."""

    file: str
    row: int
    stamp: tuple[int, ...]


class FeatureStore:
    """Features by image id: `store[image_id]` is a float16 array [L, D], [D] or [H, W, C].

    Opens the store in `folder`. If there is none, the store is empty, and the folder is created with the first shard.
    Missing or truncated shards are ignored: their images count as missing. A shard's file is open only while it is
    read, so the number of shards is not limited. Several processes may write at a time (see `claims`), but only one
    object of each process.

    Args:
        folder: folder of this store alone, see `store_folder`.
        key: plain values that identify the encoder and the transform.
        shard_pictures: images per shard, at most; a shard also has at most 64 MiB.

    Attributes:
        shape: shape of one image's features; None before the first shard.
        claims: the claims of the process while it fills the store (`captioning.features.extraction`). Otherwise, each
            shard is claimed while it is written.

    Raises:
        DataError: the folder has a store with another key or format, or a broken manifest.
    """

    def __init__(self, folder: str | Path, key: Mapping[str, Any], *, shard_pictures: int = 512):
        self.folder, self.shard_pictures = Path(folder), shard_pictures
        self.key = json.loads(json.dumps(dict(key)))  # tuples become lists, as in the manifest
        self.shape: tuple[int, ...] | None = None
        self.claims: ImageClaims | None = None
        self._pending: list[tuple[int, Stamp, np.ndarray]] = []
        self._dropped: dict[int, str] = {}  # id of a changed image -> the file that has its old features
        # Of a file that was only touched: id -> the row that it was compared with, and the numbers of its new stamp.
        self._restamped: dict[int, tuple[_Compared, list[int]]] = {}
        self._journal = Journal(self.folder)
        self._load()

    def __len__(self) -> int:
        ids = np.unique(np.concatenate([self._index.ids, *(recent.ids for recent in self._recent)]))
        return int((self._rows(ids)[1] >= 0).sum())

    def __contains__(self, image_id: object) -> bool:
        return self._rows(np.array([image_id], np.int64))[1, 0] >= 0

    def __getitem__(self, image_id: int) -> np.ndarray:
        """Return a copy of one image's features.

        Raises:
            KeyError: they are not stored (yet).
            DataError: the shard is damaged, or these features are not finite.
        """
        location = int(self._rows(np.array([image_id], np.int64))[1, 0])
        if location < 0:
            raise KeyError(image_id)
        index, row = location >> 32, location & (2**32 - 1)
        assert self.shape is not None  # set with the first shard
        shard, features = self._shards[index], np.empty(self.shape, np.float16)
        if index not in self._offsets:
            self._offsets[index] = self._map(shard).offset
        try:
            # Memory maps are not kept open, for two reasons. Each needs a file descriptor, and a process may often have
            # only 1 024 (COCO has 1 482 shards). And reading from a map kills the process if the disk fails or the file
            # is truncated.
            with open(self.folder / shard.file, "rb", buffering=0) as file:
                file.seek(self._offsets[index] + row * features.nbytes)
                whole = file.readinto(features.data) == features.nbytes
        except OSError as error:
            raise self._damaged(shard, f"cannot be read ({error.strerror or error})") from error
        if not whole:
            raise self._damaged(shard, "is truncated")
        if not _finite(features):
            raise self._damaged(shard, f"features of image {image_id} are not finite")
        return features

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pending": [], "claims": None, "_index": self._index.file or self._index}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        file = state["_index"]
        if isinstance(file, Path):
            try:
                self._index = Index(map_columns(file), file)
            except FileNotFoundError:  # other processes have replaced it twice since
                self._load()

    @property
    def pending(self) -> int:
        """Number of images that were appended and are not written yet."""
        return len(self._pending)

    @property
    def half_full(self) -> bool:
        """Whether the appended features fill at least half a shard."""
        return bool(self._pending) and 2 * len(self._pending) >= self._limit(self._pending[0][2].nbytes)

    @property
    def unmerged(self) -> bool:
        """Whether this process knows of shards or stamps that the manifest does not list."""
        return bool(self._journals) or bool(self._restamped)

    def locations(self, image_ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return where the features of images are: [N, 2] int64, the number of the shard in the list and the row in it.

        Both are -1 for images without stored features. Features in increasing order of these pairs are read in the
        order of the files, which is fastest on a disk.

        Args:
            image_ids: ids of N images.
        """
        location = self._rows(np.asarray(image_ids, dtype=np.int64))[1]
        return np.where(location < 0, -1, np.stack([location >> 32, location & (2**32 - 1)])).T

    def missing(self, records: Sequence[Record], *, check_images: bool = True) -> list[Record]:
        """Return the records whose features are not stored, or whose image has changed since or is missing.

        Features of changed images are dropped: from now on their ids are not in the store.

        Args:
            records: the records.
            check_images: compare each image file with its stamp.
        """
        if not check_images:
            gone = np.flatnonzero(self.locations(image_ids_of(records))[:, 0] < 0)
            return [records[number] for number in gone.tolist()]
        absent = []
        for record, row in self._with_rows(records):
            if row[1] < 0:
                absent.append(record)
            elif not self._is_current(record, row):
                absent.append(record)
                self._dropped[record.image_id] = self._shards[row[1] >> 32].file
        return absent

    def check(self, records: Sequence[Record]) -> None:
        """Check that the features of every record are stored, and that no image has changed since.

        Raises:
            DataError: features are missing, or an image has changed or is missing.
        """
        stored = self.locations(image_ids_of(records))[:, 0] >= 0
        if not stored.all():
            first = records[int(np.argmin(stored))]
            raise DataError(
                f"{self.folder}: no features of {(~stored).sum()} of {len(records)} images (first: {first.path}): "
                "run captioning-prepare again"
            )
        for record, row in self._with_rows(records):
            if not self._is_current(record, row):
                raise DataError(
                    f"{record.path}: the image is missing or has changed since its features were stored in "
                    f"{self.folder}: run captioning-prepare again"
                )

    def append(self, image_id: int, stamp: Stamp, features: np.ndarray) -> None:
        """Add one image's features. They are written, and can be read, once their shard is full or at `flush`.

        Args:
            image_id: the image's id.
            stamp: the image file's stamp, see `stamp_picture`.
            features: [L, D], [D] or [H, W, C], of the store's shape.

        Raises:
            DataError: a value is not finite in float16.
            ValueError: the features have another shape.
        """
        with np.errstate(over="ignore"):
            features = np.asarray(features).astype(np.float16)
        if not np.isfinite(features).all():
            raise DataError(
                f"{stamp.name} (image {image_id}): its features are not finite, or beyond float16's 65504: check the "
                "image and the encoder's weights"
            )
        self.shape = self.shape or features.shape
        if features.shape != self.shape:
            raise ValueError(f"{stamp.name}: features {features.shape} in a store of {self.shape}")
        self._pending.append((image_id, stamp, features))
        if len(self._pending) >= self._limit(features.nbytes):
            self.write()

    def make_room(self, images: int) -> None:
        """Write the appended features as a shard now, if so many more images would not fit into it.

        So a shard ends between two batches, and after a kill the next process has the same batches.
        """
        if self._pending and len(self._pending) + images > self._limit(self._pending[0][2].nbytes):
            self.write()

    def write(self) -> None:
        """Write the appended features as a shard and list it in a journal; both are on the disk when this returns."""
        if not self._pending:
            return
        if self.claims is not None:
            self._write_shard()
            return
        self.create()
        with ImageClaims(self.folder) as claims:
            claims.take(Ids.of([image_id for image_id, _, _ in self._pending]), wait=True)
            self.refresh()
            self._write_shard()

    def discard(self) -> None:
        """Forget the appended features that are not written."""
        self._pending = []

    def flush(self) -> None:
        """Write the appended features, and update the manifest unless another process is filling the store.

        The last of several processes that fill a store updates the manifest for all.
        """
        self.write()
        if self.unmerged:
            with ImageClaims(self.folder) as claims:
                if claims.take(ALL):
                    self.refresh()
                    self._forget_old_stamps()
                    if self.unmerged:  # still: another process may have updated the manifest
                        self._merge()

    def create(self) -> None:
        """Create the store's folder and manifest, or write those of an older format in the current one.

        Raises:
            DataError: the folder cannot be created.
            ConfigError: the manifest cannot be written.
        """
        if self._is_made():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"cannot create the folder '{self.folder}' ({error.strerror}): set features.root to another folder"
            ) from error
        with ImageClaims(self.folder) as claims:
            self.refresh()
            while not self._is_made():
                if claims.take(ALL):
                    self.refresh()
                    if not self._is_made():
                        self._merge()
                else:
                    # Another process does it, and then claims images at once: waiting for ALL could take until its end.
                    time.sleep(CREATION_POLL_SECONDS)
                    self.refresh()

    def _is_made(self) -> bool:
        return self._manifest is not None and self._manifest.format == manifest.MANIFEST_FORMAT

    def refresh(self) -> None:
        """Read what other processes have stored since the store was opened."""
        if self._signature != self._read_signature():
            self._load()
        else:
            self._take_in(self._journals.news())

    def verify(self) -> list[Damage]:
        """Compare every shard with its checksum, and remove damaged shards from the store.

        Images of a damaged shard count as missing from then on, so `extract` computes their features again. Readable
        shards of a store of format 1 get a checksum now. Waits for processes that are filling the store.

        Returns:
            The damaged shards.
        """
        with ImageClaims(self.folder) as claims:
            claims.take(ALL, wait=True)
            self.refresh()
            damaged, checked = [], list(self._shards)
            for number, shard in enumerate(self._shards):
                if number in self._gone:
                    continue
                if fault := self._fault(shard):
                    damaged.append(Damage(self.folder / shard.file, shard.images, fault))
                    self._gone.add(number)
                elif shard.checksum is None:
                    content = (self.folder / shard.file).read_bytes()
                    checked[number] = shard._replace(checksum=_checksum(content))
            if damaged or checked != self._shards:
                self._shards[:] = checked
                self._merge()
        return damaged

    def _fault(self, shard: Shard) -> str:
        """Return what is wrong with a shard's file; "" if nothing is."""
        try:
            content = (self.folder / shard.file).read_bytes()
        except OSError as error:
            return f"cannot be read ({error.strerror or error})"
        if shard.checksum is not None:
            return "" if _checksum(content) == shard.checksum else "was damaged: its checksum differs"
        try:
            values = np.asarray(self._map(shard))
        except DataError:
            return "is not a shard of this store"
        return "" if _finite(values) else "has features that are not finite"

    def _map(self, shard: Shard) -> np.memmap:
        """Return the shard's array [images, …], memory-mapped."""
        assert self.shape is not None  # set with the first shard
        try:
            array = np.load(self.folder / shard.file, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # NumPy parses a header as Python literals, and raises many errors for damaged bytes
            raise self._damaged(shard, "cannot be read") from error
        expected = (shard.images, *self.shape)
        there = isinstance(array, np.ndarray) and array.shape == expected and array.dtype == np.float16
        if not there or not array.flags.c_contiguous:
            raise self._damaged(shard, f"is not a float16 array of shape {list(expected)}")
        return array

    def _damaged(self, shard: Shard, fault: str) -> DataError:
        return DataError(
            f"{self.folder / shard.file}: {fault}: run captioning-prepare verify=true with the same settings to find "
            "damaged shards, then captioning-prepare without it to compute their features again"
        )

    def _with_rows(self, records: Sequence[Record]) -> Iterable[tuple[Record, list[int]]]:
        """Yield each record with its row of the index; the location is -1 for images that are not stored."""
        for start in range(0, len(records), RECORDS):
            some = records[start : start + RECORDS]
            rows = self._rows(image_ids_of(some))
            yield from zip(some, rows.T.tolist(), strict=True)

    def _rows(self, image_ids: np.ndarray) -> np.ndarray:
        """Return the index's rows of images as columns, int64 [6, n]; the location is -1 if an image is not stored."""
        rows = np.full((FIELDS, len(image_ids)), -1)
        if not len(image_ids):
            return rows
        first, last = image_ids.min(), image_ids.max()
        for index in (self._index, *self._recent):
            if len(index) and index.ids[0] <= last and index.ids[-1] >= first:
                at = index.find(image_ids)
                found = at >= 0
                rows[:, found] = index.columns[:, at[found]]
        rows[0] = image_ids
        if self._gone:
            rows[1, np.isin(rows[1] >> 32, list(self._gone))] = -1
        if self._dropped:
            changed = np.isin(image_ids, list(self._dropped)) & (rows[1] >= 0)
            for number in np.flatnonzero(changed):
                if self._shards[rows[1, number] >> 32].file == self._dropped[int(image_ids[number])]:
                    rows[1, number] = -1
        return rows

    def _compared(self, row: Sequence[int]) -> "_Compared":
        return _Compared(self._shards[row[1] >> 32].file, row[1] & (2**32 - 1), tuple(row[2:]))

    def _is_current(self, record: Record, row: Sequence[int]) -> bool:
        """Return whether an image file has the same content as when the features in a row were stored."""
        compared, stored = self._compared(row), row[2:]
        newer = self._restamped.get(record.image_id)
        if newer is not None and newer[0] == compared:
            stored = newer[1]
        try:
            status = file_status(record.path)
            size = stored[0] if status.size is None else status.size  # in an unchanged archive, no size changes
            if [size, status.changed, hash_text(record.path.name)] == [stored[0], stored[1], stored[3]]:
                return True
            now = stamp_numbers(stamp_picture(record.path)) if size == stored[0] else None
        except (OSError, DataError):
            return False
        if now is None or not _same_content(now, stored):
            return False
        self._restamped[record.image_id] = compared, now  # so that the digest is not needed the next time
        return True

    def _forget_old_stamps(self) -> None:
        """Forget the new stamps of images whose row has changed since: another process has stored them again."""
        ids = np.fromiter(self._restamped, np.int64, len(self._restamped))
        for image_id, row in zip(ids.tolist(), self._rows(ids).T.tolist(), strict=True):
            if row[1] < 0 or self._compared(row) != self._restamped[image_id][0]:
                del self._restamped[image_id]

    def _limit(self, size: int) -> int:
        return min(self.shard_pictures, max(1, SHARD_BYTES // size))

    def _write_shard(self) -> None:
        """Write a shard and its line. The caller must have claimed the images and refreshed after that."""
        # After a wait or Ctrl-C, some may be stored already: by another process, or with a complete line.
        rows = self._rows(np.array([image_id for image_id, _, _ in self._pending], np.int64)).T.tolist()
        pairs = zip(self._pending, rows, strict=True)
        self._pending = [
            each for each, row in pairs if row[1] < 0 or not _same_content(stamp_numbers(each[1]), row[2:])
        ]
        if not self._pending:
            return
        image_ids, stamps, features = zip(*self._pending, strict=True)
        assert self.shape is not None  # set by `append`
        content = io.BytesIO()
        np.save(content, np.ascontiguousarray(np.stack(features)))
        file = self._reserve()
        try:
            size = write_whole(self.folder / file, lambda handle: handle.write(content.getbuffer()))
        except ConfigError:
            with suppress(OSError):
                (self.folder / file).unlink(missing_ok=True)
            raise
        shard = Shard(file, size, _checksum(content.getbuffer()), len(image_ids))
        entries = entries_of(zip(image_ids, stamps, strict=True))
        try:
            self._journal.add(shard, self.shape, entries)
        finally:
            self._take_in(self._journals.news())
        self._take_in([Addition(shard, self.shape, entries)])  # a network disk may show old lists of files
        self._pending = []

    def _reserve(self) -> str:
        """Create the next shard's file, empty, under a name that no other process has, and return the name."""
        while True:
            file = f"shard-{self._following:05d}.npy"
            self._following += 1
            try:
                os.close(os.open(self.folder / file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
                return file
            except FileExistsError:
                continue
            except OSError as error:
                raise ConfigError(
                    f"cannot write {self.folder / file} ({error.strerror or error}): check the free space and the "
                    "permissions of its folder"
                ) from error

    def _merge(self) -> None:
        """Write a manifest of everything that is known. The caller must have claimed all ids and refreshed."""
        numbers = np.full(len(self._shards), -1)
        kept: list[Shard] = []
        for number, shard in enumerate(self._shards):
            if number not in self._gone:
                numbers[number] = len(kept)
                kept.append(shard)
        following = max([self._following, *(number + 1 for number in manifest.shard_numbers(self.folder))])
        version = self._manifest.version if self._manifest else 0
        self._forget_old_stamps()
        stamps = {image_id: stamp for image_id, (_, stamp) in self._restamped.items()}
        listed = Manifest(self.shape if kept else None, kept, self._index, following, version)
        columns = merge_columns(self._index, merge_all(self._recent), numbers, stamps)
        manifest.write_manifest(self.folder, self.key, listed, columns)
        self._journals.delete()
        self._restamped = {}
        self._load()

    def _load(self) -> None:
        """Read the manifest and the journals from the disk."""
        self._shards: list[Shard] = []
        self._index = index_of([])
        self._recent: list[Index] = []  # of each shard that is not part of the index yet
        self._files: set[str] = set()
        self._gone: set[int] = set()  # numbers in the list of missing and truncated shards
        self._offsets: dict[int, int] = {}  # number of a shard -> byte offset of its values; of shards read so far
        self._following = 0
        self._manifest: Manifest | None = None
        self._journals = Journals(self.folder)
        # Journals first: if another process puts them into the manifest meanwhile, their shards are in one or both.
        news = self._journals.news() if os.access(self.folder, os.R_OK | os.X_OK) else []
        self._signature = self._read_signature()
        if self._signature is None:
            return
        listed = manifest.read_manifest(self.folder, self.key)
        self.shape = listed.shape or self.shape
        self._index, self._following = listed.images, listed.following
        for shard in listed.shards:
            self._list(shard)
        self._manifest = listed._replace(shards=[], images=index_of([]))
        self._take_in(news)
        self._settle()

    def _read_signature(self) -> tuple[int, ...] | None:
        """Return what changes when the manifest is replaced; None without a manifest."""
        try:
            status = os.stat(manifest.manifest_of(self.folder))
        except OSError:  # also if the folder may not be read
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _take_in(self, news: Sequence[Addition]) -> None:
        """Add shards of journals that the manifest does not list."""
        oldest = self._manifest.following if self._manifest else 0
        for shard, shape, entries in news:
            self._following = max(self._following, shard.number + 1)
            self.shape = self.shape or shape
            if shard.file in self._files or shard.number < oldest or shape != self.shape:
                continue
            self._recent.append(index_of([(len(self._shards), entries)]))
            self._list(shard)
        if sum(map(len, self._recent)) > max(RECENT_IMAGES, len(self._index) // 2):
            self._settle()

    def _settle(self) -> None:
        """Make recent shards part of the index, in memory."""
        if self._recent:
            self._index, self._recent = merge(self._index, merge_all(self._recent)), []

    def _list(self, shard: Shard) -> None:
        try:
            there = os.stat(self.folder / shard.file).st_size == shard.size
        except (FileNotFoundError, NotADirectoryError):
            there = False
        except OSError as error:
            raise self._damaged(shard, f"cannot be read ({error.strerror or error})") from error
        if not there:
            self._gone.add(len(self._shards))
        self._files.add(shard.file)
        self._shards.append(shard)


def store_folder(root: str | Path, name: str, key: Mapping[str, Any]) -> Path:
    """Return the folder of a store: root/NAME-ENCODER-HASH, with 8 hexadecimal digits of a hash of the key.

    Args:
        root: folder of all stores.
        name: name of the data set.
        key: the store's key; key["name"] is the encoder's name.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]
    return Path(root) / re.sub(r"[^\w.-]", "_", f"{name}-{key['name']}-{digest}")


def _finite(features: np.ndarray) -> bool:
    """Return whether all float16 numbers are finite, by their bits: infinity and NaN have the largest of their sign."""
    return features.view(np.int16).max(initial=0) < 0x7C00 and features.view(np.uint16).max(initial=0) < 0xFC00


def _same_content(first: Sequence[int], second: Sequence[int]) -> bool:
    """Return whether two stamps, as numbers, are of files with the same content: of the same size and digest."""
    return [first[0], first[2]] == [second[0], second[2]]


def _checksum(content: bytes | memoryview) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
