"""Record which files a reader of a data set reads, and tell later whether any of them has changed.

Python reports every file that it opens and every folder that it lists to an audit hook. So no reader has to list its
files itself, and none can forget one.
"""

import os
import stat
import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from captioning.data.image_files import SUFFIXES

_PYTHON = [sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_OWN = tuple({os.path.join(os.path.realpath(folder), "") for folder in [*_PYTHON, str(Path(__file__).parents[1])]})
_SYSTEM = ("/proc/", "/dev/", "/sys/")
_FRESH_NS = 2 * 10**9
FOLDER, _WRITTEN = -1, -2  # in place of a size

Stamps = dict[str, list[int] | None]

_watching: list[Stamps] = []  # the innermost `watch_reads` is the last one
_installed = False
_handler = threading.local()  # busy: whether this thread is in `_on_event`, whose own events are not recorded


@contextmanager
def watch_reads() -> Iterator[Stamps]:
    """Record the files that are opened and the folders that are listed inside the `with` block.

    Every file is recorded with its size and time of change before it is opened, every folder of such a file, too, and
    all files in a listed folder except images, in case a library reads them without Python. Python's own files are left
    out. When the block ends, what was changed inside it is recorded as it is then.

    Yields:
        {absolute path: [size, time of change in ns]}; the size is `FOLDER` for a folder, and None stands for a missing
        file.
    """
    global _installed
    if not _installed:
        sys.addaudithook(_on_event)
        _installed = True
    found: Stamps = {}
    _watching.append(found)
    try:
        yield found
    finally:
        _watching.pop()
        found.update({path: _stamp(path) for path, stamp in found.items() if stamp and stamp[0] == _WRITTEN})


def first_change(stamps: Mapping[str, Any], *, read_at: int | None = None) -> str | None:
    """Return the first path whose file may not be as it was recorded; None if all are the same.

    Args:
        stamps: from `watch_reads`.
        read_at: time of the reading in ns. A file that had changed less than two seconds before counts as changed,
            because it could have changed again without a new time. None if the reading has just ended.
    """
    for path, stamp in stamps.items():
        if _stamp(path) != stamp or (stamp and read_at is not None and stamp[1] > read_at - _FRESH_NS):
            return path
    return None


def _on_event(event: str, arguments: tuple) -> None:
    if not _watching or event not in ("open", "os.scandir", "os.listdir") or getattr(_handler, "busy", False):
        return
    found, path = _watching[-1], arguments[0]
    if not isinstance(path, str | bytes | os.PathLike):
        return
    name = os.path.abspath(os.fsdecode(path))
    if name.startswith(_SYSTEM) or os.path.join(os.path.realpath(name), "").startswith(_OWN):
        return
    _handler.busy = True
    try:
        if event == "open":
            _add(found, os.path.dirname(name))
            mode, flags = arguments[1], arguments[2] or 0
            if (mode and set(mode) & set("wax+")) or flags & (os.O_WRONLY | os.O_RDWR):
                found[name] = [_WRITTEN, 0]
            else:
                _add(found, name)
        elif name not in found or not os.path.isdir(name):
            _add(found, name)
            _add_files(found, name)
    finally:
        _handler.busy = False


def _add(found: Stamps, name: str) -> None:
    if name not in found:
        found[name] = _stamp(name)


def _add_files(found: Stamps, folder: str) -> None:
    try:
        with os.scandir(folder) as items:
            names = [item.path for item in items if item.is_file() and Path(item.name).suffix.lower() not in SUFFIXES]
    except OSError:
        return
    for name in names:
        _add(found, name)


def _stamp(path: str) -> list[int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    size = FOLDER if stat.S_ISDIR(status.st_mode) else status.st_size
    return [size, status.st_mtime_ns]
