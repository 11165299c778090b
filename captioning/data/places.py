"""Find the image files of a data set although another system spells their names differently, and explain missing files.

Names written on Windows have backslashes, names from macOS have decomposed accents, a copy may have lost the case, and
absolute paths may be those of another machine. Such a name is accepted if it matches exactly one file below the data
set's folder. No name can lead out of that folder.
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
from captioning.io import files_in_archive, inside

PICTURE_FOLDERS = ("images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images")
_COCO_FOLDERS = ("train2014", "val2014", "train2017", "val2017")
_COCO_NAME = re.compile(r"COCO_(?:train|val|test)20\d\d_(\d{12}\.jpg)")


def canonical(name: str) -> str:
    """Return a name with composed accents (NFC); macOS decomposes them."""
    return unicodedata.normalize("NFC", name)


def caseless(name: str) -> str:
    """Return a name in the form that a file system compares if it ignores case and the composition of accents."""
    return canonical(canonical(name).lower())


class Listing(NamedTuple):
    """The names in a folder.

    Attributes:
        files: names of files.
        outside: names of files that are links to files outside of the folder.
        folders: names of subfolders.
    """

    files: set[str]
    outside: set[str]
    folders: set[str]


class Disk:
    """Cache of folder listings: without it, a hundred thousand look-ups take minutes on a network disk."""

    def __init__(self) -> None:
        self._listings: dict[Path, Listing] = {}
        self._alike: dict[Path, dict[str, list[str]]] = {}

    def listing(self, folder: Path) -> Listing:
        """Return the names in a folder; none if the folder is missing.

        Raises:
            DataError: the folder cannot be listed.
        """
        if folder not in self._listings:
            self._listings[folder] = _list(folder)
        return self._listings[folder]

    def has(self, path: Path) -> bool:
        """Return whether there is a file with exactly this name."""
        return path.name in self.listing(path.parent).files

    def alike(self, folder: Path, parts: Sequence[str]) -> list[Path]:
        """Return the files below the folder with this path, ignoring case and the composition of accents.

        Args:
            folder: the folder.
            parts: the parts of the relative path.
        """
        if folder not in self._alike:
            found: defaultdict[str, list[str]] = defaultdict(list)
            self._alike[folder] = found
            listing = self.listing(folder)
            for name in sorted(listing.files | listing.folders):
                found[caseless(name)].append(name)
        names = self._alike[folder].get(caseless(parts[0]), [])
        if len(parts) == 1:
            return [folder / name for name in names if name in self.listing(folder).files]
        below = [folder / name for name in names if name in self.listing(folder).folders]
        return [path for sub in below for path in self.alike(sub, parts[1:])]


class Places:
    """Image files for one list of names below a folder.

    Args:
        folder: the folder that the names are relative to; or its subfolder of the same name, which some archives add.
        names: all names as they are written.
        disk: cache of folder listings.
    """

    def __init__(self, folder: Path, names: Iterable[str], disk: Disk):
        self.disk = disk
        self._names = [name for name in names if isinstance(name, str)]
        self.folder = folder = _holder([folder, unnested(folder, disk)], self._names, disk) or folder
        self._spelled: dict[Path, dict[str, str]] = defaultdict(dict)  # path -> {normalized name: name as written}
        self.differing: dict[str, tuple[Path, str]] = {}  # name as written -> (file, what differs)

    def path(self, name: str, where: str) -> Path:
        """Return the file that a name means; folder / name if there is none.

        Args:
            name: the name as it is written.
            where: its location, for error messages.

        Raises:
            DataError: the name leads out of the folder, and no file in the folder matches it.
        """
        if "\0" not in name and (found := self._found(name)):
            path, spelling, differs = found
            self._spelled[path][spelling] = name
            if differs:
                self.differing[name] = (path, differs)
            return path
        return inside(self.folder, name, source=where)

    def has(self, name: str) -> bool:
        """Return whether a file matches the name."""
        return "\0" not in name and self._found(name) is not None

    def report(self, file: Path, faults: Handling) -> None:
        """Report names that are spelled differently on disk, and refuse two names that mean the same file.

        Two names that differ only by the composition of accents are accepted.

        Args:
            file: the file with the names.
            faults: how the reader handles faults.

        Raises:
            DataError: two names that differ by case mean the same file.
        """
        for path, spellings in self._spelled.items():
            if len(spellings) > 1:
                with faults:
                    names = " and ".join(sorted(spellings.values())[:2])
                    there = path.relative_to(self.folder)
                    raise DataError(
                        f"{file}: {names} differ by case, but only {there} is on disk: use one name, or add the other "
                        "file"
                    )
        if self.differing:
            name, (path, differs) = next(iter(self.differing.items()))
            line = (
                f"{file}: {len(self.differing)} image files have a different spelling on disk: {name} is "
                f"{path.relative_to(self.folder)} ({differs})"
            )
            items = [
                {"file": str(path), "reason": f"written {name!r} in {file.name}: {differs}"}
                for name, (path, differs) in self.differing.items()
            ]
            for item in items:
                note(faults, "names that are spelled differently on disk", item)
            note(faults, None, None, line)

    def _found(self, name: str) -> tuple[Path, str, str] | None:
        """Return (file, normalized relative name, what differs); None unless exactly one file matches."""
        parts = Path(name).parts
        kinds: list[str] = []
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
        match, differs = self._one(parts)
        if match is None:
            return None
        return match, "/".join(map(canonical, parts)), " and ".join([*kinds, *([differs] if differs else [])])

    def _one(self, parts: Sequence[str]) -> tuple[Path | None, str]:
        """Return (the only matching file, what differs), or (None, "")."""
        if self.disk.has(path := self.folder.joinpath(*parts)):
            return path, ""
        found = self.disk.alike(self.folder, parts)
        wanted = canonical("/".join(parts))
        same = [path for path in found if canonical(path.relative_to(self.folder).as_posix()) == wanted]
        if len(same) == 1:
            return same[0], "different composition of accents"
        return (found[0], "different case") if len(found) == 1 else (None, "")

    @cached_property
    def _prefix(self) -> tuple[str, ...] | None:
        """Folders at the beginning of all absolute names that stand for this folder; None if there are none.

        This is the shortest beginning for which the rest of the first name is a file in this folder.
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
    """Return the folder that has the first name that is found at all.

    If several folders have it, return the first folder if it is one of them, otherwise None. Return None if no name is
    found.
    """
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
    """Return the folder of the images of a table: root, or the image folder in it that has them.

    Args:
        root: folder of the data set.
        names: the images' names as they are written.
        disk: cache of folder listings.
    """
    below = [unnested(root / name, disk) for name in PICTURE_FOLDERS if name in disk.listing(root).folders]
    return _holder([root, *below], names, disk) or root


