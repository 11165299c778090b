"""JSON entries and table rows out of files that people wrote: every fault names the file, the place and the key."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captioning.errors import DataError

COLUMNS = (["caption", "image"], ["caption", "image", "split"])  # sorted: they may come in any order
KINDS = {str: "text", int: "a whole number", list: "a list", dict: "an object"}


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


def table_rows(table: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(file and line where it starts, column -> text) for each row of `image,caption[,split]` that is not empty."""
    line = 1
    try:
        with table.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, skipinitialspace=True, strict=True)
            columns = [name.strip().lower() for name in next(reader, [])]
            if sorted(columns) not in COLUMNS:
                found = ",".join(columns)
                raise DataError(f"{table}: the first line must be image,caption or image,caption,split, not '{found}'")
            line = reader.line_num + 1
            for cells in reader:
                where, line = f"{table}, line {line}", reader.line_num + 1
                if cells:
                    yield where, _row(columns, cells, where)
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{table}, line {line}: {error}; inside quotes, a quote is written twice") from error
    except OSError as error:
        fault = error.strerror or error
        raise DataError(
            f"cannot read {table} ({fault}): wanted a table image,caption[,split] (see data/README.md)"
        ) from error


def _row(columns: list[str], cells: list[str], where: str) -> dict[str, str]:
    if len(cells) != len(columns):
        fault = f"{len(cells)} fields, not {len(columns)}"
        raise DataError(f"{where}: {fault}; a caption with a comma needs quotes round it")
    return dict(zip(columns, cells, strict=True))
