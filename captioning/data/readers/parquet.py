"""Read Parquet files, such as those of Hugging Face data sets: a column of images and one or more columns of captions.

An image is a file name, bytes, or a structure with "bytes" and "path" (the feature `Image` of Hugging Face's library
`datasets`). Images in bytes are extracted once, into a folder beside each file.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from captioning.data import STRICT, Disk, Handling, Places, Record, known_split, names_of, note, own_folder, split_named
from captioning.data.readers.checks import CaptionFile, checked
from captioning.data.readers.parquet_images import extracted_images, first_line
from captioning.data.readers.rows import caption_texts, check_shares, row_records
from captioning.errors import ConfigError, DataError
from captioning.io import counted, need_package

if TYPE_CHECKING:
    import pyarrow

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "image_path", "file_name", "filename", "path")
CAPTION_COLUMNS = ("captions", "caption", "sentences", "sentence", "text", "txt", "raw")
_NUMBERED = re.compile(r"captions?_?\d+")  # caption_0 … caption_4
_WORD = re.compile(r"[a-z]+")


class _Columns(NamedTuple):
    """The columns of a file: image, captions, and split or None."""

    image: str
    captions: tuple[str, ...]
    split: str | None


def read_parquet(
    root: str | Path,
    *,
    image: str | None = None,
    captions: str | Sequence[str] | None = None,
    val_share: float = 0.1,
    test_share: float = 0.0,
    faults: Handling = STRICT,
) -> list[Record]:
    """Read every Parquet file (.parquet) in root and its subfolders, one row per image, in the order of their names.

    The split of a row is that of a column `split`, otherwise the one in the name of its file or folder
    (train-00000-of-00002.parquet, validation/0000.parquet). Without both, a hash of the image's name chooses it, as in
    `read_csv`.

    Args:
        root: folder of the data set.
        image: name of the image column; None: the only known one (image, img, jpg, …).
        captions: names of the caption columns, of texts or lists of texts; None: the known one (caption, sentences, …)
            or those with numbers (caption_0 …).
        val_share: expected share of the images for validation, without splits.
        test_share: expected share of the images for test, without splits.
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        ConfigError: pyarrow is not installed, a column does not exist, or the shares are wrong.
        DataError: there are no files, a file is damaged, or an image is missing.
    """
    check_shares(val_share, test_share)
    need_package("pyarrow", extra="parquet", wanted_by="data=parquet")
    root, disk = Path(root), Disk()
    files = parquet_files(root)
    if not files:
        raise DataError(f"data.root={root} has no Parquet file: add NAME.parquet, or choose the layout that it has")
    rows: list[tuple[str, dict[str, str]]] = []
    for file in files:
        with faults:
            rows += _rows(file, root, image, captions, faults)
    kinds = {"split" in row for _, row in rows}
    if len(kinds) > 1:
        raise DataError(
            f"data.root={root}: some Parquet files name a split and others do not: rename them to begin with "
            "train, validation or test"
        )
    places = Places(own_folder(root, names_of(rows), disk), names_of(rows), disk)
    records = row_records(root, rows, places, val_share=val_share, test_share=test_share, faults=faults)
    return checked([CaptionFile(root, records, places.folder)], disk, faults)


def parquet_files(root: Path) -> list[Path]:
    """Return the Parquet files in a folder and its subfolders, without hidden ones."""
    found = sorted(root.rglob("*.parquet"))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)]


def _rows(
    file: Path, root: Path, image: str | None, captions: str | Sequence[str] | None, faults: Handling
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield one row per caption of a file."""
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(file) as opened:
            columns = _columns(file, opened.schema_arrow, image, captions)
            is_text = _is_text(opened.schema_arrow.field(columns.image).type)
            wanted = [*columns.captions, *([columns.split] if columns.split else [])]
            table = opened.read([*wanted, *([columns.image] if is_text else [])]).to_pydict()
    except (OSError, ArrowException) as error:
        raise DataError(f"cannot read {file} as Parquet ({first_line(error)}): download it again") from error
    names = table[columns.image] if is_text else extracted_images(file, columns.image, root)
    of_file = split_of_name(file, root)
    _report_missing(file, names, faults)
    for index, name in enumerate(names):
        where = f"{file}, row {index}"
        with faults:
            split = split_named(table[columns.split][index], where) if columns.split else of_file
            texts = [
                text for column in columns.captions for text in _texts(table[column][index], column, where, faults)
            ]
            if name and not texts:
                raise DataError(f"{where}: the image has no caption: write one or delete the row")
            for text in texts if name else ():
                yield where, {"image": name, "caption": text} | ({"split": split} if split else {})


