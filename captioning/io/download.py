"""Download and unpack the official COCO archives: resume, check sizes and free disk space, unpack all or nothing.

An archive grows as NAME.zip.part, is unpacked into .NAME.zip.unpacking beside it, and goes once its files are in
place; each of these says after a kill where to go on.
"""

import errno
import os
import shutil
import stat
import time
import zipfile
from collections.abc import Sequence
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NamedTuple, NoReturn
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from captioning.errors import ConfigError, DataError
from captioning.io.safe_paths import inside

KARPATHY_URL = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
BLOCK = 1 << 20  # bytes read at once
TIMEOUT_SECONDS = 60.0  # without a byte
RETRIES = 5  # in a row that bring nothing new
WAIT_SECONDS = 2.0  # before each
BAD_RANGE = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
TRY_AGAIN = (HTTPStatus.REQUEST_TIMEOUT, BAD_RANGE, HTTPStatus.TOO_MANY_REQUESTS)
MOST_UNFOLDED = 100  # times an archive's size that its members may be; JSON shrinks by 10, pictures hardly
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


class Archive(NamedTuple):
    """A zip archive: where it is, its size in bytes (None: as the server says), paths that exist once unpacked."""

    url: str
    size: int | None
    unpacks: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file's name, the last part of its address."""
        return self.url.rpartition("/")[2]


def _coco(path: str, size: int, *unpacks: str) -> Archive:
    return Archive(f"http://images.cocodataset.org/{path}", size, unpacks)


# Small ones first: what is wrong with the line or the disk shows early.
COCO_2014 = (
    _coco(
        "annotations/annotations_trainval2014.zip",
        252_872_794,
        "annotations/captions_train2014.json",
        "annotations/captions_val2014.json",
    ),
    _coco("zips/val2014.zip", 6_645_013_297, "val2014"),
    _coco("zips/train2014.zip", 13_510_573_713, "train2014"),
)
COCO_2017 = (
    _coco(
        "annotations/annotations_trainval2017.zip",
        252_907_541,
        "annotations/captions_train2017.json",
        "annotations/captions_val2017.json",
    ),
    _coco("zips/val2017.zip", 815_585_330, "val2017"),
    _coco("zips/train2017.zip", 19_336_861_798, "train2017"),
)
KARPATHY = Archive(KARPATHY_URL, 36_745_453, ("dataset_coco.json",))
COCO = {"karpathy": (KARPATHY, *COCO_2014), "2014": COCO_2014, "2017": COCO_2017}

REQUEST_FORMS = {
    "flickr8k": "https://forms.illinois.edu/sec/1713398",
    "flickr30k": "https://forms.illinois.edu/sec/229675",
}


def download_coco(root: str | Path, *, layout: str | int = "karpathy") -> None:
    """Fetches what `annotations.read_coco` reads in this layout; "auto" fetches Karpathy's."""
    name = "karpathy" if layout == "auto" else str(layout)
    if name not in COCO:
        raise ConfigError(f"data.layout must be auto, {', '.join(COCO)}, not {name!r}")
    download(COCO[name], root)


def refuse_download(root: str | Path, *, name: str) -> NoReturn:
    """Says where flickr8k or flickr30k is to be had: their pictures are given out on request only."""
    if name not in REQUEST_FORMS:
        raise ConfigError(f"no download is known for data={name} (see data/README.md)")
    raise DataError(
        f"{name} cannot be fetched freely. Ask its authors at the University of Illinois for the pictures "
        f"({REQUEST_FORMS[name]}) and put them into {Path(root, 'images')}; put dataset_{name}.json out of "
        f"{KARPATHY_URL} into {root} (see data/README.md)"
    )


def download(archives: Sequence[Archive], root: str | Path, *, progress: bool | None = None) -> None:
    """Fetches and unpacks into root the archives that are not unpacked there yet; started again, goes on.

    Args:
        archives: what to fetch, in this order.
        root: folder of the data set, made where it is missing.
        progress: show bytes, rate and remaining time on stderr; None where that is a terminal.

    Raises:
        DataError: too little free disk for everything still to come (archives of unknown size are not counted), a
            size other than the known one, a line that stays down, a damaged archive, or one that would write
            outside root.
    """
    root = Path(root)
    pending = [archive for archive in archives if not _is_unpacked(archive, root)]
    try:
        root.mkdir(parents=True, exist_ok=True)
        _check_space(pending, root)
        for archive in pending:
            _fetch(archive, root, progress=progress)
            _unpack(archive, root, progress=progress)
    except OSError as error:
        raise DataError(f"cannot write into {root}: {error}; what was fetched is kept, start again") from error


def _is_unpacked(archive: Archive, root: Path) -> bool:
    return not _workplace(archive, root).exists() and all(_is_there(root / path) for path in archive.unpacks)


