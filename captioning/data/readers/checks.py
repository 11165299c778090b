"""Check the records of a data set: every image has its own id, one entry, and a file. All readers use these checks."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captioning.data import STRICT, Disk, Faults, Handling, Record, note, why_missing
from captioning.errors import DataError
from captioning.io import counted


class CaptionFile(NamedTuple):
    """A file of captions, its records, and the folder that the names in it are relative to."""

    file: Path
    records: list[Record]
    folder: Path


def checked(sources: Sequence[CaptionFile], disk: Disk, faults: Handling) -> list[Record]:
    """Check the records of all files, and return those with captions.

    Args:
        sources: the caption files with their records.
        disk: cache of folder listings.
        faults: how to handle faults, see `captioning.data.readers`. If they are collected, all records are returned.

    Raises:
        DataError: an id belongs to two images, an image has two entries, possibly in two splits, an image is not on
            disk, or no image has captions.
    """
    result: list[Record] = []
    first: dict[int, Record] = {}
    entries: dict[Path, Record] = {}
    for file, records, folder in sources:
        repeated = [record.image_id for record in records if first.setdefault(record.image_id, record) is not record]
        advice = "give every image its own id, also between splits"
        refuse(file, "image ids of more than one image", repeated, advice=advice, faults=faults)
        if faults is STRICT:  # the audit lists images with two entries among the duplicates
            twice = [
                _both(one, other) for other in records if (one := entries.setdefault(other.path, other)) is not other
            ]
            advice = "keep one entry per image, in one split, with all of its captions"
            refuse(file, "images with two entries", twice, advice=advice)
            records = [record for record in records if record.captions]
            missing, outside = _on_disk((record.path for record in records), disk)
            advice = "download them or remove them from the file"
            if missing and (why := why_missing(missing[0], folder, disk)):
                advice = f"{why}. {advice[0].upper()}{advice[1:]}, or write the names as they are on disk"
            refuse(file, "images that are not on disk", missing, advice=advice)
            refuse(file, "images that are links out of their folder", outside, advice="copy the files into the folder")
        result += records
    if not result and faults is STRICT:
        raise DataError(f"{', '.join(str(source.file) for source in sources)}: no images with captions: add captions")
    return result


def _both(one: Record, other: Record) -> str:
    if one.split != other.split:
        return f"{other.path.name} (in {one.split} and in {other.split})"
    return f"{other.path.name} (image ids {one.image_id} and {other.image_id})"


def refuse(file: Path, fault: str, items: Sequence[Any], *, advice: str, faults: Handling = STRICT) -> None:
    """Raise one error for all items; if faults are collected, add one message per item.

    Args:
        file: the file that names the items.
        fault: what is wrong with them.
        items: the faulty items; without any, nothing happens.
        advice: what the user should do.
        faults: how to handle faults.

    Raises:
        DataError: there are items, and faults are not collected.
    """
    if isinstance(faults, Faults):
        faults.messages += [f"{file}: {fault}: {item}; {advice}" for item in dict.fromkeys(items)]
    elif items:
        more = f" and {len(items) - 1} more" if len(items) > 1 else ""
        raise DataError(f"{file}: {fault}: {items[0]}{more}; {advice}")


def not_blank(captions: Iterable[str], faults: Handling) -> tuple[str, ...]:
    """Drop blank captions of published files, which users cannot correct. The audit keeps them."""
    return tuple(caption for caption in captions if caption.strip() or faults is not STRICT)


def report_repeated(file: Path, numbers: Mapping[str, int], faults: Handling) -> None:
    """Report numbers of captions, such as `a.jpg#0`, that have several lines.

    Args:
        file: the file of captions.
        numbers: number of a caption -> how many lines have it.
        faults: how to handle faults.
    """
    repeated = [(name, count) for name, count in numbers.items() if count > 1]
    for name, count in repeated:
        note(faults, "captions with the same number", {"file": name, "reason": f"{count} lines of {file.name}"})
    if repeated:
        (name, count), total = repeated[0], counted(len(repeated), "number")
        line = f"{file}: {total} of a caption in more than one line (first: {name}, {count} lines); all lines are used"
        note(faults, None, None, line)


def report_silent(file: Path, texts: Mapping[str, Iterable[str]], faults: Handling) -> None:
    """Print how many listed images have no captions, or only blank ones. The audit lists them in any case.

    Args:
        file: the file of captions.
        texts: name of an image -> its captions.
        faults: how to handle faults.
    """
    silent = [name for name, own in texts.items() if not any(text.strip() for text in own)]
    if 0 < len(silent) < len(texts):
        note(faults, None, None, f"{file}: {counted(len(silent), 'image')} without captions left out ({silent[0]}, …)")


def missing_files(paths: Iterable[Path]) -> list[Path]:
    """Return the paths that are not files."""
    return _on_disk(paths, Disk())[0]


def _on_disk(paths: Iterable[Path], disk: Disk) -> tuple[list[Path], list[Path]]:
    """Return (paths that are not files, paths that are links out of their folder)."""
    paths = list(paths)
    missing = [path for path in paths if not disk.has(path)]
    return missing, [path for path in paths if path.name in disk.listing(path.parent).outside]
