"""Read images and captions from tar archives in the layout of WebDataset, without unpacking them.

The files of a sample have the same name up to the first dot: 000000001.jpg, 000000001.txt and 000000001.json, as
`WebDatasetSampleWriter` of img2dataset 1.45 writes them. The path of an image is ARCHIVE.tar/NAME, a file that
`captioning.io` reads from its archive.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from captioning.data import STRICT, SUFFIXES, Handling, Record, known_split, note, parse_json, shown
from captioning.data.readers.json_lines import CAPTION_KEYS
from captioning.data.readers.lines import lines_of
from captioning.data.readers.rows import caption_texts, check_shares, hashed_split, name_hash
from captioning.errors import ConfigError, DataError
from captioning.io import archive_ending, archive_members, counted, how_to_decompress

_NUMBER_BITS = 20  # of an image id: the number of the image in its archive
_ARCHIVE_BITS = 33  # with them 53 bits, which every program that reads JSON keeps
_WORDS = re.compile(r"[-_.]")
_TWICE = "in an archive twice; the last one counts, as in tar"
_DOTTED = "with a second dot in its name, as if it were another file of a sample: write _ instead"
_FORM = "NAME.tar with photo.jpg and photo.txt (or photo.json with the key caption)"


class _Sample:
    """The files of one sample: names of its images, and the contents of its text and of its JSON."""

    __slots__ = ("about", "images", "text")

    def __init__(self) -> None:
        self.images: list[str] = []
        self.text: tuple[str, bytes] | None = None
        self.about: tuple[str, bytes] | None = None


class _LeftOut:
    """Counts what is left out of the data set, by its reason."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[int, str]] = {}  # reason -> (number, the first)

    def add(self, what: str, reason: str, faults: Handling) -> None:
        number, first = self.found.get(reason, (0, what))
        self.found[reason] = number + 1, first
        note(faults, "images left out", {"file": what, "reason": reason})

    def report(self, root: Path, faults: Handling) -> None:
        for reason, (number, first) in self.found.items():
            noun = "file" if reason == _TWICE else "sample"
            left = "" if reason == _TWICE else "left out, "
            note(faults, None, None, f"{root}: {counted(number, noun)} {left}{reason} (first: {first})")


def read_webdataset(
    root: str | Path,
    *,
    captions: str | None = None,
    val_share: float = 0.1,
    test_share: float = 0.0,
    faults: Handling = STRICT,
) -> list[Record]:
    """Read every tar archive in root and its subfolders; a sample is an image with a text or a JSON file of its name.

    The text file has one caption per line. Samples without one have their captions in their JSON file, under the key
    captions, caption or text. Samples without an image (failed downloads, for example) or without a caption are left
    out, and their number is printed.

    The split of an archive is that in its name or its folder's (cc3m-train-0001.tar, val/00000.tar). If no archive has
    one, a hash of the image's name chooses it, as in `read_csv`: the same split as in `read_folder` if each archive is
    unpacked into a folder of its name.

    An image id is made of a hash of the archive's name and the number of the image in the archive, so it stays the same
    if archives are added.

    Args:
        root: folder of the data set.
        captions: key of the JSON files that has the captions; None: the text files, or else the known key.
        val_share: expected share of the images for validation, without splits.
        test_share: expected share of the images for test, without splits.
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        ConfigError: the shares are negative, or 1 or more together, or no JSON file has the key `captions`.
        DataError: there are no such archives, an archive is compressed, damaged or cut short, a sample has two images,
            or some archives name a split and others do not.
    """
    check_shares(val_share, test_share)
    root = Path(root)
    archives, compressed = archives_below(root)
    with faults:
        if compressed:  # never a part of the data in silence
            raise DataError(how_to_decompress(compressed[0]))
    if not archives:
        raise DataError(f"data.root={root} has no tar archive: add {_FORM}, or choose another data=")
    names = [archive.relative_to(root).as_posix() for archive in archives]
    numbers = _archive_numbers(names)
    left, records, keys = _LeftOut(), list[Record](), set[str]()
    smallest: tuple[float, int] | None = None  # hash and index of the training image with the smallest hash
    named: dict[bool, Path] = {}
    for archive, name in zip(tqdm(archives, desc="archives", unit="archives", disable=None), names, strict=True):
        found: list[tuple[int, str, tuple[str, ...]]] = []
        with faults:
            found = _read(archive, captions, left, keys, faults)
        split = _split_of(archive, root)
        if found:
            named.setdefault(split is not None, archive)
        if len(named) > 1:
            raise DataError(
                f"data.root={root}: {named[True]} names a split and {named[False]} does not: rename the archives to "
                "begin with train, validation or test, or name none of them so"
            )
        for number, member, texts in found:
            image_split = split
            if image_split is None:
                value = name_hash(f"{os.path.splitext(name)[0]}/{member}")
                image_split = hashed_split(value, val_share, test_share)
                if image_split == "train" and (smallest is None or value < smallest[0]):
                    smallest = value, len(records)
            image_id = numbers[name] << _NUMBER_BITS | number
            records.append(Record(image_id, archive / member, image_split, texts))
    left.report(root, faults)
    if not records and faults is STRICT:
        _refuse_nothing(root, captions, keys, left)
    _ensure_validation(records, smallest, val_share)
    return records


