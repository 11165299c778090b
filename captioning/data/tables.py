"""Parse tables of captions: CSV with commas, semicolons, tabs or bars, and the published tables of Flickr8k and 30k.

If a table is ambiguous, the parser raises an error that names the expected form.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from captioning.data.parsing import STRICT, Faults, Handling, note
from captioning.data.split_names import known_split
from captioning.errors import DataError
from captioning.io import unopened

_WANTED = "image,caption or image,caption,split"
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_IMAGE = ("image", "image_name", "image_file", "image_path", "image_filename", "img", "file", "file_name", "filename")
_NAMES = {
    **dict.fromkeys((*_IMAGE, "file_path", "filepath", "path", "picture", "photo"), "image"),
    **dict.fromkeys(("caption", "captions", "caption_text", "comment", "sentence", "description"), "caption"),
    **dict.fromkeys(("comment_number", "caption_number", "caption_index", "comment number"), "number"),
    **dict.fromkeys(("", "index"), "ignored"),  # the index that pandas writes before the columns
    "split": "split",
}
_TOKEN = re.compile(r"\s*(\S(?:.*\S)?)#(\d+)\t(.*)")  # Flickr8k.token.txt: x.jpg#0, a tab, the caption
_SHORT_OF_A_BAR = re.compile(r"\s*(\d+)\s+(\S.*)")  # one row of Flickr30k's results.csv lacks its second bar
_PICTURE = re.compile(r"\.(?:jpe?g|png|gif|bmp|webp|tiff?)$", re.I)
# A table that is not UTF-8 is read if the names of files show which of these encodings it has.
_ENCODINGS = ("cp1252", "cp1250", "cp1251", "cp850", "mac_roman")


class TableForm(NamedTuple):
    """Form of a table.

    Attributes:
        delimiter: separator of the columns; None for lines NAME#NUMBER, a tab, and a caption.
        columns: meaning of each column: image, caption, split, number or ignored.
    """

    delimiter: str | None
    columns: list[str]


def table_rows(
    table: Path, faults: Handling = STRICT, are_there: Callable[[list[str]], bool] | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of a table that are not empty.

    Args:
        table: the table.
        faults: how to handle faults, see `captioning.data.readers`.
        are_there: function that returns whether all of these names are image files. With it, the encoding of a table
            that is not UTF-8 can be found.

    Yields:
        (file and line for error messages, {column: text}) with the columns image, caption and, if present, split.

    Raises:
        DataError: the table cannot be read or is ambiguous.
    """
    yield from _rows(table, _text(table, faults, are_there), faults)


def is_table(file: Path) -> bool:
    """Return whether the first line of a file is that of a table of captions."""
    try:
        with file.open("rb") as opened:
            content = opened.read(2**16)
    except OSError:
        return False
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        _form(file, content.decode(encoding, errors="replace").splitlines()[:1])
    except DataError:
        return False
    return True


def _rows(table: Path, text: str, faults: Handling) -> Iterator[tuple[str, dict[str, str]]]:
    lines = list(io.StringIO(text, newline=""))
    form = None
    with faults:
        form = _form(table, lines)
    if form is None:
        return
    if form.delimiter is None:
        yield from _by_line(table, lines, 0, _token_row, faults)
    elif form.delimiter == "|" and form.columns == ["image", "number", "caption"]:
        yield from _by_line(table, lines, 1, _numbered_row, faults)
    else:
        yield from _csv_rows(table, lines, form.columns, form.delimiter, faults)


def _text(table: Path, faults: Handling, are_there: Callable[[list[str]], bool] | None) -> str:
    try:
        content = table.read_bytes()
    except OSError as error:
        form = f"add a table whose first line is {_WANTED}{_others(table)}"
        if advice := unopened(table, error, advice=form, folder_advice="check data.root"):
            raise DataError(advice) from error
        raise DataError(f"cannot read {table} ({error.strerror or error}): check its permissions") from error
    encoding = "utf-8-sig"
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif b"\0" in content[:2]:  # a header in UTF-8 never begins like this
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    with faults:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError as error:
            if encoding == "utf-8-sig" and (found := _guessed(table, content, are_there, faults)):
                return found
            name = "UTF-8" if encoding == "utf-8-sig" else encoding.upper()
            raise DataError(f"{table} is not {name} ({error.reason}): save it as UTF-8") from error
    return content.decode(encoding, errors="replace")


