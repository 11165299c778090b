"""Write files whole or not at all: to a temporary name, synced to the disk, then renamed."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from captioning.errors import ConfigError


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


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> int:
    """Replaces `path` by what `write` puts into a file; returns its size in bytes.

    A reader, a kill or a dead machine finds the old file or the new one. The one function through which this package
    writes files that stay.

    Raises:
        ConfigError: no room, no permission, or no such folder; the old file is left as it was.
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
    except (OSError, RuntimeError) as error:  # torch.save tells of a full disk by the latter
        cause = error
        while not isinstance(cause, OSError) and cause.__context__:  # torch.save closes its archive with its own error
            cause = cause.__context__
        reason = getattr(cause, "strerror", None) or (str(cause).splitlines() or [type(cause).__name__])[0]
        kept = "; the file that was there is left as it was" if os.path.exists(path) else ""
        raise ConfigError(f"cannot write {path} ({reason}){kept}") from error
    finally:
        with suppress(OSError):  # its folder may be what is wrong
            temporary.unlink(missing_ok=True)
    return size


def append_line(path: Path, line: bytes) -> None:
    """Adds a line to a journal, and syncs it to the disk; makes the file if there is none.

    A kill or a full disk may leave a part of the line, without its end: whoever reads the journal stops there.

    Raises:
        ConfigError: no room, no permission, or no such folder.
    """
    try:
        with path.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path.parent)
    except OSError as error:
        raise ConfigError(f"cannot write {path} ({error.strerror or error})") from error


def clear_temporary(folder: Path) -> None:
    """Removes what killed processes left half written in a folder that one process at a time writes to."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_whole` of text in UTF-8.

    Half of an emoji, which UTF-8 cannot hold and JSON files from elsewhere may, is written as its escape.
    """
    content = text.encode("utf-8", errors="backslashreplace")
    write_whole(path, lambda file: file.write(content))


def write_json(path: Path, content: Any) -> None:
    """`write_whole` of JSON, non-ASCII characters kept."""
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
