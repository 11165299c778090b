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
from pathlib import Path, PurePath

from captioning.data import (
    PICTURE_FOLDERS,
    SPLITS,
    STRICT,
    SUFFIXES,
    Disk,
    Handling,
    Places,
    Record,
    canonical,
    caseless,
    note,
    own_folder,
    table_rows,
)
from captioning.data.readers.checks import CaptionFile, checked, not_blank, report_repeated, report_silent
from captioning.data.readers.lines import text_lines
from captioning.data.readers.word_tags import has_tags, refuse_some_tags, untagged
from captioning.errors import ConfigError, DataError
from captioning.io import counted

_LINE = re.compile(r"(\S+?)(?:#[a-z]+)?#(\d+)[\t ](.*)")
_TABLE_ROW = re.compile(r"\s*([^|]*[^|\s])\s*\|\s*(\d+)\s*\|")  # of results.csv: NAME| NUMBER| caption
# Folders of archives and repositories, below root, that contain the text files.
LISTS_BELOW: tuple[str, ...] = ("", "data", "Flickr8k_text", "data/Flickr8k_text", "annotations")
_SUFFIX = ".jpg"  # of names without a suffix
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
    for split, file in found.items():
        _report_unread(file, [other for name in _listed(files[split]) if (other := _below(root, name))], faults)
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
        own = {caseless(name): captions for name, captions in texts[""].items()}
        known = set(map(caseless, order))
        _report_unlisted(found[""], [name for name in texts[""] if caseless(name) not in known], faults)
        groups = {found[""]: [(name, split, own.get(caseless(name), [])) for name, split in order.items()]}
    else:
        groups = {found[split]: [(name, split, own) for name, own in texts[split].items()] for split in found}
    return _checked_records(root / images, groups, faults, own=images == ".")


class _Names:
    """Image names of one file, or of the lists of all splits, in the spelling of their first occurrence."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def of(self, written: str, where: str) -> str:
        """Return the name of a file; a name without the suffix of an image format gets .jpg.

        Raises:
            DataError: two names differ only by case, so lists and captions cannot be matched.
        """
        has_one = any(suffix.lower() in SUFFIXES for suffix in PurePath(written).suffixes)  # also x.jpg.1 of Flickr8k
        name = written if has_one else f"{written}{_SUFFIX}"
        first = self._first.setdefault(caseless(name), name)
        if canonical(first) != canonical(name):
            raise DataError(f"{where}: {name} and {first} differ only by case: use one name, or rename one image")
        return first


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
    places = (root / base / name for name in _listed(names) for base in LISTS_BELOW)
    return next((path for path in places if path.is_file()), None)


def _listed(names: str | Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


def _report_unread(file: Path, there: Sequence[Path], faults: Handling) -> None:
    """Print which files are not read, of several that may be the caption file."""
    if others := [other.name for other in there if other != file]:
        line = f"data.reader.captions: {file} is read, and {', '.join(others)} beside it is not: one file is enough"
        note(faults, None, None, line)


def _captions(file: Path, faults: Handling) -> dict[str, list[str]]:
    """Return {image name: captions} of a file."""
    found: dict[str, list[str]] = {}
    names = _Names()
    if file.suffix == ".csv":
        for where, row in table_rows(file, faults):
            with faults:
                found.setdefault(names.of(row["image"].strip(), where), []).append(row["caption"])
        report_repeated(file, _numbers_of_table(file), faults)
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
            found.setdefault(names.of(match[1], f"{file}, line {number}"), []).append(match[3].strip())
            texts.append((number, match[3].strip()))
            numbers[line[: match.start(3)].strip()] += 1
    report_repeated(file, numbers, faults)
    if has_tags([text for _, text in texts]):
        return {name: [untagged(text) for text in own] for name, own in found.items()}
    refuse_some_tags(file, texts, faults)
    return found


def _numbers_of_table(file: Path) -> Mapping[str, int]:
    """Return {number of a caption, such as a.jpg#0: how many rows have it} of Flickr30k's results.csv."""
    try:
        rows = [_TABLE_ROW.match(line) for line in text_lines(file)]
    except DataError:  # table_rows has raised it, or it reads this file: it accepts more line ends and encodings
        rows = []
    return Counter(f"{row[1]}#{row[2]}" for row in rows if row)


def _order(listed: Mapping[str, Path], faults: Handling) -> dict[str, str]:
    """Return {image name: split}, in the order of the lists."""
    order: dict[str, str] = {}
    names = _Names()
    for split in SPLITS:
        for number, line in enumerate(text_lines(listed[split]) if split in listed else (), start=1):
            with faults:
                name = names.of(line.strip(), f"{listed[split]}, line {number}") if line.strip() else ""
                if name and order.setdefault(name, split) != split:
                    raise DataError(
                        f"{listed[split]}: {name} is also in {listed[order[name]].name}: remove it from one of them"
                    )
    return order


def _report_unlisted(file: Path, unlisted: Sequence[str], faults: Handling) -> None:
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
        names = [name for name, _, texts in entries if texts]
        places = Places(own_folder(folder, names, disk) if own else folder, names, disk)
        records = []
        for name, split, texts in entries:
            with faults:
                path = places.path(name, str(file))
                records.append(Record(number, path, split, not_blank(texts, faults)))
            number += 1
        places.report(file, faults)
        report_silent(file, {name: texts for name, _, texts in entries}, faults)
        sources.append(CaptionFile(file, records, places.folder))
    return checked(sources, disk, faults)
