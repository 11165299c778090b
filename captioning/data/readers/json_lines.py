"""Read JSON Lines: one object per line with an image and its captions; or a JSON array of such objects."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captioning.data import (
    STRICT,
    Disk,
    Handling,
    Places,
    Record,
    names_of,
    own_folder,
    parse_json,
    shown,
    split_named,
)
from captioning.data.readers.checks import CaptionFile, checked
from captioning.data.readers.rows import caption_texts, check_shares, row_records
from captioning.errors import DataError
from captioning.io import unopened

IMAGE_KEYS = ("image", "file_name", "filename", "image_path", "img", "path")
CAPTION_KEYS = ("captions", "caption", "text")
_FORM = '{"image": "photo.jpg", "captions": ["first caption", "second caption"]}'


def read_json_lines(
    root: str | Path,
    *,
    file: str = "captions.jsonl",
    images: str = ".",
    val_share: float = 0.1,
    test_share: float = 0.0,
    faults: Handling = STRICT,
) -> list[Record]:
    """Read one JSON object per line: its image, its captions (a list, or one text), and perhaps its split.

    The image's key may also be file_name, filename, image_path, img or path, and that of the captions caption or text.
    Other keys are ignored. Several lines may have the same image. Without "split", a hash of the image's file name
    chooses it, as in `read_csv`.

    Args:
        root: folder of the data set.
        file: JSON Lines, or a JSON array of such objects, relative to root (UTF-8 or UTF-16).
        images: folder of the images, relative to root.
        val_share: expected share of the images for validation, without "split".
        test_share: expected share of the images for test, without "split".
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        ConfigError: the shares are negative, or 1 or more together.
        DataError: the file or an image is missing or inconsistent.
    """
    check_shares(val_share, test_share)
    source, folder, disk = Path(root, file), Path(root, images), Disk()
    rows: list[tuple[str, dict[str, str]]] = []
    splits: set[bool] = set()
    for where, entry in _objects(source, faults):
        with faults:
            found = _rows(entry, where, faults)
            splits.add("split" in found[0][1])
            if len(splits) > 1:
                raise DataError(
                    f"{where}: some lines have 'split' and others do not: write it in all of them or in none"
                )
            rows += found
    if images == ".":
        folder = own_folder(folder, names_of(rows), disk)
    places = Places(folder, names_of(rows), disk)
    records = row_records(source, rows, places, val_share=val_share, test_share=test_share, faults=faults)
    return checked([CaptionFile(source, records, places.folder)], disk, faults)


def _objects(file: Path, faults: Handling) -> Iterator[tuple[str, Any]]:
    """Yield (location for error messages, object) for each line of the file, or for each entry of its array."""
    text = _text(file)
    if text.lstrip().startswith("["):
        try:
            content = parse_json(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"cannot read {file} as a JSON array ({error}): correct it") from error
        yield from ((f"{file}: [{index}]", entry) for index, entry in enumerate(content))
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where, entry = f"{file}, line {number}", None
            with faults:
                entry = _parsed(line, where)
            if entry is not None:
                yield where, entry


def _text(file: Path) -> str:
    try:
        content = file.read_bytes()
        return content.decode(json.detect_encoding(content)).removeprefix("\ufeff")
    except OSError as error:
        advice = f"add it, with one object per line: {_FORM}{_others(file)}"
        if found := unopened(file, error, advice=advice, folder_advice="check data.root"):
            raise DataError(found) from error
        raise DataError(f"cannot read {file} ({error.strerror or error}): check its permissions") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 ({error.reason}): save it as UTF-8") from error


def _others(file: Path) -> str:
    """List the other files of this kind in the folder of a missing one."""
    if not file.parent.is_dir():
        return ""
    names = sorted(f.name for f in file.parent.iterdir() if f.suffix.lower() in (".jsonl", ".ndjson", ".json"))
    return f", or choose one of {', '.join(names[:5])} with data.reader.file=NAME" if names else ""


def _parsed(line: str, where: str) -> Any:
    try:
        return parse_json(line)
    except (ValueError, RecursionError) as error:
        advice = f"each line must be one object, such as {_FORM}"
        if line.strip() == "{" or line.rstrip().endswith("{"):
            advice += ". For one JSON file of COCO's or Karpathy's format, use data=coco or data=flickr8k"
        raise DataError(f"{where} is not JSON ({error}): {advice}") from error


def _rows(entry: Any, where: str, faults: Handling) -> list[tuple[str, dict[str, str]]]:
    """Return one row per caption of an object."""
    if not isinstance(entry, dict):
        raise DataError(f"{where}: must be an object such as {_FORM}, not {shown(entry)}")
    image, captions = _only(entry, IMAGE_KEYS, where), _only(entry, CAPTION_KEYS, where)
    if not isinstance(entry[image], str) or not entry[image].strip():
        raise DataError(f"{where}: '{image}' must be the name of an image file, not {shown(entry[image])}")
    texts = caption_texts(entry[captions], captions, where, faults)
    if not texts:
        raise DataError(f"{where}: '{captions}' must be a text or a list of texts, not {shown(entry[captions])}")
    row = {"image": entry[image]}
    if "split" in entry:
        row["split"] = split_named(entry["split"], where)
    return [(where, row | {"caption": text}) for text in texts]


def _only(entry: dict[str, Any], keys: tuple[str, ...], where: str) -> str:
    """Return the only key of these that an object has."""
    found = [key for key in keys if key in entry]
    if not found and "images" in entry:
        raise DataError(f"{where}: this is COCO's or Karpathy's JSON, not JSON Lines: use data=coco or data=flickr8k")
    if not found:
        raise DataError(f"{where}: the key '{keys[0]}' is missing: add it")
    if len(found) > 1:
        raise DataError(f"{where}: the keys {' and '.join(found)} mean the same: keep one of them")
    return found[0]
