"""Read the tables of Conceptual Captions (CC3M, CC12M): a caption and a web address per row, and the downloaded images.

The tables are those of Sharma et al. 2018 and Changpinyo et al. 2021 (ai.google.com/research/ConceptualCaptions). Many
of their addresses no longer work, so most copies lack images, and a row does not name its file. Its name follows from
the program that downloaded it; see `captioning.data.readers.conceptual_files`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from captioning.data import SPLITS, STRICT, Disk, Handling, Record, note
from captioning.data.readers.checks import CaptionFile, checked
from captioning.data.readers.conceptual_files import NAMES, Row, files_of_rows
from captioning.data.readers.lines import text_lines
from captioning.errors import ConfigError, DataError
from captioning.io import counted

_HEADS = {"caption": "caption", "text": "caption", "url": "url", "image_url": "url"}
_IMAGE_HEADS = ("image", "file", "file_name", "filename", "path", "key")


class _Columns(NamedTuple):
    """The indices of the columns of a table; `image` is None if no column names the files."""

    caption: int
    url: int
    image: int | None
    start: int  # the first line with a row: 1 after a line with the columns' names


def read_conceptual(
    root: str | Path,
    *,
    files: Mapping[str, str | None],
    images: Mapping[str, str | Sequence[str]],
    names: str = "auto",
    first: int | None = None,
    faults: Handling = STRICT,
) -> list[Record]:
    """Read tables of caption and web address, separated by a tab, and the images among them that are on disk.

    Rows without a local image are left out, and their number is printed. Files that are not images, such as the error
    pages that servers send instead, count as missing. Image ids are the numbers of the rows, over all tables.

    Args:
        root: folder of the data set.
        files: split -> its table, relative to root. A split is read if both its table and its image folder exist.
        images: split -> names of its image folder, relative to root; the first one that exists is used.
        names: how the image files are named; "auto" finds it out, see `conceptual_files`.
        first: number of the first row in the files' names, 0 or 1; None: found out.
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        ConfigError: `names` or `first` has another value, or a split is unknown.
        DataError: no table has images, a table is inconsistent, or the files' names do not fit its rows.
    """
    if names not in NAMES:
        raise ConfigError(f"data.reader.names must be one of {', '.join(NAMES)}, not {names!r}")
    if first not in (None, 0, 1):
        raise ConfigError(f"data.reader.first must be null, 0 or 1, not {first!r}")
    if unknown := sorted((files.keys() | images.keys()) - set(SPLITS)):
        raise ConfigError(f"data.reader.files: the split {unknown[0]!r} must be one of {', '.join(SPLITS)}")
    root, sources, start = Path(root), [], 0
    for split in SPLITS:
        table, folder = _place(root, files.get(split), images.get(split, ()))
        if table and folder:
            rows = list(_rows(table, faults))
            found = files_of_rows(table, rows, folder, names=names, first=first)
            _report(table, rows, found, faults)
            sources.append(CaptionFile(table, _records(rows, found, split, start), folder))
            start += len(rows)
    if not sources:
        wanted = [
            f"{name} with the images in {_folders(images.get(split, ()))}" for split, name in files.items() if name
        ]
        raise DataError(
            f"data.root={root} has no Conceptual Captions: it needs {', or '.join(wanted)}. For "
            "other names, set data.reader.files.train and data.reader.images.train (see docs/data.md in the repository)"
        )
    return checked(sources, Disk(), faults)


def _folders(names: str | Sequence[str]) -> str:
    return names if isinstance(names, str) else " or ".join(names)


def _place(root: Path, table: str | None, folders: str | Sequence[str]) -> tuple[Path | None, Path | None]:
    """Return the table and the image folder of a split; None for what does not exist."""
    names = [folders] if isinstance(folders, str) else list(folders)
    folder = next((root / name for name in names if (root / name).is_dir()), None)
    return (root / table if table and (root / table).is_file() else None), folder


def _records(rows: Sequence[Row], found: Sequence[Path | None], split: str, start: int) -> list[Record]:
    """Return one record per image file; several rows of one file are its captions."""
    captions: dict[Path, tuple[int, list[str]]] = {}
    for row, path in zip(rows, found, strict=True):
        if path and row.caption.strip():
            captions.setdefault(path, (start + row.number, []))[1].append(row.caption)
    return [Record(number, path, split, tuple(texts)) for path, (number, texts) in captions.items()]


def _rows(table: Path, faults: Handling) -> Iterator[Row]:
    lines = text_lines(table)
    columns = _columns(table, lines)
    widest = max(columns.caption, columns.url, columns.image or 0)
    for number, line in enumerate(lines[columns.start :]):
        where = f"{table}, line {number + columns.start + 1}"
        row = Row(number, "", "", None)  # keeps the numbers of the rows after a faulty one
        with faults:
            cells = line.split("\t")
            if len(cells) <= widest or "://" not in cells[columns.url]:
                raise DataError(
                    f"{where}: must be a caption, a tab and a web address, not {line!r:.60}: correct the line"
                )
            image = None if columns.image is None else cells[columns.image].strip()
            row = Row(number, cells[columns.caption].strip(), cells[columns.url].strip(), image)
        yield row


def _columns(table: Path, lines: Sequence[str]) -> _Columns:
    """Find the columns: by the names in the first line if it has some, otherwise by which cell is a web address."""
    cells = lines[0].split("\t") if lines else []
    heads = [cell.strip().lower() for cell in cells]
    kinds = [_HEADS.get(head) for head in heads]
    if kinds.count("caption") == kinds.count("url") == 1:
        image = next((index for index, head in enumerate(heads) if head in _IMAGE_HEADS), None)
        return _Columns(kinds.index("caption"), kinds.index("url"), image, 1)
    urls = [index for index, cell in enumerate(cells) if "://" in cell]
    if len(cells) == 2 and len(urls) == 1:  # CC3M has the caption first, CC12M the address
        return _Columns(1 - urls[0], urls[0], None, 0)
    raise DataError(
        f"{table}: the first line must be a caption, a tab and a web address, or the names of the columns, such as "
        f"caption, url and file, not {(lines or [''])[0]!r:.80}"
    )


def _report(table: Path, rows: Sequence[Row], found: Sequence[Path | None], faults: Handling) -> None:
    """Report the number of rows without an image, and without a caption."""
    missing = sum(path is None for path in found)
    blank = sum(path is not None and not row.caption for row, path in zip(rows, found, strict=True))
    for count, reason in ((missing, "no local image"), (blank, "a blank caption")):
        if count:
            line = f"{table}: {count:,} of {counted(len(rows), 'row')} left out, with {reason}"
            note(faults, "images left out", {"file": str(table), "reason": f"{count} rows with {reason}"}, line)
