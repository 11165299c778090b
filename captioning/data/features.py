"""Feature store: one fp16 array a picture, in memory-mapped shards, keyed by what made it.

    folder/manifest.json     format, key, shape of one item, and per shard its checksum and its pictures in order
    folder/shard-00000.npy   [pictures, P, D] or [pictures, D] float16

Files are whole (see `captioning.files`), a shard is there before the manifest that lists it: after a kill the store
holds every shard that was finished. Later shards win, so a changed picture is simply stored again.
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from captioning.data.annotations import Record
from captioning.errors import DataError
from captioning.files import clear_temporary, write_whole

FORMAT = 2
READABLE = (1, FORMAT)  # 1 had no checksums
SHARD_NAME = re.compile(r"shard-\d{5,}\.npy")
NOT_FINITE = np.uint16(0x7C00)  # the exponent of infinity and NaN in float16: all ones
SHARD_BYTES = 64 * 2**20
OPEN_SHARDS = 128  # each open memory map holds a file descriptor, of which a process may often have only 1024


class Stamp(NamedTuple):
    """Which version of a picture file was read: its name, size in bytes, time of change in ns and content's digest."""

    name: str
    size: int
    modified_ns: int
    digest: str


def stamp_picture(path: Path) -> Stamp:
    """The stamp of a picture file; OSError when it cannot be read."""
    status = path.stat()  # before the content, so that a change in between is seen at the next comparison
    digest = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    return Stamp(path.name, status.st_size, status.st_mtime_ns, digest)


class _Shard(NamedTuple):
    """checksum: 16 hex digits of the file's BLAKE2b; None in a store of format 1."""

    file: str
    size: int
    checksum: str | None
    pictures: list[tuple[int, Stamp]]


class Damage(NamedTuple):
    """A shard that is not what was written: its file, how many pictures' features are lost, and what is wrong."""

    file: Path
    pictures: int
    fault: str


