"""Read Karpathy's JSON of Flickr8k, Flickr30k and COCO: one file with the captions and splits of all images."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captioning.data import (
    PICTURE_FOLDERS,
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
    read_json,
    split_named,
)
from captioning.data.readers.checks import CaptionFile, checked, not_blank
from captioning.data.readers.coco_json import coco_records
from captioning.data.readers.published import first_file
from captioning.errors import DataError
from captioning.io import KARPATHY_URL

# Karpathy's file -> tables of the same captions, without a split.
_TABLES = {"dataset_flickr30k.json": ("results.csv", "results_20130124.token")}


def read_karpathy(
    root: str | Path,
    *,
    annotations: str,
    images: str | Sequence[str] = PICTURE_FOLDERS,
    faults: Handling = STRICT,
) -> list[Record]:
    """Read Karpathy's JSON, such as dataset_flickr8k.json or dataset_flickr30k.json. Image ids are its imgid.

    A split that the file lacks is read from `captions_{split}.json` (COCO format) in root, if that exists.

    Args:
        root: folder of the data set.
        annotations: Karpathy's file, relative to root.
        images: image folders relative to root; the first one that exists is used.
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        DataError: a file or the image folder is missing or inconsistent.
    """
    root, file = Path(root), Path(root, annotations)
    names = [images] if isinstance(images, str) else list(images)
    folder = next((root / name for name in names if (root / name).is_dir()), None)
    if folder is None or not file.is_file():
        if not file.is_file() and (table := first_file(root, _TABLES.get(annotations, ()))):
            raise DataError(_only_a_table(root, annotations, table.name))
        raise DataError(
            f"data.root={root} needs {annotations} (from {KARPATHY_URL}) and a folder of its images, named one of "
            f"{', '.join(names)}: add them (see docs/data.md in the repository)"
        )
    disk = Disk()
    sources = [CaptionFile(file, karpathy_records(file, folder, disk, id_key="imgid", faults=faults), folder)]
    for split in sorted(set(SPLITS) - {record.split for record in sources[0].records}):
        if (extra := root / f"captions_{split}.json").is_file():
            sources.append(CaptionFile(extra, coco_records(extra, folder, disk, split=split, faults=faults), folder))
    return checked(sources, disk, faults)


def _only_a_table(root: Path, annotations: str, table: str) -> str:
    """Return the message for a folder of Flickr30k that has a table of captions, but no split."""
    return (
        f"data.root={root} has {table}, but not {annotations}, which has the usual split: add it from {KARPATHY_URL}; "
        "or add lists of images train.txt, val.txt and test.txt, and use data=flickr30k_text; or use data=csv "
        f"data.reader.file={table}, which splits by a hash of the names"
    )


def karpathy_records(file: Path, folder: Path, disk: Disk, *, id_key: str, faults: Handling) -> list[Record]:
    """Return the records of a file of Karpathy's, images without captions included.

    Args:
        file: Karpathy's JSON.
        folder: the folder that its file names are relative to.
        disk: cache of folder listings.
        id_key: the key of an image's id: "imgid", or "cocoid" of COCO, whose images are found in any folder of COCO.
        faults: how to handle faults.

    Raises:
        DataError: the file cannot be read, or is inconsistent.
    """
    records = []
    with faults:
        listed = list(entries(read_json(file), "images", file))
        places = Places(folder, [image.get("filename", "") for _, image in listed if isinstance(image, dict)], disk)
        coco = CocoPictures(folder, disk) if id_key == "cocoid" else None
        for where, image in listed:
            with faults:
                records.append(_karpathy_record(image, where, places, coco, id_key=id_key, faults=faults))
        places.report(file, faults)
        if coco:
            coco.report(file, faults)
    return records


def _karpathy_record(
    image: Any, where: str, places: Places, coco: CocoPictures | None, *, id_key: str, faults: Handling
) -> Record:
    split = split_named(field(image, "split", str, where), where)
    filepath = field(image, "filepath", str, where) if "filepath" in image else ""
    filename = field(image, "filename", str, where)
    texts: list[str] = []
    for sentence in field(image, "sentences", list, where):
        with faults:
            texts.append(field(sentence, "raw", str, where))
    number = id_of(image, id_key, where)
    path = places.path(os.path.join(filepath, filename), where)
    if coco and not places.disk.has(path):
        path = coco.find(filename, number) or path
    return Record(number, path, split, not_blank(texts, faults))
