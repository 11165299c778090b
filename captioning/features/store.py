"""Store features in shards: one fp16 array per image, keyed by the encoder, weights and transform that computed it.

    folder/manifest.json     key, and list of the shards (see `captioning.features.manifest`)
    folder/shard-00000.npy   [images, L, D] or [images, D] float16; maps of a frozen part: [images, H, W, C]

Files are written atomically (`captioning.io`), and a shard is written before it is listed, so after a kill the store
has every finished shard. If an image is in several shards, because it has changed, the latest shard counts.
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from captioning.data import Record
from captioning.errors import DataError
from captioning.features import manifest
from captioning.features.manifest import Shard, Stamp
from captioning.io import clear_temporary, write_whole

SHARD_BYTES = 64 * 2**20


def stamp_picture(path: Path) -> Stamp:
    """Return the stamp of an image file.

    Raises:
        OSError: the file cannot be read.
    """
    status = path.stat()  # before the content is read, so that the next comparison detects a change in between
    digest = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    return Stamp(path.name, status.st_size, status.st_mtime_ns, digest)


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


class FeatureStore:
    """Features by image id: `store[image_id]` is a float16 array [L, D], [D] or [H, W, C].

    Opens the store in `folder`. If there is none, the store is empty, and the folder is created with the first shard.
    Missing or truncated shards are ignored: their images count as missing. A shard's file is open only while it is
    read, so the number of shards is not limited. Only one process may write at a time.

    Args:
        folder: folder of this store alone, see `store_folder`.
        key: plain values that identify the encoder and the transform.
        shard_pictures: images per shard, at most; a shard also has at most 64 MiB.

    Raises:
        DataError: the folder has a store with another key or format, or a broken manifest.
    """

    def __init__(self, folder: str | Path, key: Mapping[str, Any], *, shard_pictures: int = 512):
        self.folder, self.shard_pictures = Path(folder), shard_pictures
        self.key = json.loads(json.dumps(dict(key)))  # tuples become lists, as in the manifest
        self.shape: tuple[int, ...] | None = None
        self._shards: list[Shard] = []
        self._index: dict[int, tuple[int, int]] = {}  # image id -> (index of its shard in the list, row)
        self._pending: list[tuple[int, Stamp, np.ndarray]] = []
        self._files: set[str] = set()  # names of all shards
        self._number = 0  # all lower numbers are in use
        self._offsets: dict[int, int] = {}  # index of a shard -> byte offset of its values; of shards read so far
        self._listed = False  # whether the folder lists our shards and no others
        self._stale = False  # whether `flush` must rewrite the manifest
        if os.path.exists(manifest.manifest_of(self.folder)):  # also False if the folder may not be read
            self._open()

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._index

    def __getitem__(self, image_id: int) -> np.ndarray:
        """Return a copy of one image's features.

        Raises:
            KeyError: they are not stored (yet).
            DataError: the shard is damaged, or these features are not finite.
        """
        index, row = self._index[image_id]
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
        return self.__dict__ | {"_pending": []}

    def locations(self, image_ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return where the features of images are: [N, 2] int64, the number of the shard in the list and the row in it.

        Both are -1 for images without stored features. Features in increasing order of these pairs are read in the
        order of the files, which is fastest on a disk.

        Args:
            image_ids: ids of N images.
        """
        found = [self._index.get(int(image_id), (-1, -1)) for image_id in image_ids]
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    def missing(self, records: Iterable[Record]) -> list[Record]:
        """Return the records whose features are not stored, or whose image has changed since or is missing.

        Features of changed images are dropped: from now on their ids are not in the store.
        """
        absent = [record for record in records if record.image_id not in self or not self._is_current(record)]
        for record in absent:
            self._index.pop(record.image_id, None)
        return absent

    def check(self, records: Sequence[Record]) -> None:
        """Check that the features of every record are stored, and that no image has changed since.

        Raises:
            DataError: features are missing, or an image has changed or is missing.
        """
        absent = [record for record in records if record.image_id not in self]
        if absent:
            raise DataError(
                f"{self.folder}: no features of {len(absent)} of {len(records)} images (first: {absent[0].path}): "
                "run captioning-prepare again"
            )
        for record in records:
            if not self._is_current(record):
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
        if len(self._pending) >= min(self.shard_pictures, max(1, SHARD_BYTES // features.nbytes)):
            self._write_shard()

    def flush(self) -> None:
        """Write the appended features as a shard and update the manifest; both are on the disk when this returns."""
        if self._pending:
            self._write_shard()
        if self._stale:
            self._list()

    def verify(self) -> list[Damage]:
        """Compare every shard with its checksum, and remove damaged shards from the manifest.

        Images of a damaged shard count as missing from then on, so `extract` computes their features again. Readable
        shards of a store of format 1 get a checksum now.

        Returns:
            The damaged shards.
        """
        found = {shard.file: self._fault(shard) for shard in self._shards}
        damaged = [Damage(self.folder / s.file, len(s.pictures), found[s.file]) for s in self._shards if found[s.file]]
        shards, self._shards, self._index = self._shards, [], {}
        self._files, self._offsets, self._number = set(), {}, 0
        for shard in shards:
            if not found[shard.file]:
                self._add(shard._replace(checksum=shard.checksum or _checksum((self.folder / shard.file).read_bytes())))
        if self._shards != shards:
            self._list()
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
        expected = (len(shard.pictures), *self.shape)
        there = isinstance(array, np.ndarray) and array.shape == expected and array.dtype == np.float16
        if not there or not array.flags.c_contiguous:
            raise self._damaged(shard, f"is not a float16 array of shape {list(expected)}")
        return array

    def _damaged(self, shard: Shard, fault: str) -> DataError:
        return DataError(
            f"{self.folder / shard.file}: {fault}: run captioning-prepare verify=true with the same settings to find "
            "damaged shards, then captioning-prepare without it to compute their features again"
        )

    def _is_current(self, record: Record) -> bool:
        """Return whether an image file has the same content as when its features were stored."""
        index, row = self._index[record.image_id]
        stored = self._shards[index].pictures[row][1]
        try:
            status = record.path.stat()
            if (record.path.name, status.st_size, status.st_mtime_ns) == stored[:3]:
                return True
            now = stamp_picture(record.path) if status.st_size == stored.size else None
        except OSError:
            return False
        if now is None or now.digest != stored.digest:
            return False
        self._shards[index].pictures[row] = (record.image_id, now)  # so that the digest is not needed the next time
        self._stale = True
        return True

    def _write_shard(self) -> None:
        image_ids, stamps, features = zip(*self._pending, strict=True)
        if not self._listed:  # unlist missing shards before a new file takes one of their names
            self._make_folder()
            self._list()
        while (file := f"shard-{self._number:05d}.npy") in self._files:
            self._number += 1
        content = io.BytesIO()
        np.save(content, np.ascontiguousarray(np.stack(features)))
        size = write_whole(self.folder / file, lambda handle: handle.write(content.getbuffer()))
        shard = Shard(file, size, _checksum(content.getbuffer()), list(zip(image_ids, stamps, strict=True)))
        self._listed = False  # in case writing the journal's line fails
        manifest.add_shard(self.folder, shard)
        self._add(shard)
        self._pending, self._listed, self._stale = [], True, True

    def _list(self) -> None:
        manifest.write_manifest(self.folder, self.key, self.shape, self._shards)
        self._listed, self._stale = True, False

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"cannot create the folder '{self.folder}' ({error.strerror}): set features.root to another folder"
            ) from error
        clear_temporary(self.folder)

    def _open(self) -> None:
        self.shape, shards = manifest.read_manifest(self.folder, self.key)
        self._stale = manifest.journal_of(self.folder).exists()
        for shard in shards:
            file = self.folder / shard.file
            if file.is_file() and file.stat().st_size == shard.size:
                self._add(shard)

    def _add(self, shard: Shard) -> None:
        index = len(self._shards)
        self._shards.append(shard)
        self._files.add(shard.file)
        self._index.update((image, (index, row)) for row, (image, _) in enumerate(shard.pictures))


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


def _checksum(content: bytes | memoryview) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