def _guessed(
    table: Path, content: bytes, are_there: Callable[[list[str]], bool] | None, faults: Handling
) -> str | None:
    """Decode a table with the only encoding in which its image names are names of files; None if not exactly one."""
    if are_there is None:
        return None
    texts: dict[str, str] = {}
    for encoding in _ENCODINGS:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        names = {row["image"].strip() for _, row in _rows(table, text, Faults())}
        names = {name for name in names if not name.isascii()}
        if names and are_there(sorted(names)):
            texts.setdefault(text, encoding)
    if len(texts) != 1:
        return None
    ((text, encoding),) = texts.items()
    line = f"{table} is not UTF-8: read as {encoding}, because its image names are file names in this encoding"
    note(faults, "tables in another encoding", {"file": str(table), "reason": f"read as {encoding}"}, line)
    return text


def _others(table: Path) -> str:
    """List the other tables in the folder of a missing one."""
    try:
        files = sorted(f.name for f in table.parent.iterdir() if f.suffix.lower() in (".csv", ".tsv", ".txt", ".token"))
    except OSError:
        return ""
    return f", or choose one of {', '.join(files[:5])} with data.reader.file=NAME" if files else ""


def _form(table: Path, lines: list[str]) -> TableForm:
    first = lines[0].strip("\r\n") if lines else ""
    found = {delimiter: names for delimiter in _DELIMITERS if (names := _columns(first, delimiter))}
    if len(found) == 1:
        return TableForm(*next(iter(found.items())))
    if _TOKEN.fullmatch(first):
        return TableForm(None, ["image", "number", "caption"])
    shown = ",".join(name.strip().lower() for name in _cells_of(first, ",") or [first])
    *kinds, last = _DELIMITERS.values()
    advice = ""
    if any(_PICTURE.search(cell.strip()) for delimiter in _DELIMITERS for cell in first.split(delimiter)):
        advice = ". If this line is the first image already, insert such a line above it"
    raise DataError(
        f"{table}: the first line must be {_WANTED}, not {shown!r} (separated by {', '.join(kinds)} or {last}){advice}"
    )


def _cells_of(line: str, delimiter: str) -> list[str] | None:
    try:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True), [])
    except csv.Error:
        return None


def _columns(line: str, delimiter: str) -> list[str] | None:
    """Return the meaning of each column; None if one is unknown, or if there is not exactly one image and caption."""
    names = [name.strip().lower() for name in _cells_of(line, delimiter) or []]
    names = ["" if re.fullmatch(r"unnamed: \d+", name) else name for name in names]
    columns = [_NAMES[name] for name in names if name in _NAMES]
    once = columns.count("image") == columns.count("caption") == 1
    known = len(columns) == len(names)
    return columns if once and known and max(map(columns.count, ("split", "number"))) <= 1 else None


def _by_line(
    table: Path, lines: list[str], start: int, parse: Callable[[str, str], dict[str, str]], faults: Handling
) -> Iterator[tuple[str, dict[str, str]]]:
    for number, line in enumerate(lines[start:], start=start + 1):
        where = f"{table}, line {number}"
        row: dict[str, str] = {}
        with faults:
            row = parse(line.strip("\r\n"), where) if line.strip() else {}
        if joined := row.pop("joined", ""):
            fault = "the bar after the number is missing, as in one row of the published file"
            note(faults, None, None, f"{where}: {fault}: {joined!r:.60} was read as the caption {row['caption']!r:.60}")
        if row:
            yield where, row


def _token_row(line: str, where: str) -> dict[str, str]:
    if not (found := _TOKEN.fullmatch(line)):
        raise DataError(f"{where}: must be NAME#NUMBER, a tab and a caption, like the first line, not {line!r:.60}")
    return {"image": found[1], "caption": found[3].strip()}


def _numbered_row(line: str, where: str) -> dict[str, str]:
    """Parse `image_name| comment_number| comment`, in which quotes have no special meaning."""
    name, *rest = line.split("|", 2)
    joined = {}
    if len(rest) == 1 and (found := _SHORT_OF_A_BAR.fullmatch(rest[0])):
        rest, joined = [found[1], found[2]], {"joined": line}
    if len(rest) != 2 or not rest[0].strip().isdigit():
        raise DataError(f"{where}: must be NAME| NUMBER| CAPTION, not {line!r:.60}")
    return {"image": name.strip(), "caption": rest[1].strip()} | joined


