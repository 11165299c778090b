"""Read the objects in each image from COCO's instances JSON, with the words that name their categories."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from captioning.data.parsing import entries, field, id_of, read_json, shown
from captioning.data.records import Record
from captioning.errors import DataError
from captioning.io import unopened

COCO_WORDS = Path(__file__).with_name("coco_words.yaml")
LONGEST_SIDE = 65_535  # pixels, the limit of JPEG
_NOTHING = "nothing"  # key of the phrases that name no category


class Instance(NamedTuple):
    """One object.

    Attributes:
        category: name of its category.
        box: x, y, width, height in pixels.
        segmentation: COCO's segmentation: polygons [[x, y, …], …], or run lengths {"counts": list, "size": [height,
            width]}. Compressed run lengths are decompressed.
    """

    category: str
    box: tuple[float, float, float, float]
    segmentation: list | dict


class Annotated(NamedTuple):
    """All objects in one image, crowds included; width and height of the image in pixels."""

    width: int
    height: int
    instances: list[Instance]


class ListedCategories(NamedTuple):
    """Which categories a file of annotated objects lists for each image.

    Attributes:
        names: image id -> file name; None for an image without one.
        categories: image id -> its categories, crowds included; only those that `words` has.
        words: category -> the words that name it; singular, and irregular plurals.
    """

    names: dict[int, str | None]
    categories: dict[int, set[str]]
    words: dict[str, tuple[str, ...]]


class Instances(NamedTuple):
    """The objects of all images.

    Attributes:
        pictures: image id -> its objects.
        words: category -> the words that name it; singular, and irregular plurals.
    """

    pictures: dict[int, Annotated]
    words: dict[str, tuple[str, ...]]


def read_instances(
    root: str | Path, records: Sequence[Record], *, words: str | Mapping[str, Sequence[str]] | None = None
) -> Instances:
    """Read the objects in the records' images. For images in FOLDER/, from annotations/instances_FOLDER.json.

    Args:
        root: folder of the data set.
        records: the images.
        words: a YAML file with lines `category: [word, several words, …]`, or the same as a mapping. None for the file
            of COCO's 80 categories. The key "nothing" has phrases that name no category.

    Raises:
        DataError: a file is missing or broken, an image is missing in it, or `words` has an unknown category.
    """
    pictures: dict[int, Annotated] = {}
    names: set[str] = set()
    for folder in dict.fromkeys(record.path.parent.name for record in records):
        wanted = {record.image_id for record in records if record.path.parent.name == folder}
        file = Path(root, "annotations", f"instances_{folder}.json")
        if not file.is_file():
            raise DataError(
                f"{file} is missing: attention is compared with the objects that it lists. Download COCO's instances"
            )
        found, categories = _read(file, wanted)
        pictures |= found
        names |= categories
    return Instances(pictures, _words(COCO_WORDS if words is None else words, names))


def read_categories(
    file: str | Path, *, words: str | Path | Mapping[str, Sequence[str]] | None = None
) -> ListedCategories:
    """Read which categories are annotated in each image of a file in the format of COCO's instances JSON.

    Args:
        file: for example `annotations/instances_val2017.json`.
        words: as for `read_instances`.

    Raises:
        DataError: the file is missing, broken or no such file, or `words` has an unknown category.
    """
    file = Path(file)
    content = read_json(file)
    lists = ("images", "annotations", "categories")
    if missing := [key for key in lists if not isinstance(content, dict) or not isinstance(content.get(key), list)]:
        raise DataError(
            f"{file} does not list annotated objects (it has no list '{missing[0]}'): give COCO's instances, such as "
            "annotations/instances_val2017.json"
        )
    names = _category_names(content, file)
    if words is None:
        own = yaml.safe_load(COCO_WORDS.read_text(encoding="utf-8")).keys() - {_NOTHING}
        if unlisted := sorted(own - set(names.values())):
            raise DataError(
                f"{file} does not have COCO's categories: {len(unlisted)} of {len(own)} are missing in 'categories', "
                f"such as '{unlisted[0]}'. Give COCO's instances, such as annotations/instances_val2017.json"
            )
    known = _words(COCO_WORDS if words is None else words, set(names.values()))
    pictures: dict[int, str | None] = {}
    for where, image in entries(content, "images", file):
        number = id_of(image, "id", where)
        pictures[number] = field(image, "file_name", str, where) if image.get("file_name") is not None else None
    found: dict[int, set[str]] = {number: set() for number in pictures}
    for where, entry in entries(content, "annotations", file):
        number, category = id_of(entry, "image_id", where), _category(entry, names, where)
        if number in found and category in known:
            found[number].add(category)
    return ListedCategories(pictures, found, known)


def _category_names(content: Any, file: Path) -> dict[int, str]:
    return {
        id_of(entry, "id", where): field(entry, "name", str, where)
        for where, entry in entries(content, "categories", file)
    }


def _read(file: Path, wanted: set[int]) -> tuple[dict[int, Annotated], set[str]]:
    content = read_json(file)
    names = _category_names(content, file)
    found: dict[int, Annotated] = {}
    for where, image in entries(content, "images", file):
        if (number := id_of(image, "id", where)) in wanted:
            found[number] = Annotated(_side(image, "width", where), _side(image, "height", where), [])
    if missing := sorted(wanted - found.keys()):
        raise DataError(
            f"{file} lacks {len(missing)} images that have captions, such as image id {missing[0]}: use the instances "
            "of the same data set"
        )
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
    category, box = _category(entry, names, where), field(entry, "bbox", list, where)
    if len(box) != 4 or not all(map(_is_coordinate, box)):
        raise DataError(f"{where}: 'bbox' must be x, y, width, height, not {box!r:.60}")
    return Instance(category, tuple(box), _segmentation(entry.get("segmentation"), size, where))


def _category(entry: Any, names: Mapping[int, str], where: str) -> str:
    number = id_of(entry, "category_id", where)
    if number not in names:
        raise DataError(f"{where}: category {number} is not in 'categories': add it there")
    return names[number]


def _segmentation(given: Any, size: tuple[int, int], where: str) -> list | dict:
    """Check and return a segmentation. The C code that rasterizes it does not check, and could access any memory."""
    if isinstance(given, list) and all(isinstance(polygon, list) for polygon in given):
        wrong = [each for polygon in given for each in polygon if not _is_coordinate(each)]
        if wrong or any(len(polygon) % 2 for polygon in given):
            fault = f"not {wrong[0]!r:.60}" if wrong else "in pairs"
            raise DataError(f"{where}: polygons of 'segmentation' must be x, y, x, y, … in pixels, {fault}")
        return given
    if isinstance(given, dict) and {"counts", "size"} <= given.keys():
        counts = _run_lengths(given["counts"]) if isinstance(given["counts"], str) else given["counts"]
        lengths = isinstance(counts, list) and all(type(each) is int and each >= 0 for each in counts)
        if given["size"] == [size[1], size[0]] and lengths and sum(counts or ()) == size[0] * size[1]:
            return {"counts": counts, "size": given["size"]}
        raise DataError(
            f"{where}: run lengths of 'segmentation' must have the image's size, [{size[1]}, {size[0]}], and add up to "
            "its number of pixels"
        )
    raise DataError(f"{where}: 'segmentation' must be polygons or run lengths, not {shown(given)}")


def _is_coordinate(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= 10 * LONGEST_SIDE  # False for NaN


def _run_lengths(text: str) -> list[int] | None:
    """Return COCO's compressed run lengths as numbers; None if the text has another form.

    Each character has 5 bits of a number, lowest bits first; its sixth bit is set if more characters follow. From the
    fourth number on, the differences to the number two before are stored.
    """
    counts: list[int] = []
    value = shift = 0
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
    content: Any = source
    where = "words"
    if isinstance(source, str | Path):
        where = str(source)
        try:
            content = yaml.safe_load(Path(source).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            if advice := unopened(source, error):
                raise DataError(advice) from error
            raise DataError(
                f"cannot read {source} ({error}): it must be a YAML file with lines CATEGORY: [word, several words]"
            ) from error
    if not isinstance(content, Mapping):
        raise DataError(f"{where}: the lines must be CATEGORY: [word, several words]")
    for category, phrases in content.items():
        if category not in categories | {_NOTHING}:
            nearest = difflib.get_close_matches(str(category), sorted(categories), n=1)
            advice = f"did you mean '{nearest[0]}'?" if nearest else "remove this line"
            raise DataError(f"{where}: the data set has no category '{category}': {advice}")
        if isinstance(phrases, str) or not all(isinstance(phrase, str) for phrase in phrases or ()):
            raise DataError(f"{where}: the words of '{category}' must be a list of texts (quote on, off, yes and no)")
    return {category: tuple(phrases or ()) for category, phrases in content.items()}
