"""Read a folder of photos with a text file beside each: photo.jpg and photo.txt, one caption per line."""

from collections import defaultdict
from pathlib import Path

from captioning.data import STRICT, Disk, Handling, Places, Record, caseless, find_images, known_split, names_of, note
from captioning.data.readers.checks import CaptionFile, checked
from captioning.data.readers.lines import text_lines
from captioning.data.readers.rows import check_shares, row_records
from captioning.data.readers.shards import refuse_packed
from captioning.errors import DataError
from captioning.io import counted

_NO_CAPTIONS = ("readme", "license", "licence")  # text files without a photo that archives contain


def read_folder(
    root: str | Path, *, val_share: float = 0.1, test_share: float = 0.0, faults: Handling = STRICT
) -> list[Record]:
    """Read photos in a folder and its subfolders, each with a text file of the same name that has one caption per line.

    If root has folders named train, val and test (or validation, dev, …, see `split_named`), they are the splits.
    Otherwise a hash of the photo's file name chooses the split, as in `read_csv`. Photos without a text file are left
    out, and their number is printed.

    The output of img2dataset (format "files") has this layout. It writes an empty text file for a photo without a
    caption, and a JSON file beside each photo; such photos are left out and counted too.

    Args:
        root: folder of the data set.
        val_share: expected share of the photos for validation, without split folders.
        test_share: expected share of the photos for test, without split folders.
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        ConfigError: the shares are negative, or 1 or more together.
        DataError: there are no such pairs, a text file has no photo or no caption, a photo is outside of the splits, or
            an archive of photos and captions is not unpacked.
    """
    check_shares(val_share, test_share)
    root, disk = Path(root), Disk()
    pairs, splits = _pairs(root, faults), split_folders(root, disk)
    rows: list[tuple[str, dict[str, str]]] = []
    without: list[Path] = []
    for photo, text in pairs:
        with faults:
            split = _split_of(photo, root, splits)
            lines = [(number, line.strip()) for number, line in enumerate(text_lines(text), start=1)]
            found = [(f"{text}, line {number}", line) for number, line in lines if line]
            if not found and text.with_suffix(".json").is_file():
                without.append(photo)
                continue
            if not found:
                raise DataError(f"{text} has no caption: write one or more, one per line, or delete the file")
            name = photo.relative_to(root).as_posix()
            rows += [(where, {"image": name, "caption": line} | split) for where, line in found]
    _report_left_out(without, "with an empty text file from img2dataset", root, faults)
    places = Places(root, names_of(rows), disk)
    records = row_records(root, rows, places, val_share=val_share, test_share=test_share, faults=faults)
    return checked([CaptionFile(root, records, root)], disk, faults)


def split_folders(root: Path, disk: Disk) -> dict[str, str]:
    """Return the subfolders that are splits: name -> split.

    Raises:
        DataError: two folders are the same split.
    """
    found = {name: split for name in disk.listing(root).folders if (split := known_split(name))}
    double = [name for name in sorted(found) if list(found.values()).count(found[name]) > 1]
    if double:
        raise DataError(f"{root}: the folders {' and '.join(double)} are the same split: keep one of them")
    return found


def _pairs(root: Path, faults: Handling) -> list[tuple[Path, Path]]:
    """Return (photo, text file) of the same name, ignoring case, in the order of the photos' names.

    Raises:
        DataError: there are none, or a text file has no photo, or two.
    """
    if not root.is_dir():
        raise DataError(f"data.root={root}: there is no such folder: check data.root")
    with faults:
        refuse_packed(root)
    photos: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in find_images([root]).paths:
        photos[path.parent, caseless(path.stem)].append(path)
    pairs, lonely = [], []
    for text in text_files(root):
        found = photos.get((text.parent, caseless(text.stem)), [])
        with faults:
            if len(found) > 1:
                names = " and ".join(path.name for path in found[:2])
                raise DataError(f"{text} belongs to {names}: rename one of the photos, and give each its own text file")
        if found:
            pairs.append((found[0], text))
        elif caseless(text.stem) not in _NO_CAPTIONS:
            lonely.append(text)
    if not pairs:
        raise DataError(
            f"data.root={root} has no photo with a text file beside it: data=folder needs photo.jpg and photo.txt, one "
            "caption per line. For one table with all captions, use data=csv"
        )
    _refuse_double(pairs, faults)
    with faults:
        if lonely:
            more = f" and {len(lonely) - 1} more" if len(lonely) > 1 else ""
            raise DataError(f"{lonely[0]}{more}: there is no photo of this name beside it: add it, or delete the file")
    silent = {path for same in photos.values() for path in same} - {photo for photo, _ in pairs}
    _report_left_out(sorted(silent), "without a text file", root, faults)
    return sorted(pairs)


def _refuse_double(pairs: list[tuple[Path, Path]], faults: Handling) -> None:
    """Refuse two text files of one photo, whose names differ by case."""
    texts: dict[Path, Path] = {}
    for photo, text in pairs:
        with faults:
            if texts.setdefault(photo, text) != text:
                raise DataError(
                    f"{texts[photo]} and {text.name} differ by case, but only {photo.name} is there: keep one of them"
                )


def text_files(root: Path) -> list[Path]:
    """Return the text files in a folder and its subfolders, without hidden ones."""
    found = [path for path in root.rglob("*") if path.suffix.lower() == ".txt" and path.is_file()]
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(root).parts))


def _report_left_out(photos: list[Path], reason: str, root: Path, faults: Handling) -> None:
    """Report photos that are left out because they have no caption."""
    for path in photos:
        note(faults, "images left out", {"file": str(path), "reason": reason})
    if photos:
        line = f"{root}: {counted(len(photos), 'photo')} left out, {reason} (first: {photos[0]})"
        note(faults, None, None, line)


def _split_of(photo: Path, root: Path, splits: dict[str, str]) -> dict[str, str]:
    """Return {"split": split} of a photo, as its folder says; {} if no folder is a split."""
    if not splits:
        return {}
    folder = photo.relative_to(root).parts[0]
    if folder not in splits:
        raise DataError(
            f"{photo} is in none of the split folders {', '.join(sorted(splits))}: rename its folder to train, val or "
            "test, or move the photo into the folder of its split"
        )
    return {"split": splits[folder]}
