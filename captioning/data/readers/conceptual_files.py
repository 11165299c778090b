"""Find the image file of each row of Conceptual Captions, whatever program downloaded it.

| `names` | File of the row with number n and web address u | Written by |
|---|---|---|
| index | n, with or without leading zeros: 000012345.jpg | img2dataset (`00001/000012345.jpg`), and many scripts |
| index_crc32 | n_CRC: 12345_3029384756 | igorbrigadir/DownloadConceptualCaptions, LAVIS |
| crc32 | CRC of u | jiasenlu/vilbert_beta |
| md5 | MD5 of u, hexadecimal | many scripts |
| column | named in a further column of the table | your own script |

Sources: `FilesSampleWriter` of img2dataset 1.45, and `_file_name` of the two downloaders. CRC and MD5 prove that a file
belongs to its row. A number does not: a script may count from 0 or from 1.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from captioning.data import SUFFIXES, Disk, Places, holds_image
from captioning.errors import DataError

_KEYS: dict[str, Callable[[int, str], str]] = {
    "index_crc32": lambda number, url: f"{number}_{zlib.crc32(url.encode()) & 0xFFFFFFFF}",
    "crc32": lambda _, url: str(zlib.crc32(url.encode()) & 0xFFFFFFFF),
    "md5": lambda _, url: hashlib.md5(url.encode(), usedforsecurity=False).hexdigest(),
}
NAMES = ("auto", "index", *_KEYS, "column")
_COMPARED = 200  # files of img2dataset whose stored address is compared with the row's


class Row(NamedTuple):
    """A row of a table: its number, counted from 0, and its cells. `image` is None without a column of file names."""

    number: int
    caption: str
    url: str
    image: str | None


def files_of_rows(
    table: Path, rows: Sequence[Row], folder: Path, *, names: str, first: int | None
) -> list[Path | None]:
    """Return the image file of each row; None if there is none.

    Args:
        table: the table, for error messages.
        rows: its rows.
        folder: the folder of its images, with or without subfolders.
        names: one of `NAMES`.
        first: number of the first row in names of the kind "index"; None: found out.

    Raises:
        DataError: the kind of names cannot be found out, or files do not belong to their rows.
    """
    if names == "column" or (names == "auto" and rows and rows[0].image is not None):
        return _named(table, rows, folder)
    files = _images_below(folder)
    kinds = [kind for kind in _KEYS if kind == names or (names == "auto" and _any(rows, kind, files))]
    if len(kinds) > 1:
        raise DataError(f"{folder} has files named in several ways: choose data.reader.names={'|'.join(kinds)}")
    if kinds:
        return _existing([files.get(_KEYS[kinds[0]](row.number, row.url)) for row in rows])
    numbered = _numbered(folder, files)
    if not numbered:
        kept = ", ".join(sorted(files)[:2]) or "no images"
        raise DataError(
            f"{folder} has no image that belongs to a row of {table.name} ({kept}): name the files by row number or by "
            "MD5 of the address, or add a column `file` to the table"
        )
    start = _first(table, numbered, len(rows)) if first is None else first
    _refuse_beyond(table, numbered, start, len(rows))
    found = [numbered.get(row.number + start) for row in rows]
    _compare(table, rows, found)
    return _existing(found)


def _named(table: Path, rows: Sequence[Row], folder: Path) -> list[Path | None]:
    """Return the files that a column names; an empty cell is a row without an image."""
    if rows and rows[0].image is None:
        raise DataError(f"{table} has no column of file names: add a first line such as caption, url, file")
    disk = Disk()
    places = Places(folder, [row.image for row in rows if row.image], disk)
    found: list[Path | None] = []
    for row in rows:
        path = places.path(row.image, f"{table}, row {row.number}") if row.image else None
        found.append(path if path and disk.has(path) else None)
    return _existing(found)


def _existing(found: Sequence[Path | None]) -> list[Path | None]:
    """Replace files that are not images by None. A file with an image's suffix is meant to be one."""
    return [path if path and (path.suffix.lower() in SUFFIXES or holds_image(path)) else None for path in found]


def _any(rows: Sequence[Row], kind: str, files: dict[str, Path]) -> bool:
    return any(_KEYS[kind](row.number, row.url) in files for row in rows)


def _images_below(folder: Path) -> dict[str, Path]:
    """Return {name without suffix: file} of all files below a folder with an image's suffix or none.

    Raises:
        DataError: two files have the same name.
    """
    found: dict[str, Path] = {}
    for base, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if not name.startswith(".") and (suffix.lower() in SUFFIXES or not suffix):
                path = Path(base, name)
                if found.setdefault(stem, path) != path:
                    raise DataError(f"{found[stem]} and {path} have the same name: keep one of them")
    return found


def _numbered(folder: Path, files: dict[str, Path]) -> dict[int, Path]:
    """Return {number: file} of the files whose name is a number.

    Raises:
        DataError: two names are the same number.
    """
    found: dict[int, Path] = {}
    for stem, path in files.items():
        if stem.isascii() and stem.isdecimal() and found.setdefault(int(stem), path) != path:
            raise DataError(f"{folder}: {found[int(stem)].name} and {path.name} are the same number: keep one of them")
    return found


def _first(table: Path, numbered: dict[int, Path], count: int) -> int:
    """Return whether the names count from 0 or from 1, if that is certain."""
    if 0 in numbered:
        return 0
    if count in numbered:
        return 1
    compared = [path.with_suffix(".json") for path in numbered.values()]
    if any(path.is_file() for path in compared[:_COMPARED]):
        return 0  # img2dataset, which stores the address beside the image; it is compared with the row's
    raise DataError(
        f"{table}: it is not certain whether the names of the images count the rows from 0 or from 1, because images "
        "of the first and last rows are missing: set data.reader.first=0 or data.reader.first=1"
    )


def _refuse_beyond(table: Path, numbered: dict[int, Path], start: int, count: int) -> None:
    """Refuse images with numbers beyond the table's rows: they may be of another table."""
    if max(numbered) >= start + count:
        raise DataError(
            f"{numbered[max(numbered)]}: {table.name} has only {count} rows, counted from {start}: check that "
            "these images are of this table, and data.reader.first"
        )


def _compare(table: Path, rows: Sequence[Row], found: Sequence[Path | None]) -> None:
    """Compare the addresses that img2dataset has stored beside images with those of the rows.

    Raises:
        DataError: one differs.
    """
    stored = [(row, path.with_suffix(".json")) for row, path in zip(rows, found, strict=True) if path]
    for row, file in stored[:_COMPARED]:
        try:
            url = json.loads(file.read_bytes())["url"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if url != row.url:
            raise DataError(
                f"{file}: its image is not of row {row.number} of {table.name}, which has another address: check "
                "data.reader.first and that these images are of this table"
            )
