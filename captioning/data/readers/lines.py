"""Read the lines of text files: UTF-8 or UTF-16, also packed with gzip."""

import codecs
import gzip
import re
import zlib
from pathlib import Path

from captioning.errors import DataError
from captioning.io import unopened

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_ALONE = re.compile(r"\r(?!\n|\Z)")  # a carriage return that is not part of CRLF


def text_lines(file: Path) -> list[str]:
    """Return the lines of a text file, without their ends.

    Only a line feed ends a line, alone or after a carriage return. Unicode's other line ends may be inside a caption,
    where they would move all following lines.

    Args:
        file: the file; one whose name ends in .gz is unpacked.

    Raises:
        DataError: the file is missing or damaged, is neither UTF-8 nor UTF-16, or has carriage returns that are not
            part of CRLF, alone or between other line ends.
    """
    try:
        content = file.read_bytes()
        if file.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        if advice := unopened(file, error, folder_advice="check data.root"):
            raise DataError(advice) from error
        raise DataError(f"cannot read {file} ({error}): download it again, or check its permissions") from error
    return lines_of(content, file)


def lines_of(content: bytes, file: Path) -> list[str]:
    """Return the lines of a text file's content, see `text_lines`.

    Args:
        content: the content.
        file: the file, for error messages.

    Raises:
        DataError: as for `text_lines`.
    """
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not {encoding.upper()} ({error.reason}): save it as UTF-8") from error
    if "\r" in text and "\n" not in text:
        raise DataError(f"{file}: its lines end in a carriage return (CR) alone: save it with line feeds (LF)")
    if alone := _ALONE.search(text):
        number = text.count("\n", 0, alone.start()) + 1
        raise DataError(
            f"{file}, line {number}: a carriage return (CR) alone is in the line, and would join two captions: save "
            "the file with line feeds (LF)"
        )
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines
