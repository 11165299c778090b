"""Match captions to images: by file name if both sides have file names, by image id otherwise.

Two files often number the same images differently: `captioning-caption` counts 0, 1, 2, …, while COCO has its own ids.
So file names take precedence over ids. If file names and ids contradict each other, nothing is scored.
"""

import json
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captioning.data import Record
from captioning.errors import DataError
from captioning.metrics import name_ids

ImageId = int | str
_COCO_PREFIX = re.compile(r"COCO_[a-z]+\d{4}_(?=\d{12}(\.\w+)?$)")  # file names of 2014; those of 2017 have no prefix
COCO_ID = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})(?:\.jpg)?")  # in a file name or a text id
_COCO_FILE = re.compile(r"\d{12}\.\w+")  # identifies an image in any folder
_SHOWN = 3  # examples in an error message


class ImageTexts(NamedTuple):
    """One image's captions, samples or references, as read from a file.

    Attributes:
        image_id: a whole number, a text, or None if the file has only a name.
        name: the file name, with or without folders, or None.
        texts: the captions.
        text: the id as written in the file, if it is text there: it may be a file name.
    """

    image_id: ImageId | None
    name: str | None
    texts: list[str]
    text: str | None = None

    @property
    def known_id(self) -> ImageId:
        """The image id of an image that has one."""
        assert self.image_id is not None
        return self.image_id


class Pairing(NamedTuple):
    """Which result belongs to which reference.

    Attributes:
        rows: row of the references -> row of the results.
        by_name: how many were matched by file name.
        by_id: how many were matched by image id.
        missing: rows of the references without a result.
        extra: rows of the results without a reference.
    """

    rows: dict[int, int]
    by_name: int
    by_id: int
    missing: list[int]
    extra: list[int]

    def of_first(self, count: int) -> "Pairing":
        """Return the same pairing for the first `count` references."""
        rows = {row: result for row, result in self.rows.items() if row < count}
        return self._replace(rows=rows, missing=[row for row in self.missing if row < count])

    @property
    def matched_by(self) -> str:
        """What was compared: "file name", "image id", or both with their counts."""
        if self.by_name and self.by_id:
            return f"file name ({self.by_name}) and image id ({self.by_id})"
        return "file name" if self.by_name else "image id"


class Matched(NamedTuple):
    """Captions and references of the same images, by the references' image ids and in the references' order.

    Attributes:
        references: {image id: reference captions}.
        captions: {image id: captions or samples}.
        names: {image id: file name}, for images that have one.
        matched_by: "file name", "image id", or both with their counts.
        annotated: the number of images with references.
        unscored: the number of images with captions but without references.
    """

    references: dict[ImageId, list[str]]
    captions: dict[ImageId, list[str]]
    names: dict[ImageId, str]
    matched_by: str
    annotated: int
    unscored: int

    @property
    def about(self) -> dict[str, Any]:
        """How the images were matched, for the title of printed scores (`evaluation.title`)."""
        part = len(self.captions) < self.annotated or self.unscored
        return {"matched by": self.matched_by} | (
            {"subset": {"annotated": self.annotated, "captions without references": self.unscored}} if part else {}
        )


def read_id(value: Any, where: str, key: str = "image_id") -> ImageId:
    """Normalize an image id: 397133, 397133.0, "397133", "000000397133" and COCO's file names all become 397133.

    Any other text is returned as it is (in Unicode normal form C).

    Args:
        value: the id from the file.
        where: the file and entry, for error messages.
        key: the entry's key, for error messages.

    Raises:
        DataError: null, NaN, a fraction, a negative number, a number too large to be exact, or another type.
    """
    if isinstance(value, str) and (text := value.strip()):
        found = COCO_ID.fullmatch(text)
        digits = found[1] if found else text.removesuffix(".0")
        if digits.isascii() and digits.isdecimal() and len(digits) <= 40 and int(digits) < 2**63:
            return int(digits)
        return unicodedata.normalize("NFC", text)
    if type(value) is float and math.isfinite(value) and value.is_integer() and 0 <= value < 2**53:
        return int(value)
    if type(value) is int and 0 <= value < 2**63:
        return value
    raise DataError(
        f"{where}: '{key}' must be a whole number from 0 to 2**63 - 1, or text, not {_json(value):.60}. Write each "
        "image's id as in the annotations"
    )


def of_records(records: Iterable[Record], root: str | Path | None = None) -> list[ImageTexts]:
    """Return a data set's records with file names relative to `root`, or without folders for files outside `root`."""
    return [ImageTexts(record.image_id, file_name(record.path, root), list(record.captions)) for record in records]


