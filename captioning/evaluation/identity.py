"""Decide which image a caption belongs to: by its file name where both sides have one, by its image id otherwise.

Two files often number the same images differently: captioning-caption counts 0, 1, 2 …, COCO has numbers of its own.
So a file name counts for more than a number, and where the two contradict each other nothing is scored.
"""

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
_COCO_PREFIX = re.compile(r"COCO_[a-z]+\d{4}_(?=\d{12}(\.\w+)?$)")  # 2014's names; 2017's are the same without it
COCO_ID = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})(?:\.jpg)?")  # of a file name or a text id
_COCO_FILE = re.compile(r"\d{12}\.\w+")  # names one image in whatever folder
_SHOWN = 3  # examples in an error


class ImageTexts(NamedTuple):
    """One image's caption, samples or references, as a file gives them.

    image_id: a whole number, a text, or None where the file gives a name alone. name: the file name, with folders or
    without, or None. texts: the captions. text: the id as the file spells it, where that is a text: it may be a name.
    """

    image_id: ImageId | None
    name: str | None
    texts: list[str]
    text: str | None = None


class Pairing(NamedTuple):
    """Which image is which.

    rows: row of the references -> row of the results. by_name, by_id: how many were found by each. missing: rows of
    the references that no result belongs to. extra: rows of the results that belong to no reference.
    """

    rows: dict[int, int]
    by_name: int
    by_id: int
    missing: list[int]
    extra: list[int]

    def of_first(self, count: int) -> "Pairing":
        """The same without the references from row `count` on."""
        rows = {row: place for row, place in self.rows.items() if row < count}
        return self._replace(rows=rows, missing=[row for row in self.missing if row < count])

    @property
    def matched_by(self) -> str:
        """What was compared, in words: "file name", "image id", or how many by each."""
        if self.by_name and self.by_id:
            return f"file name ({self.by_name}) and image id ({self.by_id})"
        return "file name" if self.by_name else "image id"


class Matched(NamedTuple):
    """Captions and references of the same images, by the image ids of the references, in their order.

    matched_by: "file name" or "image id". annotated: how many images have references. unscored: captions without.
    """

    references: dict[ImageId, list[str]]
    captions: dict[ImageId, list[str]]
    names: dict[ImageId, str]
    matched_by: str
    annotated: int
    unscored: int

    @property
    def about(self) -> dict[str, Any]:
        """What a printed score says of it (`evaluation.title`)."""
        part = len(self.captions) < self.annotated or self.unscored
        return {"matched by": self.matched_by} | (
            {"subset": {"annotated": self.annotated, "captions without references": self.unscored}} if part else {}
        )


def read_id(value: Any, where: str, key: str = "image_id") -> ImageId:
    """An image id in its one spelling: 397133 for 397133, 397133.0, "397133", "000000397133" and COCO's file names.

    Any other text stands for itself.

    Raises:
        DataError: null, NaN, a fraction, a negative number, a number too large to be exact, or anything else.
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
        f"{where}: '{key}' must be a whole number from 0 to 2**63 - 1 or a text, not {value!r:.60}; "
        "write each image's id as the annotations do"
    )


def of_records(records: Iterable[Record], root: str | Path | None = None) -> list[ImageTexts]:
    """A data set's records, with file names below `root`, or without folders where they are elsewhere."""
    return [ImageTexts(record.image_id, file_name(record.path, root), list(record.captions)) for record in records]


def file_name(path: Path, root: str | Path | None) -> str:
    """A file's name below the folder of its data set."""
    try:
        return path.relative_to(root).as_posix() if root is not None else path.name
    except ValueError:
        return path.name


def pair(
    results: Sequence[ImageTexts], references: Sequence[ImageTexts], *, files: tuple[str | Path, str | Path]
) -> Pairing:
    """Find the reference of every result.

    A file name is compared without regard to the folders that only one side gives, to Unicode's normal form, and, if
    nothing else fits, to upper and lower case; COCO's 2014 and 2017 names of an image are one name.

    Args:
        files: of the results and of the references, for errors.

    Raises:
        DataError: names and ids contradict each other, a name fits several references, or two results are of one image.
    """
    names, ids = _Names(references), {entry.image_id: row for row, entry in enumerate(references)}
    _refuse_doubles(results, files[0])
    # What captioning-caption counts is no identity, but only beside names.
    counted = [entry.image_id for entry in results] == list(range(len(results)))
    running = counted and all(entry.name is not None for entry in results)
    rows: dict[int, int] = {}
    kinds, extra, against = {"name": 0, "id": 0}, [], []
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
                f"{files[0]}: {' and '.join(both)} are one image, {called(references[row])} of {files[1]}: "
                "more than one caption for it; keep one"
            )
        else:
            rows[row] = place
            kinds[kind] += 1
    if against:
        raise DataError(_contradiction(against, references, files))
    missing = [row for row in range(len(references)) if row not in rows]
    return Pairing(rows, kinds["name"], kinds["id"], missing, extra)


def _refuse_doubles(entries: Sequence[ImageTexts], file: str | Path) -> None:
    """Raise a DataError if two images have the same file name: captions could not be assigned to one of them."""
    seen: dict[tuple[str, ...], ImageTexts] = {}
    for entry in entries:
        if entry.name is not None and (other := seen.setdefault(_parts(entry.name), entry)) is not entry:
            raise DataError(
                f"{file}: {called(other)} and {called(entry)} have one file name: give each image one entry, or write "
                "its folder beside its name"
            )


