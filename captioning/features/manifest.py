"""Read and write a feature store's manifest of shards and the index of its images.

    folder/manifest.json      format, key, shape of one image's features; size and checksum of all other files
    folder/index-00001.npy    ids, locations and stamps of all images, sorted by id (see `captioning.features.index`)

A new index gets a new name, and the manifest is replaced after it. The index before it is kept for processes that still
have it open on another machine. Manifests of formats 1 and 2 have the images in the JSON itself, and a single journal;
they are read, and the next change writes format 3.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from captioning.errors import DataError
from captioning.features.index import (
    CHECKED_AT_ONCE,
    Index,
    Stamp,
    check_index,
    entries_of,
    index_of,
    map_columns,
    writer_of,
)
from captioning.features.journals import BROKEN, SHARD_NAME, Shard, delete_file, read_shape, read_shard
from captioning.io import clear_temporary, write_whole

MANIFEST_FORMAT = 3
OLD_FORMATS = (1, 2)  # format 1 had no checksums
INDEX_NAME = re.compile(r"index-\d{5,}\.npy", re.ASCII)
TRIES = 10  # how often a manifest is read again whose index another process has just replaced


class Manifest(NamedTuple):
    """What a manifest lists.

    Attributes:
        shape: shape of one image's features; None before the first shard.
        shards: all shards. For an image in several, the last one counts.
        images: the images.
        following: number of the next shard; all lower numbers have been used. Journals list newer shards only.
        version: number of the index, which grows by 1 with each change.
        format: the format of the file.
    """

    shape: tuple[int, ...] | None
    shards: list[Shard]
    images: Index
    following: int
    version: int
    format: int = MANIFEST_FORMAT


def manifest_of(folder: Path) -> Path:
    """Return the path of a store's manifest; a folder is a store if this file exists."""
    return folder / "manifest.json"


def read_manifest(folder: Path, key: dict[str, Any]) -> Manifest:
    """Read the manifest and open the index of a store.

    Args:
        folder: the store's folder.
        key: the expected key.

    Raises:
        DataError: the store has another key or format, or no readable manifest or index.
    """
    path = manifest_of(folder)
    for tries_left in reversed(range(TRIES)):
        try:
            # Before the manifest, so that its lines are in one of the two if a process converts the store meanwhile.
            old_lines = _old_lines(folder)
            content = json.loads(path.read_bytes())
            _refuse_others(folder, {"format": content["format"], "key": content["key"]}, key)
            if content["format"] in OLD_FORMATS:
                return _old(content, old_lines)
            return _current(folder, content)
        except FileNotFoundError as error:
            if not tries_left:
                raise _unreadable(folder) from error
        except (OSError, *BROKEN) as error:
            raise _unreadable(folder) from error
    raise AssertionError("the loop returns or raises")


def write_manifest(folder: Path, key: dict[str, Any], listed: Manifest, columns: Any) -> Manifest:
    """Write a manifest and its index, and return it with the index as it was written.

    The caller must have claimed all ids. Files that are not needed any more are deleted: journals, older indices, and
    shards that no list has, because their writer was killed.

    Args:
        folder: the store's folder.
        key: the store's key.
        listed: what to write; its index and version are those before.
        columns: the index's columns, in order.

    Raises:
        ConfigError: a file cannot be written. The store is unchanged.
        DataError: a file that is not needed any more cannot be deleted. The store is written.
    """
    version, digest = listed.version + 1, hashlib.blake2b(digest_size=8)
    file = folder / f"index-{version:05d}.npy"
    size = write_whole(file, writer_of(columns, digest))
    content = {"format": MANIFEST_FORMAT, "key": key, "shape": listed.shape, "dtype": "float16"}
    content |= {"following": listed.following, "version": version}
    content |= {"index": {"file": file.name, "size": size, "checksum": digest.hexdigest()}}
    content["shards"] = [shard._asdict() for shard in listed.shards]
    text = json.dumps(content).encode()
    write_whole(manifest_of(folder), lambda handle: handle.write(text))
    _clean(folder, {shard.file for shard in listed.shards}, version)
    return listed._replace(images=Index(map_columns(file), file), version=version, format=MANIFEST_FORMAT)


