"""Find the files of published data sets, which users unpack in more than one way."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from captioning.data import Disk, caseless, unnested
from captioning.errors import DataError


def first_file(root: Path, names: Iterable[str]) -> Path | None:
    """Return the first of these files that exists below the folder; None if there is none."""
    return next((root / name for name in names if (root / name).is_file()), None)


def folder_with(root: Path, folders: Sequence[str], names: Sequence[str], disk: Disk) -> Path | None:
    """Return the first folder that has one of the images, or else the first folder that exists.

    Args:
        root: folder of the data set.
        folders: names of the folders, in the order of preference.
        names: names of the images.
        disk: cache of folder listings.

    Returns:
        The folder; None if there is none of them.
    """
    there = [unnested(root / folder, disk) for folder in folders if (root / folder).is_dir()]
    wanted = {caseless(Path(name).name) for name in names}
    holding = [folder for folder in there if wanted & set(map(caseless, disk.listing(folder).files))]
    return next(iter([*holding, *there]), None)


def nothing_found(root: Path, what: str, needed: Iterable[str]) -> DataError:
    """Return the error for a folder without the files of a data set.

    Args:
        root: the folder.
        what: name of the data set.
        needed: alternatives: any of them would be enough.
    """
    wanted = ", or ".join(needed)
    return DataError(
        f"data.root={root} has no {what}: it needs {wanted}. Add them (see docs/data.md in the repository)"
    )
