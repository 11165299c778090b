"""Find archives of photos and captions in a folder: the layout of WebDataset, such as the output of img2dataset.

Unpacked, such archives are the layout of `read_folder`.
"""

import tarfile
from itertools import islice
from pathlib import Path

from captioning.data import SUFFIXES, parse_json
from captioning.data.readers.json_lines import CAPTION_KEYS
from captioning.data.readers.webdataset import archives_below, sample_key
from captioning.errors import DataError
from captioning.io import archive_ending

_LOOKED = 20  # members at the beginning that decide whether an archive has photos or captions
_MOST = 20_000  # members in which a photo and its captions must be


def packed_shard(root: Path) -> Path | None:
    """Return the first archive of photos and captions below a folder that is not unpacked; None if there is none.

    An archive counts as unpacked if a photo of it is beside it, or in a folder of its name beside it.
    """
    plain, compressed = archives_below(root, within=True)
    for path in [*plain, *compressed]:
        photo, unpacked = _first_photo(path), Path(str(path)[: -len(archive_ending(path))])
        if photo and not any((folder / photo).is_file() for folder in (path.parent, unpacked)):
            return path
    return None


def refuse_packed(root: Path) -> None:
    """Refuse a folder with archives of photos and captions that are not unpacked.

    Raises:
        DataError: there is one.
    """
    if shard := packed_shard(root):
        raise DataError(
            f"{shard} has photos and captions, but data=folder does not read archives: use data=webdataset, which "
            "reads them without unpacking, or unpack all archives there, or move them out of data.root"
        )


def _first_photo(path: Path) -> str | None:
    """Return a photo in an archive that has a caption file of the same name; None if it is no such archive.

    In an archive of folders, all photos may be before all captions.
    """
    photos: dict[str, str] = {}
    captioned: set[str] = set()
    most = _MOST if archive_ending(path) == ".tar" else _LOOKED  # others are decompressed up to there
    try:
        with tarfile.open(path, "r:*") as archive:
            for number, member in enumerate(islice(archive, most)):
                if number == _LOOKED and not (photos or captioned):
                    return None
                key, ending = sample_key(member.name)
                if key is None or not member.isfile():
                    continue
                if f".{ending}" in SUFFIXES:
                    photos[key] = member.name
                elif ending == "txt" or (ending == "json" and _has_caption(archive, member)):
                    captioned.add(key)
                if key in photos and key in captioned:
                    return photos[key]
    except (OSError, EOFError, ValueError, tarfile.TarError):
        pass
    return None


def _has_caption(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bool:
    opened = archive.extractfile(member)
    try:
        about = parse_json(opened.read()) if opened else None
    except (ValueError, RecursionError):
        return False
    return isinstance(about, dict) and any(about.get(key) for key in CAPTION_KEYS)
