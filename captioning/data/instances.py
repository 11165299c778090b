"""What is where in a picture, from COCO's instances JSON; and the words by which captions name it."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from captioning.data.annotations import Record
from captioning.data.parsing import entries, field, id_of, read_json
from captioning.errors import DataError

COCO_WORDS = Path(__file__).with_name("coco_words.yaml")
NOTHING = "nothing"  # in place of a category: phrases that name none


class Instance(NamedTuple):
    """One thing: its category's name, box (x, y, width, height) in pixels, and COCO's segmentation of it: polygons
    [[x, y, …], …], or {"counts", "size"}, run lengths, compressed or not."""

    category: str
    box: tuple[float, float, float, float]
    segmentation: list | dict


class Annotated(NamedTuple):
    """All things in one picture of that many pixels, crowds included."""

    width: int
    height: int
    instances: list[Instance]


class Instances(NamedTuple):
    """pictures: by image id. words: category -> the ways to name it, in the singular unless irregular."""

    pictures: dict[int, Annotated]
    words: dict[str, tuple[str, ...]]


def read_instances(
    root: str | Path, records: Sequence[Record], *, words: str | Mapping[str, Sequence[str]] | None = None
) -> Instances:
    """Instances of the records' pictures: those of FOLDER/ are in annotations/instances_FOLDER.json.

    Args:
        root: folder of the data set.
        records: the pictures wanted.
        words: a YAML file `category: [word, several words, …]`, or the same as a mapping; the file for COCO's 80
            categories by default. "nothing" holds phrases that name no category.

    Raises:
        DataError: a file is missing or broken, lacks one of the pictures, or a word is of no category.
    """
    pictures, names = {}, set()
    for folder in dict.fromkeys(record.path.parent.name for record in records):
        wanted = {record.image_id for record in records if record.path.parent.name == folder}
        file = Path(root, "annotations", f"instances_{folder}.json")
        if not file.is_file():
            raise DataError(f"{file} is missing: without instances there is nothing to hold attention against")
        found, categories = _read(file, wanted)
        pictures |= found
        names |= categories
    return Instances(pictures, _words(COCO_WORDS if words is None else words, names))


def _read(file: Path, wanted: set[int]) -> tuple[dict[int, Annotated], set[str]]:
    content = read_json(file)
    names = {
        id_of(entry, "id", where): field(entry, "name", str, where)
        for where, entry in entries(content, "categories", file)
    }
    found = {}
    for where, image in entries(content, "images", file):
        if (number := id_of(image, "id", where)) in wanted:
            found[number] = Annotated(field(image, "width", int, where), field(image, "height", int, where), [])
    if missing := sorted(wanted - found.keys()):
        raise DataError(f"{file}: lacks {len(missing)} pictures of the captions, such as image id {missing[0]}")
    for where, entry in entries(content, "annotations", file):
        if (number := id_of(entry, "image_id", where)) in found:
            found[number].instances.append(_instance(entry, names, where))
    return found, set(names.values())


def _instance(entry: Any, names: Mapping[int, str], where: str) -> Instance:
    category, box = id_of(entry, "category_id", where), field(entry, "bbox", list, where)
    if category not in names:
        raise DataError(f"{where}: category {category} is not among 'categories'")
    if len(box) != 4 or not all(type(side) in (int, float) for side in box):
        raise DataError(f"{where}: 'bbox' must be x, y, width, height, not {box!r:.60}")
    segmentation = entry.get("segmentation")
    if not (
        isinstance(segmentation, list) or (isinstance(segmentation, dict) and {"counts", "size"} <= segmentation.keys())
    ):
        raise DataError(f"{where}: 'segmentation' must be polygons or run lengths, not {segmentation!r:.60}")
    return Instance(names[category], tuple(box), segmentation)


def _words(source: str | Path | Mapping[str, Sequence[str]], categories: set[str]) -> dict[str, tuple[str, ...]]:
    content, where = source, "words"
    if isinstance(source, str | Path):
        where = str(source)
        try:
            content = yaml.safe_load(Path(source).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError(f"cannot read {source}, a YAML file of categories and their words ({error})") from error
    if not isinstance(content, Mapping):
        raise DataError(f"{where}: must be lines of CATEGORY: [word, several words]")
    for category, phrases in content.items():
        if category not in categories | {NOTHING}:
            nearest = difflib.get_close_matches(str(category), sorted(categories), n=1)
            hint = f": did you mean '{nearest[0]}'?" if nearest else ""
            raise DataError(f"{where}: the data set has no category '{category}'{hint}")
        if isinstance(phrases, str) or not all(isinstance(phrase, str) for phrase in phrases or ()):
            raise DataError(f"{where}: the words of '{category}' must be a list of texts (quote on, off, yes and no)")
    return {category: tuple(phrases or ()) for category, phrases in content.items()}
