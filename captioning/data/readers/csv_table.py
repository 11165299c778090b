"""Read a table of one's own photos, with one row per caption."""

import hashlib
import re
from pathlib import Path

from captioning.data import (
    SPLITS,
    STRICT,
    Disk,
    Handling,
    Places,
    Record,
    have_all,
    names_of,
    note,
    own_folder,
    table_rows,
)
from captioning.data.readers.checks import CaptionFile, checked
from captioning.errors import ConfigError, DataError

_SLIP = re.compile(r"^2258277193_586949ec62\.jpg\.1$")


def read_csv(
    root: str | Path,
    *,
    file: str = "captions.csv",
    images: str = ".",
    val_share: float = 0.1,
    test_share: float = 0.0,
    faults: Handling = STRICT,
) -> list[Record]:
    """Read a table `image,caption[,split]` with one row per caption. Image ids are 0, 1, … in order of appearance.

    The columns may be separated by commas, semicolons, tabs or bars. The published tables of Flickr8k
    (Flickr8k.token.txt, captions.txt) and Flickr30k (results.csv) are read too. Without a split column, a hash of the
    image's file name chooses the split, so that new rows never move an image to another split. One exception: if no
    image would be in the validation split, the image with the smallest hash is.

    Args:
        root: folder of the data set.
        file: the table (UTF-8 or UTF-16), relative to root.
        images: folder of the images, relative to root.
        val_share: expected share of the images for validation, without a split column.
        test_share: expected share of the images for test, without a split column.
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        ConfigError: the shares are negative, or 1 or more together.
        DataError: the table or an image is missing or inconsistent.
    """
    if not (val_share >= 0 and test_share >= 0 and val_share + test_share < 1):
        raise ConfigError(
            f"data.reader.val_share ({val_share}) and test_share ({test_share}) must be 0 or more, and below 1 together"
        )
    table, folder, disk = Path(root, file), Path(root, images), Disk()
    rows = list(table_rows(table, faults, lambda names: have_all(folder, names, disk)))
    if images == ".":
        folder = own_folder(folder, names_of(rows), disk)
    places = Places(folder, names_of(rows), disk)
    folder = places.folder
    rows = _without_known_slips(table, rows, places, faults)
    captions: dict[Path, list[str]] = {}
    splits: dict[Path, str] = {}
    hashes: dict[Path, float] = {}  # of images without a split column
    for where, row in rows:
        with faults:
            name, split = row["image"].strip(), row.get("split")
            path = places.path(name, where)
            if split is None:
                hashes[path] = _hash(path.relative_to(folder).as_posix())
                split = _hashed_split(hashes[path], val_share, test_share)
            split = split.strip()
            if split not in SPLITS:
                raise DataError(f"{where}: split must be train, val or test, not {split!r}")
            if splits.setdefault(path, split) != split:
                raise DataError(
                    f"{where}: {name} is in split {split} here, but in {splits[path]} in an earlier row: choose one"
                )
            if faults is STRICT and not row["caption"].strip():
                raise DataError(f"{where}: the caption of {name} is blank: write one or delete the row")
            captions.setdefault(path, []).append(row["caption"])
    places.report(table, faults)
    candidates = [path for path in hashes if splits[path] == "train"]
    if val_share and len(candidates) > 1 and "val" not in splits.values():
        splits[min(candidates, key=hashes.__getitem__)] = "val"
    items = enumerate(captions.items())
    records = [Record(number, path, splits[path], tuple(texts)) for number, (path, texts) in items]
    return checked([CaptionFile(table, records, folder)], disk, faults)


def _without_known_slips(table: Path, rows: list, places: Places, faults: Handling) -> list:
    """Drop rows of 2258277193_586949ec62.jpg.1, which Flickr8k.token.txt names although Flickr8k does not have it."""
    slips = {name for name in names_of(rows) if _SLIP.search(name) and not places.has(name)}
    if not slips:
        return rows
    name = sorted(slips)[0]
    item = {"file": name, "reason": f"{table.name} names it, but Flickr8k does not have this image"}
    line = f"{table}: the captions of {name} are left out: Flickr8k does not have this image"
    note(faults, "names that are spelled differently on disk", item, line)
    return [(where, row) for where, row in rows if row["image"].strip() not in slips]


def _hash(name: str) -> float:
    """Return a hash of a file name, uniform in 0 … 1."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64


def _hashed_split(number: float, val_share: float, test_share: float) -> str:
    return "test" if number < test_share else "val" if number < test_share + val_share else "train"
