"""Read captions of Flickr8k and Flickr30k in text files: one line per caption, and lists of the images of each split.

| Edition | Line |
|---|---|
| Flickr8k.token.txt, results_20130124.token (Flickr30k), Flickr8k.arabic.full.txt | `NAME.jpg#0`, a tab, the caption |
| results.csv (Flickr30k, Kaggle) | a table, see `data/tables.py` |
| Flickr8k-CN (li-xirong/flickr8kcn) | `NAME.jpg#zhc#0`, a space, the caption |
| Flickr30k-CN (li-xirong/cross-lingual-cap) | `NAME#zhb#0`, a space, words with spaces; in the test file `word:pos` |
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from captioning.data import (
    PICTURE_FOLDERS,
    SPLITS,
    STRICT,
    Disk,
    Handling,
    Places,
    Record,
    note,
    own_folder,
    table_rows,
)
from captioning.data.readers.checks import CaptionFile, checked, not_blank
from captioning.data.readers.lines import text_lines
from captioning.data.readers.word_tags import has_tags, refuse_some_tags, untagged
from captioning.errors import ConfigError, DataError
from captioning.io import counted

_LINE = re.compile(r"(\S+?)(?:#[a-z]+)?#(\d+)[\t ](.*)")
# Folders of archives and repositories, below root, that contain the text files.
LISTS_BELOW: tuple[str, ...] = ("", "data", "Flickr8k_text", "data/Flickr8k_text", "annotations")
_SUFFIX = ".jpg"
# Line 22,183 of Flickr8k.arabic.full.txt: the end of the caption before it, which a line end splits inside a word.
_BROKEN_OFF = "عيدا في المنطقة المشجرة"


def read_flickr_text(
    root: str | Path,
    *,
    captions: str | Sequence[str] | Mapping[str, str | None],
    lists: Mapping[str, str | None] | None = None,
    images: str = ".",
    faults: Handling = STRICT,
) -> list[Record]:
    """Read captions from one file, with a list of image names per split; or from one file per split.

    Captions of images that are in no list are left out, and their number is printed. Image ids are the positions in the
    lists of train, val and test together, or the order of appearance without lists.

    Args:
        root: folder of the data set.
        captions: the caption file, or names that it may have, of which the first that exists is used; or split -> its
            caption file, where None leaves the split out.
        lists: split -> list of its image names, one per line, with or without ".jpg"; None leaves the split out.
        images: folder of the images, relative to root; ".": also the usual folders of Flickr8k and Flickr30k in it.
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        ConfigError: there is no such split.
        DataError: a file or an image is missing or inconsistent.
    """
    root = Path(root)
    given = captions if isinstance(captions, Mapping) else {"": captions}
    files = {split: names for split, names in given.items() if names}
    if unknown := sorted((files.keys() | (lists or {}).keys()) - {"", *SPLITS}):
        raise ConfigError(
            f"data.reader.captions and data.reader.lists: the split {unknown[0]!r} must be one of {', '.join(SPLITS)}"
        )
    found = {split: file for split, names in files.items() if (file := _below(root, names))}
    wanted = {split: name for split, name in (lists or {}).items() if name}
    listed = {split: file for split, name in wanted.items() if (file := _below(root, name))}
    if not found or (wanted and not listed):
        needed = [name if isinstance(name, str) else " or ".join(name) for name in (*files.values(), *wanted.values())]
        raise DataError(
            f"data.root={root} needs {', '.join(needed)}, and a folder of the images, such as {PICTURE_FOLDERS[0]}/: "
            "add them (see docs/data.md in the repository)"
        )
    _report_missing(root, "captions", {split: names for split, names in files.items() if split}, found, faults)
    _report_missing(root, "lists", wanted, listed, faults)
    texts = {split: _captions(file, faults) for split, file in found.items()}
    if wanted:
        order = _order(listed, faults)
        _report_unlisted(found[""], texts[""], order, faults)
        groups = {found[""]: [(name, split, texts[""].get(name, [])) for name, split in order.items()]}
    else:
        groups = {found[split]: [(name, split, own) for name, own in texts[split].items()] for split in found}
    return _checked_records(root / images, groups, faults, own=images == ".")


def _report_missing(
    root: Path, key: str, wanted: Mapping[str, str | Sequence[str]], found: Mapping[str, Path], faults: Handling
) -> None:
    """Refuse files that are not there, because their splits would disappear."""
    for split, names in wanted.items():
        with faults:
            if split not in found:
                name = names if isinstance(names, str) else " or ".join(names)
                setting = f"data.reader.{key}.{split}"
                raise DataError(f"data.root={root} has no {name}: add it, correct {setting}, or set {setting}=null")


def _below(root: Path, names: str | Sequence[str]) -> Path | None:
    """Return the first of these files that exists, in root or one of the usual folders in it."""
    names = [names] if isinstance(names, str) else names
    return next((path for name in names for base in LISTS_BELOW if (path := root / base / name).is_file()), None)


def _captions(file: Path, faults: Handling) -> dict[str, list[str]]:
    """Return {image name without suffix: captions} of a file."""
    found: dict[str, list[str]] = {}
    if file.suffix == ".csv":
        for _, row in table_rows(file, faults):
            found.setdefault(row["image"].strip().removesuffix(_SUFFIX), []).append(row["caption"])
        return found
    texts: list[tuple[int, str]] = []  # with the number of their line
    numbers = Counter[str]()
    lines = text_lines(file)
    for number, line in enumerate(lines, start=1):
        with faults:
            if not line.strip() or line == _BROKEN_OFF:
                continue
            if lines[number : number + 1] == [_BROKEN_OFF]:
                line += _BROKEN_OFF
                note(
                    faults, None, None, f"{file}: line {number + 1} was joined to line {number}, whose caption it ends"
                )
            if not (match := _LINE.fullmatch(line)):
                raise DataError(
                    f"{file}, line {number}: must be NAME#NUMBER and a caption, not {line!r:.60}: correct it"
                )
            found.setdefault(match[1].removesuffix(_SUFFIX), []).append(match[3].strip())
            texts.append((number, match[3].strip()))
            numbers[line[: match.start(3)].strip()] += 1
    _report_repeated(file, numbers, faults)
    if has_tags([text for _, text in texts]):
        return {name: [untagged(text) for text in own] for name, own in found.items()}
    refuse_some_tags(file, texts, faults)
    return found


def _report_repeated(file: Path, numbers: Mapping[str, int], faults: Handling) -> None:
    repeated = [(name, count) for name, count in numbers.items() if count > 1]
    for name, count in repeated:
        note(faults, "captions with the same number", {"file": name, "reason": f"{count} lines of {file.name}"})
    if repeated:
        (name, count), total = repeated[0], counted(len(repeated), "number")
        line = f"{file}: {total} of a caption in more than one line (first: {name}, {count} lines); all lines are used"
        note(faults, None, None, line)


def _report_silent(file: Path, entries: Sequence[tuple[str, str, list[str]]], faults: Handling) -> None:
    """Print how many listed images have no captions, or only blank ones. The audit lists them in any case."""
    silent = [name for name, _, texts in entries if not any(text.strip() for text in texts)]
    if 0 < len(silent) < len(entries):
        note(faults, None, None, f"{file}: {counted(len(silent), 'image')} without captions left out ({silent[0]}, …)")


def _order(listed: Mapping[str, Path], faults: Handling) -> dict[str, str]:
    """Return {image name without suffix: split}, in the order of the lists."""
    order: dict[str, str] = {}
    for split in SPLITS:
        for line in text_lines(listed[split]) if split in listed else ():
            name = line.strip().removesuffix(_SUFFIX)
            with faults:
                if name and order.setdefault(name, split) != split:
                    raise DataError(
                        f"{listed[split]}: {name} is also in {listed[order[name]].name}: remove it from one of them"
                    )
    return order


def _report_unlisted(
    file: Path, texts: Mapping[str, Sequence[str]], order: Mapping[str, str], faults: Handling
) -> None:
    unlisted = [name for name in texts if name not in order]
    for name in unlisted:
        note(faults, "images left out", {"file": name, "reason": "it is in no list of a split"})
    if unlisted:
        line = f"{file}: {counted(len(unlisted), 'image')} left out, in no list of a split (first: {unlisted[0]})"
        note(faults, None, None, line)


def _checked_records(
    folder: Path, groups: Mapping[Path, Sequence[tuple[str, str, list[str]]]], faults: Handling, *, own: bool
) -> list[Record]:
    """Return the records of (image name, split, captions), by caption file.

    Args:
        folder: the folder of the images.
        groups: the captions of each file.
        faults: how to handle faults.
        own: whether the images may be in an image folder in `folder`.
    """
    disk, sources, number = Disk(), [], 0
    for file, entries in groups.items():
        names = [f"{name}{_SUFFIX}" for name, _, texts in entries if texts]
        places = Places(own_folder(folder, names, disk) if own else folder, names, disk)
        records = []
        for name, split, texts in entries:
            with faults:
                path = places.path(f"{name}{_SUFFIX}", str(file))
                records.append(Record(number, path, split, not_blank(texts, faults)))
            number += 1
        places.report(file, faults)
        _report_silent(file, entries, faults)
        sources.append(CaptionFile(file, records, places.folder))
    return checked(sources, disk, faults)
