"""Recognize which data set a folder holds: `data=auto data.root=DIR`.

The commands replace `data=auto` by the settings found here before they compose their configuration, so config.yaml and
checkpoints hold the settings of the data set itself.
"""

import hashlib
import os
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from captioning.data.readers.layouts import FoundLayout, lacks_split, layouts_of, published_part
from captioning.errors import ConfigError, DataError

_LISTED = 3  # files of a layout that a line names
_SEARCHED = 20  # subfolders


class RecognizedData(NamedTuple):
    """The data set in a folder.

    Attributes:
        settings: key -> value: `data`, `data.name`, and what the data set needs besides.
        found: what was recognized, for the user.
    """

    settings: dict[str, Any]
    found: str

    def line(self, without: Collection[str] = ()) -> str:
        """Return what was recognized and the same settings as they are typed, without some keys."""
        settings = {key: value for key, value in self.settings.items() if key not in without}
        return f"{self.found}. The same settings: {_typed(settings)}"


def recognize_data(root: str | Path) -> RecognizedData:
    """Recognize the only layout that a folder has.

    The name of the data set gets a hash of the folder's path, so that two folders have separate stored features.

    Args:
        root: folder of the data set.

    Raises:
        DataError: the folder does not exist, or has no known layout.
        ConfigError: it has several.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise DataError(f"data.root={root}: there is no such folder: check data.root")
    found = layouts_of(folder)
    if not found:
        raise DataError(_nothing(folder))
    for layout in found:
        if data := published_part(layout):
            table = _typed(_settings(layout))
            raise DataError(
                f"data.root={root} has {layout.files[0]} of data={data}, but not all files that belong to it: type "
                f"data={data} to see what is missing (docs/data.md in the repository). To read it as a table: {table}"
            )
    if len(found) > 1:
        options = "; ".join(f"{_typed(_settings(layout))} ({_files(layout)})" for layout in found)
        raise ConfigError(f"data.root={root} has several layouts: instead of data=auto, type one of: {options}")
    place = hashlib.sha256(os.path.realpath(folder).encode(errors="surrogateescape")).hexdigest()[:8]
    settings = _settings(found[0]) | {"data.name": f"{found[0].data}-{place}"}
    files = _files(found[0]) + lacks_split(found[0])
    return RecognizedData(settings, f"data=auto: {root} has the layout of data={found[0].data} ({files})")


def read_auto(root: str | Path, **_: Any) -> NoReturn:
    """Refuse `data=auto` where no command has replaced it: in a file of settings, or in Python code.

    Args:
        root: folder of the data set.

    Raises:
        ConfigError: always; it names the settings to use instead.
        DataError: the folder has no known layout.
    """
    advice = _typed(recognize_data(root).settings)
    raise ConfigError(f"data=auto works only on the command line of a command: write {advice}")


def _settings(layout: FoundLayout) -> dict[str, Any]:
    return {"data": layout.data} | {f"data.{key}": value for key, value in layout.settings.items()}


def _typed(settings: Mapping[str, Any]) -> str:
    """Return settings as they are typed in a shell."""
    values = {key: str(value).lower() if isinstance(value, bool) else value for key, value in settings.items()}
    return " ".join(shlex.quote(f"{key}={value}") for key, value in values.items())


def _files(layout: FoundLayout) -> str:
    more = f" and {len(layout.files) - _LISTED} more" if len(layout.files) > _LISTED else ""
    return ", ".join(layout.files[:_LISTED]) + more


def _nothing(root: Path) -> str:
    """Describe that a folder has no known layout, and name a subfolder that has one."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    inside = next((path for path in folders[:_SEARCHED] if layouts_of(path)), None)
    if inside:
        return f"data.root={root} has no known layout, but its folder {inside.name} has: set data.root={inside}"
    return (
        f"data.root={root} has no known layout of a data set: add a table captions.csv, or captions.jsonl, or a text "
        "file beside each photo (see docs/data.md in the repository), or choose the data set with data=NAME"
    )
