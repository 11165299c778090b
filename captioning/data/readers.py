"""Read images with captions from COCO JSON, Karpathy's JSON or a CSV file, and check that the image files exist.

Each reader returns the records of all splits, in the file's order of images. All readers check that each image id
belongs to one image and that every image with captions is on disk, and leave out images without captions. docs/data.md
says where to get each data set.

A reader stops at the first fault. If `faults` is given (by the audit), it collects the faults there, continues, and
returns everything that can be read, including blank captions, images without captions, and images that are not on disk.
"""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captioning.data.annotations import left_out_notice, mark_of
from captioning.data.parsing import STRICT, Faults, Handling, entries, field, id_of, note, read_json
from captioning.data.places import PICTURE_FOLDERS, CocoPictures, Disk, Places, have_all, own_folder, why_missing
from captioning.data.records import SPLITS, Record
from captioning.data.tables import names_of, table_rows
from captioning.errors import ConfigError, DataError
from captioning.io import KARPATHY_URL

COCO_LAYOUTS = {
    "karpathy": "dataset_coco.json with train2014/ and val2014/",
    "2014": "annotations/captions_{train,val}2014.json with train2014/ and val2014/",
    "2017": "annotations/captions_{train,val}2017.json with train2017/ and val2017/",
}


_SLIP = re.compile(r"^2258277193_586949ec62\.jpg\.1$")


class CaptionFile(NamedTuple):
    """A file of captions, its records, and the folder that the names in it are relative to."""

    file: Path
    records: list[Record]
    folder: Path


