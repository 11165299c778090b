"""Parse JSON entries and table rows of files that people wrote; every error names the file, the entry and the key."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from captioning.errors import DataError

COLUMNS = (["caption", "image"], ["caption", "image", "split"])  # sorted: they may come in any order
KINDS = {str: "text", int: "a whole number", list: "a list", dict: "an object"}


Handling = AbstractContextManager  # of the faults met in its block: STRICT or a Faults
STRICT = nullcontext()  # a DataError stops the reader


class Faults(AbstractContextManager):
    """Keeps the message of a DataError raised in its block and goes on behind the block; may be entered many times."""

    def __init__(self):
        self.messages: list[str] = []

    def __exit__(self, kind, error, traceback) -> bool:
        if isinstance(error, DataError):
            self.messages.append(str(error))
        return isinstance(error, DataError)


def read_json(file: Path) -> Any:
    """What the file holds: UTF-8 (with or without a byte order mark) or UTF-16."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {file} as JSON ({error}); fetch or write it anew") from error


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


def table_rows(table: Path, faults: Handling = STRICT) -> Iterator[tuple[str, dict[str, str]]]:
    """(file and line where it starts, column -> text) for each row of `image,caption[,split]` that is not empty."""
    reader = csv.reader(io.StringIO(_table_text(table, faults), newline=""), skipinitialspace=True, strict=True)
    columns: list[str] = []
    with faults:
        columns = _columns(table, reader)
    while columns:
        where, row = f"{table}, line {reader.line_num + 1}", {}
        with faults:
            cells = _cells(reader, where)
            if cells is None:
                return
            row = _row(columns, cells, where) if cells else {}
        if row:
            yield where, row


def _table_text(table: Path, faults: Handling) -> str:
    try:
        content = table.read_bytes()
    except OSError as error:
        fault = error.strerror or error
        raise DataError(
            f"cannot read {table} ({fault}): wanted a table image,caption[,split] (see data/README.md)"
        ) from error
    with faults:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{table} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    return content.decode("utf-8-sig", errors="replace")


def _columns(table: Path, reader: Iterator[list[str]]) -> list[str]:
    columns = [name.strip().lower() for name in _cells(reader, f"{table}, line 1") or []]
    if sorted(columns) not in COLUMNS:
        found = ",".join(columns)
        raise DataError(f"{table}: the first line must be image,caption or image,caption,split, not '{found}'")
    return columns


def _cells(reader: Iterator[list[str]], where: str) -> list[str] | None:
    """The next row; None at the end."""
    try:
        return next(reader, None)
    except csv.Error as error:
        raise DataError(f"{where}: {error}; inside quotes, a quote is written twice") from error


def _row(columns: list[str], cells: list[str], where: str) -> dict[str, str]:
    if len(cells) != len(columns):
        fault = f"{len(cells)} fields, not {len(columns)}"
        raise DataError(f"{where}: {fault}; a caption with a comma needs quotes round it")
    return dict(zip(columns, cells, strict=True))
