"""Store features in shards: one fp16 array per image, keyed by the encoder, weights and transform that made it.

    folder/manifest.json     what it is, and which shards it has (see `captioning.features.manifest`)
    folder/shard-00000.npy   [pictures, P, D] or [pictures, D] float16

Files are written whole (`captioning.io`) and a shard is written before it is listed. So after a kill the store holds
every finished shard. Later shards win: a changed picture is stored again.
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
    """The stamp of a picture file; OSError when it cannot be read."""
    status = path.stat()  # before the content, so that a change in between is seen at the next comparison
    digest = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    return Stamp(path.name, status.st_size, status.st_mtime_ns, digest)


class Damage(NamedTuple):
    """A shard that is not what was written: its file, how many pictures' features are lost, and what is wrong."""

    file: Path
    pictures: int
    fault: str


class FeatureStore:
    """Features by image id: `store[image_id]` is a float16 array [P, D] or [D].

    Opens the store in `folder`, or an empty one that comes to be with its first shard. Shards that are absent or cut
    short are forgotten: their pictures count as missing. A shard's file is open only while something is read from it,
    so that there may be any number of them. One process at a time may write.

    Args:
        folder: of this store alone, see `store_folder`.
        key: plain values that say what makes the features: the encoder and the transform.
        shard_pictures: at most so many pictures a shard, and at most 64 MiB.

    Raises:
        DataError: the folder holds a store of another key or format, or a broken manifest.
    """

    def __init__(self, folder: str | Path, key: Mapping[str, Any], *, shard_pictures: int = 512):
        self.folder, self.shard_pictures = Path(folder), shard_pictures
        self.key = json.loads(json.dumps(dict(key)))  # tuples become lists, as in the manifest
        self.shape: tuple[int, ...] | None = None
        self._shards: list[Shard] = []
        self._index: dict[int, tuple[int, int]] = {}  # image id -> place of its shard in the list, row
        self._pending: list[tuple[int, Stamp, np.ndarray]] = []
        self._files: set[str] = set()  # names of all shards
        self._number = 0  # shards of lower numbers are there
        self._offsets: dict[int, int] = {}  # of the shards that were looked at, by place: where their numbers begin
        self._listed = False  # whether the folder is known to list our shards, and no others
        self._stale = False  # whether the manifest is to be written anew at `flush`
        if os.path.exists(manifest.manifest_of(self.folder)):  # False too where the folder may not be looked into
            self._open()

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._index

    def __getitem__(self, image_id: int) -> np.ndarray:
        """A copy of one picture's features; KeyError when they are not stored (yet).

        Raises:
            DataError: the shard is damaged, or these features are not finite.
        """
        place, row = self._index[image_id]
        shard, features = self._shards[place], np.empty(self.shape, np.float16)
        if place not in self._offsets:
            self._offsets[place] = self._map(shard).offset
        try:
            # Not from a memory map that stays open: each holds a file descriptor, of which a process may often have
            # 1 024 (COCO has 1 482 shards), and a disk that fails, or a file that is cut, kills whoever reads one.
            with open(self.folder / shard.file, "rb", buffering=0) as file:
                file.seek(self._offsets[place] + row * features.nbytes)
                whole = file.readinto(features) == features.nbytes
        except OSError as error:
            raise self._damaged(shard, f"cannot be read ({error.strerror or error})") from error
        if not whole:
            raise self._damaged(shard, "is cut short")
        if not _finite(features):
            raise self._damaged(shard, f"features of image {image_id} are not finite")
        return features

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pending": []}

    def missing(self, records: Iterable[Record]) -> list[Record]:
        """The records whose features are not stored, or whose picture has changed since (or is gone).

        Features of changed pictures are forgotten: from now on their ids are not in the store.
        """
        absent = [record for record in records if record.image_id not in self or not self._is_current(record)]
        for record in absent:
            self._index.pop(record.image_id, None)
        return absent

    def check(self, records: Sequence[Record]) -> None:
        """Every record's features are stored, and its picture is as it was then; otherwise a DataError."""
        absent = [record for record in records if record.image_id not in self]
        if absent:
            raise DataError(
                f"{self.folder}: no features of {len(absent)} of {len(records)} pictures (first: {absent[0].path}): "
                "run captioning-prepare again"
            )
        for record in records:
            if not self._is_current(record):
                raise DataError(
                    f"{record.path}: the picture is gone or has changed since its features were stored in "
                    f"{self.folder}: run captioning-prepare again"
                )

    def append(self, image_id: int, stamp: Stamp, features: np.ndarray) -> None:
        """Takes one picture's features; they are stored, and can be read, when their shard is full or at `flush`.

        Raises:
            DataError: a value is not finite in float16.
        """
        with np.errstate(over="ignore"):
            features = np.asarray(features).astype(np.float16)
        if not np.isfinite(features).all():
            raise DataError(f"{stamp.name} (image {image_id}): its features are not finite, or beyond float16's 65504")
        self.shape = self.shape or features.shape
        if features.shape != self.shape:
            raise ValueError(f"{stamp.name}: features {features.shape} in a store of {self.shape}")
        self._pending.append((image_id, stamp, features))
        if len(self._pending) >= min(self.shard_pictures, max(1, SHARD_BYTES // features.nbytes)):
            self._write_shard()

    def flush(self) -> None:
        """Writes what was appended as a shard, and the manifest anew; when this returns, it is on the disk."""
        if self._pending:
            self._write_shard()
        if self._stale:
            self._list()

    def verify(self) -> list[Damage]:
        """Reads every shard and holds it against its checksum; what is damaged is forgotten, here and on the disk.

        The pictures of a damaged shard count as missing from then on, and are encoded again by whoever asks for them.
        A shard of a store of format 1 gets its checksum now, if all of it can be read.
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
        """What is wrong with a shard's file; "" for nothing."""
        try:
            content = (self.folder / shard.file).read_bytes()
        except OSError as error:
            return f"cannot be read ({error.strerror or error})"
        if shard.checksum is not None:
            return "" if _checksum(content) == shard.checksum else "is not what was written: its checksum differs"
        try:
            values = np.asarray(self._map(shard))
        except DataError:
            return "is no shard of this store"
        return "" if _finite(values) else "holds features that are not finite"

    def _map(self, shard: Shard) -> np.ndarray:
        """The shard's array [pictures, …], memory-mapped."""
        try:
            array = np.load(self.folder / shard.file, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # NumPy parses a header's bytes as Python literals, and stumbles in many ways
            raise self._damaged(shard, "cannot be read") from error
        expected = (len(shard.pictures), *self.shape)
        there = isinstance(array, np.ndarray) and array.shape == expected and array.dtype == np.float16
        if not there or not array.flags.c_contiguous:
            raise self._damaged(shard, f"does not hold float16 numbers {list(expected)}")
        return array

    def _damaged(self, shard: Shard, fault: str) -> DataError:
        return DataError(
            f"{self.folder / shard.file}: {fault}: run captioning-prepare verify=true with the same settings, which "
            "finds damaged shards, and then captioning-prepare again, which makes them anew"
        )

    def _is_current(self, record: Record) -> bool:
        """Whether a stored picture has the bytes it had. A mere new time or name of the file is noted for later."""
        place, row = self._index[record.image_id]
        stored = self._shards[place].pictures[row][1]
        try:
            status = record.path.stat()
            if (record.path.name, status.st_size, status.st_mtime_ns) == stored[:3]:
                return True
            now = stamp_picture(record.path) if status.st_size == stored.size else None
        except OSError:
            return False
        if now is None or now.digest != stored.digest:
            return False
        self._shards[place].pictures[row] = (record.image_id, now)  # spares the digest the next time
        self._stale = True
        return True

    def _write_shard(self) -> None:
        image_ids, stamps, features = zip(*self._pending, strict=True)
        if not self._listed:  # before a file takes the name of one that the manifest lists, and that is not what it was
            self._make_folder()
            self._list()
        while (file := f"shard-{self._number:05d}.npy") in self._files:
            self._number += 1
        content = io.BytesIO()
        np.save(content, np.stack(features))
        size = write_whole(self.folder / file, lambda handle: handle.write(content.getbuffer()))
        shard = Shard(file, size, _checksum(content.getbuffer()), list(zip(image_ids, stamps, strict=True)))
        self._listed = False  # if the journal's line should not be whole
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
            raise DataError(f"{self.folder}: cannot be made: {error.strerror}: set features.root") from error
        clear_temporary(self.folder)

    def _open(self) -> None:
        self.shape, shards = manifest.read_manifest(self.folder, self.key)
        self._stale = manifest.journal_of(self.folder).exists()
        for shard in shards:
            file = self.folder / shard.file
            if file.is_file() and file.stat().st_size == shard.size:
                self._add(shard)

    def _add(self, shard: Shard) -> None:
        place = len(self._shards)
        self._shards.append(shard)
        self._files.add(shard.file)
        self._index.update((image, (place, row)) for row, (image, _) in enumerate(shard.pictures))


def store_folder(root: str | Path, name: str, key: Mapping[str, Any]) -> Path:
    """Where the features of data set `name` by the encoder key["name"] lie: root/<name>-<encoder>-<8 hex of key>."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]
    return Path(root) / re.sub(r"[^\w.-]", "_", f"{name}-{key['name']}-{digest}")


def _finite(features: np.ndarray) -> bool:
    """Whether all float16 numbers are, by their bits: those of infinity and NaN are above all others of their sign."""
    return features.view(np.int16).max(initial=0) < 0x7C00 and features.view(np.uint16).max(initial=0) < 0xFC00


def _checksum(content) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
