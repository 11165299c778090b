"""Read captions and references from files: COCO results, JSON lines, COCO annotations, Karpathy's file."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from captioning.data import (
    SPLITS,
    counted_annotations,
    entries,
    field,
    left_out_notice,
    parse_json,
    read_json,
    split_named,
)
from captioning.errors import DataError
from captioning.evaluation.identity import COCO_ID, ImageId, ImageTexts, listed, pair, read_id
from captioning.io import counted
from captioning.metrics import name_ids


def read_results(file: Path) -> list[ImageTexts]:
    """Read one caption per image from a JSON file.

    Three formats are accepted:

    - COCO results: `[{"image_id": 1, "caption": "…"}, …]`. Entries may have `file_name` besides `image_id` or instead
      of it.
    - JSON lines: the same entries, one per line.
    - An object: `{"1": "…"}` or `{"1": ["…"]}`.

    Raises:
        DataError: the file has another format, an image has more than one caption, or a caption is not text.
    """
    samples = read_samples(file)
    several = [entry for entry in samples if len(entry.texts) > 1]
    repeated = [entry.name if entry.image_id is None else entry.image_id for entry in several]
    if repeated:
        images = counted(len(repeated), "image")
        raise DataError(
            f"{file} has more than one caption for {images}: image ids {name_ids(repeated)}. Keep one per image, or "
            f"score them as samples: captioning-score … samples={file}"
        )
    return samples


def read_samples(file: Path) -> list[ImageTexts]:
    """Read one or more captions per image from a JSON file, in the formats of `read_results`.

    Raises:
        DataError: the file has another format, or a caption is not text.
    """
    content = _json_or_lines(file)
    if isinstance(content, dict) and {"image_id", "file_name"} & content.keys() and "caption" in content:
        content = [content]  # JSON lines of one line
    if isinstance(content, dict) and content and all(map(_is_caption, content.values())):
        groups = {key: [texts] if isinstance(texts, str) else texts for key, texts in content.items()}
        content = [{"image_id": key, "caption": text} for key, texts in groups.items() for text in texts]
    if not isinstance(content, list):
        raise DataError(
            f'{file} must be a JSON list [{{"image_id": 1, "caption": "…"}}, …], not a JSON {_kind(content)}'
        )
    if not content:
        raise DataError(f'{file} has no captions. Write a list [{{"image_id": 1, "caption": "…"}}, …]')
    return _by_image(file, [(f"{file}[{index}]", entry) for index, entry in enumerate(content)])


class ReferenceFile(NamedTuple):
    """The reference captions of a file.

    Attributes:
        images: the images that have references.
        split: the split's name.
        unscored: images whose captions are all marked as rejected or precanned. Official evaluators skip them; see
            `data.counted_annotations`.
        notice: a line that reports skipped captions; None if none were skipped.
        groups: {image id: group} of the images that have one: the domains of nocaps.
    """

    images: list[ImageTexts]
    split: str
    unscored: list[ImageTexts]
    notice: str | None
    groups: Mapping[ImageId, str] = MappingProxyType({})


def read_references(file: Path, split: str | None = None) -> ReferenceFile:
    """Read the reference captions of a COCO file, or of one split of Karpathy's file.

    Images without captions are left out.

    Args:
        file: the JSON file.
        split: for Karpathy's file: "train" (includes "restval"), "val" or "test"; None: "test", or the only split of
            the file. For a COCO file, which has no splits, the name to report; None: the file's name.

    Raises:
        DataError: the file has another format, the split has no captions, or an id has several file names.
    """
    content = read_json(file)
    if isinstance(content, list):
        raise DataError(
            f"{file} must be a COCO caption file, a JSON object with 'images' and 'annotations', not a list. If it has "
            "results, swap results= and annotations="
        )
    if is_karpathy(content):
        split = split or _test_split(content, file)
        return ReferenceFile(_karpathy(file, content, split), split, [], None)
    given = list(entries(content, "annotations", file))
    for where, annotation in given:  # results may name a file instead; references need the id
        _required(annotation, "image_id", where)
    unmarked, left_out = counted_annotations(given)
    names, texts = _file_names(file, content), {entry.known_id: entry.texts for entry in _by_image(file, unmarked)}
    everything = [entry._replace(name=names.get(entry.known_id) or entry.name) for entry in _by_image(file, given)]
    complete = len(names) == len(content.get("images", []))  # all images have a name
    if complete and names and (unlisted := [entry.known_id for entry in everything if entry.image_id not in names]):
        raise DataError(
            f"{file} has captions of image ids that 'images' does not list: {name_ids(unlisted)}. Add these images or "
            "remove the captions"
        )
    images = [entry._replace(texts=texts[entry.known_id]) for entry in everything if entry.image_id in texts]
    unscored = [entry for entry in everything if entry.image_id not in texts]
    notice = left_out_notice(left_out, len(given), str(file))
    if unscored:
        notice = f"{notice}; not scored, because they have no other caption: {counted(len(unscored), 'image')}"
    return ReferenceFile(images, split or file.stem, unscored, notice, _domains(content))


def is_karpathy(content: Any) -> bool:
    """Return whether a JSON file has Karpathy's format, in which each image has its captions ("sentences")."""
    images = content.get("images") if isinstance(content, dict) else None
    return isinstance(images, list) and bool(images) and isinstance(images[0], dict) and "sentences" in images[0]


