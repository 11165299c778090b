"""Read captions in COCO JSON: one file per split, with a list of images and a list of annotations."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captioning.data import (
    SPLITS,
    STRICT,
    Disk,
    Handling,
    Places,
    Record,
    entries,
    field,
    id_of,
    left_out_notice,
    mark_of,
    note,
    read_json,
)
from captioning.data.readers.checks import CaptionFile, checked, not_blank, refuse
from captioning.errors import DataError


def read_coco_files(
    root: str | Path,
    *,
    annotations: str = "annotations/captions_{split}.json",
    images: str = "{split}",
    splits: Sequence[str] = SPLITS,
    faults: Handling = STRICT,
) -> list[Record]:
    """Read COCO captions JSON, one file per split. Blank captions are left out.

    Args:
        root: folder of the data set.
        annotations: caption file relative to root; {split} stands for the split's name.
        images: image folder relative to root; {split} stands for the split's name.
        splits: splits to look for. A split is read if both its captions and its images are there.
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        DataError: no split is there, or a file is inconsistent.
    """
    present = present_splits(Path(root), annotations=annotations, images=images, splits=splits)
    if not present:
        raise DataError(
            f"{root} has no captions in COCO format: add {annotations} and its images in {images}/ for one or more "
            f"splits of {', '.join(splits)} (see docs/data.md in the repository)"
        )
    disk, sources = Disk(), []
    for split, file, folder in present:
        sources.append(CaptionFile(file, coco_records(file, folder, disk, split=split, faults=faults), folder))
    return checked(sources, disk, faults)


def present_splits(root: Path, *, annotations: str, images: str, splits: Sequence[str]) -> list[tuple[str, Path, Path]]:
    """Return (split, caption file, image folder) for each split that has both."""
    found = [
        (split, root / annotations.replace("{split}", split), root / images.replace("{split}", split))
        for split in splits
    ]
    return [(split, file, folder) for split, file, folder in found if file.is_file() and folder.is_dir()]


def coco_records(file: Path, folder: Path, disk: Disk, *, split: str, faults: Handling) -> list[Record]:
    """Return the records of one file in COCO JSON, images without captions included.

    Args:
        file: the caption file.
        folder: the folder of its images.
        disk: cache of folder listings.
        split: the split of all its images.
        faults: how to handle faults.

    Raises:
        DataError: the file cannot be read, or is inconsistent.
    """
    content: Any = {}
    captions: defaultdict[int, list[str]] = defaultdict(list)
    records: list[Record] = []
    with faults:
        content = read_json(file)
    with faults:
        left_out: Counter[str] = Counter()
        total = 0
        for where, annotation in entries(content, "annotations", file):
            with faults:
                number, caption = id_of(annotation, "image_id", where), field(annotation, "caption", str, where)
                total += 1
                if mark := mark_of(annotation, where):
                    left_out[mark] += 1
                    reason = f"{mark}, of image {number}"
                    item = {"file": str(file), "split": split, "caption": caption, "reason": reason}
                    note(faults, "rejected annotations, left out", item)
                    captions[number] += []  # also adds the id, for the check below that "images" lists it
                else:
                    captions[number].append(caption)
        note(faults, None, None, left_out_notice(left_out, total, str(file)))
    with faults:
        listed = list(entries(content, "images", file))
        places = Places(folder, [image.get("file_name", "") for _, image in listed if isinstance(image, dict)], disk)
        for where, image in listed:
            with faults:
                number, name = id_of(image, "id", where), field(image, "file_name", str, where)
                path = places.path(name, where)
                records.append(Record(number, path, split, not_blank(captions[number], faults)))
        places.report(file, faults)
    known = {record.image_id for record in records}
    unknown = [number for number in captions if number not in known]
    advice = "add the images or remove the captions"
    refuse(file, "captions of image ids that 'images' does not list", unknown, advice=advice, faults=faults)
    return records
