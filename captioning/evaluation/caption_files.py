"""Read captions and references from files: COCO results, JSON lines, COCO annotations, Karpathy's file."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captioning.data import SPLITS, counted_annotations, entries, field, left_out_notice, parse_json, read_json
from captioning.errors import DataError
from captioning.evaluation.identity import COCO_ID, ImageId, ImageTexts, listed, pair, read_id
from captioning.metrics import name_ids


def read_results(file: Path) -> list[ImageTexts]:
    """One caption per image.

    Formats: COCO results, [{"image_id": 1, "caption": "…"}, …], where 'file_name' may stand beside 'image_id' or in its
    place; the same entries, one per line (JSON lines); an object {"1": "…"} or {"1": ["…"]}.

    Raises:
        DataError: it is not that; ids of images with two captions, or with one that is no text, are named.
    """
    samples = read_samples(file)
    several = [entry for entry in samples if len(entry.texts) > 1]
    repeated = [entry.name if entry.image_id is None else entry.image_id for entry in several]
    if repeated:
        raise DataError(
            f"{file}: more than one caption for {len(repeated)} images: image ids {name_ids(repeated)}; "
            "keep one each (several an image are scored by captioning-score … samples=FILE)"
        )
    return samples


def read_samples(file: Path) -> list[ImageTexts]:
    """As `read_results`, with one or more captions per image."""
    content = _json_or_lines(file)
    if isinstance(content, dict) and {"image_id", "file_name"} & content.keys() and "caption" in content:
        content = [content]  # JSON lines of one line
    if isinstance(content, dict) and content and all(map(_is_caption, content.values())):
        groups = {key: [texts] if isinstance(texts, str) else texts for key, texts in content.items()}
        content = [{"image_id": key, "caption": text} for key, texts in groups.items() for text in texts]
    if not isinstance(content, list):
        raise DataError(
            f'{file}: COCO results are a list [{{"image_id": 1, "caption": "…"}}, …], not {type(content).__name__}'
        )
    if not content:
        raise DataError(f"{file}: no captions in it")
    return _by_image(file, [(f"{file}[{index}]", entry) for index, entry in enumerate(content)])


class ReferenceFile(NamedTuple):
    """The reference captions of a file.

    images: those with one or more. split: its name. unscored: images all of whose captions are rejected or precanned
    (`data.counted_annotations`), which official evaluators skip. notice: a line that says so; None where all count.
    """

    images: list[ImageTexts]
    split: str
    unscored: list[ImageTexts]
    notice: str | None


def read_references(file: Path, split: str | None = None) -> ReferenceFile:
    """The reference captions of a COCO file, or of one split of Karpathy's. Images without any are not there.

    Args:
        split: of Karpathy's file: train (restval with it), val or test; None: test, or the only one there. Of a COCO
            file, which has no splits, only a name; None: the file's.

    Raises:
        DataError: it is neither; the split has no captions; an id has several file names.
    """
    content = read_json(file)
    if isinstance(content, list):
        raise DataError(f"{file}: references are COCO captions, an object with 'images' and 'annotations', not a list")
    if is_karpathy(content):
        split = split or _test_split(content, file)
        return ReferenceFile(_karpathy(file, content, split), split, [], None)
    given = list(entries(content, "annotations", file))
    counted, left_out = counted_annotations(given)
    names, texts = _file_names(file, content), {entry.image_id: entry.texts for entry in _by_image(file, counted)}
    everything = [entry._replace(name=names.get(entry.image_id, entry.name)) for entry in _by_image(file, given)]
    complete = len(names) == len(content.get("images", []))  # all images have a name
    if complete and names and (unlisted := [entry.image_id for entry in everything if entry.image_id not in names]):
        raise DataError(
            f"{file}: captions of image ids that 'images' does not list: {name_ids(unlisted)}; add these images or "
            "drop the captions"
        )
    images = [entry._replace(texts=texts[entry.image_id]) for entry in everything if entry.image_id in texts]
    unscored = [entry for entry in everything if entry.image_id not in texts]
    notice = left_out_notice(left_out, len(given), str(file))
    if unscored:
        notice = f"{notice}; {len(unscored)} images without any other are not scored"
    return ReferenceFile(images, split or file.stem, unscored, notice)


def is_karpathy(content: Any) -> bool:
    """Whether a JSON file has Karpathy's form: the captions stand inside the images."""
    images = content.get("images") if isinstance(content, dict) else None
    return isinstance(images, list) and bool(images) and isinstance(images[0], dict) and "sentences" in images[0]


def read_for_server(file: Path, images: Path) -> tuple[dict[ImageId, str], list[ImageId]]:
    """(captions, ids of all images that a COCO file lists, with captions or without).

    Results that name files, as captioning-caption leaves them, get the ids that `images` gives these files.
    """
    wanted = _listed_images(images)
    results = read_results(file)
    found = pair(results, wanted, files=(file, images))
    if found.extra:
        raise DataError(
            f"{file}: {len(found.extra)} captions of images that are not among those of {images}: "
            f"{listed(results, found.extra)}"
        )
    captions = {wanted[row].image_id: results[place].texts[0] for row, place in found.rows.items()}
    return captions, [entry.image_id for entry in wanted]