def read_for_server(file: Path, images: Path) -> tuple[dict[ImageId, str], list[ImageId]]:
    """Read results for an evaluation server.

    Args:
        file: results, in the formats of `read_results`. Results that name files, such as those of `captioning-caption`,
            get the image ids that `images` has for these files.
        images: a COCO file, or TextCaps' file, that lists the images of the split.

    Returns:
        {image id: caption}, and the ids of all listed images, with or without captions.

    Raises:
        DataError: a caption is of an image that `images` does not list.
    """
    wanted = _listed_images(images)
    results = read_results(file)
    found = pair(results, wanted, files=(file, images))
    if found.extra:
        raise DataError(
            f"{file} has {counted(len(found.extra), 'caption')} of images that {images} does not list: "
            f"{listed(results, found.extra)}. Remove them, or give the file that lists these images"
        )
    captions = {wanted[row].known_id: results[place].texts[0] for row, place in found.rows.items()}
    return captions, [entry.known_id for entry in wanted]


def image_ids(paths: Sequence[Path], annotations: Path | None) -> list[ImageId] | None:
    """Find the images' ids in their data set; return None for images without ids.

    Args:
        paths: the images' files.
        annotations: a COCO file or Karpathy's file that lists the images; None: the ids are the numbers in COCO's file
            names, if all names have one.

    Raises:
        DataError: `annotations` does not list all images.
    """
    if annotations is None:
        found = [COCO_ID.fullmatch(path.name) for path in paths]
        numbers: list[ImageId] = [int(match[1]) for match in found if match]
        return numbers if len(set(numbers)) == len(paths) else None
    own, wanted = [ImageTexts(None, str(path), []) for path in paths], _listed_images(annotations)
    paired = pair(own, wanted, files=("images", annotations))
    if paired.extra:
        raise DataError(
            f"{annotations} does not list {len(paired.extra)} of the images: {listed(own, paired.extra)}. Remove them, "
            "or give the file that lists them"
        )
    ids = {place: wanted[row].known_id for row, place in paired.rows.items()}
    return [ids[place] for place in range(len(paths))]


def _listed_images(file: Path) -> list[ImageTexts]:
    """Return all images that a COCO, Karpathy's or TextCaps' file lists, of every split, with or without captions."""
    content = read_json(file)
    if is_karpathy(content):
        return [entry for split in SPLITS for entry in _of_karpathy(file, content, split)]
    if isinstance(content, dict) and "data" in content and "images" not in content:
        return _of_textcaps(file, content)
    names = _file_names(file, content)
    ids = [read_id(_required(image, "id", where), where, "id") for where, image in entries(content, "images", file)]
    return [ImageTexts(number, names.get(number), []) for number in ids]


def _of_textcaps(file: Path, content: Any) -> list[ImageTexts]:
    """Return the images of a file of TextCaps, which has one entry per caption. An id is text, and the file's name."""
    listed = dict.fromkeys(field(entry, "image_id", str, where) for where, entry in entries(content, "data", file))
    return [ImageTexts(image_id, f"{image_id}.jpg", []) for image_id in listed]


def _json_or_lines(file: Path) -> Any:
    """Return the content of a JSON file; for JSON lines, the list of its entries."""
    try:
        return read_json(file)
    except DataError:
        try:
            lines = file.read_text(encoding="utf-8-sig").split("\n")  # a caption may contain other line ends
            found = [parse_json(line) for line in lines if line.strip()]
        except (OSError, ValueError, RecursionError):
            found = []
        if len(found) > 1 and all(isinstance(entry, dict) for entry in found):
            return found
        if file.is_file() and file.suffix.lower() in (".csv", ".tsv", ".txt"):
            raise DataError(
                f'{file} must be a JSON list [{{"image_id": 1, "caption": "…"}}, …], not a table. Convert it to JSON'
            ) from None
        raise


