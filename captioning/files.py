"""Whole files only: written to a temporary name beside the target, synced to the disk, then renamed."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from captioning.errors import ConfigError, DataError


def make_folder(path: Path) -> Path:
    """The folder, made with those above it where it is not there.

    Raises:
        ConfigError: it cannot be.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {path} ({error.strerror}): give another one") from error
    return path


def replace(path: Path, write: Callable[[BinaryIO], Any]) -> int:
    """Replaces a file in one step by what `write` puts into it; returns its size in bytes.

    A reader, a kill or a dead machine never finds half of it: what is there is the file of before or the new one.
    The one function through which this package writes files.

    Raises:
        DataError: no room, no permission, or no such folder; the file of before is as it was.
    """
    # No longer than a name may be, where the file's own is nearly that.
    shortened = os.fsdecode(os.fsencode(path.name)[:100])
    temporary = path.with_name(f".{shortened}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        kept = "; the file of before is as it was" if path.exists() else ""
        raise DataError(f"{path}: cannot be written: {error.strerror or error}{kept}") from error
    finally:
        _remove(temporary)
    return size


def remove_temporaries(folder: Path) -> None:
    """Removes what killed processes left of files they were writing; for a folder that one process writes to."""
    for path in folder.glob(".*.tmp"):
        _remove(path)


def write_text(path: Path, text: str) -> None:
    """`replace` by text in UTF-8.

    Half of an emoji, which UTF-8 cannot hold and JSON files from elsewhere may, is written as its escape.
    """
    content = text.encode("utf-8", errors="backslashreplace")
    replace(path, lambda file: file.write(content))


def write_json(path: Path, content: Any) -> None:
    """`replace` by JSON, non-ASCII characters kept."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def printable(text: str) -> str:
    """The text with escapes for what UTF-8 cannot hold: bytes of file names in other encodings, half of an emoji."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _sync_folder(folder: Path) -> None:
    """The new name too is on the disk; where folders cannot be synced, as on Windows, the system sees to it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    with suppress(OSError):  # some network disks have no such call for folders; the file itself is synced
        os.fsync(handle)
    os.close(handle)


def _remove(path: Path) -> None:
    with suppress(OSError):  # its folder may be what is wrong, which the error at hand tells
        path.unlink(missing_ok=True)
