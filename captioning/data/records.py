"""Define a record, one image of a data set with its captions, and select the records of a split."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from captioning.errors import DataError

SPLITS = ("train", "val", "test")


class Record(NamedTuple):
    """One picture with its raw captions; split is train, val or test."""

    image_id: int
    path: Path
    split: str
    captions: tuple[str, ...]


def select(records: Iterable[Record], split: str) -> list[Record]:
    """The records of one split; a DataError when there are none."""
    records = list(records)
    chosen = [record for record in records if record.split == split]
    if not chosen:
        counts = Counter(record.split for record in records)
        there = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
        raise DataError(
            f"no pictures with captions in split '{split}'; pictures by split: {there}. "
            "data/README.md says what must be on disk for a split"
        )
    return chosen