def file_name(path: Path, root: str | Path | None) -> str:
    """Return a file's path relative to the folder of its data set, or its name if it is elsewhere."""
    try:
        return path.relative_to(root).as_posix() if root is not None else path.name
    except ValueError:
        return path.name


def pair(
    results: Sequence[ImageTexts], references: Sequence[ImageTexts], *, files: tuple[str | Path, str | Path]
) -> Pairing:
    """Find the reference of every result.

    The comparison of file names ignores folders that only one side has, and Unicode normal forms. If no name matches,
    it also ignores case. COCO's 2014 and 2017 names of an image count as the same name.

    Args:
        results: the images with captions.
        references: the images with references.
        files: the files of the results and of the references, for error messages.

    Raises:
        DataError: names and ids contradict each other, a name matches several references, or two results are of the
            same image.
    """
    names, ids = _Names(references), {entry.image_id: row for row, entry in enumerate(references)}
    _refuse_doubles(results, files[0])
    # The ids 0, 1, 2, … that captioning-caption writes besides file names do not identify images.
    counted = [entry.image_id for entry in results] == list(range(len(results)))
    running = counted and all(entry.name is not None for entry in results)
    rows: dict[int, int] = {}
    kinds = {"name": 0, "id": 0}
    extra: list[int] = []
    against: list[tuple[ImageTexts, int, int | None]] = []
    for place, entry in enumerate(results):
        its_id = None if running and names else ids.get(entry.image_id)
        wanted, stem = (entry.text, True) if entry.name is None else (entry.name, False)
        row, kind = names.find(wanted, files, stem=stem) if wanted is not None and names else None, "name"
        if row is None and its_id is not None and (entry.name is None or references[its_id].name is None):
            row, kind = its_id, "id"
        elif its_id is not None and row != its_id:
            against.append((entry, its_id, row))
        if row is None:
            extra.append(place)
        elif row in rows:
            both = [called(results[each]) for each in (rows[row], place)]
            raise DataError(
                f"{files[0]}: {' and '.join(both)} are the same image, {called(references[row])} of {files[1]}. Keep "
                "one caption for it"
            )
        else:
            rows[row] = place
            kinds[kind] += 1
    if against:
        raise DataError(_contradiction(against, references, files))
    missing = [row for row in range(len(references)) if row not in rows]
    return Pairing(rows, kinds["name"], kinds["id"], missing, extra)


def _refuse_doubles(entries: Sequence[ImageTexts], file: str | Path) -> None:
    """Raise a DataError if two images have the same file name, because captions could belong to either."""
    seen: dict[tuple[str, ...], ImageTexts] = {}
    for entry in entries:
        if entry.name is not None and (other := seen.setdefault(_parts(entry.name), entry)) is not entry:
            raise DataError(
                f"{file}: {called(other)} and {called(entry)} have the same file name. Give each image one entry, or "
                "write file names with their folders"
            )


def match(
    results: Sequence[ImageTexts],
    references: Sequence[ImageTexts],
    *,
    files: tuple[str | Path, str | Path],
    subset: bool = False,
    unscored: Sequence[ImageTexts] = (),
) -> Matched:
    """Pair captions with the references of their images, ready to be scored.

    Args:
        results: the images with captions.
        references: the images with references.
        files: the files of the results and of the references, for error messages.
        subset: whether to leave out images that only one side has; the result counts them.
        unscored: images that may have captions, which are not scored.

    Raises:
        DataError: as for `pair`; an image is in only one of the two, and `subset` is False; or no image is in both.
    """
    if not references:
        raise DataError(f"{files[1]} has no references. Give a file or a split that has captions")
    found = pair(results, [*references, *unscored], files=files).of_first(len(references))
    faults = []
    if found.missing:
        faults.append(
            f"{len(found.missing)} of {len(references)} annotated images have no caption: "
            f"{listed(references, found.missing)}"
        )
    if found.extra:
        faults.append(
            f"{len(found.extra)} of {len(results)} captioned images have no references: {listed(results, found.extra)}"
        )
    if not found.rows:
        raise DataError(
            f"{files[0]} and {files[1]} have no image in common: {'; '.join(faults)}. Give the annotations of these "
            "images, or write image ids or file names as in the annotations"
        )
    if faults and not subset:
        raise DataError(
            f"{files[0]} and {files[1]} do not have the same images: {'; '.join(faults)}. To score the "
            f"{len(found.rows)} images that both have, add --subset"
        )
    if found.missing and len(found.extra) > len(found.rows) / 2 and not found.by_name:
        raise DataError(
            f"only some image ids of {files[0]} and {files[1]} match, perhaps by chance: {'; '.join(faults)}. Add "
            "'file_name' to both files, or use the annotations of these images"
        )
    order = sorted(found.rows)
    keys = {row: references[row].known_id for row in order}
    return Matched(
        references={keys[row]: references[row].texts for row in order},
        captions={keys[row]: results[found.rows[row]].texts for row in order},
        names={keys[row]: name for row in order if (name := references[row].name or results[found.rows[row]].name)},
        matched_by=found.matched_by,
        annotated=len(references),
        unscored=len(found.extra),
    )


