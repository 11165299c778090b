"""Define a record, which is one image of a data set with its captions, and select the records of a split."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from captioning.errors import DataError

SPLITS = ("train", "val", "test")


class Record(NamedTuple):
    """One image with its captions.

    Attributes:
        image_id: id, unique in the data set.
        path: path of the image file.
        split: "train", "val" or "test".
        captions: the captions as they are written in the data set.
        group: group of images with scores of its own, such as a domain of nocaps; None if the data set has no groups.
    """

    image_id: int
    path: Path
    split: str
    captions: tuple[str, ...]
    group: str | None = None


def select(records: Iterable[Record], split: str) -> list[Record]:
    """Return the records of one split.

    Raises:
        DataError: the split has no records.
    """
    records = list(records)
    chosen = [record for record in records if record.split == split]
    if not chosen:
        counts = Counter(record.split for record in records)
        there = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
        raise DataError(
            f"no images with captions in split '{split}'; images per split: {there}. Add the files of that split "
            "(see docs/data.md in the repository)"
        )
    return chosen
