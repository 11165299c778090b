"""Read which objects are where in an image from COCO's instances JSON, with the words that name their categories."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from captioning.data.parsing import entries, field, id_of, read_json
from captioning.data.records import Record
from captioning.errors import DataError

COCO_WORDS = Path(__file__).with_name("coco_words.yaml")
LONGEST_SIDE = 65_535  # of a picture in pixels, as JPEG has it
_NOTHING = "nothing"  # in place of a category: phrases that name none


class Instance(NamedTuple):
    """One thing: its category's name, box (x, y, width, height) in pixels, and COCO's segmentation of it: polygons
    [[x, y, …], …], or {"counts", "size"}, run lengths, which are a list here also where the file compresses them."""

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
            found[number] = Annotated(_side(image, "width", where), _side(image, "height", where), [])
    if missing := sorted(wanted - found.keys()):
        raise DataError(f"{file}: lacks {len(missing)} pictures of the captions, such as image id {missing[0]}")
    for where, entry in entries(content, "annotations", file):
        if (number := id_of(entry, "image_id", where)) in found:
            picture = found[number]
            picture.instances.append(_instance(entry, names, (picture.width, picture.height), where))
    return found, set(names.values())


def _side(image: Any, key: str, where: str) -> int:
    side = field(image, key, int, where)
    if not 1 <= side <= LONGEST_SIDE:
        raise DataError(f"{where}: '{key}' must be from 1 to {LONGEST_SIDE} pixels, not {side}")
    return side


def _instance(entry: Any, names: Mapping[int, str], size: tuple[int, int], where: str) -> Instance:
    category, box = id_of(entry, "category_id", where), field(entry, "bbox", list, where)
    if category not in names:
        raise DataError(f"{where}: category {category} is not among 'categories'")
    if len(box) != 4 or not all(map(_is_coordinate, box)):
        raise DataError(f"{where}: 'bbox' must be x, y, width, height, not {box!r:.60}")
    return Instance(names[category], tuple(box), _segmentation(entry.get("segmentation"), size, where))


def _segmentation(given: Any, size: tuple[int, int], where: str) -> list | dict:
    """Checked to the last number: the C code that makes masks of them reads and writes wherever they lead it."""
    if isinstance(given, list) and all(isinstance(polygon, list) for polygon in given):
        wrong = [each for polygon in given for each in polygon if not _is_coordinate(each)]
        if wrong or any(len(polygon) % 2 for polygon in given):
            told = f"not {wrong[0]!r:.60}" if wrong else "in pairs"
            raise DataError(f"{where}: polygons of 'segmentation' must be x, y, x, y, … in pixels, {told}")
        return given
    if isinstance(given, dict) and {"counts", "size"} <= given.keys():
        counts = _run_lengths(given["counts"]) if isinstance(given["counts"], str) else given["counts"]
        lengths = isinstance(counts, list) and all(type(each) is int and each >= 0 for each in counts)
        if given["size"] == [size[1], size[0]] and lengths and sum(counts) == size[0] * size[1]:
            return {"counts": counts, "size": given["size"]}
        raise DataError(
            f"{where}: run lengths of 'segmentation' must have the picture's size, [{size[1]}, {size[0]}], and add up "
            f"to its pixels; not {given!r:.80}"
        )
    raise DataError(f"{where}: 'segmentation' must be polygons or run lengths, not {given!r:.60}")


def _is_coordinate(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= 10 * LONGEST_SIDE  # False for NaN


def _run_lengths(text: str) -> list[int] | None:
    """COCO's compressed run lengths: 5 bits a character, the lowest first, the sixth bit says that more follow; from
    the fourth number on, differences to the last but one. None where that is not what the text holds."""
    counts, value, shift = [], 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:  # negative
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, shift = 0, 0
    return None if shift else counts


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
        if category not in categories | {_NOTHING}:
            nearest = difflib.get_close_matches(str(category), sorted(categories), n=1)
            hint = f": did you mean '{nearest[0]}'?" if nearest else ""
            raise DataError(f"{where}: the data set has no category '{category}'{hint}")
        if isinstance(phrases, str) or not all(isinstance(phrase, str) for phrase in phrases or ()):
            raise DataError(f"{where}: the words of '{category}' must be a list of texts (quote on, off, yes and no)")
    return {category: tuple(phrases or ()) for category, phrases in content.items()}
