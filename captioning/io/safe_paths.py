"""Resolve a path from a file that may be hostile: it must stay below its folder."""

from pathlib import Path

from captioning.errors import DataError


def inside(folder: Path, name: str, *, source: str | Path) -> Path:
    """folder / name; a DataError (naming `source`) for a name that is absolute or climbs out of the folder."""
    relative = Path(name)
    if relative.anchor or ".." in relative.parts or "\0" in name:
        raise DataError(f"{source}: the path {name!r} leads out of {folder}; paths must be relative, without '..'")
    return folder / relative
