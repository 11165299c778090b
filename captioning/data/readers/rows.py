"""Turn rows of (image, caption, split) into records, and choose splits by a hash where none is given."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captioning.data import STRICT, Handling, Places, Record, shown, split_named
from captioning.errors import ConfigError, DataError


def check_shares(val_share: float, test_share: float) -> None:
    """Check the shares of the images that a hash assigns to validation and test.

    Raises:
        ConfigError: the shares are negative, or 1 or more together.
    """
    if not (val_share >= 0 and test_share >= 0 and val_share + test_share < 1):
        raise ConfigError(
            f"data.reader.val_share ({val_share}) and test_share ({test_share}) must be 0 or more, and below 1 together"
        )


def row_records(
    file: Path,
    rows: Sequence[tuple[str, dict[str, str]]],
    places: Places,
    *,
    val_share: float,
    test_share: float,
    faults: Handling,
) -> list[Record]:
    """Return the records of rows with one caption each. Image ids are 0, 1, … in order of appearance.

    In rows without a split, a hash of the image's file name chooses it, so that new rows never move an image to another
    split. One exception: if no image would be in the validation split, the image with the smallest hash is.

    Args:
        file: the file of the rows.
        rows: (location for error messages, {"image": name, "caption": text, "split": name or missing}).
        places: the image files.
        val_share: expected share of the images for validation, among those without a split.
        test_share: expected share of the images for test, among those without a split.
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        DataError: a name leads out of the folder, a caption is blank, or a split is unknown or contradicts another row.
    """
    captions: dict[Path, list[str]] = {}
    splits: dict[Path, str] = {}
    hashes: dict[Path, float] = {}  # of images without a split
    for where, row in rows:
        with faults:
            name, split = row["image"].strip(), row.get("split")
            path = places.path(name, where)
            if split is None:
                hashes[path] = name_hash(path.relative_to(places.folder).as_posix())
                split = hashed_split(hashes[path], val_share, test_share)
            else:
                split = split_named(split, where)
            if splits.setdefault(path, split) != split:
                raise DataError(
                    f"{where}: {name} is in split {split} here, but in {splits[path]} in an earlier row: choose one"
                )
            if faults is STRICT and not row["caption"].strip():
                raise DataError(f"{where}: the caption of {name} is blank: write one or delete the row")
            captions.setdefault(path, []).append(row["caption"])
    places.report(file, faults)
    candidates = [path for path in hashes if splits[path] == "train"]
    if val_share and len(candidates) > 1 and "val" not in splits.values():
        splits[min(candidates, key=hashes.__getitem__)] = "val"
    return [Record(number, path, splits[path], tuple(texts)) for number, (path, texts) in enumerate(captions.items())]


def caption_texts(value: Any, key: str, where: str, faults: Handling) -> list[str]:
    """Return the captions in a value that is a text or a list of texts.

    Args:
        value: the value.
        key: its key or column.
        where: its location, for error messages.
        faults: how to handle faults, see `captioning.data.readers`. If they are collected, blank texts are kept.

    Raises:
        DataError: the value or an item of the list is something else, or an item is blank.
    """
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise DataError(f"{where}: '{key}' must be a text or a list of texts, not {shown(value)}")
    for index, text in enumerate(value):
        blank = faults is STRICT and isinstance(text, str) and not text.strip()
        if text is None or blank:
            fault = "null" if text is None else "blank"
            raise DataError(f"{where}: '{key}'[{index}] is {fault}: write a caption there, or remove it from the list")
        if not isinstance(text, str):
            raise DataError(f"{where}: '{key}' must be a text or a list of texts, not {shown(value)}")
    return value


def name_hash(name: str) -> float:
    """Return a hash of a file name, uniform in 0 … 1."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogatepass")).digest()[:8]) / 2**64


def hashed_split(number: float, val_share: float, test_share: float) -> str:
    """Return the split of an image from the hash of its name, see `name_hash`."""
    return "test" if number < test_share else "val" if number < test_share + val_share else "train"
