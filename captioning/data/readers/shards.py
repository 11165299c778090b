"""Find archives of photos and captions that have to be unpacked: the output of img2dataset in its format "webdataset".

Such an archive, `00000.tar`, has `000000001.jpg`, `000000001.txt` and `000000001.json` (`WebDatasetSampleWriter` of
img2dataset 1.45). Unpacked, they are the layout of `read_folder`.
"""

import shlex
import tarfile
from itertools import islice
from pathlib import Path, PurePosixPath

from captioning.data import SUFFIXES

_LOOKED = 20  # members at the beginning of an archive that decide what it is


def packed_shard(root: Path) -> Path | None:
    """Return the first archive of photos and captions below a folder that is not unpacked; None if there is none.

    An archive counts as unpacked if its first photo is beside it, or in a folder of its name beside it.
    """
    for path in sorted(root.rglob("*.tar")):
        photo = None if any(part.startswith(".") for part in path.relative_to(root).parts) else _first_photo(path)
        if photo and not any((folder / photo).is_file() for folder in (path.parent, path.with_suffix(""))):
            return path
    return None


def how_to_unpack(shard: Path) -> str:
    """Return the message for a folder with archives that are not unpacked.

    Args:
        shard: one of them.
    """
    archives = f"{shlex.quote(str(shard.parent))}/*.tar"
    return (
        f"{shard} has photos and captions, but is not unpacked. Unpack all archives there, then use data=folder: "
        f'for f in {archives}; do mkdir -p "${{f%.tar}}" && tar xf "$f" -C "${{f%.tar}}"; done'
    )


def _first_photo(path: Path) -> str | None:
    """Return the first photo in an archive that has a text file of the same name; None if it is no such archive."""
    try:
        with tarfile.open(path, "r:") as archive:
            names = [PurePosixPath(member.name) for member in islice(archive, _LOOKED) if member.isfile()]
    except (OSError, tarfile.TarError):
        return None
    texts = {name.with_suffix("") for name in names if name.suffix.lower() == ".txt"}
    photos = (name for name in names if name.suffix.lower() in SUFFIXES and name.with_suffix("") in texts)
    return next(map(str, photos), None)
