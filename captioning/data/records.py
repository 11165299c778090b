"""Define a record, which is one image of a data set with its captions."""

from pathlib import Path
from typing import NamedTuple

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
