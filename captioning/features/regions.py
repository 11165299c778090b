"""Read a detector's region features (Anderson et al. 2018): one file per image, 10 to 100 regions with boxes.

2018): a file a picture, of 10 to 100 regions with their boxes.

The layout of the bottom-up-attention extractors, IMAGE_ID.npz (or the picture's own name with .npz) with

    x         [R, D]     features (also "features" or "feat")
    bbox      [R, 4]     left, top, right, bottom in pixels of the picture (also "boxes")
    num_bbox  ()         R, where the arrays were filled up beyond it
    image_w, image_h     of the picture, in pixels
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from captioning.data import Record
from captioning.errors import DataError, must_be

FEATURES, BOXES = ("x", "features", "feat"), ("bbox", "boxes")


class Regions(NamedTuple):
    """features: [R, D] float16. boxes: [R, 4] float32, left, top, right, bottom in pixels; empty [0, 4] if untold."""

    features: np.ndarray
    boxes: np.ndarray


class RegionFolder:
    """Reads the regions of a picture: `folder[record]`.

    Args:
        folder: of the .npz files.
        size: D, which all of them must have.
        max_regions: the first so many are taken; extractors write the surest first.

    Raises:
        DataError: the folder, or a record's file, is missing or not of this layout.
    """

    def __init__(self, folder: str | Path, *, size: int, max_regions: int = 100):
        must_be("features.max_regions", max_regions, least=1)
        self.folder, self.size, self.max_regions = Path(folder), size, max_regions
        if not self.folder.is_dir():
            raise DataError(
                f"{self.folder}: no such folder; it should hold a file IMAGE_ID.npz of region features for each "
                "picture (features.root)"
            )

    def path(self, record: Record) -> Path:
        """The record's file, by image id or by the picture's name."""
        by_id = self.folder / f"{record.image_id}.npz"
        return by_id if by_id.exists() else self.folder / f"{record.path.stem}.npz"

    def missing(self, records: Iterable[Record]) -> list[Record]:
        """The records without a file."""
        return [record for record in records if not self.path(record).exists()]

    def __getitem__(self, record: Record) -> Regions:
        path = self.path(record)
        try:
            with np.load(path, allow_pickle=False) as file:
                features = np.asarray(file[_first(FEATURES, file.files, path)], dtype=np.float16)
                count = int(file["num_bbox"]) if "num_bbox" in file.files else len(features)
                boxes = np.asarray(file[_first(BOXES, file.files, path)], dtype=np.float32)
        except DataError:
            raise
        except Exception as error:  # zipfile and NumPy stumble over damaged bytes in many ways
            raise DataError(f"{path}: no region features can be read from it ({error})") from error
        count = min(count, self.max_regions, len(features))
        if features.ndim != 2 or features.shape[1] != self.size or not count:
            raise DataError(
                f"{path}: features {list(features.shape)}, wanted [regions, {self.size}]: set encoder.size to theirs"
            )
        if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) < count:
            raise DataError(f"{path}: boxes {list(boxes.shape)} for {count} regions, wanted [regions, 4]")
        if not np.isfinite(features[:count]).all():
            raise DataError(f"{path}: its features are not finite, or beyond float16's 65504")
        return Regions(features[:count], boxes[:count])


def _first(names: tuple[str, ...], present: list[str], path: Path) -> str:
    for name in names:
        if name in present:
            return name
    raise DataError(f"{path}: none of the arrays {', '.join(names)} is in it, only {', '.join(present) or 'nothing'}")
