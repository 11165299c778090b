"""Download and unpack the official COCO archives: resume, check sizes and free disk space, unpack all or nothing.

An archive is downloaded to NAME.zip.part and unpacked into .NAME.zip.unpacking next to it. It is deleted once its
files have been moved to the data set's folder. After a kill, these names show where to resume.
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
BLOCK = 1 << 20  # bytes per read
TIMEOUT_SECONDS = 60.0  # without receiving a byte
RETRIES = 5  # consecutive attempts without a new byte
WAIT_SECONDS = 2.0  # before each retry
BAD_RANGE = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
TRY_AGAIN = (HTTPStatus.REQUEST_TIMEOUT, BAD_RANGE, HTTPStatus.TOO_MANY_REQUESTS)
MOST_UNFOLDED = 100  # largest ratio of unpacked to packed size; JSON shrinks 10-fold, images hardly
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


class Archive(NamedTuple):
    """A zip archive to download.

    Attributes:
        url: its address.
        size: its size in bytes; None to accept the size that the server reports.
        unpacks: paths that exist once it is unpacked.
    """

    url: str
    size: int | None
    unpacks: tuple[str, ...]

    @property
    def name(self) -> str:
        """File name: the last part of the address."""
        return self.url.rpartition("/")[2]


def _coco(path: str, size: int, *unpacks: str) -> Archive:
    return Archive(f"http://images.cocodataset.org/{path}", size, unpacks)


# Small archives first, so that faults of the connection or the disk show early.
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
    """Download the COCO files that `captioning.data.read_coco` reads.

    Args:
        root: folder of the data set.
        layout: "karpathy", "2014" or "2017", as in `read_coco`; "auto" means "karpathy".

    Raises:
        ConfigError: the layout is unknown.
        DataError: see `download`.
    """
    name = "karpathy" if layout == "auto" else str(layout)
    if name not in COCO:
        raise ConfigError(f"data.layout must be auto, {', '.join(COCO)}, not {name!r}")
    download(COCO[name], root)


def refuse_download(root: str | Path, *, name: str) -> NoReturn:
    """Refuse to download Flickr8k or Flickr30k: their authors give out the images on request only.

    Raises:
        DataError: always; says where to request the images and where to put them.
        ConfigError: the name is neither flickr8k nor flickr30k.
    """
    if name not in REQUEST_FORMS:
        raise ConfigError(
            f"data={name} has no download: leave out download=true (sources: docs/data.md in the repository)"
        )
    raise DataError(
        f"data={name} cannot be downloaded: its images are given out on request only. Request them from the "
        f"University of Illinois ({REQUEST_FORMS[name]}) and unpack them in {Path(root, 'images')}; put "
        f"dataset_{name}.json from {KARPATHY_URL} into {root} (see docs/data.md in the repository)"
    )


def download(archives: Sequence[Archive], root: str | Path, *, progress: bool | None = None) -> None:
    """Download the archives that are not unpacked in root yet, and unpack them. A second call resumes.

    Args:
        archives: the archives, downloaded in this order.
        root: folder of the data set; created if missing.
        progress: show bytes, rate and remaining time on stderr; None shows them on a terminal only.

    Raises:
        DataError: the disk has too little space for all remaining archives (those of unknown size are not counted);
            an archive has another size than stated; the connection stays down; an archive is damaged, or would write
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
        raise DataError(f"cannot write into {root}: {error}. Run the command again: it resumes the download") from error


def _is_unpacked(archive: Archive, root: Path) -> bool:
    return not _workplace(archive, root).exists() and all(_is_there(root / path) for path in archive.unpacks)


