"""Whole files only: written to a temporary name beside the target, then renamed."""

import json
import os
from collections.abc import Callable
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


def write_text(path: Path, text: str) -> None:
    """Replaces `path` by `text` (UTF-8) in one step; a reader never sees half a file.

    Half of an emoji, which UTF-8 cannot hold and JSON files from elsewhere may, is written as its escape.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Replaces `path` by what `write` puts into a file; after a kill at any moment it is the old one or the new one.

    Raises:
        ConfigError: it cannot be written; the old one is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save tells of a full disk by the latter
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        kept = "; the file that was there is left as it was" if path.exists() else ""
        raise ConfigError(f"cannot write {path} ({reason}){kept}") from error
    finally:
        temporary.unlink(missing_ok=True)


def clear_temporary(folder: Path) -> None:
    """Removes what killed processes left half written in a folder."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """A renamed file survives a power failure only when its folder was written too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, content: Any) -> None:
    """Replaces `path` by JSON, non-ASCII characters kept."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