class FeatureStore:
    """Features by image id: `store[image_id]` is a float16 array [P, D] or [D].

    Opens the store in `folder`, or an empty one that comes to be with its first shard. Shards that are absent or cut
    short are forgotten: their pictures count as missing. Copies in other processes (fork or spawn) open the shards
    on their own. One process at a time may write.

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
        self._shards: list[_Shard] = []
        self._index: dict[int, tuple[int, int]] = {}  # image id -> place of its shard in the list, row
        self._pending: list[tuple[int, Stamp, np.ndarray]] = []
        self._maps: dict[int, np.ndarray] = {}
        self._manifest_stale = False
        if os.path.exists(self._manifest):  # False too where the folder may not be looked into
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
        if place not in self._maps:
            if len(self._maps) >= OPEN_SHARDS:
                self._maps.pop(next(iter(self._maps)))  # the one opened first
            self._maps[place] = self._map(self._shards[place])
        features = np.array(self._maps[place][row])
        if (features.view(np.uint16) & NOT_FINITE == NOT_FINITE).any():
            raise self._damaged(self._shards[place], f"features of image {image_id} are not finite")
        return features

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}, "_pending": []}

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
            self.flush()

    def flush(self) -> None:
        """Writes what was appended as a shard; when this returns, it is on the disk."""
        if self._pending:
            self._write_shard()
        if self._manifest_stale:
            self._write_manifest()

    def verify(self) -> list[Damage]:
        """Reads every shard and holds it against its checksum; what is damaged is forgotten, here and on the disk.

        The pictures of a damaged shard count as missing from then on, and are encoded again by whoever asks for them.
        A shard of a store of format 1 gets its checksum now, if all of it can be read.
        """
        found = {shard.file: self._fault(shard) for shard in self._shards}
        damaged = [Damage(self.folder / s.file, len(s.pictures), found[s.file]) for s in self._shards if found[s.file]]
        shards, self._shards, self._index, self._maps = self._shards, [], {}, {}
        for shard in shards:
            if not found[shard.file]:
                self._add(shard._replace(checksum=shard.checksum or _checksum((self.folder / shard.file).read_bytes())))
        if self._shards != shards:
            self._write_manifest()
        return damaged

    def _fault(self, shard: _Shard) -> str:
        """What is wrong with a shard's file; "" for nothing."""
        try:
            content = (self.folder / shard.file).read_bytes()
        except OSError as error:
            return f"cannot be read ({error.strerror or error})"
        if shard.checksum is not None:
            return "" if _checksum(content) == shard.checksum else "is not what was written: its checksum differs"
        try:
            values = np.asarray(self._map(shard)).view(np.uint16)
        except DataError:
            return "is no shard of this store"
        return "holds features that are not finite" if (values & NOT_FINITE == NOT_FINITE).any() else ""

    def _map(self, shard: _Shard) -> np.ndarray:
        """The shard's array [pictures, …], memory-mapped."""
        try:
            array = np.load(self.folder / shard.file, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # NumPy parses a header's bytes as Python literals, and stumbles in many ways
            raise self._damaged(shard, "cannot be read") from error
        expected = (len(shard.pictures), *self.shape)
        if not isinstance(array, np.ndarray) or array.shape != expected or array.dtype != np.float16:
            raise self._damaged(shard, f"does not hold float16 numbers {list(expected)}")
        return array

    def _damaged(self, shard: _Shard, fault: str) -> DataError:
        return DataError(
            f"{self.folder / shard.file}: {fault}: run captioning-prepare verify=true with the same settings, which "
            "finds damaged shards, and then captioning-prepare again, which makes them anew"
        )

    @property
    def _manifest(self) -> Path:
        return self.folder / "manifest.json"

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
        self._manifest_stale = True
        return True

    def _write_shard(self) -> None:
        image_ids, stamps, features = zip(*self._pending, strict=True)
        taken = {shard.file for shard in self._shards}
        file = next(name for number in count() if (name := f"shard-{number:05d}.npy") not in taken)
        content = io.BytesIO()
        np.save(content, np.stack(features))
        self._make_folder()
        size = write_whole(self.folder / file, lambda handle: handle.write(content.getbuffer()))
        self._add(_Shard(file, size, _checksum(content.getbuffer()), list(zip(image_ids, stamps, strict=True))))
        self._pending, self._manifest_stale = [], True

    def _write_manifest(self) -> None:
        shards = [
            shard._asdict() | {"pictures": [[image, *stamp] for image, stamp in shard.pictures]}
            for shard in self._shards
        ]
        content = {"format": FORMAT, "key": self.key, "shape": self.shape, "dtype": "float16", "shards": shards}
        text = json.dumps(content).encode()
        write_whole(self._manifest, lambda handle: handle.write(text))
        self._manifest_stale = False

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.folder}: cannot be made: {error.strerror}: set features.root") from error
        clear_temporary(self.folder)

    def _open(self) -> None:
        try:
            content = json.loads(self._manifest.read_bytes())
            self._refuse_others(content["format"], content["key"])
            self.shape = _shape(content["shape"])
            shards = [_shard(entry) for entry in content["shards"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{self._manifest}: not a feature store's manifest: remove the folder and run captioning-prepare again"
            ) from error
        for shard in shards:
            file = self.folder / shard.file
            if file.is_file() and file.stat().st_size == shard.size:
                self._add(shard)

    def _refuse_others(self, stored_format: int, key: dict[str, Any]) -> None:
        ours = FORMAT if stored_format not in READABLE else stored_format
        difference = _first_difference({"format": stored_format, "key": key}, {"format": ours, "key": self.key})
        if difference:
            raise DataError(
                f"{self.folder}: this feature store was made otherwise: {difference}. Set that back, or remove the "
                "folder and run captioning-prepare again"
            )

    def _add(self, shard: _Shard) -> None:
        place = len(self._shards)
        self._shards.append(shard)
        self._index.update((image, (place, row)) for row, (image, _) in enumerate(shard.pictures))


def store_folder(root: str | Path, name: str, key: Mapping[str, Any]) -> Path:
    """Where the features of data set `name` by the encoder key["name"] lie: root/<name>-<encoder>-<8 hex of key>."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]
    return Path(root) / re.sub(r"[^\w.-]", "_", f"{name}-{key['name']}-{digest}")


def _shape(sizes: Any) -> tuple[int, ...]:
    """A manifest's shape of one item, which may be any list in a damaged one."""
    if not all(type(size) is int and size > 0 for size in sizes) or len(sizes) not in (1, 2):
        raise ValueError("not a shape")
    return tuple(sizes)


def _shard(entry: dict[str, Any]) -> _Shard:
    """A manifest's entry. The file lies in the store's own folder, whatever the manifest says."""
    pictures = [(image, Stamp(*stamp)) for image, *stamp in entry["pictures"]]
    shard = _Shard(entry["file"], entry["size"], entry.get("checksum"), pictures)
    kinds = [(shard.file, str), (shard.size, int), *((image, int) for image, _ in pictures)]
    if not all(type(value) is kind for value, kind in kinds) or not SHARD_NAME.fullmatch(shard.file):
        raise ValueError("not a shard")
    return shard


def _checksum(content) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _first_difference(stored: Any, wanted: Any, name: str = "") -> str | None:
    """Names the first field in which two plain structures differ, and both its values; None when they are equal."""
    if stored == wanted:
        return None
    if not (isinstance(stored, dict) and isinstance(wanted, dict)):
        return f"{name} is {stored!r} there, {wanted!r} here"
    for field in dict.fromkeys([*stored, *wanted]):
        nested = f"{name}.{field}" if name else field
        difference = _first_difference(stored.get(field), wanted.get(field), nested)
        if difference:
            return difference
    return None