def shard_numbers(folder: Path) -> list[int]:
    """Return the numbers of all files that are named like a shard."""
    return [int(found[1]) for path in folder.iterdir() if (found := SHARD_NAME.fullmatch(path.name))]


def _clean(folder: Path, shards: set[str], version: int) -> None:
    delete_file(folder / "journal.jsonl")
    kept = {f"index-{version - 1:05d}.npy", f"index-{version:05d}.npy"}
    for path in folder.iterdir():
        lost = SHARD_NAME.fullmatch(path.name) and path.name not in shards
        if lost or (INDEX_NAME.fullmatch(path.name) and path.name not in kept):
            delete_file(path)
    with suppress(OSError):  # another user's, perhaps; they only take space
        clear_temporary(folder)


def _current(folder: Path, content: dict[str, Any]) -> Manifest:
    following, version, entry = content["following"], content["version"], content["index"]
    if not all(type(number) is int and number >= 0 for number in (following, version)):
        raise ValueError("not a manifest")
    if not INDEX_NAME.fullmatch(entry["file"]):
        raise ValueError("not an index")
    shape = None if content["shape"] is None else read_shape(content["shape"])
    shards = [read_shard(each, each["images"]) for each in content["shards"]]
    file = folder / entry["file"]
    if _checksum(file) != entry["checksum"]:
        raise ValueError("a damaged index")
    index = Index(map_columns(file), file)
    check_index(index, [shard.images for shard in shards])
    if shape is None and shards:
        raise ValueError("shards without a shape")
    return Manifest(shape, shards, index, following, version)


def _checksum(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=8)
    with file.open("rb") as handle:
        while block := handle.read(CHECKED_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()


def _old_lines(folder: Path) -> list[bytes]:
    """Return the complete lines of the journal of a store of format 1 or 2."""
    try:
        return (folder / "journal.jsonl").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []


def _old(content: dict[str, Any], lines: Sequence[bytes]) -> Manifest:
    """Read a manifest of format 1 or 2 and its journal, up to an incomplete line."""
    shards = [_old_shard(entry) for entry in content["shards"]]
    for line in lines:
        try:
            shards.append(_old_shard(json.loads(line)))
        except BROKEN:
            break
    # After a kill before the journal was deleted, a shard may be listed in both.
    found = list({shard.file: (shard, entries) for shard, entries in shards}.values())
    index = index_of([(number, entries) for number, (_, entries) in enumerate(found)])
    listed = [shard for shard, _ in found]
    following = max((shard.number + 1 for shard in listed), default=0)
    return Manifest(read_shape(content["shape"]), listed, index, following, 0, content["format"])


def _old_shard(entry: dict[str, Any]) -> tuple[Shard, np.ndarray]:
    images = [(image, Stamp(*stamp)) for image, *stamp in entry["pictures"]]
    if not all(type(number) is int for image, stamp in images for number in (image, stamp.size, stamp.modified_ns)):
        raise ValueError("not a shard")
    return read_shard(entry, len(images)), entries_of(images)


def _unreadable(folder: Path) -> DataError:
    return DataError(
        f"{manifest_of(folder)}: cannot be read as the manifest of a feature store: delete the folder {folder}, and "
        "run captioning-prepare again"
    )


def _refuse_others(folder: Path, stored: dict[str, Any], key: dict[str, Any]) -> None:
    ours = stored["format"] if stored["format"] in (*OLD_FORMATS, MANIFEST_FORMAT) else MANIFEST_FORMAT
    difference = _first_difference(stored, {"format": ours, "key": key})
    if difference:
        raise DataError(
            f"{folder}: this feature store was made with other settings: {difference}. Restore that setting, or delete "
            "the folder and run captioning-prepare again"
        )


def _first_difference(stored: Any, wanted: Any, name: str = "") -> str | None:
    """Name the first field in which two plain structures differ, with both values; None if they are equal."""
    if stored == wanted:
        return None
    if not (isinstance(stored, dict) and isinstance(wanted, dict)):
        return f"{name} is {json.dumps(stored)} in the store, {json.dumps(wanted)} in this run"
    for field in dict.fromkeys([*stored, *wanted]):
        nested = f"{name}.{field}" if name else field
        difference = _first_difference(stored.get(field), wanted.get(field), nested)
        if difference:
            return difference
    return None
