"""Read files inside tar archives without unpacking them: FOLDER/00000.tar/000000001.jpg is the path of such a file.

Every function takes the path of any file. The headers of an archive are read once per process, for an index of its
files; after that, a file is read at its offset. Links, and names that lead out of the archive, are never followed: they
are no files of the archive.
"""

import errno
import hashlib
import os
import re
import shlex
import tarfile
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from captioning.errors import DataError
from captioning.io.file_kinds import described

COMPRESSED_ARCHIVES = {  # ending -> the program that decompresses such a file
    ".tar.gz": "gunzip",
    ".tgz": "gunzip",
    ".tar.bz2": "bunzip2",
    ".tbz2": "bunzip2",
    ".tar.xz": "unxz",
    ".txz": "unxz",
    ".tar.zst": "unzstd",
}
_STARTS = {b"\x1f\x8b": ".tar.gz", b"BZh": ".tar.bz2", b"\xfd7zXZ\0": ".tar.xz", b"\x28\xb5\x2f\xfd": ".tar.zst"}
_INSIDE = re.compile(r"\.tar[/\\]" if os.name == "nt" else r"\.tar/", re.IGNORECASE)
_BLOCK = 512  # bytes of a header; data are padded to a multiple
_PADDING = 1 << 20  # bytes of zeros, at most, that tar writes after the end mark to fill its last record
_REGULAR = (b"0", b"\0")  # types of a header
_INDEXED = 4_000_000  # files in the indexes that a process keeps, of 24 bytes each


class ArchiveMember(NamedTuple):
    """An entry of an archive.

    Attributes:
        name: its path inside the archive, without "./" at the beginning.
        offset: where its content begins, in bytes.
        size: size of its content in bytes.
        unusable: why it is not a file that can be read, such as "a link"; "" for a file.
    """

    name: str
    offset: int
    size: int
    unusable: str = ""


class FileStatus(NamedTuple):
    """What shows, without reading a file, whether it has changed.

    Attributes:
        size: size in bytes; None for a file in an archive, whose size follows from `changed`.
        changed: the time of the last change in ns. For a file in an archive, a hash of the archive's size and time.
    """

    size: int | None
    changed: int


def archive_members(file: BinaryIO, path: str | Path) -> Iterator[ArchiveMember]:
    """Yield the entries of an archive, without folders. The caller may seek in the file in between.

    Args:
        file: the opened archive.
        path: its path, for error messages.

    Raises:
        DataError: the file is compressed, cut short, damaged, not a tar archive, or several ones joined by `cat`.
        OSError: the file cannot be read.
    """
    total, offset = os.fstat(file.fileno()).st_size, 0
    try:
        archive: Any = tarfile.TarFile(fileobj=file, mode="r")  # reads the first header
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
        raise DataError(_no_archive(file, path, error)) from error
    while True:
        file.seek(offset)
        header = file.read(_BLOCK)
        if header.count(0) == _BLOCK:  # the end mark
            rest = file.read(_PADDING)
            if total - file.tell() or rest.count(0) < len(rest):  # never a part of the data in silence
                raise DataError(
                    f"{path} has its end mark at byte {offset:,} of {total:,}, and tar does not read what follows: "
                    "download it again; if it was joined from several archives, use those instead"
                )
            return
        if len(header) < _BLOCK:
            raise DataError(f"{path} is cut short after {total:,} bytes: download it again")
        member = None if archive.pax_headers else _plain(header, offset)
        if member is None:
            file.seek(offset)
            try:
                found = tarfile.TarInfo.fromtarfile(archive)
            except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
                cut = total - offset < 4 * _BLOCK  # within the headers of one entry
                fault = f"cut short after {total:,} bytes" if cut else f"damaged at byte {offset:,} ({error})"
                raise DataError(f"{path} is {fault}: download it again") from error
            following = int(archive.offset)
            member = None if found.isdir() else _of_header(found)
        else:
            following = member.offset + -(-member.size // _BLOCK) * _BLOCK
        if following > total:
            raise DataError(f"{path} is cut short after {total:,} bytes: download it again")
        if following <= offset:
            raise DataError(f"{path} is damaged at byte {offset:,}: download it again")
        if member is not None:
            yield member
        offset = following


def split_archive(path: str | Path) -> tuple[str, str] | None:
    """Return (archive, name inside it) of the path of a file in an archive; None for any other path."""
    text = str(path)
    for found in _INSIDE.finditer(text):
        archive = text[: found.end() - 1]
        if os.path.isfile(archive):
            return archive, text[found.end() :].replace("\\", "/") if os.name == "nt" else text[found.end() :]
    return None


def read_file(path: str | Path) -> bytes:
    """Return the content of a file, also of one inside an archive.

    Raises:
        OSError: the file cannot be read.
        DataError: its archive is damaged.
    """
    inside = split_archive(path)
    if inside is None:
        return Path(path).read_bytes()
    archive, name = inside
    with open(archive, "rb") as file:
        location = _indexes.of(archive, file).find(name)
        if location is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        file.seek(location[0])
        content = file.read(location[1])
    if len(content) < location[1]:
        raise DataError(f"{archive} is cut short: download it again")
    return content


def file_exists(path: str | Path) -> bool:
    """Return whether there is a file, also inside an archive."""
    inside = split_archive(path)
    if inside is None:
        return Path(path).is_file()
    try:
        with open(inside[0], "rb") as file:
            return _indexes.of(inside[0], file).find(inside[1]) is not None
    except (OSError, DataError):
        return False


def file_status(path: str | Path) -> FileStatus:
    """Return the status of a file. That of a file in an archive needs no index, and changes with the archive.

    Raises:
        OSError: there is no such file or archive.
    """
    inside = split_archive(path)
    status = os.stat(inside[0] if inside else path)
    if inside is None:
        return FileStatus(status.st_size, status.st_mtime_ns)
    text = f"{status.st_size} {status.st_mtime_ns}".encode()
    return FileStatus(None, int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True))


