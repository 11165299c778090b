"""Read images with captions from COCO JSON, Karpathy's JSON or a CSV file, and check that the image files exist.

COCO captions JSON, Karpathy's JSON or a CSV file -> records, checked against the disk.

Each reader gives the records of all splits together, in the file's order of images. What every file format goes
through is at the end: an image id belongs to one picture, every picture with captions is on disk, pictures without
captions are left out. data/README.md says where each data set comes from.

Every reader stops at the first fault, unless it is given `faults` to put them in (as the audit does): then it goes on,
and returns all that can be read, blank captions, pictures without captions and pictures that are not on disk included.
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
    """MS-COCO captions in the official 2014 or 2017 folders, or in the 2014 folders with Karpathy's split.

    Args:
        root: folder of the data set.
        layout: "karpathy" (its "restval" pictures are train), "2014", "2017", or "auto" for what is on disk. In the
            official layouts a split is there when both its captions and its pictures are.

    Raises:
        DataError: nothing of the layout is there, or what is there is inconsistent.
        ConfigError: an unknown layout, or "auto" where both 2014 and 2017 are there without Karpathy's file.
    """
    root, layout = Path(root), str(layout)
    if layout not in ("auto", *COCO_LAYOUTS):
        raise ConfigError(f"data.layout must be auto, {', '.join(COCO_LAYOUTS)}, not {layout!r}")
    wanted = list(COCO_LAYOUTS) if layout == "auto" else [layout]
    found = [name for name in wanted if _has_layout(root, name)]
    if not found:
        raise DataError(
            f"no COCO captions in {root}: wanted {', or '.join(COCO_LAYOUTS[name] for name in wanted)}. "
            f"captioning-prepare data=coco download=true data.root={root} fetches them (see also data/README.md)"
        )
    if found == ["2014", "2017"]:
        raise ConfigError(f"{root} holds COCO 2014 and COCO 2017: choose with data.layout=2014 or data.layout=2017")
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
    """COCO captions JSON, one file a split; blank captions are left out.

    Args:
        annotations, images: caption file and picture folder, relative to root; {split} stands for the split's name.
        splits: those to look for. A split is there when both its captions and its pictures are.
    """
    places = _present(Path(root), annotations=annotations, images=images, splits=splits)
    if not places:
        raise DataError(
            f"no captions in COCO format in {root}: wanted {annotations} with pictures in {images}/, "
            f"for one or more splits of {', '.join(splits)} (see data/README.md)"
        )
    disk, sources = Disk(), []
    for split, file, folder in places:
        sources.append(CaptionFile(file, _coco_records(file, folder, disk, split=split, faults=faults), folder))
    return _checked(sources, disk, faults)


def read_karpathy(
    root: str | Path,
    *,
    annotations: str,
    images: str | Sequence[str] = PICTURE_FOLDERS,
    faults: Handling = STRICT,
) -> list[Record]:
    """Karpathy's JSON alone: dataset_flickr8k.json, dataset_flickr30k.json. Image ids are its imgid.

    A split that it lacks is read from `captions_{split}.json` (COCO format) in root, where that exists.

    Args:
        root: folder of the data set.
        annotations: Karpathy's file, relative to root.
        images: picture folders relative to root, of which the first that exists is taken.
    """
    root, file = Path(root), Path(root, annotations)
    names = [images] if isinstance(images, str) else list(images)
    folder = next((root / name for name in names if (root / name).is_dir()), None)
    if folder is None or not file.is_file():
        raise DataError(
            f"no {annotations} with pictures in {root}: wanted {file} (in {KARPATHY_URL}) "
            f"and a folder of its pictures, one of {', '.join(names)} (see data/README.md for where to get them)"
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
    test_share: float = 0.1,
    faults: Handling = STRICT,
) -> list[Record]:
    """A table `image,caption[,split]`, one row a caption. Image ids are 0, 1, … in order of first appearance.

    The cells may be separated by commas, semicolons, tabs or bars; the published tables of Flickr8k
    (Flickr8k.token.txt, captions.txt) and Flickr30k (results.csv) are read too. Without a split column a hash of the
    picture's file name decides, so that more rows never move a picture.

    Args:
        root: folder of the data set.
        file: the table (UTF-8 or UTF-16), relative to root.
        images: folder of the pictures, relative to root.
        val_share, test_share: expected shares of the pictures, where there is no split column.
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
    for where, row in rows:
        with faults:
            name, split = row["image"].strip(), row.get("split")
            path = places.path(name, where)
            if split is None:
                split = _hashed_split(path.relative_to(folder).as_posix(), val_share, test_share)
            split = split.strip()
            if split not in SPLITS:
                raise DataError(f"{where}: split must be train, val or test, not {split!r}")
            if splits.setdefault(path, split) != split:
                raise DataError(f"{where}: {name} is in split {split} here and in {splits[path]} before; choose one")
            if faults is STRICT and not row["caption"].strip():
                raise DataError(f"{where}: the caption of {name} is blank; write one or delete the row")
            captions.setdefault(path, []).append(row["caption"])
    places.report(table, faults)
    items = enumerate(captions.items())
    records = [Record(number, path, splits[path], tuple(texts)) for number, (path, texts) in items]
    return _checked([CaptionFile(table, records, folder)], disk, faults)


