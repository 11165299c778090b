"""Check the records of a data set: every image has its own id, one entry, and a file. All readers use these checks."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captioning.data import STRICT, Disk, Faults, Handling, Record, why_missing
from captioning.errors import DataError


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


def missing_files(paths: Iterable[Path]) -> list[Path]:
    """Return the paths that are not files."""
    return _on_disk(paths, Disk())[0]


def _on_disk(paths: Iterable[Path], disk: Disk) -> tuple[list[Path], list[Path]]:
    """Return (paths that are not files, paths that are links out of their folder)."""
    paths = list(paths)
    missing = [path for path in paths if not disk.has(path)]
    return missing, [path for path in paths if path.name in disk.listing(path.parent).outside]
