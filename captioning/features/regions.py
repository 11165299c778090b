"""Read a detector's region features (Anderson et al. 2018): one file per image, 10 to 100 regions with boxes.

The files have the layout of the bottom-up-attention extractors: IMAGE_ID.npz (or the image's file name with .npz) with
these arrays:

    x         [R, D]     features (also named "features" or "feat")
    bbox      [R, 4]     left, top, right, bottom in pixels of the image (also named "boxes")
    num_bbox  ()         R, if the arrays are padded
    image_w, image_h     size of the image in pixels (not read)
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from captioning.data import Record
from captioning.errors import DataError, must_be

FEATURES, BOXES = ("x", "features", "feat"), ("bbox", "boxes")


class Regions(NamedTuple):
    """The regions of one image.

    Attributes:
        features: [R, D] float16.
        boxes: [R, 4] float32: left, top, right, bottom in pixels.
    """

    features: np.ndarray
    boxes: np.ndarray


class RegionFolder:
    """Region features of all images: `folder[record]` reads those of one image.

    Args:
        folder: folder of the .npz files.
        size: D, the feature size that all files must have.
        max_regions: number of regions to use; extractors write the most confident regions first.

    Raises:
        DataError: the folder or a record's file is missing, or has another layout.
    """

    def __init__(self, folder: str | Path, *, size: int, max_regions: int = 100):
        must_be("features.max_regions", max_regions, least=1)
        self.folder, self.size, self.max_regions = Path(folder), size, max_regions
        if not self.folder.is_dir():
            raise DataError(
                f"features.root={self.folder} is not a folder: set it to a folder with a file IMAGE_ID.npz of region "
                "features for each image"
            )

    def path(self, record: Record) -> Path:
        """Return the path of a record's file, named by the image id or by the image's file name."""
        by_id = self.folder / f"{record.image_id}.npz"
        return by_id if by_id.exists() else self.folder / f"{record.path.stem}.npz"

    def missing(self, records: Iterable[Record]) -> list[Record]:
        """Return the records that have no file."""
        return [record for record in records if not self.path(record).exists()]

    def check_own(self, records: Iterable[Record]) -> None:
        """Check that no two images have the same file, which could have the features of one of them only.

        Raises:
            DataError: two images do.
        """
        owners: dict[Path, Record] = {}
        for record in records:
            other = owners.setdefault(path := self.path(record), record)
            if other.path != record.path and path.exists():
                raise DataError(
                    f"{path} would be the region features of {other.path} and of {record.path}: name the files by the "
                    f"image ids, here {other.image_id}.npz and {record.image_id}.npz"
                )

    def __getitem__(self, record: Record) -> Regions:
        path = self.path(record)
        try:
            with np.load(path, allow_pickle=False) as file:
                features = np.asarray(file[_first(FEATURES, file.files, path)], dtype=np.float16)
                count = int(file["num_bbox"]) if "num_bbox" in file.files else len(features)
                boxes = np.asarray(file[_first(BOXES, file.files, path)], dtype=np.float32)
        except DataError:
            raise
        except Exception as error:  # zipfile and NumPy raise many errors for damaged bytes
            raise DataError(
                f"{path}: cannot read region features ({error}): run the detector again for this image"
            ) from error
        count = min(count, self.max_regions, len(features))
        if features.ndim != 2 or features.shape[1] != self.size or not count:
            raise DataError(
                f"{path}: the features have shape {list(features.shape)}, not [regions, {self.size}]: set encoder.size "
                "to their last dimension"
            )
        if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) < count:
            raise DataError(
                f"{path}: the boxes have shape {list(boxes.shape)}, but must be [regions, 4] for {count} regions"
            )
        if not np.isfinite(features[:count]).all():
            raise DataError(
                f"{path}: features are not finite, or beyond float16's 65504: run the detector again for this image"
            )
        return Regions(features[:count], boxes[:count])


def _first(names: tuple[str, ...], present: list[str], path: Path) -> str:
    for name in names:
        if name in present:
            return name
    raise DataError(f"{path} has the arrays {', '.join(present) or '(none)'}: it needs one of {', '.join(names)}")