def read_coco(root: str | Path, *, layout: str | int = "auto", faults: Handling = STRICT) -> list[Record]:
    """Read MS-COCO captions in the official folders of 2014 or 2017, or in the folders of 2014 with Karpathy's split.

    Args:
        root: folder of the data set.
        layout: "karpathy" (its "restval" images are in train), "2014", "2017", or "auto" for the layout on disk. In the
            official layouts, a split is read if both its captions and its images are there.
        faults: how to handle faults; see the module.

    Raises:
        DataError: the layout's files are missing or inconsistent.
        ConfigError: the layout is unknown, or it is "auto" and the folder has both 2014 and 2017, but not Karpathy's
            file.
    """
    root, layout = Path(root), str(layout)
    if layout not in ("auto", *COCO_LAYOUTS):
        raise ConfigError(f"data.layout must be auto, {', '.join(COCO_LAYOUTS)}, not {layout!r}")
    wanted = list(COCO_LAYOUTS) if layout == "auto" else [layout]
    found = [name for name in wanted if _has_layout(root, name)]
    if not found:
        raise DataError(
            f"data.root={root} has no COCO captions: it needs {', or '.join(COCO_LAYOUTS[name] for name in wanted)}. "
            f"Run: captioning-prepare data=coco download=true data.root={root} (see docs/data.md in the repository)"
        )
    if found == ["2014", "2017"]:
        raise ConfigError(f"{root} has both COCO 2014 and COCO 2017: choose data.layout=2014 or data.layout=2017")
    if found[0] == "karpathy":
        file, disk = root / "dataset_coco.json", Disk()
        records = _karpathy_records(file, root, disk, id_key="cocoid", faults=faults)
        return _checked([CaptionFile(file, records, root)], disk, faults)
    return read_coco_files(root, **_official(found[0]), faults=faults)


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
        faults: how to handle faults; see the module.

    Raises:
        DataError: no split is there, or a file is inconsistent.
    """
    present = _present(Path(root), annotations=annotations, images=images, splits=splits)
    if not present:
        raise DataError(
            f"{root} has no captions in COCO format: add {annotations} and its images in {images}/ for one or more "
            f"splits of {', '.join(splits)} (see docs/data.md in the repository)"
        )
    disk, sources = Disk(), []
    for split, file, folder in present:
        sources.append(CaptionFile(file, _coco_records(file, folder, disk, split=split, faults=faults), folder))
    return _checked(sources, disk, faults)


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
        faults: how to handle faults; see the module.

    Raises:
        DataError: a file or the image folder is missing or inconsistent.
    """
    root, file = Path(root), Path(root, annotations)
    names = [images] if isinstance(images, str) else list(images)
    folder = next((root / name for name in names if (root / name).is_dir()), None)
    if folder is None or not file.is_file():
        raise DataError(
            f"data.root={root} needs {annotations} (from {KARPATHY_URL}) and a folder of its images, named one of "
            f"{', '.join(names)}: add them (see docs/data.md in the repository)"
        )
    disk = Disk()
    sources = [CaptionFile(file, _karpathy_records(file, folder, disk, id_key="imgid", faults=faults), folder)]
    for split in sorted(set(SPLITS) - {record.split for record in sources[0].records}):
        if (extra := root / f"captions_{split}.json").is_file():
            sources.append(CaptionFile(extra, _coco_records(extra, folder, disk, split=split, faults=faults), folder))
    return _checked(sources, disk, faults)


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
        faults: how to handle faults; see the module.

    Raises:
        ConfigError: the shares are negative, or 1 or more together.
        DataError: the table or an image is missing or inconsistent.
    """
    if not (val_share >= 0 and test_share >= 0 and val_share + test_share < 1):
        raise ConfigError(
            f"data.reader.val_share ({val_share}) and test_share ({test_share}) must be 0 or more, and below 1 together"
        )
    table, folder, disk = Path(root, file), Path(root, images), Disk()
    rows = list(table_rows(table, faults, lambda names: have_all(folder, names, disk)))
    if images == ".":
        folder = own_folder(folder, names_of(rows), disk)
    places = Places(folder, names_of(rows), disk)
    folder = places.folder
    rows = _without_known_slips(table, rows, places, faults)
    captions: dict[Path, list[str]] = {}
    splits: dict[Path, str] = {}
    hashes: dict[Path, float] = {}  # of images without a split column
    for where, row in rows:
        with faults:
            name, split = row["image"].strip(), row.get("split")
            path = places.path(name, where)
            if split is None:
                hashes[path] = _hash(path.relative_to(folder).as_posix())
                split = _hashed_split(hashes[path], val_share, test_share)
            split = split.strip()
            if split not in SPLITS:
                raise DataError(f"{where}: split must be train, val or test, not {split!r}")
            if splits.setdefault(path, split) != split:
                raise DataError(
                    f"{where}: {name} is in split {split} here, but in {splits[path]} in an earlier row: choose one"
                )
            if faults is STRICT and not row["caption"].strip():
                raise DataError(f"{where}: the caption of {name} is blank: write one or delete the row")
            captions.setdefault(path, []).append(row["caption"])
    places.report(table, faults)
    candidates = [path for path in hashes if splits[path] == "train"]
    if val_share and len(candidates) > 1 and "val" not in splits.values():
        splits[min(candidates, key=hashes.__getitem__)] = "val"
    items = enumerate(captions.items())
    records = [Record(number, path, splits[path], tuple(texts)) for number, (path, texts) in items]
    return _checked([CaptionFile(table, records, folder)], disk, faults)


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


def _official(year: str) -> dict[str, Any]:
    """Return the arguments of `read_coco_files` for the official COCO archives of a year."""
    annotations, images = f"annotations/captions_{{split}}{year}.json", f"{{split}}{year}"
    return {"annotations": annotations, "images": images, "splits": ("train", "val")}


def _has_layout(root: Path, name: str) -> bool:
    return (root / "dataset_coco.json").is_file() if name == "karpathy" else bool(_present(root, **_official(name)))


def _present(root: Path, *, annotations: str, images: str, splits: Sequence[str]) -> list[tuple[str, Path, Path]]:
    """Return (split, caption file, image folder) for each split that has both."""
    found = [
        (split, root / annotations.replace("{split}", split), root / images.replace("{split}", split))
        for split in splits
    ]
    return [(split, file, folder) for split, file, folder in found if file.is_file() and folder.is_dir()]


def _coco_records(file: Path, folder: Path, disk: Disk, *, split: str, faults: Handling) -> list[Record]:
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
                records.append(Record(number, path, split, _not_blank(captions[number], faults)))
        places.report(file, faults)
    known = {record.image_id for record in records}
    unknown = [number for number in captions if number not in known]
    advice = "add the images or remove the captions"
    _refuse(file, "captions of image ids that 'images' does not list", unknown, advice=advice, faults=faults)
    return records


def _karpathy_records(file: Path, folder: Path, disk: Disk, *, id_key: str, faults: Handling) -> list[Record]:
    records = []
    with faults:
        listed = list(entries(read_json(file), "images", file))
        places = Places(folder, [image.get("filename", "") for _, image in listed if isinstance(image, dict)], disk)
        coco = CocoPictures(folder, disk) if id_key == "cocoid" else None
        for where, image in listed:
            with faults:
                records.append(_karpathy_record(image, where, places, coco, id_key=id_key, faults=faults))
        places.report(file, faults)
        if coco and coco.moved:
            found = " and ".join(f"{count} in {where}" for where, count in coco.moved.items())
            line = f"{file}: images found by name in other folders than those in the file: {found}"
            note(faults, None, None, line)
    return records


def _karpathy_record(
    image: Any, where: str, places: Places, coco: CocoPictures | None, *, id_key: str, faults: Handling
) -> Record:
    split = field(image, "split", str, where)
    if split not in (*SPLITS, "restval"):
        raise DataError(f"{where}: 'split' must be train, restval, val or test, not {split!r}")
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
    split = "train" if split == "restval" else split
    return Record(number, path, split, _not_blank(texts, faults))


def _not_blank(captions: Iterable[str], faults: Handling) -> tuple[str, ...]:
    """Drop blank captions of published files, which users cannot correct. The audit keeps them."""
    return tuple(caption for caption in captions if caption.strip() or faults is not STRICT)


def _hash(name: str) -> float:
    """Return a hash of a file name, uniform in 0 … 1."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64


