"""Find the files that a data set's names mean, as another system writes them, and say what differs where none is.

Names written on Windows have backslashes, those of macOS decomposed accents; a copy has lost the case, or a file names
its pictures by where they once were. Such a name is read where exactly one file below the data set's folder answers to
it. Nothing here leads out of that folder.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from captioning.data.parsing import Handling, note
from captioning.errors import DataError
from captioning.io import inside

PICTURE_FOLDERS = ("images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images")
_COCO_FOLDERS = ("train2014", "val2014", "train2017", "val2017")
_COCO_NAME = re.compile(r"COCO_(?:train|val|test)20\d\d_(\d{12}\.jpg)")


def canonical(name: str) -> str:
    """A name with composed accents: macOS decomposes them."""
    return unicodedata.normalize("NFC", name)


def caseless(name: str) -> str:
    """A name as a file system compares it that knows neither case nor how accents are composed."""
    return canonical(canonical(name).lower())


class Listing(NamedTuple):
    """What is in a folder: files, links among them to files elsewhere than beside or below, and folders."""

    files: set[str]
    outside: set[str]
    folders: set[str]


class Disk:
    """Listings of folders, each made once: a hundred thousand look-ups take minutes on a network disk."""

    def __init__(self):
        self._listings: dict[Path, Listing] = {}
        self._alike: dict[Path, dict[str, list[str]]] = {}

    def listing(self, folder: Path) -> Listing:
        """Of a folder; of one that is not there, nothing."""
        if folder not in self._listings:
            self._listings[folder] = _list(folder)
        return self._listings[folder]

    def has(self, path: Path) -> bool:
        """Whether that is a file, of exactly that name."""
        return path.name in self.listing(path.parent).files

    def alike(self, folder: Path, parts: Sequence[str]) -> list[Path]:
        """Files below the folder whose path is these parts, but for case and the composition of accents."""
        if folder not in self._alike:
            found = self._alike[folder] = defaultdict(list)
            listing = self.listing(folder)
            for name in sorted(listing.files | listing.folders):
                found[caseless(name)].append(name)
        names = self._alike[folder].get(caseless(parts[0]), [])
        if len(parts) == 1:
            return [folder / name for name in names if name in self.listing(folder).files]
        below = [folder / name for name in names if name in self.listing(folder).folders]
        return [path for sub in below for path in self.alike(sub, parts[1:])]


class Places:
    """Where the pictures of one list of names lie below a folder.

    Args:
        folder: that they are relative to, or one in which an archive put that folder once more. names: all of them, as
            they are written.
    """

    def __init__(self, folder: Path, names: Iterable[str], disk: Disk):
        self.disk = disk
        self._names = [name for name in names if isinstance(name, str)]
        self.folder = folder = _holder([folder, unnested(folder, disk)], self._names, disk) or folder
        self._spelled: dict[Path, dict[str, str]] = defaultdict(dict)  # path -> spelling -> as it is written
        self.differing: dict[str, tuple[Path, str]] = {}  # as it is written -> (file, what differs)

    def path(self, name: str, where: str) -> Path:
        """The file that a name means; where there is none, folder / name.

        Raises:
            DataError: the name leads out of the folder, and is not of pictures that lie in it now.
        """
        if "\0" not in name and (found := self._found(name)):
            path, spelling, differs = found
            self._spelled[path][spelling] = name
            if differs:
                self.differing[name] = (path, differs)
            return path
        return inside(self.folder, name, source=where)

    def has(self, name: str) -> bool:
        """Whether a file answers to that name."""
        return "\0" not in name and self._found(name) is not None

    def report(self, file: Path, faults: Handling) -> None:
        """Say which names are spelled otherwise on disk; refuse two names of one file that differ by more than accents.

        Raises:
            DataError: two names that differ by case mean the same file.
        """
        for path, spellings in self._spelled.items():
            if len(spellings) > 1:
                with faults:
                    names = " and ".join(sorted(spellings.values())[:2])
                    there = path.relative_to(self.folder)
                    raise DataError(
                        f"{file}: {names} differ by case, but only {there} is on disk: write one name, or add the other"
                    )
        if self.differing:
            name, (path, differs) = next(iter(self.differing.items()))
            line = (
                f"{file}: {len(self.differing)} names of pictures are found under another spelling: {name} is "
                f"{path.relative_to(self.folder)} ({differs})"
            )
            items = [
                {"file": str(path), "reason": f"written {name!r} in {file.name}: {differs}"}
                for name, (path, differs) in self.differing.items()
            ]
            for item in items:
                note(faults, "names that are spelled otherwise on disk", item)
            note(faults, None, None, line)

    def _found(self, name: str) -> tuple[Path, str, str] | None:
        """(file, the relative name by which it is, what differs) of a name; None where no file or several are."""
        parts, kinds = Path(name).parts, []
        safe = bool(parts) and not Path(name).anchor and ".." not in parts
        if safe and self.disk.has(path := self.folder.joinpath(*parts)):
            return path, "/".join(map(canonical, parts)), ""
        if "\\" in name or Path(name).anchor or PureWindowsPath(name).anchor:
            parts, kinds = _split(name), ["backslashes"] if "\\" in name else []
            if _is_absolute(name):
                if self._prefix is None or parts[: len(self._prefix)] != self._prefix:
                    return None
                parts, kinds = parts[len(self._prefix) :], ["an absolute path"]
        if not parts or ".." in parts:
            return None
        path, differs = self._one(parts)
        if path is None:
            return None
        return path, "/".join(map(canonical, parts)), " and ".join([*kinds, *([differs] if differs else [])])

    def _one(self, parts: Sequence[str]) -> tuple[Path | None, str]:
        if self.disk.has(path := self.folder.joinpath(*parts)):
            return path, ""
        found = self.disk.alike(self.folder, parts)
        wanted = canonical("/".join(parts))
        same = [path for path in found if canonical(path.relative_to(self.folder).as_posix()) == wanted]
        if len(same) == 1:
            return same[0], "accents composed otherwise"
        return (found[0], "other case") if len(found) == 1 else (None, "")

    @cached_property
    def _prefix(self) -> tuple[str, ...] | None:
        """The folders that all absolute names begin with and that stand for this folder; None where none do.

        The shortest one of which the rest of the first name is a file here.
        """
        names = [_split(name) for name in self._names if _is_absolute(name)]
        if not names:
            return None
        shared = _shared([parts[:-1] for parts in names])
        for count in range(1, len(shared) + 1):
            rest = names[0][count:]
            if ".." not in rest and self._one(rest)[0]:
                return tuple(shared[:count])
        return None


def _holder(folders: Sequence[Path], names: Sequence[str], disk: Disk) -> Path | None:
    """The one folder that has the first of the pictures to be found; None where no folder or several have it."""
    folders = list(dict.fromkeys(folders))
    if len(folders) == 1:
        return folders[0]
    for name in names[:1000]:
        parts = _split(name)
        if parts and ".." not in parts and "\0" not in name and not _is_absolute(name):
            found = [folder for folder in folders if disk.alike(folder, parts)]
            if found:
                return found[0] if len(found) == 1 or found[0] == folders[0] else None
    return None


def own_folder(root: Path, names: Sequence[str], disk: Disk) -> Path:
    """Where the pictures of a table of one's own are: root, or the one picture folder in it that has them."""
    below = [unnested(root / name, disk) for name in PICTURE_FOLDERS if name in disk.listing(root).folders]
    return _holder([root, *below], names, disk) or root