def files_in_archive(folder: str | Path) -> tuple[set[str], set[str]] | None:
    """Return the names of (files, folders) in an archive, or in a folder inside one; None for any other path.

    Raises:
        OSError: the archive cannot be read.
        DataError: the archive is damaged.
    """
    inside = split_archive(f"{folder}/")
    if inside is None:
        return None
    with open(inside[0], "rb") as file:
        folders = _folders_of(inside[0], file)
    return folders.get(inside[1].strip("/"), (set[str](), set[str]()))


def how_to_decompress(path: str | Path) -> str:
    """Return the message for a compressed archive, whose files cannot be read one by one."""
    ending = archive_ending(path)
    if ending in COMPRESSED_ARCHIVES:
        written = str(path)[-len(ending) :]  # also .TAR.GZ
        command = f"{COMPRESSED_ARCHIVES[ending]} {shlex.quote(str(Path(path).parent))}/*{written}"
    else:
        with open(path, "rb") as file:
            start = file.read(8)
        ending = next(ending for first, ending in _STARTS.items() if start.startswith(first))
        whole = shlex.quote(f"{os.path.splitext(path)[0]}{ending}")
        command = f"mv {shlex.quote(str(path))} {whole} && {COMPRESSED_ARCHIVES[ending]} {whole}"
    return f"{path} is compressed, so its images cannot be read one by one. Run: {command}"


def archive_ending(path: str | Path) -> str:
    """Return the ending of an archive's name in lower case, such as ".tar" or ".tar.gz"; "" for any other file."""
    name = str(path).lower()
    return next((end for end in (".tar", *COMPRESSED_ARCHIVES) if name.endswith(end)), "")


class _Index:
    """Where the files of an archive are: hashes of their names, sorted, and offsets and sizes in the same order.

    Args:
        members: the files. If a name occurs again, the last one counts, as in tar.
    """

    def __init__(self, members: Iterator[ArchiveMember]):
        found = {hash(each.name): (each.offset, each.size) for each in members if not each.unusable}
        hashes = np.fromiter(found, np.int64, len(found))
        order = np.argsort(hashes)
        self.hashes = hashes[order]
        self.places = np.array(list(found.values()), np.int64).reshape(-1, 2)[order]

    def __len__(self) -> int:
        return len(self.hashes)

    def find(self, name: str) -> tuple[int, int] | None:
        """Return (offset, size) of a file; None if there is none of this name."""
        wanted = hash(_relative(name))
        at = int(np.searchsorted(self.hashes, wanted))
        if at == len(self.hashes) or self.hashes[at] != wanted:
            return None
        offset, size = self.places[at].tolist()
        return offset, size