def _columns(file: Path, schema: "pyarrow.Schema", image: str | None, captions: str | Sequence[str] | None) -> _Columns:
    """Choose the columns.

    Raises:
        ConfigError: a given column does not exist.
        DataError: there is no known column, or more than one.
    """
    there = list(schema.names)
    given = [captions] if isinstance(captions, str) else list(captions or ())
    for key, name in [("image", image), *(("captions", each) for each in given)]:
        if name and name not in there:
            raise ConfigError(f"data.reader.{key}={name} is not a column of {file}: choose one of {', '.join(there)}")
    numbered = [name for name in there if _NUMBERED.fullmatch(name)]
    known = [name for name in CAPTION_COLUMNS if name in there] or numbered
    if not given and (not known or (len(known) > 1 and known != numbered)):
        raise DataError(_ambiguous(file, "captions", known, there))
    images = [image] if image else [name for name in IMAGE_COLUMNS if name in there]
    with_bytes = [name for name in images if not _is_text(schema.field(name).type)]
    chosen = images if len(images) == 1 else with_bytes  # a file name beside bytes is where they come from
    if len(chosen) != 1:
        raise DataError(_ambiguous(file, "image", images, there))
    return _Columns(chosen[0], tuple(given or known), "split" if "split" in there else None)


def _ambiguous(file: Path, key: str, found: Sequence[str], there: Sequence[str]) -> str:
    what = f"several columns of {key} ({', '.join(found)})" if found else f"no known column of {key}"
    return f"{file} has {what}: set data.reader.{key} to one of its columns {', '.join(there)}"


def _is_text(kind: Any) -> bool:
    """Return whether a column's type is text: file names."""
    from pyarrow import types

    if types.is_dictionary(kind):  # pandas' categories
        return _is_text(kind.value_type)
    is_view = getattr(types, "is_string_view", None)  # newer versions have it
    return types.is_string(kind) or types.is_large_string(kind) or bool(is_view and is_view(kind))


def _texts(value: Any, column: str, where: str, faults: Handling) -> list[str]:
    """Return the captions of a cell; [] for null, because an image may have fewer captions than there are columns."""
    if value is None:
        return []
    if isinstance(value, list):
        value = [each.get("raw") if isinstance(each, dict) else each for each in value]
    texts = caption_texts(value, column, where, faults)
    if faults is STRICT and isinstance(value, str) and not value.strip():
        raise DataError(
            f"{where}: '{column}' is blank: write a caption there, or null if the image has no more captions"
        )
    return texts


def split_of_name(file: Path, root: Path) -> str | None:
    """Return the split that a file's name begins with, or that its folder's name is; None if there is none."""
    folders = [part.lower() for part in reversed(file.relative_to(root).parts[:-1])]
    first = _WORD.match(file.stem.lower())
    words = [*([first[0]] if first else []), *folders]
    return next((split for word in words if (split := known_split(word))), None)


def _report_missing(file: Path, names: Sequence[str | None], faults: Handling) -> None:
    missing = sum(not name for name in names)
    if missing:
        line = f"{file}: {missing:,} of {counted(len(names), 'row')} left out, without an image"
        note(faults, "images left out", {"file": str(file), "reason": f"{missing} rows without an image"}, line)
