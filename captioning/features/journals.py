"""Record the shards that a store's manifest does not list yet: one journal per writing process.

    folder/journals/HASH.jsonl    one further shard per line, with the ids and stamps of its images

A journal exists because writing the manifest after each shard would take time quadratic in their number, and each
process has its own because two cannot safely add lines to one file on a network disk.
"""

import base64
import json
import os
import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from captioning.errors import ConfigError, DataError
from captioning.io import append_line

BROKEN = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)  # of damaged entries
SHARD_NAME = re.compile(r"shard-(\d{5,})\.npy", re.ASCII)


class Shard(NamedTuple):
    """One file of features.

    Attributes:
        file: file name, such as shard-00000.npy.
        size: size in bytes.
        checksum: 16 hexadecimal digits of the file's BLAKE2b hash; None in a store of format 1.
        images: number of rows.
    """

    file: str
    size: int
    checksum: str | None
    images: int

    @property
    def number(self) -> int:
        """The number in the file name. A store never uses a number twice."""
        return int(self.file[len("shard-") : -len(".npy")])


class Addition(NamedTuple):
    """A shard that the manifest may not list yet.

    Attributes:
        shard: the shard.
        shape: shape of one image's features.
        entries: int64 [5, rows], see `captioning.features.index.entries_of`.
    """

    shard: Shard
    shape: tuple[int, ...]
    entries: np.ndarray


def read_shard(entry: dict[str, Any], images: int) -> Shard:
    """Check and return a shard's entry. The file name may not lead out of the store's folder.

    Raises:
        ValueError: the entry is damaged, or one of BROKEN.
    """
    shard = Shard(entry["file"], entry["size"], entry.get("checksum"), images)
    kinds = [(shard.file, str), (shard.size, int), (shard.images, int)]
    if not all(type(value) is kind for value, kind in kinds) or not SHARD_NAME.fullmatch(shard.file):
        raise ValueError("not a shard")
    if shard.images < 0 or len(shard.file) > 30:
        raise ValueError("not a shard")
    return shard


def read_shape(sizes: Any) -> tuple[int, ...]:
    """Check and return the shape of one image's features; a damaged file may have anything here.

    Raises:
        ValueError: it is not a shape, or one of BROKEN.
    """
    if not all(type(size) is int and size > 0 for size in sizes) or len(sizes) not in (1, 2, 3):
        raise ValueError("not a shape")
    return tuple(sizes)


class Journals:
    """The journals of a store, read line by line as they grow.

    Args:
        folder: the store's folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder / "journals"
        self._read: dict[str, int] = {}  # file name -> bytes that were read
        self._broken: set[str] = set()

    def __bool__(self) -> bool:
        """Return whether a journal was found so far."""
        return bool(self._read)

    def news(self) -> list[Addition]:
        """Return the shards that were added since the last call, in the order of their numbers.

        A journal is read up to an incomplete or damaged line: there its writer was killed, or is still writing.

        Raises:
            DataError: a journal cannot be read.
        """
        found: list[Addition] = []
        for name, size in self._files():
            start = self._read.setdefault(name, 0)
            if size <= start or name in self._broken:
                continue
            try:
                with open(self.folder / name, "rb") as file:
                    file.seek(start)
                    content = file.read()
            except FileNotFoundError:  # a manifest lists its shards by now
                continue
            except OSError as error:
                raise _unread(self.folder / name, error) from error
            lines = content.split(b"\n")[:-1]
            for line in lines:
                try:
                    found.append(_addition(line))
                except BROKEN:
                    self._broken.add(name)
                    break
            self._read[name] = start + sum(len(line) + 1 for line in lines)
        return sorted(found, key=lambda addition: addition.shard.number)

    def delete(self) -> None:
        """Delete all journals; their shards must be in the manifest.

        Raises:
            DataError: a journal cannot be deleted.
        """
        for name, _ in self._files():
            delete_file(self.folder / name)
        with suppress(OSError):  # missing, or with hidden files of a network disk
            self.folder.rmdir()

    def _files(self) -> list[tuple[str, int]]:
        try:
            with os.scandir(self.folder) as there:
                return [(entry.name, entry.stat().st_size) for entry in there if entry.name.endswith(".jsonl")]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unread(self.folder, error) from error


class Journal:
    """The journal of this process. After a failed line it continues in another file, because readers stop there.

    Args:
        folder: the store's folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder / "journals"
        self._path: Path | None = None

    def add(self, shard: Shard, shape: Sequence[int], entries: np.ndarray) -> None:
        """Add a shard; it is on the disk when this returns.

        Raises:
            ConfigError: the file cannot be written.
        """
        path, self._path = self._path, None
        content = shard._asdict() | {"shape": shape, "entries": base64.b64encode(entries.astype("<i8").tobytes())}
        line = json.dumps(content, default=bytes.decode).encode()
        if path is None or not path.exists():  # another process may have put its lines into the manifest
            try:
                self.folder.mkdir(exist_ok=True)
            except OSError as error:
                raise ConfigError(
                    f"cannot create the folder '{self.folder}' ({error.strerror or error}): check the free space and "
                    "the permissions of the folder that it is in"
                ) from error
            path = self.folder / f"{uuid.uuid4().hex}.jsonl"
        append_line(path, line)
        self._path = path


def delete_file(path: Path) -> None:
    """Delete a file of a store, if it is there.

    Raises:
        DataError: it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot delete {path} ({error.strerror or error}): change the permissions of its folder, and run "
            "captioning-prepare again"
        ) from error


def _unread(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path}: cannot be read ({error.strerror or error}): change its permissions, so that all users of this "
        "feature store may read it"
    )


def _addition(line: bytes) -> Addition:
    content = json.loads(line)
    shard = read_shard(content, content["images"])
    entries = np.frombuffer(base64.b64decode(content["entries"], validate=True), "<i8").reshape(5, shard.images)
    return Addition(shard, read_shape(content["shape"]), entries.astype(np.int64))
