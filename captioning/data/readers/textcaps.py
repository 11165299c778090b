"""Read TextCaps (Sidorov et al. 2020): Open Images with captions that mention the text in them.

Layout, from https://textvqa.org/textcaps/dataset: TextCaps_0.1_train.json, TextCaps_0.1_val.json and
TextCaps_0.1_test.json, and the photos in train_images/ and test_images/, each named by its Open Images id. The photos
of val are in train_images/ too. Each JSON file has a list "data" with one entry per caption: five entries of an image
have the same "image_id", each with one "caption_str", and each repeats all five captions as "reference_strs". The
captions of test are not published.
"""

import re
from pathlib import Path
from typing import Any

from captioning.data import STRICT, Disk, Handling, Places, Record, entries, field, read_json
from captioning.data.readers.checks import CaptionFile, checked, not_blank
from captioning.data.readers.published import folder_with, nothing_found
from captioning.errors import DataError

_SPLITS = ("train", "val")
_FOLDERS = ("train_images", "images/train_images", "train_val_images", "images")
_ID = re.compile(r"[0-9a-f]{16}")


def read_textcaps(root: str | Path, *, faults: Handling = STRICT) -> list[Record]:
    """Read TextCaps. A split is read if its captions are there.

    Open Images ids have 64 bits. An image id is the number of the first 60: 15 of the 16 hexadecimal digits.

    Args:
        root: folder of the data set.
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        DataError: no split is there, the photos are missing, or a file is inconsistent.
    """
    root, disk, sources = Path(root), Disk(), []
    for split in _SPLITS:
        if not (file := root / f"TextCaps_0.1_{split}.json").is_file():
            continue
        captions: dict[str, list[str]] = {}
        with faults:
            captions = _captions(file, faults)
        names = [f"{name}.jpg" for name in captions]
        if folder := folder_with(root, _FOLDERS, names, disk):
            places = Places(folder, names, disk)
            paths = {name: places.path(f"{name}.jpg", str(file)) for name in captions}
            records = [
                Record(int(name[:15], 16), paths[name], split, not_blank(texts, faults))
                for name, texts in captions.items()
            ]
            places.report(file, faults)
            sources.append(CaptionFile(file, records, folder))
    if not sources:
        needed = [f"TextCaps_0.1_{split}.json with the photos in train_images/" for split in _SPLITS]
        raise nothing_found(root, "TextCaps captions", needed)
    return checked(sources, disk, faults)


def _captions(file: Path, faults: Handling) -> dict[str, list[str]]:
    """Return {Open Images id: captions}, each caption of an image once, in the order of the file."""
    found: dict[str, list[str]] = {}
    for where, entry in entries(read_json(file), "data", file):
        with faults:
            name = field(entry, "image_id", str, where)
            if not _ID.fullmatch(name):
                raise DataError(
                    f"{where}: 'image_id' must be an Open Images id of 16 hexadecimal digits, not {name!r:.60}"
                )
            own = [field(entry, "caption_str", str, where)] if "caption_str" in entry else []
            texts = found.setdefault(name, [])
            if not texts:
                texts += dict.fromkeys(_references(entry, where))
            texts += [text for text in own if text not in texts]
    return found


def _references(entry: Any, where: str) -> list[str]:
    """Return all captions of the entry's image; [] if the entry does not repeat them."""
    texts = field(entry, "reference_strs", list, where) if "reference_strs" in entry else []
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where}: 'reference_strs' must be a list of texts: correct the entry")
    return list(texts)