def _hashed_split(number: float, val_share: float, test_share: float) -> str:
    return "test" if number < test_share else "val" if number < test_share + val_share else "train"


def _checked(sources: Sequence[CaptionFile], disk: Disk, faults: Handling) -> list[Record]:
    """Check the records of all files, and return those with captions."""
    result: list[Record] = []
    first: dict[int, Record] = {}
    for file, records, folder in sources:
        repeated = [record.image_id for record in records if first.setdefault(record.image_id, record) is not record]
        advice = "give every image its own id, also between splits"
        _refuse(file, "image ids of more than one image", repeated, advice=advice, faults=faults)
        if faults is STRICT:
            records = [record for record in records if record.captions]
            missing, outside = _on_disk((record.path for record in records), disk)
            advice = "download them or remove them from the file"
            if missing and (why := why_missing(missing[0], folder, disk)):
                advice = f"{why}. {advice[0].upper()}{advice[1:]}, or write the names as they are on disk"
            _refuse(file, "images that are not on disk", missing, advice=advice)
            _refuse(file, "images that are links out of their folder", outside, advice="copy the files into the folder")
        result += records
    if not result and faults is STRICT:
        raise DataError(f"{', '.join(str(source.file) for source in sources)}: no images with captions: add captions")
    return result


def _refuse(file: Path, fault: str, items: Sequence[Any], *, advice: str, faults: Handling = STRICT) -> None:
    """Raise one error for all items; if faults are collected, add one message per item."""
    if isinstance(faults, Faults):
        faults.messages += [f"{file}: {fault}: {item}; {advice}" for item in dict.fromkeys(items)]
    elif items:
        more = f" and {len(items) - 1} more" if len(items) > 1 else ""
        raise DataError(f"{file}: {fault}: {items[0]}{more}; {advice}")


def missing_files(paths: Iterable[Path]) -> list[Path]:
    """Return the paths that are not files."""
    return _on_disk(paths, Disk())[0]


def _on_disk(paths: Iterable[Path], disk: Disk) -> tuple[list[Path], list[Path]]:
    """Return (paths that are not files, paths that are links out of their folder)."""
    paths = list(paths)
    missing = [path for path in paths if not disk.has(path)]
    return missing, [path for path in paths if path.name in disk.listing(path.parent).outside]
