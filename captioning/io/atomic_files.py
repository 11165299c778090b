"""Write files atomically: to a temporary name, synced to the disk, then renamed."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from captioning.errors import ConfigError


def make_folder(path: Path) -> Path:
    """Create the folder and its parents if they are missing, and return it.

    Raises:
        ConfigError: the folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot create the folder '{path}' ({error.strerror}): choose another one") from error
    return path


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> int:
    """Replace the file `path` atomically, and return the new file's size in bytes.

    After a kill or a power failure, `path` is the old file or the complete new one, never a part. All permanent files
    of this package are written by this function, except journals (`append_line`).

    Args:
        path: the file.
        write: writes the content to the open temporary file that it receives.

    Raises:
        ConfigError: the disk is full, the folder is missing, or permission is denied; the old file is unchanged.
    """
    # Shortened, so that the temporary name is not too long for the file system.
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
    except (OSError, RuntimeError) as error:  # on a full disk, torch.save raises a RuntimeError
        cause: BaseException = error
        while not isinstance(cause, OSError) and cause.__context__:  # torch.save raises its own error when it closes
            cause = cause.__context__
        reason = getattr(cause, "strerror", None) or (str(cause).splitlines() or [type(cause).__name__])[0]
        kept = "; the old file is unchanged" if os.path.exists(path) else ""
        advice = f"check the free space and the permissions of its folder{kept}"
        raise ConfigError(f"cannot write {path} ({reason}): {advice}") from error
    finally:
        with suppress(OSError):  # the folder may be the reason of the failure
            temporary.unlink(missing_ok=True)
    return size


def append_line(path: Path, line: bytes) -> None:
    """Append a line to a journal and sync it to the disk; create the file if it is missing.

    After a kill or on a full disk, the last line may be incomplete, without its line end. Readers stop there.

    Raises:
        ConfigError: the disk is full, the folder is missing, or permission is denied.
    """
    try:
        with path.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path.parent)
    except OSError as error:
        advice = "check the free space and the permissions of its folder"
        raise ConfigError(f"cannot write {path} ({error.strerror or error}): {advice}") from error


def clear_temporary(folder: Path) -> None:
    """Delete temporary files that killed processes left in a folder. Only one process may write to it at a time."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text atomically in UTF-8.

    A lone surrogate (half of an emoji), which JSON files may contain but UTF-8 cannot encode, is written as its escape.
    """
    content = text.encode("utf-8", errors="backslashreplace")
    write_whole(path, lambda file: file.write(content))


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, with non-ASCII characters as they are."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def printable(text: str) -> str:
    """Return the text with escapes for what UTF-8 cannot encode: undecodable bytes of file names, half of an emoji."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _sync_folder(folder: Path) -> None:
    """Sync a folder, so that the new name is on the disk too. Skipped where folders cannot be synced (Windows)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    with suppress(OSError):  # some network disks cannot sync folders; the file itself is synced
        os.fsync(handle)
    os.close(handle)