def archives_below(root: Path, *, within: bool = False) -> tuple[list[Path], list[Path]]:
    """Return the tar archives in a folder and its subfolders, and the compressed ones that are not decompressed yet.

    Hidden ones are left out. Links are followed, but what is in the folder itself is not listed again under the name of
    a link. Both lists are in the order of the names.

    Args:
        root: the folder.
        within: leave out links to folders, and subfolders that cannot be listed.

    Raises:
        DataError: there is no such folder, or a subfolder cannot be listed.
    """
    if root.is_file():
        raise DataError(f"data.root={root}: this is a file: set data.root to its folder")
    if not root.is_dir():
        raise DataError(f"data.root={root}: there is no such folder: check data.root")
    found: dict[str, tuple[Path, str]] = {}  # real path -> (path, ending)
    links: list[Path] = []
    for folder, names in _folders(root, within=within):
        there, real = {name.lower() for name in names}, os.path.realpath(folder)
        for name in names:
            if name.startswith(".") or not (ending := archive_ending(name)):
                continue
            if ending == ".tar" or f"{name.lower().removesuffix(ending)}.tar" not in there:
                path = folder / name
                if path.is_symlink():
                    links.append(path)
                else:
                    found.setdefault(os.path.join(real, name), (path, ending))
    for path in sorted(links):
        found.setdefault(os.path.realpath(path), (path, archive_ending(path)))
    plain = sorted(path for path, ending in found.values() if ending == ".tar")
    return plain, sorted(path for path, ending in found.values() if ending != ".tar")