def _is_there(path: Path) -> bool:
    """Whether path is a file, or a folder with something in it."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _workplace(archive: Archive, root: Path) -> Path:
    """Where the archive is being unpacked."""
    return root / f".{archive.name}.unpacking"


def _part(archive: Archive, root: Path) -> Path:
    return root / f"{archive.name}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_space(archives: Sequence[Archive], root: Path) -> None:
    """Room for all archives and for what is in them, about the same size again: pictures hardly compress."""
    known = [archive for archive in archives if archive.size is not None]
    there = sum(max(_size(root / archive.name), _size(_part(archive, root))) for archive in known)
    needed = 2 * sum(archive.size for archive in known) - there
    free = shutil.disk_usage(root).free
    if free < needed:
        names = ", ".join(archive.name for archive in known)
        raise DataError(
            f"{root} has {free / 1e9:.1f} GB free, but {names} need {needed / 1e9:.1f} GB while they are unpacked: "
            "make room, or choose another disk with data.root=DIR"
        )


def _fetch(archive: Archive, root: Path, *, progress: bool | None) -> None:
    """Leaves the whole archive in root; a dropped connection is tried again, going on where it broke."""
    target, part = root / archive.name, _part(archive, root)
    if target.exists():
        if archive.size not in (None, _size(target)):
            raise DataError(f"{target} has {_size(target)} bytes, not {archive.size}: delete it and start again")
        return
    failures, furthest = 0, _size(part)
    while archive.size is None or _size(part) != archive.size:
        try:
            _receive(archive, part, progress=progress)
            break
        except (OSError, HTTPException) as error:
            failures = 0 if _size(part) > furthest else failures + 1
            furthest = max(furthest, _size(part))
            if failures > RETRIES or _is_final(error):
                message = f"cannot fetch {archive.url}: {error}; start again to go on at byte {_size(part)}"
                raise DataError(message) from error
            time.sleep(WAIT_SECONDS)
    os.replace(part, target)


def _is_final(error: Exception) -> bool:
    """Whether the same would happen again: the server has said no, or the disk has."""
    if isinstance(error, HTTPError):
        return error.code < 500 and error.code not in TRY_AGAIN
    return isinstance(error, OSError) and error.errno in DISK_FAULTS


def _receive(archive: Archive, part: Path, *, progress: bool | None) -> None:
    """One request for what `part` still lacks; where the server sends the whole archive instead, starts it anew."""
    with _ask(archive, part) as response:
        have = _size(part) if response.status == HTTPStatus.PARTIAL_CONTENT else 0
        total = archive.size if response.length is None else have + response.length
        if archive.size not in (None, total):
            raise DataError(f"{archive.url} has {total} bytes on its server, not {archive.size}: it is another file")
        bar = tqdm(
            desc=archive.name,
            initial=have,
            total=total,
            unit="B",
            unit_scale=True,
            disable=None if progress is None else not progress,
        )
        with part.open("ab" if have else "wb") as file, bar:
            while block := response.read(BLOCK):
                if archive.size is not None and file.tell() + len(block) > archive.size:
                    raise DataError(f"{archive.url} sends more than its {archive.size} bytes: it is another file")
                file.write(block)
                bar.update(len(block))
    if total not in (None, _size(part)):
        raise ConnectionError(f"{_size(part)} of {total} bytes came")


def _ask(archive: Archive, part: Path) -> HTTPResponse:
    """The server's answer; a `part` to which it cannot add (of another file, or too long) is deleted."""
    have = _size(part)
    headers = {"User-Agent": "captioning"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urlopen(Request(archive.url, headers=headers), timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if error.code == BAD_RANGE:
            part.unlink(missing_ok=True)
        raise
    came = response.headers.get("Content-Range", "")
    if response.status == HTTPStatus.PARTIAL_CONTENT and not came.startswith(f"bytes {have}-"):
        response.close()
        part.unlink(missing_ok=True)
        raise ConnectionError(f"asked for bytes from {have} on, the server sent '{came}'")
    return response


def _unpack(archive: Archive, root: Path, *, progress: bool | None) -> None:
    """Unpacks beside, checking every file's CRC, then moves into place: a kill never leaves half a folder there."""
    source, workplace = root / archive.name, _workplace(archive, root)
    shutil.rmtree(workplace, ignore_errors=True)
    try:
        with zipfile.ZipFile(source) as bundle:
            members = bundle.infolist()
            _check_members(members, source, workplace)
            workplace.mkdir()
            for member in tqdm(
                members,
                desc=f"unpacking {archive.name}",
                unit=" files",
                disable=None if progress is None else not progress,
            ):
                bundle.extract(member, workplace)
    except (OSError, DataError, MemoryError):
        raise
    except Exception as error:  # zipfile meets damaged bytes with anything, from BadZipFile to UnicodeDecodeError
        source.unlink()
        raise DataError(f"{source} was damaged ({error}) and is deleted: start again to fetch it anew") from error
    absent = [path for path in archive.unpacks if not _is_there(workplace / path)]
    if absent:
        raise DataError(f"{source} does not hold {', '.join(absent)}: delete it and see data/README.md")
    _move_into(workplace, root)
    shutil.rmtree(workplace)
    source.unlink()


def _check_members(members: Sequence[zipfile.ZipInfo], source: Path, workplace: Path) -> None:
    """No member leads out of the folder, by its name or as a link; and together they are of a believable size.

    What a member holds beyond the size that it declares is never written: zipfile stops there, and its CRC is wrong.

    Raises:
        DataError: names the archive and the member.
    """
    for member in members:
        inside(workplace, member.filename.replace("\\", "/"), source=source)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DataError(f"{source}: {member.filename!r} is a link, which no data set needs: delete the archive")
    size, unpacked = source.stat().st_size, sum(member.file_size for member in members)
    if unpacked > MOST_UNFOLDED * size:
        raise DataError(
            f"{source} would unpack to {unpacked / 1e9:.1f} GB, {unpacked / size:.0f} times its size, as no data set "
            "does: delete it"
        )
    free = shutil.disk_usage(source.parent).free
    if unpacked > free:
        raise DataError(
            f"{source} unpacks to {unpacked / 1e9:.1f} GB, but {source.parent} has {free / 1e9:.1f} GB free: make room"
        )


def _move_into(source: Path, target: Path) -> None:
    """Moves all that is in one folder into another; folders that both have are joined, files replaced."""
    for item in list(source.iterdir()):
        place = target / item.name
        if item.is_dir() and place.is_dir():
            _move_into(item, place)
        else:
            os.replace(item, place)
