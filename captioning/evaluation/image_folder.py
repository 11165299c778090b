"""Find the image files of captions that were read from files of JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from captioning.errors import ConfigError, DataError
from captioning.evaluation.identity import ImageId, Matched
from captioning.io import counted
from captioning.metrics import name_ids

_SHOWN = 3  # file names in an error message


def find_scored_images(
    found: Matched, folder: str | None, *, needed: bool, files: Sequence[str | Path]
) -> dict[ImageId, Path] | None:
    """Find the image file of each caption, for scores that look at the images.

    A name is looked up in the folder: with its own folders, without them, and in each of the folders inside, as in
    `coco/val2014`.

    Args:
        found: the captions and the names of their images.
        folder: the folder of the images, the setting `images`; None: not given.
        needed: whether a score looks at the images.
        files: the files that the names come from, for error messages.

    Returns:
        {image id: file}; None if it is not needed, or if no folder is given.

    Raises:
        ConfigError: a folder is given, and no score looks at the images.
        DataError: there is no such folder, an image has no name or no file, or two files have its name.
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
    found = {image_id: _candidates(folder, below, names[image_id]) for image_id in image_ids}
    if missing := [names[image_id] for image_id, paths in found.items() if not paths]:
        raise DataError(
            f"images={folder} does not have {len(missing)} of {counted(len(found), 'image')}: {_first(missing)}. Give "
            "the folder that has them"
        )
    if twice := next((paths for paths in found.values() if len(paths) > 1), None):
        raise DataError(
            f"images={folder} has two files of the same name: {twice[0]} and {twice[1]}. Give the folder of one of them"
        )
    return {image_id: paths[0] for image_id, paths in found.items()}


def _candidates(folder: Path, below: Sequence[Path], name: str) -> list[Path]:
    """Return the files that a name may mean: one, none, or several in different folders."""
    relative = PurePosixPath(name.replace("\\", "/"))
    last = relative.name
    leads_out = relative.is_absolute() or ".." in relative.parts
    for path in [folder / last] if leads_out else [folder / relative, folder / last]:
        if path.is_file():
            return [path]
    return [path for each in below if (path := each / last).is_file()]


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
