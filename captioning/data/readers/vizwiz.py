"""Read VizWiz-Captions (Gurari et al. 2020): photos that blind people took, with five captions each.

Layout, from https://vizwiz.org/tasks-and-datasets/image-captioning/ and the README of its API
(https://github.com/Yinan-Zhao/vizwiz-caption): annotations/train.json, val.json and test.json in COCO's format, and the
photos in train/, val/ and test/. The captions of test are not published.

Each annotation says whether it "is_rejected" (it failed quality control) and "is_precanned" (the annotator chose the
fixed sentence for photos without visible content). The API leaves out both by default, and so does this reader.
"""

from pathlib import Path

from captioning.data import STRICT, Disk, Handling, Record
from captioning.data.readers.checks import CaptionFile, checked
from captioning.data.readers.coco_json import CocoKeys, coco_records
from captioning.data.readers.published import first_file, folder_with, nothing_found

_SPLITS = ("train", "val")


def read_vizwiz(
    root: str | Path, *, keep_rejected: bool = False, keep_precanned: bool = False, faults: Handling = STRICT
) -> list[Record]:
    """Read VizWiz-Captions. A split is read if both its captions and its photos are there.

    Photos that have no caption left are left out, as in the API's evaluation. Their number is printed.

    Args:
        root: folder of the data set.
        keep_rejected: whether to use captions that failed quality control.
        keep_precanned: whether to use the fixed sentence for photos without visible content.
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        DataError: no split is there, or a file is inconsistent.
    """
    root, disk = Path(root), Disk()
    marks = {"rejected": keep_rejected, "precanned": keep_precanned}
    keys = CocoKeys(keep=tuple(mark for mark, kept in marks.items() if kept))
    sources = []
    for split in _SPLITS:
        file = first_file(root, [f"annotations/{split}.json", f"annotations/VizWiz_Captions_v1_{split}.json"])
        folder = folder_with(root, [split, f"images/{split}"], [], disk)
        if file and folder:
            records = coco_records(file, folder, disk, split=split, faults=faults, keys=keys)
            sources.append(CaptionFile(file, records, folder))
    if not sources:
        needed = [f"annotations/{split}.json with the photos in {split}/" for split in _SPLITS]
        raise nothing_found(root, "VizWiz captions", needed)
    return checked(sources, disk, faults)