def _folders(root: Path, *, within: bool) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder with the names of its files: first all folders below the root, then those that links lead to.

    Args:
        root: the folder.
        within: see `archives_below`.
    """
    home = Path(os.path.realpath(root))
    walked, waiting = {str(folder) for folder in home.parents}, [root]  # a link to those would lead out and back
    for start in waiting:  # gets the links
        if os.path.realpath(start) in walked:
            continue
        for base, folders, names in os.walk(start, onerror=None if within else _refuse_folder):
            walked.add(os.path.realpath(base))
            inner = [Path(base, name) for name in sorted(folders) if name[0] != "." and name != "lost+found"]
            waiting += [path for path in inner if path.is_symlink() and not within]
            entered = [path for path in inner if not path.is_symlink() and os.path.realpath(path) not in walked]
            folders[:] = [path.name for path in entered]
            yield Path(base), names


def _refuse_folder(error: OSError) -> None:
    raise DataError(
        f"cannot list {error.filename} ({error.strerror or error}): check the folder and its permissions"
    ) from error


def _refuse_nothing(root: Path, captions: str | None, keys: set[str], left: _LeftOut) -> None:
    if captions is not None and keys and captions not in keys:
        raise ConfigError(
            f"data.reader.captions={captions} is not a key of the JSON files in data.root={root}: choose one of "
            f"{', '.join(sorted(keys))}"
        )
    found = "; ".join(f"{counted(number, 'sample')} {reason}" for reason, (number, _) in left.found.items())
    raise DataError(
        f"data.root={root} has no archive with images and captions{f' ({found})' if found else ''}: add {_FORM}, or "
        "choose another data="
    )


def _ensure_validation(records: list[Record], smallest: tuple[float, int] | None, val_share: float) -> None:
    """Move the image with the smallest hash to the validation split, if that would be empty, as `row_records` does."""
    training = sum(record.split == "train" for record in records)
    if smallest and val_share and training > 1 and not any(record.split == "val" for record in records):
        records[smallest[1]] = records[smallest[1]]._replace(split="val")


def _archive_numbers(names: Sequence[str]) -> dict[str, int]:
    """Return a number for each archive: a hash of its name, or the next free number if two have the same hash."""
    numbers: dict[str, int] = {}
    taken: set[int] = set()
    for name in names:
        digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
        number = int.from_bytes(digest) >> (64 - _ARCHIVE_BITS)
        while number in taken:
            number = (number + 1) % 2**_ARCHIVE_BITS
        taken.add(number)
        numbers[name] = number
    return numbers


def _split_of(archive: Path, root: Path) -> str | None:
    """Return the split that a word in the archive's name or in those of its folders is; None if there is none."""
    folders = reversed(archive.relative_to(root).parts[:-1])
    words = [*_WORDS.split(archive.stem.lower()), *(folder.lower() for folder in folders)]
    return next((split for word in words if (split := known_split(word))), None)


def _read(
    archive: Path, captions: str | None, left: _LeftOut, keys: set[str], faults: Handling
) -> list[tuple[int, str, tuple[str, ...]]]:
    """Return (number, name, captions) of the images of an archive that have captions, in the order of their names.

    Args:
        archive: the archive.
        captions: key of the JSON files; None: see `read_webdataset`.
        left: counts what is left out.
        keys: gets the keys of the JSON files.
        faults: how to handle faults.
    """
    found: list[tuple[int, str, tuple[str, ...]]] = []
    number = -1
    for sample in _samples(archive, left, faults):
        number += bool(sample.images)
        with faults:
            if number >= 1 << _NUMBER_BITS:
                raise DataError(f"{archive} has more than {1 << _NUMBER_BITS:,} images: split it into several archives")
            if not sample.images:
                if reason := _without_image(sample):
                    left.add(_named(archive, sample), reason, faults)
                continue
            if len(sample.images) > 1:
                both = " and ".join(sample.images[:2])
                raise DataError(f"{archive}: one sample has the images {both}: remove one of them from the archive")
            if texts := _captions(archive, sample, captions, keys, faults):
                found.append((number, sample.images[0], tuple(texts)))
            else:
                left.add(_named(archive, sample), "without a caption", faults)
    found.sort(key=lambda each: each[1].split("/"))
    return found