def have_all(root: Path, names: Sequence[str], disk: Disk) -> bool:
    """Return whether there is a file for each name, in the folder or in an image folder in it.

    Args:
        root: folder of the data set.
        names: the images' names as they are written.
        disk: cache of folder listings.
    """
    places = Places(own_folder(root, names, disk), names, disk)
    return all(places.has(name) for name in names)


def _shared(names: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the common beginning of all names."""
    first, last = min(names), max(names)
    same = next((index for index, pair in enumerate(zip(first, last, strict=False)) if len(set(pair)) > 1), len(first))
    return first[: min(same, len(last))]


def _is_absolute(name: str) -> bool:
    return bool(Path(name).anchor or PureWindowsPath(name).anchor)


def _split(name: str) -> tuple[str, ...]:
    """Return the parts of a name with slashes or backslashes."""
    return tuple(part for part in PureWindowsPath(name).parts if part != ".")


def why_missing(path: Path, folder: Path, disk: Disk) -> str:
    """Describe similar files that exist instead of a missing one: "X is missing, but Y is there (different case)".

    Args:
        path: the missing file.
        folder: folder in which to look for similar files.
        disk: cache of folder listings.

    Returns:
        The description; "" if there is no similar file.
    """
    try:
        parts = path.relative_to(folder).parts
    except ValueError:
        return ""
    if len(parts) == 1 and "\\" in parts[0]:
        parts = _split(parts[0])
    if not parts or ".." in parts or _is_absolute(str(Path(*parts))):
        return ""
    near, differs = disk.alike(folder, parts), "different case"
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
    return f"{Path(*parts)} is missing, but {names} {'is' if len(near) == 1 else 'are'} there ({differs})"


def _in_other_folders(folder: Path, parts: Sequence[str], disk: Disk) -> list[Path]:
    """Find the file's name in the direct subfolders."""
    folders = sorted(disk.listing(folder).folders)[:100]
    return [path for name in folders for path in disk.alike(folder / name, parts[-1:])]


def unnested(folder: Path, disk: Disk) -> Path:
    """Return the folder, or its subfolder of the same name if an archive has put the images one folder deeper."""
    names = {name.lower() for name in (folder.name, *PICTURE_FOLDERS)}
    while True:
        listing = disk.listing(folder)
        below = [name for name in listing.folders if name.lower() in names]
        if len(below) != 1 or any(name.lower().endswith((".jpg", ".jpeg", ".png")) for name in listing.files):
            return folder
        if folder.name == folder.parent.name == below[0]:
            return folder  # three folders of one name are not a mistake of an archive
        folder = folder / below[0]


class CocoPictures:
    """COCO's images by name, in any of the usual folders. A name means the same image in all of them.

    Args:
        root: folder of the data set.
        disk: cache of folder listings.
    """

    def __init__(self, root: Path, disk: Disk):
        found = [root / base / name for base in ("", "images") for name in (*_COCO_FOLDERS, *PICTURE_FOLDERS, "")]
        folders = dict.fromkeys(unnested(folder, disk) if folder != root else root for folder in found)
        self._folders = [(folder, disk.listing(folder).files) for folder in folders]
        self.moved: dict[Path, int] = defaultdict(int)

    @property
    def present(self) -> bool:
        """Whether any of the folders has images."""
        return any(name.lower().endswith(".jpg") for _, files in self._folders for name in files)

    def find(self, name: str, number: int) -> Path | None:
        """Find an image by its name of 2014 (COCO_val2014_000000000042.jpg) or of 2017 (000000000042.jpg).

        Args:
            name: the name of 2014.
            number: the image's id; the name of 2017 must agree with it.

        Returns:
            The path; None if there is no such file.
        """
        names = [name]
        if (known := _COCO_NAME.fullmatch(name)) and known[1] == f"{number:012d}.jpg":
            names.append(known[1])
        for candidate in names:
            for folder, files in self._folders:
                if candidate in files:
                    self.moved[folder] += 1
                    return folder / candidate
        return None

    def report(self, file: Path, faults: Handling) -> None:
        """Report how many images were found in which folders.

        Args:
            file: the file with the names.
            faults: how the reader handles faults.
        """
        if self.moved:
            found = " and ".join(f"{count} in {where}" for where, count in self.moved.items())
            line = f"{file}: images found by name in other folders than those in the file: {found}"
            note(faults, None, None, line)


def _list(folder: Path) -> Listing:
    """Return the names in a folder or in a tar archive, and find links that lead out of the folder.

    A link to a folder was made by the user. A link to a file may have come with the data set, and could make this
    program read any file of this machine.
    """
    try:
        with os.scandir(folder) as listing:
            items = list(listing)
        files = [item for item in items if item.is_file()]
        links = {item.name for item in files if item.is_symlink()}
        home = os.path.realpath(folder)
        outside = {name for name in links if not _is_below(os.path.realpath(folder / name), home)}
        return Listing({item.name for item in files}, outside, {item.name for item in items if item.is_dir()})
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
        return _list_archive(folder)
    except OSError as error:
        raise DataError(
            f"cannot list {folder} ({error.strerror or error}): check the folder and its permissions"
        ) from error


def _list_archive(folder: Path) -> Listing:
    """Return the names in a tar archive, or in a folder inside one; none for any other path."""
    try:
        found = None if "\0" in str(folder) else files_in_archive(folder)
    except OSError as error:
        raise DataError(f"cannot read {folder} ({error.strerror or error}): check its permissions") from error
    files, folders = found or (set[str](), set[str]())
    return Listing(files, set(), folders)


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath((path, folder)) == folder