def _without_known_slips(table: Path, rows: list, places: Places, faults: Handling) -> list:
    """Rows but those of 2258277193_586949ec62.jpg.1, which Flickr8k.token.txt names and Flickr8k does not have."""
    slips = {name for name in names_of(rows) if _SLIP.search(name) and not places.has(name)}
    if not slips:
        return rows
    name = sorted(slips)[0]
    item = {"file": name, "reason": f"{table.name} names it, and no data set has it"}
    line = f"{table}: the captions of {name} are left out: no data set has this image"
    note(faults, "names that are spelled otherwise on disk", item, line)
    return [(where, row) for where, row in rows if row["image"].strip() not in slips]


def _official(year: str) -> dict[str, Any]:
    """Where the official COCO archives of a year put their files."""
    annotations, images = f"annotations/captions_{{split}}{year}.json", f"{{split}}{year}"
    return {"annotations": annotations, "images": images, "splits": ("train", "val")}


def _has_layout(root: Path, name: str) -> bool:
    return (root / "dataset_coco.json").is_file() if name == "karpathy" else bool(_present(root, **_official(name)))


def _present(root: Path, *, annotations: str, images: str, splits: Sequence[str]) -> list[tuple[str, Path, Path]]:
    """(split, caption file, picture folder) of the splits that have both."""
    places = [tuple(pattern.replace("{split}", split) for pattern in (annotations, images)) for split in splits]
    found = [(split, root / file, root / folder) for split, (file, folder) in zip(splits, places, strict=True)]
    return [place for place in found if place[1].is_file() and place[2].is_dir()]


def _coco_records(file: Path, folder: Path, disk: Disk, *, split: str, faults: Handling) -> list[Record]:
    content, captions, records = {}, defaultdict(list), []
    with faults:
        content = read_json(file)
    with faults:
        left_out, total = Counter(), 0
        for where, annotation in entries(content, "annotations", file):
            with faults:
                number, caption = id_of(annotation, "image_id", where), field(annotation, "caption", str, where)
                total += 1
                if mark := mark_of(annotation, where):
                    left_out[mark] += 1
                    reason = f"{mark}, of image {number}"
                    item = {"file": str(file), "split": split, "caption": caption, "reason": reason}
                    note(faults, "rejected annotations, left out", item)
                    captions[number] += []  # keeps an id that "images" does not list, for the check below
                else:
                    captions[number].append(caption)
        note(faults, None, None, left_out_notice(left_out, total, str(file)))
    with faults:
        listed = list(entries(content, "images", file))
        places = Places(folder, [image.get("file_name") for _, image in listed if isinstance(image, dict)], disk)
        for where, image in listed:
            with faults:
                number, name = id_of(image, "id", where), field(image, "file_name", str, where)
                path = places.path(name, where)
                records.append(Record(number, path, split, _spoken(captions[number], faults)))
        places.report(file, faults)
    known = {record.image_id for record in records}
    unknown = [number for number in captions if number not in known]
    advice = "add them or drop the captions"
    _refuse(file, "captions of image ids that 'images' does not list", unknown, advice=advice, faults=faults)
    return records