def have_all(root: Path, names: Sequence[str], disk: Disk) -> bool:
    """Whether there is a file for each of the names, in the folder or in the picture folder that it holds."""
    places = Places(own_folder(root, names, disk), names, disk)
    return all(places.has(name) for name in names)


def _shared(names: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """What all begin with."""
    first, last = min(names), max(names)
    same = next((place for place, pair in enumerate(zip(first, last, strict=False)) if len(set(pair)) > 1), len(first))
    return first[: min(same, len(last))]


def _is_absolute(name: str) -> bool:
    return bool(Path(name).anchor or PureWindowsPath(name).anchor)


def _split(name: str) -> tuple[str, ...]:
    """The parts of a name with slashes or backslashes."""
    return tuple(part for part in PureWindowsPath(name).parts if part != ".")


def why_missing(path: Path, folder: Path, disk: Disk) -> str:
    """What is there in the place of a picture that is not: "X is not there, but Y is (other case)"; "" for nothing."""
    try:
        parts = path.relative_to(folder).parts
    except ValueError:
        return ""
    if len(parts) == 1 and "\\" in parts[0]:
        parts = _split(parts[0])
    if not parts or ".." in parts or _is_absolute(str(Path(*parts))):
        return ""
    near, differs = disk.alike(folder, parts), "other case"
    if not near:
        parent, stem = folder.joinpath(*parts[:-1]), caseless(Path(parts[-1]).stem)
        files = sorted(disk.listing(parent).files)
        stems = {caseless(parts[-1]), stem}
        near = [parent / name for name in files if caseless(Path(name).stem) in stems and caseless(name) not in stems]
        differs = "another suffix"
    if not near:
        near, differs = _in_other_folders(folder, parts, disk), "another folder"
    if not near:
        return ""
    names = " and ".join(str(found.relative_to(folder)) for found in near[:3])
    return f"{Path(*parts)} is not there, but {names} {'is' if len(near) == 1 else 'are'} ({differs})"


def _in_other_folders(folder: Path, parts: Sequence[str], disk: Disk) -> list[Path]:
    """The file's name in folders directly below this one."""
    folders = sorted(disk.listing(folder).folders)[:100]
    return [path for name in folders for path in disk.alike(folder / name, parts[-1:])]


def unnested(folder: Path, disk: Disk) -> Path:
    """The folder, or the one in it where an archive put its pictures one folder deeper, under the same name."""
    names = {name.lower() for name in (folder.name, *PICTURE_FOLDERS)}
    while True:
        listing = disk.listing(folder)
        below = [name for name in listing.folders if name.lower() in names]
        if len(below) != 1 or any(name.lower().endswith((".jpg", ".jpeg", ".png")) for name in listing.files):
            return folder
        if folder.name == folder.parent.name == below[0]:
            return folder  # three are no slip of an archive
        folder = folder / below[0]


class CocoPictures:
    """COCO's pictures by their names, in whichever of the usual folders they lie: the same picture in all of them."""

    def __init__(self, root: Path, disk: Disk):
        found = [root / base / name for base in ("", "images") for name in (*_COCO_FOLDERS, *PICTURE_FOLDERS, "")]
        folders = dict.fromkeys(unnested(folder, disk) if folder != root else root for folder in found)
        self._folders = [(folder, disk.listing(folder).files) for folder in folders]
        self.moved: dict[Path, int] = defaultdict(int)

    def find(self, name: str, number: int) -> Path | None:
        """The picture of a 2014 name (COCO_val2014_000000000042.jpg) under that name, or under its name of 2017
        (000000000042.jpg) where that is its number; None where it is nowhere."""
        names = [name]
        if (known := _COCO_NAME.fullmatch(name)) and known[1] == f"{number:012d}.jpg":
            names.append(known[1])
        for candidate in names:
            for folder, files in self._folders:
                if candidate in files:
                    self.moved[folder] += 1
                    return folder / candidate
        return None


def _list(folder: Path) -> Listing:
    """A folder that is a link is its user's own arrangement. A picture that is one may have come with the data set, and
    have anything on this machine read."""
    try:
        with os.scandir(folder) as listing:
            items = list(listing)
        files = [item for item in items if item.is_file()]
        links = {item.name for item in files if item.is_symlink()}
        home = os.path.realpath(folder)
        outside = {name for name in links if not _is_below(os.path.realpath(folder / name), home)}
        return Listing({item.name for item in files}, outside, {item.name for item in items if item.is_dir()})
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
        return Listing(set(), set(), set())
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error}") from error


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath((path, folder)) == folder