def _is_there(path: Path) -> bool:
    """Return whether path is a file or a folder that is not empty."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _workplace(archive: Archive, root: Path) -> Path:
    """Return the folder in which the archive is unpacked."""
    return root / f".{archive.name}.unpacking"


def _part(archive: Archive, root: Path) -> Path:
    return root / f"{archive.name}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_space(archives: Sequence[Archive], root: Path) -> None:
    """Check that the disk has room for all archives and their content: twice their size, as images hardly compress."""
    known = [archive for archive in archives if archive.size is not None]
    there = sum(max(_size(root / archive.name), _size(_part(archive, root))) for archive in known)
    needed = 2 * sum(archive.size or 0 for archive in known) - there
    free = shutil.disk_usage(root).free
    if free < needed:
        names = ", ".join(archive.name for archive in known)
        raise DataError(
            f"{root} has {free / 1e9:.1f} GB free, but unpacking {names} needs {needed / 1e9:.1f} GB: free some space, "
            "or choose another disk with data.root=FOLDER"
        )


def _fetch(archive: Archive, root: Path, *, progress: bool | None) -> None:
    """Download the complete archive into root; after a lost connection, retry and resume."""
    target, part = root / archive.name, _part(archive, root)
    if target.exists():
        if archive.size not in (None, _size(target)):
            raise DataError(f"{target} has {_size(target)} bytes, not {archive.size}: delete it and run this again")
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
                message = f"cannot download {archive.url}: {error}. Run this again to resume at byte {_size(part)}"
                raise DataError(message) from error
            time.sleep(WAIT_SECONDS)
    os.replace(part, target)


def _is_final(error: Exception) -> bool:
    """Return whether a retry would fail again: the server refused the request, or the disk cannot be written."""
    if isinstance(error, HTTPError):
        return error.code < 500 and error.code not in TRY_AGAIN
    return isinstance(error, OSError) and error.errno in DISK_FAULTS


def _receive(archive: Archive, part: Path, *, progress: bool | None) -> None:
    """Request the missing bytes of `part`; start over if the server sends the archive from its first byte."""
    with _ask(archive, part) as response:
        have = _size(part) if response.status == HTTPStatus.PARTIAL_CONTENT else 0
        total = archive.size if response.length is None else have + response.length
        if archive.size not in (None, total):
            raise DataError(
                f"{archive.url} has {total} bytes on its server, not {archive.size}: it is another file. Download it "
                "by hand (see docs/data.md in the repository)"
            )
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
                    raise DataError(
                        f"{archive.url} sends more than its {archive.size} bytes: it is another file. Download it by "
                        "hand (see docs/data.md in the repository)"
                    )
                file.write(block)
                bar.update(len(block))
    if total not in (None, _size(part)):
        raise ConnectionError(f"received {_size(part)} of {total} bytes")


def _ask(archive: Archive, part: Path) -> HTTPResponse:
    """Return the server's response; delete a `part` that it cannot continue (of another file, or too long)."""
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
        raise ConnectionError(f"requested the bytes from {have}, but the server sent '{came}'")
    return response


def _unpack(archive: Archive, root: Path, *, progress: bool | None) -> None:
    """Unpack next to the target with checked CRCs, then move the files: a kill never leaves a partial folder there."""
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
    except Exception as error:  # for damaged bytes zipfile raises many errors, from BadZipFile to UnicodeDecodeError
        source.unlink()
        raise DataError(
            f"{source} was damaged ({error}) and has been deleted. Run this again to download it"
        ) from error
    absent = [path for path in archive.unpacks if not _is_there(workplace / path)]
    if absent:
        raise DataError(
            f"{source} lacks {', '.join(absent)}: delete it, and download the right archive (see docs/data.md in the "
            "repository)"
        )
    _move_into(workplace, root)
    shutil.rmtree(workplace)
    source.unlink()


def _check_members(members: Sequence[zipfile.ZipInfo], source: Path, workplace: Path) -> None:
    """Refuse archives with members outside of the folder, with links, or of an implausible total size.

    A member larger than it declares is harmless: zipfile stops at the declared size, and the CRC is wrong.
    """
    for member in members:
        inside(workplace, member.filename.replace("\\", "/"), source=source)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DataError(
                f"{source}: {member.filename!r} is a link, which could point outside of the folder: delete the archive"
            )
    size, unpacked = source.stat().st_size, sum(member.file_size for member in members)
    if unpacked > MOST_UNFOLDED * size:
        raise DataError(
            f"{source} would unpack to {unpacked / 1e9:.1f} GB, {unpacked / size:.0f} times its size (the limit is "
            f"{MOST_UNFOLDED}): delete it"
        )
    free = shutil.disk_usage(source.parent).free
    if unpacked > free:
        raise DataError(
            f"{source} unpacks to {unpacked / 1e9:.1f} GB, but {source.parent} has {free / 1e9:.1f} GB free: free some "
            "space"
        )


def _move_into(source: Path, target: Path) -> None:
    """Move everything in one folder into another; merge folders that both have, and replace files."""
    for item in list(source.iterdir()):
        destination = target / item.name
        if item.is_dir() and destination.is_dir():
            _move_into(item, destination)
        else:
            os.replace(item, destination)
