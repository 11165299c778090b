"""Parse JSON files with checks: every error names the file, the entry and the key."""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from captioning.errors import DataError
from captioning.io import unopened

KINDS = {str: "text", int: "a whole number", list: "a list", dict: "an object"}


Handling = AbstractContextManager  # what a reader does with errors raised in the block: STRICT or a Faults object
STRICT = nullcontext()  # errors stop the reader


class Faults(AbstractContextManager):
    """Context manager that collects the messages of DataErrors raised in its block, and then continues after the block.

    It may be entered many times.

    Attributes:
        messages: the messages of the errors.
        noted: notices that are no errors: kind -> items, as in audit.json.
    """

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.noted: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if isinstance(error, DataError):
            self.messages.append(str(error))
        return isinstance(error, DataError)


def note(faults: Handling, kind: str | None, item: dict[str, Any] | None, line: str | None = None) -> None:
    """Report a notice that is not an error: keep the item if faults are collected, otherwise print the line to stderr.

    Args:
        faults: how the reader handles faults.
        kind: kind of the item, a heading of audit.json.
        item: the entry for audit.json.
        line: the line to print.
    """
    if isinstance(faults, Faults):
        if kind and item:
            faults.noted[kind].append(item)
    elif line:
        print(line, file=sys.stderr)


def read_json(file: Path) -> Any:
    """Return the content of a JSON file in UTF-8 (with or without a byte order mark) or UTF-16.

    Raises:
        DataError: the file cannot be read, or is not valid JSON.
    """
    try:
        return parse_json(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if advice := unopened(file, error):
            raise DataError(advice) from error
        if isinstance(error, UnicodeDecodeError):
            raise DataError(f"{file} is not {error.encoding.upper()} ({error.reason}): save it as UTF-8") from error
        raise DataError(f"cannot read {file} as JSON ({error}): correct it, or download it again") from error


def parse_json(content: str | bytes) -> Any:
    """Return the content of JSON text.

    Raises:
        ValueError: it is not valid JSON, or an object has a key twice, so that one of the values would be lost.
    """
    return json.loads(content, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has the key '{double:.60}' twice; keep one of them")
    return found


def entries(content: Any, key: str, file: Path) -> Iterator[tuple[str, Any]]:
    """Yield (location for error messages, entry) for each entry of the list content[key].

    Raises:
        DataError: the list is missing.
    """
    for index, entry in enumerate(field(content, key, list, str(file))):
        yield f"{file}: {key}[{index}]", entry


def field(entry: Any, key: str, kind: type, where: str) -> Any:
    """Return entry[key].

    Args:
        entry: a JSON object.
        key: the key.
        kind: the type that the value must have: str, int, list or dict.
        where: location of the entry, for error messages.

    Raises:
        DataError: the key is missing, or its value has another type.
    """
    if not isinstance(entry, dict) or key not in entry:
        raise DataError(f"{where}: the key '{key}' is missing: add it")
    if type(entry[key]) is not kind:  # not isinstance, which accepts true as a whole number
        raise DataError(f"{where}: '{key}' must be {KINDS[kind]}, not {shown(entry[key])}")
    return entry[key]


def shown(value: Any) -> str:
    """Return a JSON value for an error message, at most 60 characters long."""
    return "null" if value is None else f"{value!r:.60}"


def id_of(entry: Any, key: str, where: str) -> int:
    """Return entry[key], an id: a whole number that fits into an int64 tensor.

    Raises:
        DataError: the key is missing, or its value is not such a number.
    """
    number = field(entry, key, int, where)
    if not 0 <= number < 2**63:
        raise DataError(f"{where}: '{key}' must be from 0 to 2**63 - 1, not {number}")
    return number
