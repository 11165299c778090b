"""Read and write the manifest of a feature store's shards, and the journal of shards that are not in it yet.

    folder/manifest.json    format, key, shape of one item, and per shard its size, checksum and pictures in order
    folder/journal.jsonl    one such shard a line; gone as soon as the manifest lists it too

A manifest written anew after every shard would cost the square of their number.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from captioning.errors import DataError
from captioning.io import append_line, write_whole

MANIFEST_FORMAT = 2
READABLE = (1, MANIFEST_FORMAT)  # 1 had no checksums
SHARD_NAME = re.compile(r"shard-\d{5,}\.npy")
BROKEN = (ValueError, KeyError, TypeError, RecursionError)  # what reading an entry may raise, whatever it is


class Stamp(NamedTuple):
    """Which version of a picture file was read: its name, size in bytes, time of change in ns and content's digest."""

    name: str
    size: int
    modified_ns: int
    digest: str


class Shard(NamedTuple):
    """checksum: 16 hex digits of the file's BLAKE2b; None in a store of format 1."""

    file: str
    size: int
    checksum: str | None
    pictures: list[tuple[int, Stamp]]


def manifest_of(folder: Path) -> Path:
    """The file that makes a folder a store."""
    return folder / "manifest.json"


def journal_of(folder: Path) -> Path:
    """Where shards are listed one by one; absent where the manifest has them all."""
    return folder / "journal.jsonl"


def read_manifest(folder: Path, key: dict[str, Any]) -> tuple[tuple[int, ...] | None, list[Shard]]:
    """Shape of one item, and all shards that are listed, later ones last.

    Raises:
        DataError: a store of another key or format, or no manifest at all.
    """
    path = manifest_of(folder)
    try:
        content = json.loads(path.read_bytes())
        _refuse_others(folder, {"format": content["format"], "key": content["key"]}, key)
        shape, shards = _shape(content["shape"]), [_shard(entry) for entry in content["shards"]]
        # A kill may have come before the journal was removed; then a file stands in both.
        return shape, list({shard.file: shard for shard in (*shards, *_journal(folder))}.values())
    except (OSError, *BROKEN) as error:
        raise DataError(
            f"{path}: not a feature store's manifest: remove the folder and run captioning-prepare again"
        ) from error


def write_manifest(folder: Path, key: dict[str, Any], shape: Sequence[int] | None, shards: Iterable[Shard]) -> None:
    """Lists these shards and no others."""
    head = json.dumps({"format": MANIFEST_FORMAT, "key": key, "shape": shape, "dtype": "float16"})

    def pour(
        file: BinaryIO,
    ) -> None:  # shard by shard: a text of the whole would be a gigabyte for millions of pictures
        file.write(f'{head[:-1]}, "shards": ['.encode())
        for number, shard in enumerate(shards):
            file.write((", " if number else "").encode() + _entry(shard))
        file.write(b"]}")

    write_whole(manifest_of(folder), pour)
    journal_of(folder).unlink(missing_ok=True)


def add_shard(folder: Path, shard: Shard) -> None:
    """Lists a further shard, in the journal."""
    append_line(journal_of(folder), _entry(shard))


def _journal(folder: Path) -> list[Shard]:
    """The shards of the journal, up to a line that is not whole: the one at which its writer was killed."""
    path, shards = journal_of(folder), []
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
    """A shard's entry. The file lies in the store's own folder, whatever the entry says."""
    pictures = [(image, Stamp(*stamp)) for image, *stamp in entry["pictures"]]
    shard = Shard(entry["file"], entry["size"], entry.get("checksum"), pictures)
    kinds = [(shard.file, str), (shard.size, int), *((image, int) for image, _ in pictures)]
    if not all(type(value) is kind for value, kind in kinds) or not SHARD_NAME.fullmatch(shard.file):
        raise ValueError("not a shard")
    return shard


def _shape(sizes: Any) -> tuple[int, ...]:
    """A manifest's shape of one item, which may be any list in a damaged one."""
    if not all(type(size) is int and size > 0 for size in sizes) or len(sizes) not in (1, 2):
        raise ValueError("not a shape")
    return tuple(sizes)


def _refuse_others(folder: Path, stored: dict[str, Any], key: dict[str, Any]) -> None:
    ours = MANIFEST_FORMAT if stored["format"] not in READABLE else stored["format"]
    difference = _first_difference(stored, {"format": ours, "key": key})
    if difference:
        raise DataError(
            f"{folder}: this feature store was made otherwise: {difference}. Set that back, or remove the "
            "folder and run captioning-prepare again"
        )


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
