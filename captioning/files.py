"""Whole files only: written to a temporary name beside the target, then renamed."""

import json
import os
from pathlib import Path
from typing import Any

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


def write_json(path: Path, content: Any) -> None:
    """Replaces `path` by JSON, non-ASCII characters kept."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
