"""Resolve paths from untrusted files: they must stay below their folder."""

from pathlib import Path

from captioning.errors import DataError


def inside(folder: Path, name: str, *, source: str | Path) -> Path:
    """Return folder / name.

    Args:
        folder: the folder that the path must stay below.
        name: a relative path from an untrusted file.
        source: the file with the name, for the error.

    Raises:
        DataError: the name is absolute, contains "..", or contains a NUL character.
    """
    relative = Path(name)
    if relative.anchor or ".." in relative.parts or "\0" in name:
        raise DataError(f"{source}: the path {name!r} leads out of {folder}; paths must be relative, without '..'")
    return folder / relative
