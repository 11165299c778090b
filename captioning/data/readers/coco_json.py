"""Read captions in COCO JSON: one file per split, with a list of images and a list of annotations.

Many data sets have this format with keys of their own: VizWiz marks annotations, STAIR Captions has the words of each
caption under a second key, and nocaps gives each image a domain.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captioning.data import (
    SPLITS,
    STRICT,
    CocoPictures,
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
from captioning.io import counted


class CocoKeys(NamedTuple):
    """What differs between data sets in COCO JSON.

    Attributes:
        caption: key of an annotation's caption.
        keep: marks of annotations that count nevertheless: "rejected", "precanned".
        group: key of an image's group, which must be one of `groups`; None if images have no groups.
        groups: names of the groups.
    """

    caption: str = "caption"
    keep: tuple[str, ...] = ()
    group: str | None = None
    groups: tuple[str, ...] = ()


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


def coco_records(
    file: Path,
    folder: Path,
    disk: Disk,
    *,
    split: str,
    faults: Handling,
    keys: CocoKeys = CocoKeys(),  # noqa: B008  (it cannot be changed)
    pictures: CocoPictures | None = None,
) -> list[Record]:
    """Return the records of one file in COCO JSON, images without captions included.

    Args:
        file: the caption file.
        folder: the folder of its images.
        disk: cache of folder listings.
        split: the split of all its images.
        faults: how to handle faults.
        keys: what differs from COCO's own files.
        pictures: COCO's images, to find those that are in another folder than `folder`.

    Raises:
        DataError: the file cannot be read, or is inconsistent.
    """
    content: list[Any] = []
    records: list[Record] = []
    known: set[int] = set()  # ids of all images, also of those with another fault
    with faults:
        content.append(read_json(file))
    if not content:  # the fault is reported once
        return []
    captions = _captions(content[0], file, split=split, keys=keys, faults=faults)
    with faults:
        listed = list(entries(content[0], "images", file))
        places = Places(folder, [image.get("file_name", "") for _, image in listed if isinstance(image, dict)], disk)
        for where, image in listed:
            with faults:
                number = id_of(image, "id", where)
                known.add(number)
                name = field(image, "file_name", str, where)
                path = places.path(name, where)
                if pictures and not disk.has(path):
                    path = pictures.find(name, number) or path
                group = None
                with faults:  # an image without its group is still an image: only the group is reported
                    group = _group(image, where, keys) if keys.group else None
                records.append(Record(number, path, split, not_blank(captions[number], faults), group))
        places.report(file, faults)
        if pictures:
            pictures.report(file, faults)
    unknown = [number for number in captions if number not in known]
    advice = "add the images or remove the captions"
    refuse(file, "captions of image ids that 'images' does not list", unknown, advice=advice, faults=faults)
    return records


def _captions(content: Any, file: Path, *, split: str, keys: CocoKeys, faults: Handling) -> defaultdict[int, list[str]]:
    """Return {image id: captions}, without annotations that have a mark; report how many these are."""
    captions: defaultdict[int, list[str]] = defaultdict(list)
    with faults:
        left_out: Counter[str] = Counter()
        total = 0
        for where, annotation in entries(content, "annotations", file):
            with faults:
                number, caption = id_of(annotation, "image_id", where), field(annotation, keys.caption, str, where)
                total += 1
                if mark := mark_of(annotation, where, keys.keep):
                    left_out[mark] += 1
                    reason = f"{mark}, of image {number}"
                    item = {"file": str(file), "split": split, "caption": caption, "reason": reason}
                    note(faults, "rejected annotations, left out", item)
                    captions[number] += []  # also adds the id, for the check that "images" lists it
                else:
                    captions[number].append(caption)
        line, bare = left_out_notice(left_out, total, str(file)), sum(not texts for texts in captions.values())
        if line and bare:
            line = f"{line}; also left out, because of no other caption: {counted(bare, 'image')}"
        note(faults, None, None, line)
    return captions


def _group(image: Any, where: str, keys: CocoKeys) -> str:
    assert keys.group is not None
    group: str = field(image, keys.group, str, where)
    if group not in keys.groups:
        raise DataError(f"{where}: '{keys.group}' must be {' or '.join(keys.groups)}, not {group!r}")
    return group
