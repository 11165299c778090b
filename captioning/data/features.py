"""Feature store: one fp16 array a picture, in memory-mapped shards, keyed by what made it.

    folder/manifest.json     format, key, shape of one item, and per shard its pictures in order
    folder/shard-00000.npy   [pictures, P, D] or [pictures, D] float16

Files are written under a temporary name, flushed to the disk and renamed, a shard before the manifest that lists it:
after a kill the store holds every shard that was finished. Later shards win, so a changed picture is simply stored
again.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from captioning.data.annotations import Record
from captioning.errors import DataError

FORMAT = 1
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
    file: str
    size: int
    pictures: list[tuple[int, Stamp]]


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
        if self._manifest.exists():
            self._open()

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._index

    def __getitem__(self, image_id: int) -> np.ndarray:
        """A copy of one picture's features; KeyError when they are not stored (yet)."""
        place, row = self._index[image_id]
        if place not in self._maps:
            if len(self._maps) >= OPEN_SHARDS:
                self._maps.pop(next(iter(self._maps)))  # the one opened first
            self._maps[place] = np.load(self.folder / self._shards[place].file, mmap_mode="r")
        return np.array(self._maps[place][row])

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
        size = _replace(self.folder / file, lambda handle: np.save(handle, np.stack(features)))
        self._add(_Shard(file, size, list(zip(image_ids, stamps, strict=True))))
        self._pending, self._manifest_stale = [], True

    def _write_manifest(self) -> None:
        shards = [
            {"file": shard.file, "size": shard.size, "pictures": [[image, *stamp] for image, stamp in shard.pictures]}
            for shard in self._shards
        ]
        content = {"format": FORMAT, "key": self.key, "shape": self.shape, "dtype": "float16", "shards": shards}
        text = json.dumps(content).encode()
        _replace(self._manifest, lambda handle: handle.write(text))
        self._manifest_stale = False

    def _open(self) -> None:
        try:
            content = json.loads(self._manifest.read_text(encoding="utf-8"))
            self._refuse_others({"format": content["format"], "key": content["key"]})
            self.shape = tuple(content["shape"])
            for shard in content["shards"]:
                pictures = [(image, Stamp(*stamp)) for image, *stamp in shard["pictures"]]
                file = self.folder / shard["file"]
                if file.exists() and file.stat().st_size == shard["size"]:
                    self._add(_Shard(shard["file"], shard["size"], pictures))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self._manifest}: not a feature store's manifest: remove the folder and run captioning-prepare again"
            ) from error

    def _refuse_others(self, made_by: dict[str, Any]) -> None:
        difference = _first_difference(made_by, {"format": FORMAT, "key": self.key})
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


def _replace(path: Path, write: Callable[[BinaryIO], Any]) -> int:
    """Replaces a file in one step by what `write` puts into it; returns its size in bytes.

    The temporary name is always the same, so that what a kill left behind is overwritten, not piled up.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as handle:
            write(handle)
            handle.flush()
            os.fsync(handle.fileno())
            size = handle.tell()
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):  # its folder may be what is wrong
            partial.unlink()
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
    return size


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