def _csv_rows(
    table: Path, lines: list[str], columns: list[str], delimiter: str, faults: Handling
) -> Iterator[tuple[str, dict[str, str]]]:
    with faults:
        _refuse_unnamed_column(table, lines, columns, delimiter)
    reader = csv.reader(iter(lines), delimiter=delimiter, skipinitialspace=True, strict=True)
    next(reader)
    while True:
        start = reader.line_num
        where = f"{table}, line {start + 1}"
        row: dict[str, str] = {}
        with faults:
            cells = _cells(reader, where)
            if cells is None:
                return
            line = lines[start] if reader.line_num == start + 1 else None  # None for a row of several lines
            row = _row(columns, delimiter, cells, line, where) if cells else {}
        if row:
            yield where, row


def _refuse_unnamed_column(table: Path, lines: list[str], columns: list[str], delimiter: str) -> None:
    """Refuse a column that the first line does not name: it would be read as the end of every caption.

    After a comma of a sentence there is a space, or several words in some row. After one of a table there is a cell.
    """
    rows = [line.rstrip("\r\n") for line in lines[1:] if line.strip()]
    ends = [row.rsplit(delimiter, 1)[-1] for row in rows]
    surplus = all(ends) and all(row.count(delimiter) == len(columns) for row in rows)
    if len(rows) > 1 and surplus and '"' not in "".join(rows) and not any(re.search(r"\s", end) for end in ends):
        raise DataError(
            f"{table}: every row has one more field ('{ends[0]:.40}') than the first line: name that column there, or "
            "delete it"
        )


def _cells(reader: Iterator[list[str]], where: str) -> list[str] | None:
    """Return the next row; None at the end."""
    try:
        return next(reader, None)
    except csv.Error as error:
        raise DataError(f"{where}: {error}: write quotes twice inside quotes") from error


def _row(columns: list[str], delimiter: str, cells: list[str], line: str | None, where: str) -> dict[str, str]:
    if len(cells) > len(columns):
        cells = _joined(columns, delimiter, line) or cells
    if len(cells) != len(columns):
        kind = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}[delimiter]
        fault = f"{len(cells)} fields, not {len(columns)}"
        raise DataError(f"{where}: {fault}: put captions with {kind} in quotes")
    row = dict(zip(columns, cells, strict=True))
    return {column: row[column] for column in ("image", "caption", "split") if column in row}


def _joined(columns: list[str], delimiter: str, line: str | None) -> list[str] | None:
    """Return the cells of a line whose caption has delimiters but no quotes; None if that is not certain.

    It is not certain if a cell is quoted, or if the surplus cells may be a column that the first line does not name.
    """
    cells = (line or "").rstrip("\r\n").split(delimiter)
    before, more = columns.index("caption"), len(cells) - len(columns)
    if more <= 0 or any(cell.lstrip().startswith('"') for cell in cells):
        return None
    last = before + more
    caption = cells[before : last + 1]
    if last == len(cells) - 1 and not any(cell.strip() for cell in caption[1:]):  # trailing delimiters
        return [cell.lstrip(" ") for cell in cells[: before + 1]]
    if any(map(_is_no_prose, (caption[0], caption[-1]), (caption[1], None))):
        return None
    text = delimiter.join(caption).lstrip(" ")
    return [*(cell.lstrip(" ") for cell in cells[:before]), text, *(cell.lstrip(" ") for cell in cells[last + 1 :])]


def _is_no_prose(cell: str, after: str | None) -> bool:
    """Return whether a cell may be a separate column: a number (not a part of "3,000"), a split, an image's name."""
    number = re.fullmatch(r"\s*[-+]?\d+(?:\.\d+)?\s*", cell) and not (after and re.match(r"\d{3}(?!\d)", after))
    return bool(number) or known_split(cell) is not None or bool(_PICTURE.search(cell.strip()))


def names_of(rows: Iterable[tuple[str, dict[str, str]]]) -> list[str]:
    """Return the images' names as they are written, in the order of the rows."""
    return [row["image"].strip() for _, row in rows]