def _karpathy_records(file: Path, folder: Path, disk: Disk, *, id_key: str, faults: Handling) -> list[Record]:
    records = []
    with faults:
        listed = list(entries(read_json(file), "images", file))
        places = Places(folder, [image.get("filename") for _, image in listed if isinstance(image, dict)], disk)
        coco = CocoPictures(folder, disk) if id_key == "cocoid" else None
        for where, image in listed:
            with faults:
                records.append(_karpathy_record(image, where, places, coco, id_key=id_key, faults=faults))
        places.report(file, faults)
        if coco and coco.moved:
            found = " and ".join(f"{count} in {where}" for where, count in coco.moved.items())
            line = f"{file}: pictures found by their names in other folders than the file's: {found}"
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
    texts = []
    for sentence in field(image, "sentences", list, where):
        with faults:
            texts.append(field(sentence, "raw", str, where))
    number = id_of(image, id_key, where)
    path = places.path(os.path.join(filepath, filename), where)
    if coco and not places.disk.has(path):
        path = coco.find(filename, number) or path
    split = "train" if split == "restval" else split
    return Record(number, path, split, _spoken(texts, faults))


def _spoken(captions: Iterable[str], faults: Handling) -> tuple[str, ...]:
    """Captions that are not blank. In a published file a blank one is left out: its users cannot mend it."""
    return tuple(caption for caption in captions if caption.strip() or faults is not STRICT)


def _hashed_split(name: str, val_share: float, test_share: float) -> str:
    digest = hashlib.sha256(Path(name).as_posix().encode()).digest()
    place = int.from_bytes(digest[:8]) / 2**64  # evenly spread over 0 … 1
    return "test" if place < test_share else "val" if place < test_share + val_share else "train"


def _checked(sources: Sequence[CaptionFile], disk: Disk, faults: Handling) -> list[Record]:
    """The records that have captions, of all sources; faults are laid to the file."""
    result, first = [], {}
    for file, records, folder in sources:
        repeated = [record.image_id for record in records if first.setdefault(record.image_id, record) is not record]
        advice = "ids must differ, also between splits"
        _refuse(file, "image ids of more than one picture", repeated, advice=advice, faults=faults)
        if faults is STRICT:
            records = [record for record in records if record.captions]
            missing, outside = _on_disk((record.path for record in records), disk)
            advice = "fetch them or take them out of the file"
            if missing and (why := why_missing(missing[0], folder, disk)):
                advice = f"{why}. {advice[0].upper()}{advice[1:]}, or write the names as they are on disk"
            _refuse(file, "pictures that are not on disk", missing, advice=advice)
            _refuse(file, "pictures that are links out of their folder", outside, advice="copy or hard-link them there")
        result += records
    if not result and faults is STRICT:
        raise DataError(f"{', '.join(str(source.file) for source in sources)}: no pictures with captions")
    return result


def _refuse(file: Path, fault: str, items: Sequence[Any], *, advice: str, faults: Handling = STRICT) -> None:
    """One error for all the items, or, where faults are collected, one an item."""
    if isinstance(faults, Faults):
        faults.messages += [f"{file}: {fault}: {item}; {advice}" for item in dict.fromkeys(items)]
    elif items:
        more = f" and {len(items) - 1} more" if len(items) > 1 else ""
        raise DataError(f"{file}: {fault}: {items[0]}{more}; {advice}")


def missing_files(paths: Iterable[Path]) -> list[Path]:
    """Paths that are no files."""
    return _on_disk(paths, Disk())[0]


def _on_disk(paths: Iterable[Path], disk: Disk) -> tuple[list[Path], list[Path]]:
    """(paths that are no files, paths that are links out of their folder)."""
    paths = list(paths)
    missing = [path for path in paths if not disk.has(path)]
    return missing, [path for path in paths if path.name in disk.listing(path.parent).outside]