class _Indexes:
    """The indexes that this process keeps, of the archives that were used last."""

    def __init__(self) -> None:
        self.known: OrderedDict[str, tuple[tuple[int, ...], _Index]] = OrderedDict()  # the last one was used last
        self.files = 0  # in all of them
        self._lock = Lock()

    def of(self, archive: str, file: BinaryIO) -> _Index:
        """Return the index of an opened archive. If the archive has changed, its headers are read again."""
        identity = _identity(file)
        with self._lock:
            known = self.known.get(archive)
            if known is not None and known[0] == identity:
                self.known.move_to_end(archive)
                return known[1]
            index = _Index(archive_members(file, archive))
            if known is not None:
                self.files -= len(self.known.pop(archive)[1])
            self.known[archive] = identity, index
            self.files += len(index)
            while len(self.known) > 1 and self.files > _INDEXED:
                self.files -= len(self.known.popitem(last=False)[1][1])
            return index


_indexes = _Indexes()


def _identity(file: BinaryIO) -> tuple[int, ...]:
    """Return what changes if an opened archive is replaced or written to."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


_folders: dict[str, tuple[tuple[int, ...], dict[str, tuple[set[str], set[str]]]]] = {}  # of one archive


def _folders_of(archive: str, file: BinaryIO) -> dict[str, tuple[set[str], set[str]]]:
    """Return {folder: names of its (files, folders)} of an opened archive, with "" for the archive itself.

    Those of the last archive are kept, because its folders are usually asked for one after the other.
    """
    identity, known = _identity(file), _folders.get(archive)
    if known is not None and known[0] == identity:
        return known[1]
    found: defaultdict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for member in archive_members(file, archive):
        if not member.unusable:
            folder, _, name = member.name.rpartition("/")
            found[folder][0].add(name)
    for folder in list(found):
        while folder:
            folder, _, name = folder.rpartition("/")
            found[folder][1].add(name)
    _folders.clear()
    _folders[archive] = identity, found
    return found


def _plain(header: bytes, offset: int) -> ArchiveMember | None:
    """Return the file of a header without any extension; None for all others, which `tarfile` reads.

    This is four times as fast as `tarfile`, and nearly all headers of a data set are of this kind.
    """
    if header[156:157] not in _REGULAR or header[345]:
        return None
    try:
        name = header[:100].partition(b"\0")[0].decode("utf-8", "surrogateescape")
        size = int(header[124:136].rstrip(b"\0 "), 8)
        checksum = int(header[148:156].rstrip(b"\0 "), 8)
    except ValueError:
        return None
    if size < 0 or name.endswith("/") or sum(header) - sum(header[148:156]) + 8 * ord(" ") != checksum:
        return None
    return _checked(ArchiveMember(name, offset + _BLOCK, size))


def _of_header(found: tarfile.TarInfo) -> ArchiveMember:
    member = ArchiveMember(found.name, found.offset_data, found.size)
    if found.issym() or found.islnk():
        return member._replace(unusable="a link")
    if not found.isreg() or found.issparse():
        return member._replace(unusable="not a regular file")
    return _checked(member)


def _checked(member: ArchiveMember) -> ArchiveMember:
    name = member.name
    if name.startswith("/") or (".." in name and ".." in name.split("/")):
        return member._replace(unusable="a name that leads out of the archive")
    return member._replace(name=_relative(name))


def _relative(name: str) -> str:
    """Return a name without empty parts and ".", as a path has none."""
    if name.startswith("./") or "//" in name or "/./" in name:
        return "/".join(part for part in name.split("/") if part not in ("", "."))
    return name


def _no_archive(file: BinaryIO, path: str | Path, error: Exception) -> str:
    file.seek(0)
    start = file.read(_BLOCK)
    if any(map(start.startswith, _STARTS)):
        return how_to_decompress(path)
    if not start:
        return f"{path} is empty: download it again, or delete it"
    kind = described(start)
    fault = f"not a tar archive (it looks like {kind})" if kind else f"not a tar archive, or damaged ({error})"
    return f"{path} is {fault}: download it again, or delete it"
