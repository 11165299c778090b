"""Read tags that another program wrote: a file of tags per image, or the results of a detector of COCO's categories."""

import difflib
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from captioning.data import Box, field, id_of, read_json, shown
from captioning.errors import DataError
from captioning.tags.nouns import coco_words
from captioning.tags.tag import Tag

# The ids of COCO's 80 categories have gaps; the names are in the order of `coco_words.yaml`.
_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_IDS = tuple(number for number in range(1, 91) if number not in _GAPS)
_RESULT = '{"image_id", "category_id", "score", "bbox"}'


def read_tags(path: str | Path, *, min_confidence: float = 0.0) -> dict[str, list[Tag]]:
    """Read the tags of images, from one of two forms of JSON.

    - {"IMAGE": [{"noun": "zebra", "confidence": 0.93, "box": [x, y, width, height]}, …]}: the key is the image's file
      name or id; "box" is optional.
    - [{"image_id": 42, "category_id": 24, "score": 0.93, "bbox": [x, y, width, height]}, …]: COCO's form of detection
      results, with the ids of its 80 categories.

    Boxes are in pixels of the upright image, from its top left corner.

    Args:
        path: the file.
        min_confidence: leave out tags below this confidence.

    Returns:
        Image's name or id as text -> its tags, the most certain first. The boxes of the tags are left, top, right and
        bottom.

    Raises:
        DataError: the file cannot be read, or an entry has another form.
    """
    file = Path(path)
    content = read_json(file)
    if isinstance(content, list):
        found = _detections(content, file)
    elif isinstance(content, dict):
        found = {name: _tags(listed, f"{file}, {name!r}") for name, listed in content.items()}
    else:
        raise DataError(
            f'{file}: the tags must be {{"IMAGE": [{{"noun": TEXT, "confidence": NUMBER}}]}}, or a list of COCO\'s '
            f"detection results, not {shown(content)}"
        )
    return {
        name: sorted((tag for tag in tags if tag.confidence >= min_confidence), key=lambda tag: -tag.confidence)
        for name, tags in found.items()
    }


def _tags(listed: Any, where: str) -> list[Tag]:
    if not isinstance(listed, list):
        raise DataError(
            f'{where}: must be a list of tags [{{"noun": TEXT, "confidence": NUMBER}}, …], not {shown(listed)}'
        )
    tags = []
    for number, entry in enumerate(listed):
        here = f"{where}, tag {number}"
        noun = " ".join(field(entry, "noun", str, here).lower().split())
        if not noun:
            raise DataError(f"{here}: 'noun' is empty: write the noun, such as 'zebra', or remove this tag")
        box = None if entry.get("box") is None else _box(entry["box"], f"{here}: 'box'")
        tags.append(Tag(noun, _confidence(entry, "confidence", here), box))
    return tags


def _detections(content: list[Any], file: Path) -> dict[str, list[Tag]]:
    names = dict(zip(COCO_IDS, coco_words(), strict=True))
    found: dict[str, list[Tag]] = defaultdict(list)
    for number, entry in enumerate(content):
        where = f"{file}, entry {number}"
        if not isinstance(entry, dict):
            raise DataError(f"{where}: must be a detection {_RESULT}, not {shown(entry)}")
        image = entry.get("image_id")
        name = image if isinstance(image, str) and image else str(id_of(entry, "image_id", where))
        category = id_of(entry, "category_id", where)
        if category not in names:
            raise DataError(
                f"{where}: 'category_id' must be one of the 80 ids of COCO's categories, from 1 (person) to "
                f"{max(names)} (toothbrush), not {category}"
            )
        box = None if entry.get("bbox") is None else _box(entry["bbox"], f"{where}: 'bbox'")
        found[name].append(Tag(names[category], _confidence(entry, "score", where), box))
    return dict(found)


def _confidence(entry: Any, key: str, where: str) -> float:
    if key not in entry:
        near = difflib.get_close_matches(key, [str(each) for each in entry], n=1)
        advice = f"rename '{near[0]}'" if near else "add it, from 0 to 1"
        raise DataError(f"{where}: the key '{key}' is missing: {advice}")
    value = entry[key]
    if type(value) not in (int, float) or not 0 <= value <= 1:  # False for NaN
        raise DataError(f"{where}: '{key}' must be a number from 0 to 1, not {shown(value)}")
    return float(value)


def _box(given: Any, where: str) -> Box:
    numbers = isinstance(given, list) and len(given) == 4 and all(type(each) in (int, float) for each in given)
    if not numbers or not all(map(math.isfinite, given)) or min(given[2:]) < 0:
        raise DataError(f"{where} must be [x, y, width, height] in pixels, not {shown(given)}")
    x, y, width, height = map(float, given)
    return Box(x, y, x + width, y + height)