def _samples(archive: Path, left: _LeftOut, faults: Handling) -> Iterator[_Sample]:
    """Return the samples of an archive, in the order of their first files."""
    samples: dict[str, _Sample] = {}
    dotted: dict[str, tuple[str, str]] = {}  # name of an image without its suffix -> (key, name)
    dotted_texts: set[str] = set()
    try:
        with open(archive, "rb") as file:
            for member in archive_members(file, archive):
                key, ending = sample_key(member.name)
                if key is None:
                    continue
                is_image = f".{ending}" in SUFFIXES
                if not is_image and ending not in ("txt", "json"):
                    if "." in ending and not member.unusable:
                        stem, suffix = os.path.splitext(member.name)
                        if suffix.lower() in SUFFIXES:
                            dotted[stem] = key, member.name
                        elif suffix.lower() in (".txt", ".json"):
                            dotted_texts.add(stem)
                    continue
                if member.unusable:
                    left.add(f"{archive}/{member.name}", f"with {member.unusable}", faults)
                    continue
                sample = samples.get(key)
                if sample is None:
                    sample = samples[key] = _Sample()
                if is_image:
                    if member.name in sample.images:
                        left.add(f"{archive}/{member.name}", _TWICE, faults)
                    else:
                        sample.images.append(member.name)
                    continue
                kind = "text" if ending == "txt" else "about"
                if getattr(sample, kind) is not None:
                    left.add(f"{archive}/{member.name}", _TWICE, faults)
                file.seek(member.offset)
                setattr(sample, kind, (member.name, file.read(member.size)))
    except OSError as error:
        if archive.is_symlink() and not archive.exists():
            raise DataError(f"{archive} is a link to a file that does not exist: correct or delete it") from error
        raise DataError(f"cannot read {archive} ({error.strerror or error}): check its permissions") from error
    for stem, (key, name) in dotted.items():  # 1.seg.png beside 1.jpg is no sample, but 1.5.jpg beside 1.5.txt is meant
        if stem in dotted_texts or key not in samples or not samples[key].images:
            left.add(f"{archive}/{name}", _DOTTED, faults)
    return iter(samples.values())


def sample_key(name: str) -> tuple[str | None, str]:
    """Return the key of a file, its name up to the first dot, and the rest in lower case; (None, "") for a hidden file.

    macOS adds hidden files such as "._photo.jpg" to archives.
    """
    if (name.startswith(".") or "/." in name) and any(part[:1] == "." and part != ".." for part in name.split("/")):
        return None, ""
    folder, slash, base = name.rpartition("/")
    stem, dot, ending = base.partition(".")
    return (folder + slash + stem, ending.lower()) if dot else (None, "")


def _named(archive: Path, sample: _Sample) -> str:
    """Return the path of a sample's first file."""
    texts = [file[0] for file in (sample.text, sample.about) if file]
    return f"{archive}/{[*sample.images, *texts][0]}"


def _without_image(sample: _Sample) -> str:
    """Return why a sample has no image; "" if it is no sample of a data set of images."""
    about = _parsed(sample.about[1]) if sample.about else None
    if isinstance(about, dict):
        if about.get("status", "success") != "success":
            return "a failed download"
        if sample.text is None and not any(about.get(key) for key in CAPTION_KEYS):
            return ""
    return "without an image" if sample.text or isinstance(about, dict) else ""


def _captions(archive: Path, sample: _Sample, key: str | None, keys: set[str], faults: Handling) -> list[str]:
    """Return the captions of a sample; [] if it has none."""
    if key is None and sample.text is not None:
        name, content = sample.text
        return [line for text in lines_of(content, archive / name) if (line := text.strip())]
    if sample.about is None:
        return []
    name, content = sample.about
    where = f"{archive}/{name}"
    try:
        about = parse_json(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: it must be a JSON object with the key caption ({error}): correct it") from error
    if not isinstance(about, dict):
        raise DataError(f"{where}: it must be a JSON object with the key caption, not {shown(about)}: correct it")
    keys.update(about)
    known = [each for each in (CAPTION_KEYS if key is None else (key,)) if about.get(each) is not None]
    if len(known) > 1:
        raise DataError(f"{where}: the keys {' and '.join(known)} may be the caption: set data.reader.captions to one")
    if not known or (isinstance(about[known[0]], str) and not about[known[0]].strip()):
        return []
    return [text.strip() for text in caption_texts(about[known[0]], known[0], where, faults)]


def _parsed(content: bytes) -> object:
    """Return the content of a JSON file; None if it is no JSON."""
    try:
        return parse_json(content)
    except (ValueError, RecursionError):
        return None
