"""Read a table of photos with one row per caption, such as captions.csv."""

import re
from pathlib import Path

from captioning.data import (
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
from captioning.data.readers.rows import check_shares, row_records

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
    check_shares(val_share, test_share)
    table, folder, disk = Path(root, file), Path(root, images), Disk()
    rows = list(table_rows(table, faults, lambda names: have_all(folder, names, disk)))
    if images == ".":
        folder = own_folder(folder, names_of(rows), disk)
    places = Places(folder, names_of(rows), disk)
    folder = places.folder
    rows = _without_known_slips(table, rows, places, faults)
    records = row_records(table, rows, places, val_share=val_share, test_share=test_share, faults=faults)
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