def _is_caption(value: Any) -> bool:
    texts = value if isinstance(value, list) and value else [value]
    return all(isinstance(text, str) for text in texts)


def _by_image(file: Path, listed: Iterable[tuple[str, Any]]) -> list[ImageTexts]:
    """Group entries by image, in the order of each image's first entry."""
    result: dict[Any, ImageTexts] = {}
    wrong = []
    for where, entry in listed:
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not (name is None or (isinstance(name, str) and name.strip())):
            raise DataError(f"{where}: 'file_name' must be text, not {name!r:.60}")
        only_name = name is not None and "image_id" not in entry
        image_id = None if only_name else read_id(_required(entry, "image_id", where), where)
        if not isinstance(entry.get("caption"), str):  # null, NaN, a number, or missing
            wrong.append(name if only_name else image_id)
        text = spelled if isinstance(spelled := entry.get("image_id"), str) else None
        found = result.setdefault(("name", name) if only_name else image_id, ImageTexts(image_id, name, [], text))
        if found.name != name:
            raise DataError(_two_names(where, image_id, name, found.name))
        found.texts.append(entry.get("caption"))
    if wrong:
        raise DataError(f'{file} has captions that are not text: image ids {name_ids(wrong)}. Write a text, or ""')
    return list(result.values())


def _file_names(file: Path, content: Any) -> dict[ImageId, str]:
    """Return {image id: file name} for the images that have a name."""
    names: dict[ImageId, str] = {}
    spelled: dict[ImageId, Any] = {}
    if "images" not in content:
        return {}
    for where, image in entries(content, "images", file):
        raw = _required(image, "id", where)
        number, name = read_id(raw, where, "id"), image.get("file_name")
        if spelled.setdefault(number, raw) != raw:
            raise DataError(
                f"{where}: the ids {spelled[number]!r} and {raw!r} are the same. Give each image its own id"
            )
        if isinstance(name, str) and names.setdefault(number, name) != name:
            raise DataError(_two_names(where, number, name, names[number]))
    return names


def _domains(content: Any) -> dict[ImageId, str]:
    """Return {image id: domain} of the images of nocaps; {} for other data sets."""
    images = content.get("images", [])
    return {read_id(image["id"], "id"): image["domain"] for image in images if isinstance(image.get("domain"), str)}


def _test_split(content: Any, file: Path) -> str:
    """Return "test", or the name of the file's only split."""
    listed = entries(content, "images", file)
    found = {split_named(field(image, "split", str, where), where) for where, image in listed}
    if "test" not in found and len(found) > 1:
        raise DataError(f"{file} has no test split. Choose split={' or split='.join(sorted(found))}")
    return "test" if "test" in found else found.pop()


def _karpathy(file: Path, content: Any, split: str) -> list[ImageTexts]:
    result = [entry for entry in _of_karpathy(file, content, split) if entry.texts]
    if not result:
        raise DataError(f"{file} has no captions in split {split}. Choose split=train, split=val or split=test")
    return result


def _of_karpathy(file: Path, content: Any, split: str) -> list[ImageTexts]:
    if split not in SPLITS:
        raise DataError(f"split={split} does not exist in {file}. Choose one of {', '.join(SPLITS)}")
    images = [(where, image) for where, image in entries(content, "images", file) if _in_split(image, split, where)]
    key = "cocoid" if images and all("cocoid" in image for _, image in images) else "imgid"
    found: dict[ImageId, ImageTexts] = {}
    for where, image in images:
        texts = [field(sentence, "raw", str, where) for sentence in field(image, "sentences", list, where)]
        number, name = read_id(_required(image, key, where), where, key), field(image, "filename", str, where)
        if number in found:
            raise DataError(_two_names(where, number, name, found[number].name))
        found[number] = ImageTexts(number, name, [text for text in texts if text.strip()])
    return list(found.values())


def _in_split(image: Any, split: str, where: str) -> bool:
    return split_named(field(image, "split", str, where), where) == split


def _two_names(where: str, number: ImageId | None, name: str | None, before: str | None) -> str:
    return (
        f"{where}: image id {number} has the file name {name}, but before it had {before}. Give each image its own id"
    )


def _required(entry: Any, key: str, where: str) -> Any:
    if not isinstance(entry, dict) or key not in entry:
        raise DataError(f"{where}: the key '{key}' is missing. Add it to each entry")
    return entry[key]


def _kind(content: Any) -> str:
    names = {dict: "object", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(content), "number")
