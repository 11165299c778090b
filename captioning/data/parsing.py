"""Parse JSON entries of files that people wrote; every error names the file, the entry and the key."""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from captioning.errors import DataError

KINDS = {str: "text", int: "a whole number", list: "a list", dict: "an object"}


Handling = AbstractContextManager  # of the faults met in its block: STRICT or a Faults
STRICT = nullcontext()  # a DataError stops the reader


class Faults(AbstractContextManager):
    """Keeps the message of a DataError raised in its block and goes on behind the block; may be entered many times.

    messages: of the errors. noted: what a reader does not refuse, but tells of: kind -> items, as in audit.json.
    """

    def __init__(self):
        self.messages: list[str] = []
        self.noted: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def __exit__(self, kind, error, traceback) -> bool:
        if isinstance(error, DataError):
            self.messages.append(str(error))
        return isinstance(error, DataError)


def note(faults: Handling, kind: str | None, item: dict[str, Any] | None, line: str | None = None) -> None:
    """Tell of what is no fault: an item where faults are collected, else a line on stderr."""
    if isinstance(faults, Faults):
        if kind and item:
            faults.noted[kind].append(item)
    elif line:
        print(line, file=sys.stderr)


def read_json(file: Path) -> Any:
    """What the file holds: UTF-8 (with or without a byte order mark) or UTF-16."""
    try:
        return parse_json(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {file} as JSON ({error}); fetch or write it anew") from error


def parse_json(content: str | bytes) -> Any:
    """What JSON text holds.

    Raises:
        ValueError: it is no JSON, or an object has a key twice, of which one would be lost.
    """
    return json.loads(content, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key '{double:.60}' is there twice in one object; keep one")
    return found


def entries(content: Any, key: str, file: Path) -> Iterator[tuple[str, Any]]:
    """(where it stands, entry) for each entry of the list content[key]."""
    for index, entry in enumerate(field(content, key, list, str(file))):
        yield f"{file}: {key}[{index}]", entry


def field(entry: Any, key: str, kind: type, where: str) -> Any:
    """entry[key], which must be there and of this kind."""
    if not isinstance(entry, dict) or key not in entry:
        raise DataError(f"{where}: the key '{key}' is missing")
    if type(entry[key]) is not kind:  # not isinstance: true is no whole number
        raise DataError(f"{where}: '{key}' must be {KINDS[kind]}, not {entry[key]!r:.60}")
    return entry[key]


def id_of(entry: Any, key: str, where: str) -> int:
    """entry[key], a whole number that fits the int64 tensors in which ids travel."""
    number = field(entry, key, int, where)
    if not 0 <= number < 2**63:
        raise DataError(f"{where}: '{key}' must be from 0 to 2**63 - 1, not {number}")
    return number