def match(
    results: Sequence[ImageTexts],
    references: Sequence[ImageTexts],
    *,
    files: tuple[str | Path, str | Path],
    subset: bool = False,
    unscored: Sequence[ImageTexts] = (),
) -> Matched:
    """Captions with the references of their images, ready to be scored.

    Args:
        files: of the results and of the references, for errors.
        subset: whether images that only one side has are left out; they are counted in what is returned.
        unscored: images of which a caption may be there, and is not scored.

    Raises:
        DataError: as `pair`; images that only one side has, without `subset`; no image that both have.
    """
    if not references:
        raise DataError(f"{files[1]}: nothing to score: there are no references")
    found = pair(results, [*references, *unscored], files=files).of_first(len(references))
    faults = []
    if found.missing:
        faults.append(
            f"{len(found.missing)} of {len(references)} annotated images without a caption: "
            f"{listed(references, found.missing)}"
        )
    if found.extra:
        faults.append(f"{len(found.extra)} of {len(results)} images without references: {listed(results, found.extra)}")
    if not found.rows:
        raise DataError(
            f"{files[0]} and {files[1]} have no image in common: cannot score {'; '.join(faults)}. "
            "Give the annotations of these images, or write image ids or file names as the annotations do"
        )
    if faults and not subset:
        raise DataError(
            f"{files[0]}, {files[1]}: cannot score {'; '.join(faults)}. Add --subset to score the {len(found.rows)} "
            "images that both have"
        )
    if found.missing and len(found.extra) > len(found.rows) / 2 and not found.by_name:
        raise DataError(
            f"{files[0]}, {files[1]}: only some image ids agree, perhaps by chance: {'; '.join(faults)}. Write "
            "'file_name' into both files, or score against the annotations of these images"
        )
    order = sorted(found.rows)
    keys = {row: references[row].image_id for row in order}
    return Matched(
        references={keys[row]: references[row].texts for row in order},
        captions={keys[row]: results[found.rows[row]].texts for row in order},
        names={keys[row]: name for row in order if (name := references[row].name or results[found.rows[row]].name)},
        matched_by=found.matched_by,
        annotated=len(references),
        unscored=len(found.extra),
    )


class _Names:
    """File names of the references, found by their last part and then by their folders."""

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
        """Row of the reference of this name; None where there is none.

        Args:
            stem: whether a name without its suffix is found too.
        """
        parts = _parts(name)
        rows = self.last.get(parts[-1]) or self.folded.get(parts[-1].casefold()) or []
        if stem and not rows:
            rows = self.stems.get(parts[-1], [])
        fitting = [row for row in rows if _agree(self.parts[row][:-1], parts[:-1])]
        if not fitting and len(rows) == 1 and self.one_folder and _COCO_FILE.fullmatch(parts[-1]):
            fitting = rows
        if len(fitting) > 1:  # "1.jpg" beside "cats/1.jpg"
            depths = [len(self.parts[row]) for row in fitting if len(self.parts[row]) <= len(parts)]
            nearest = max(depths, default=0)
            fitting = [row for row in fitting if len(self.parts[row]) == nearest] or fitting
        if len({self.parts[row] for row in fitting}) < len(fitting):
            raise DataError(f"{files[1]}: {name} is the file name of {len(fitting)} images; give each image one entry")
        if len(fitting) > 1:
            raise DataError(
                f"{files[0]}: {name} may be {' or '.join('/'.join(self.parts[row]) for row in fitting[:_SHOWN])} of "
                f"{files[1]}: write its folder beside it"
            )
        return fitting[0] if fitting else None


def _parts(name: str) -> tuple[str, ...]:
    parts = [part for part in re.split(r"[\\/]+", unicodedata.normalize("NFC", name)) if part not in ("", ".")]
    *folders, last = parts or [""]
    return (*folders, _COCO_PREFIX.sub("", last))


def _agree(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether the folders are the same as far as both give them, from the file upwards, in any case of letters."""
    return all(a.casefold() == b.casefold() for a, b in zip(reversed(one), reversed(other), strict=False))


def called(entry: ImageTexts) -> str:
    """An image as errors name it: its file name and its id, as far as it has them."""
    number = "" if entry.image_id is None else f"image id {entry.text or entry.image_id}"
    return f"{entry.name} ({number})" if entry.name and number else entry.name or number


def listed(entries: Sequence[ImageTexts], rows: Sequence[int]) -> str:
    """The first few of some images, as errors name them."""
    if all(entries[row].name is None for row in rows):
        return f"image ids {name_ids([entries[row].image_id for row in rows])}"
    return ", ".join(called(entries[row]) for row in rows[:_SHOWN]) + (" …" if len(rows) > _SHOWN else "")


def _contradiction(against: Sequence[tuple], references: Sequence[ImageTexts], files) -> str:
    entry, its_id, row = against[0]
    named = "has no such name" if row is None else f"has that name as {called(references[row])}"
    more = f" ({len(against)} such images)" if len(against) > 1 else ""
    return (
        f"{files[0]} has {called(entry)}, but in {files[1]} this id is {called(references[its_id])}, and it {named}"
        f"{more}: file names and image ids contradict each other. Delete 'image_id' from {files[0]} to match by file "
        "name, or 'file_name' to match by image id"
    )