def image_ids(paths: Sequence[Path], annotations: Path | None) -> list[ImageId] | None:
    """The ids of images in their data set; None where they are of none.

    Args:
        annotations: a COCO file or Karpathy's that lists the images; None: COCO's numbers, where all names have one.

    Raises:
        DataError: images that `annotations` does not list.
    """
    if annotations is None:
        found = [COCO_ID.fullmatch(path.name) for path in paths]
        numbers = [int(match[1]) for match in found if match]
        return numbers if len(set(numbers)) == len(paths) else None
    own, wanted = [ImageTexts(None, str(path), []) for path in paths], _listed_images(annotations)
    paired = pair(own, wanted, files=("images", annotations))
    if paired.extra:
        raise DataError(f"{annotations} does not list {len(paired.extra)} of the images: {listed(own, paired.extra)}")
    numbers = {place: wanted[row].image_id for row, place in paired.rows.items()}
    return [numbers[place] for place in range(len(paths))]


def _listed_images(file: Path) -> list[ImageTexts]:
    """All images that a COCO file or Karpathy's lists, of every split, with captions or without."""
    content = read_json(file)
    if is_karpathy(content):
        return [entry for split in SPLITS for entry in _of_karpathy(file, content, split)]
    names = _file_names(file, content)
    ids = [read_id(_required(image, "id", where), where, "id") for where, image in entries(content, "images", file)]
    return [ImageTexts(number, names.get(number), []) for number in ids]


def _json_or_lines(file: Path) -> Any:
    """What a JSON file holds; of JSON lines, the list of them."""
    try:
        return read_json(file)
    except DataError:
        try:
            lines = file.read_text(encoding="utf-8-sig").split("\n")  # a caption may hold other line ends
            found = [parse_json(line) for line in lines if line.strip()]
        except (OSError, ValueError, RecursionError):
            found = []
        if len(found) > 1 and all(isinstance(entry, dict) for entry in found):
            return found
        if file.is_file() and file.suffix.lower() in (".csv", ".tsv", ".txt"):
            raise DataError(
                f'{file}: results are JSON, [{{"image_id": 1, "caption": "…"}}, …], not a table; write them so'
            ) from None
        raise


def _is_caption(value: Any) -> bool:
    texts = value if isinstance(value, list) and value else [value]
    return all(isinstance(text, str) for text in texts)


def _by_image(file: Path, listed: Iterable[tuple[str, Any]]) -> list[ImageTexts]:
    """Entries of one image together, in order of their first."""
    result: dict[Any, ImageTexts] = {}
    wrong = []
    for where, entry in listed:
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not (name is None or (isinstance(name, str) and name.strip())):
            raise DataError(f"{where}: 'file_name' must be a text, not {name!r:.60}")
        only_name = name is not None and "image_id" not in entry
        image_id = None if only_name else read_id(_required(entry, "image_id", where), where)
        if not isinstance(entry.get("caption"), str):  # null, NaN, a number, or not there
            wrong.append(name if only_name else image_id)
        text = spelled if isinstance(spelled := entry.get("image_id"), str) else None
        found = result.setdefault(("name", name) if only_name else image_id, ImageTexts(image_id, name, [], text))
        if found.name != name:
            raise DataError(_two_names(where, image_id, name, found.name))
        found.texts.append(entry.get("caption"))
    if wrong:
        raise DataError(f'{file}: captions that are no text: image ids {name_ids(wrong)}; write one, or ""')
    return list(result.values())


def _file_names(file: Path, content: Any) -> dict[ImageId, str]:
    """Image id -> file name, of the images that have one."""
    names: dict[ImageId, str] = {}
    spelled: dict[ImageId, Any] = {}
    if "images" not in content:
        return {}
    for where, image in entries(content, "images", file):
        raw = _required(image, "id", where)
        number, name = read_id(raw, where, "id"), image.get("file_name")
        if spelled.setdefault(number, raw) != raw:
            raise DataError(
                f"{where}: the ids {spelled[number]!r} and {raw!r} are one; give each image an id of its own"
            )
        if isinstance(name, str) and names.setdefault(number, name) != name:
            raise DataError(_two_names(where, number, name, names[number]))
    return names


def _test_split(content: Any, file: Path) -> str:
    """The test split, or the one split that there is."""
    there = {field(image, "split", str, where) for where, image in entries(content, "images", file)}
    found = {"train" if split == "restval" else split for split in there}
    if "test" not in found and len(found) > 1:
        raise DataError(f"{file} has no test split: choose split={' or split='.join(sorted(found))}")
    return "test" if "test" in found else found.pop()


def _karpathy(file: Path, content: Any, split: str) -> list[ImageTexts]:
    result = [entry for entry in _of_karpathy(file, content, split) if entry.texts]
    if not result:
        raise DataError(f"{file}: no captions in split {split}: choose another with split=train, val or test")
    return result


def _of_karpathy(file: Path, content: Any, split: str) -> list[ImageTexts]:
    if split not in SPLITS:
        raise DataError(f"{file} has the splits {', '.join(SPLITS)}, not {split}: choose one with split=NAME")
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
    own = field(image, "split", str, where)
    return ("train" if own == "restval" else own) == split


def _two_names(where: str, number: ImageId | None, name: str | None, before: str | None) -> str:
    return f"{where}: image id {number} is {name} here and {before} before; give each image an id of its own"


def _required(entry: Any, key: str, where: str) -> Any:
    if not isinstance(entry, dict) or key not in entry:
        raise DataError(f"{where}: the key '{key}' is missing")
    return entry[key]
