"""Find the image files of captions that were read from files of JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from captioning.errors import ConfigError, DataError
from captioning.evaluation.identity import ImageId, Matched
from captioning.io import counted, file_exists
from captioning.metrics import name_ids

_LONGEST = 255  # bytes of a file name on most file systems
_SHOWN = 3  # file names in an error message


def find_scored_images(
    found: Matched, folder: str | None, *, needed: bool, files: Sequence[str | Path]
) -> dict[ImageId, Path] | None:
    """Find the image file of each caption, for scores that look at the images.

    A name is looked up in the folder: with its own folders, then with fewer and fewer of them, and its last part also
    in each of the folders inside, as in `coco/val2014`. A name without some of its folders must still mean one image of
    the list and one file.

    Args:
        found: the captions and the names of their images.
        folder: the folder of the images, the setting `images`; None: not given.
        needed: whether a score looks at the images.
        files: the files that the names come from, for error messages.

    Returns:
        {image id: file}; None if it is not needed, or if no folder is given.

    Raises:
        ConfigError: a folder is given, and no score looks at the images.
        DataError: there is no such folder, an image has no name or no file, or it is not certain
            which file belongs to it.
    """
    if folder is None:
        return None
    if not needed:
        raise ConfigError(f"images={folder} is used only by scores that look at the images: add metrics.clipscore=true")
    return _found(Path(folder), list(found.references), found.names, files)


def _found(
    folder: Path, image_ids: Sequence[ImageId], names: Mapping[ImageId, str], files: Sequence[str | Path]
) -> dict[ImageId, Path]:
    if not folder.is_dir():
        raise DataError(f"images={folder}: there is no such folder. Give the folder with the image files")
    if unnamed := [image_id for image_id in image_ids if image_id not in names]:
        where = f"{' and '.join(map(str, files))}: {len(unnamed)} of {counted(len(image_ids), 'image')}"
        raise DataError(
            f"{where} without a file name that could be found in {folder}: image ids {name_ids(unnamed)}. Add "
            "'file_name' to each image"
        )
    below = sorted(path for path in folder.iterdir() if path.is_dir())
    endings = {image_id: _endings(names[image_id]) for image_id in image_ids}
    if odd := [
        names[image_id] for image_id, own in endings.items() if not own or len(own[-1].name.encode()) > _LONGEST
    ]:
        where = " and ".join(map(str, files))
        raise DataError(f"{where}: {odd[0]!r:.60} is not the name of a file: correct the 'file_name' of this image")
    found = {image_id: _candidates(folder, below, endings[image_id]) for image_id in image_ids}
    if missing := [names[image_id] for image_id, paths in found.items() if not paths]:
        raise DataError(
            f"images={folder} does not have {len(missing)} of {counted(len(found), 'image')}: {_first(missing)}. Give "
            "the folder that has them"
        )
    if twice := next((paths for paths in found.values() if len(paths) > 1), None):
        raise DataError(
            f"images={folder} has two files of the same name: {twice[0]} and {twice[1]}. Give the folder of one of them"
        )
    result = {image_id: paths[0] for image_id, paths in found.items()}
    _check_one_to_one(folder, result, names, endings, files)
    return result


def _check_one_to_one(
    folder: Path,
    found: Mapping[ImageId, Path],
    names: Mapping[ImageId, str],
    endings: Mapping[ImageId, Sequence[PurePosixPath]],
    files: Sequence[str | Path],
) -> None:
    """Check that each file belongs to one image, and that no name was shortened to one that several images have."""
    owners: dict[Path, ImageId] = {}
    meant = Counter(ending for own in endings.values() for ending in own)
    for image_id, path in found.items():
        used = next((each for each in endings[image_id] if folder / each == path), PurePosixPath(path.name))
        if meant[used] > 1 and folder / names[image_id].replace("\\", "/") != path:
            raise DataError(
                f"images={folder} does not have {names[image_id]}, and {path} may be another image: {meant[used]} "
                f"images are named {used} in different folders. Give the folder that has all of their folders"
            )
        if (other := owners.setdefault(path, image_id)) != image_id:
            raise DataError(
                f"{' and '.join(map(str, files))}: image ids {name_ids([other, image_id])} have the same file, {path}. "
                "Give each image its own 'file_name'"
            )


def _candidates(folder: Path, below: Sequence[Path], endings: Sequence[PurePosixPath]) -> list[Path]:
    """Return the files that a name may mean: one, none, or several in different folders."""
    for ending in endings:
        if len(ending.parts) > 1 and file_exists(folder / ending):
            return [folder / ending]
    last = endings[-1]
    here = [folder / last] if file_exists(folder / last) else []
    if here and len(endings) == 1:
        return here
    return here + [path for each in below if (path := each / last).is_file()]


def _endings(name: str) -> list[PurePosixPath]:
    """Return a name with its folders, with fewer and fewer of them, and without any; never one that leads out."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    first = max((at + 1 for at, part in enumerate(parts[:-1]) if part == ".." or part.endswith(("/", ":"))), default=0)
    return [PurePosixPath(*parts[at:]) for at in range(first, len(parts))]


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