class _Names:
    """An index of the references' file names, by their last part and then by their folders."""

    def __init__(self, references: Sequence[ImageTexts]):
        self.parts = {row: _parts(entry.name) for row, entry in enumerate(references) if entry.name is not None}
        self.last: dict[str, list[int]] = defaultdict(list)
        self.folded: dict[str, list[int]] = defaultdict(list)
        self.stems: dict[str, list[int]] = defaultdict(list)
        for row, parts in self.parts.items():
            self.last[parts[-1]].append(row)
            self.folded[parts[-1].casefold()].append(row)
            self.stems[Path(parts[-1]).stem].append(row)
        self.one_folder = len({parts[:-1] for parts in self.parts.values()}) == 1

    def __bool__(self) -> bool:
        return bool(self.parts)

    def find(self, name: str, files: tuple[str | Path, str | Path], *, stem: bool) -> int | None:
        """Return the row of the reference with this name, or None.

        Args:
            name: the file name, with or without folders.
            files: the files of the results and of the references, for error messages.
            stem: whether a name without its suffix also matches.

        Raises:
            DataError: the name matches several references.
        """
        parts = _parts(name)
        rows = self.last.get(parts[-1]) or self.folded.get(parts[-1].casefold()) or []
        if stem and not rows:
            rows = self.stems.get(parts[-1], [])
        fitting = [row for row in rows if _agree(self.parts[row][:-1], parts[:-1])]
        if not fitting and len(rows) == 1 and self.one_folder and _COCO_FILE.fullmatch(parts[-1]):
            fitting = rows
        if len(fitting) > 1:  # "1.jpg" and "cats/1.jpg"
            depths = [len(self.parts[row]) for row in fitting if len(self.parts[row]) <= len(parts)]
            nearest = max(depths, default=0)
            fitting = [row for row in fitting if len(self.parts[row]) == nearest] or fitting
        if len({self.parts[row] for row in fitting}) < len(fitting):
            raise DataError(f"{files[1]}: {name} is the file name of {len(fitting)} images. Give each image one entry")
        if len(fitting) > 1:
            raise DataError(
                f"{files[0]}: {name} may be {' or '.join('/'.join(self.parts[row]) for row in fitting[:_SHOWN])} of "
                f"{files[1]}. Write the file name with its folder"
            )
        return fitting[0] if fitting else None


def _parts(name: str) -> tuple[str, ...]:
    parts = [part for part in re.split(r"[\\/]+", unicodedata.normalize("NFC", name)) if part not in ("", ".")]
    *folders, last = parts or [""]
    return (*folders, _COCO_PREFIX.sub("", last))


def _agree(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Return whether two lists of folders agree from the end as far as both go, ignoring case."""
    return all(a.casefold() == b.casefold() for a, b in zip(reversed(one), reversed(other), strict=False))


def called(entry: ImageTexts) -> str:
    """Return an image's file name and id, or the one that it has, for an error message."""
    number = "" if entry.image_id is None else f"image id {entry.text or entry.image_id}"
    return f"{entry.name} ({number})" if entry.name and number else entry.name or number


def listed(entries: Sequence[ImageTexts], rows: Sequence[int]) -> str:
    """Return the names of the first few of some images, for an error message."""
    if all(entries[row].name is None for row in rows):
        return f"image ids {name_ids([entries[row].known_id for row in rows])}"
    return ", ".join(called(entries[row]) for row in rows[:_SHOWN]) + (" …" if len(rows) > _SHOWN else "")


def _contradiction(
    against: Sequence[tuple[ImageTexts, int, int | None]],
    references: Sequence[ImageTexts],
    files: tuple[str | Path, str | Path],
) -> str:
    entry, its_id, row = against[0]
    named = "the name is not in it" if row is None else f"the name belongs to {called(references[row])}"
    more = f" ({len(against)} such images)" if len(against) > 1 else ""
    return (
        f"file names and image ids contradict each other: {files[0]} has {called(entry)}, but in {files[1]} this id "
        f"belongs to {called(references[its_id])} and {named}{more}. Delete 'image_id' from {files[0]} to match by "
        "file name, or delete 'file_name' to match by image id"
    )


def _json(value: Any) -> str:
    """Return a value as JSON writes it."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)
