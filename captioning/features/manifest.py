"""Read and write a feature store's manifest of shards, and the journal of shards that are not in it yet.

    folder/manifest.json    format, key, shape of one image's features; size, checksum and images of each shard
    folder/journal.jsonl    one further shard per line; deleted as soon as the manifest lists these shards too

The journal exists because rewriting the manifest after each shard would take time quadratic in their number.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from captioning.errors import DataError
from captioning.io import append_line, write_whole

MANIFEST_FORMAT = 2
READABLE = (1, MANIFEST_FORMAT)  # format 1 had no checksums
SHARD_NAME = re.compile(r"shard-\d{5,}\.npy")
BROKEN = (ValueError, KeyError, TypeError, RecursionError)  # raised for damaged entries


class Stamp(NamedTuple):
    """Identity of an image file when it was read.

    Attributes:
        name: file name.
        size: size in bytes.
        modified_ns: time of the last change, in nanoseconds.
        digest: hash of the content.
    """

    name: str
    size: int
    modified_ns: int
    digest: str


class Shard(NamedTuple):
    """One file of features.

    Attributes:
        file: file name, such as shard-00000.npy.
        size: size in bytes.
        checksum: 16 hexadecimal digits of the file's BLAKE2b hash; None in a store of format 1.
        pictures: (image id, stamp of the image file) for each row.
    """

    file: str
    size: int
    checksum: str | None
    pictures: list[tuple[int, Stamp]]


def manifest_of(folder: Path) -> Path:
    """Return the path of a store's manifest; a folder is a store if this file exists."""
    return folder / "manifest.json"


def journal_of(folder: Path) -> Path:
    """Return the path of a store's journal; the file is missing if the manifest lists all shards."""
    return folder / "journal.jsonl"


def read_manifest(folder: Path, key: dict[str, Any]) -> tuple[tuple[int, ...], list[Shard]]:
    """Read the manifest and the journal of a store.

    Args:
        folder: the store's folder.
        key: the expected key.

    Returns:
        The shape of one image's features, and all shards, the latest last.

    Raises:
        DataError: the store has another key or format, or no readable manifest.
    """
    path = manifest_of(folder)
    try:
        content = json.loads(path.read_bytes())
        _refuse_others(folder, {"format": content["format"], "key": content["key"]}, key)
        shape, shards = _shape(content["shape"]), [_shard(entry) for entry in content["shards"]]
        # After a kill before the journal was deleted, a shard may be listed in both files.
        return shape, list({shard.file: shard for shard in (*shards, *_journal(folder))}.values())
    except (OSError, *BROKEN) as error:
        raise DataError(
            f"{path}: cannot be read as the manifest of a feature store: delete the folder {folder}, and run "
            "captioning-prepare again"
        ) from error


def write_manifest(folder: Path, key: dict[str, Any], shape: Sequence[int] | None, shards: Iterable[Shard]) -> None:
    """Write a manifest that lists exactly these shards, and delete the journal."""
    head = json.dumps({"format": MANIFEST_FORMAT, "key": key, "shape": shape, "dtype": "float16"})

    # Shard by shard: for millions of images, the text of the complete manifest would take a gigabyte of memory.
    def pour(file: BinaryIO) -> None:
        file.write(f'{head[:-1]}, "shards": ['.encode())
        for number, shard in enumerate(shards):
            file.write((", " if number else "").encode() + _entry(shard))
        file.write(b"]}")

    write_whole(manifest_of(folder), pour)
    journal_of(folder).unlink(missing_ok=True)


def add_shard(folder: Path, shard: Shard) -> None:
    """Append a shard to the journal."""
    append_line(journal_of(folder), _entry(shard))


def _journal(folder: Path) -> list[Shard]:
    """Read the shards of the journal, up to an incomplete line: there its writer was killed."""
    path = journal_of(folder)
    shards: list[Shard] = []
    for line in path.read_bytes().split(b"\n")[:-1] if path.is_file() else ():
        try:
            shards.append(_shard(json.loads(line)))
        except BROKEN:
            break
    return shards


def _entry(shard: Shard) -> bytes:
    content = shard._asdict() | {"pictures": [[image, *stamp] for image, stamp in shard.pictures]}
    return json.dumps(content).encode()


def _shard(entry: dict[str, Any]) -> Shard:
    """Check and return a shard's entry. The file name may not lead out of the store's folder."""
    pictures = [(image, Stamp(*stamp)) for image, *stamp in entry["pictures"]]
    shard = Shard(entry["file"], entry["size"], entry.get("checksum"), pictures)
    kinds = [(shard.file, str), (shard.size, int), *((image, int) for image, _ in pictures)]
    if not all(type(value) is kind for value, kind in kinds) or not SHARD_NAME.fullmatch(shard.file):
        raise ValueError("not a shard")
    return shard


def _shape(sizes: Any) -> tuple[int, ...]:
    """Check and return the shape of one image's features; a damaged manifest may have anything here."""
    if not all(type(size) is int and size > 0 for size in sizes) or len(sizes) not in (1, 2, 3):
        raise ValueError("not a shape")
    return tuple(sizes)


def _refuse_others(folder: Path, stored: dict[str, Any], key: dict[str, Any]) -> None:
    ours = MANIFEST_FORMAT if stored["format"] not in READABLE else stored["format"]
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
