"""Write and read files of many short rows of bytes, through a memory map that all processes of a machine share.

    MAGIC                    identifies the format
    rows                     one after the other
    arrays                   "offsets" [N + 1] of the rows, "checks" [N] (CRC-32 of each row), and further arrays
    header                   JSON: what the writer states, and where the arrays are
    length, CRC-32, MAGIC    of the header

A file is written atomically and never changed, so a process that has opened one keeps its content. A damaged file is
never read wrongly: the header and the arrays that are read as a whole are checked when the file is opened, and each row
when it is read.
"""

import json
import mmap
import struct
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from captioning.errors import DataError
from captioning.io import write_whole

MAGIC = b"captioning rows 1\n"
_END = struct.Struct("<QI")  # length and CRC-32 of the header
BROKEN_ROWS = (OSError, ValueError, KeyError, TypeError, struct.error)  # raised for damaged files

Finish = Callable[[], tuple[Mapping[str, Any], Mapping[str, np.ndarray]]]


def write_rows(path: Path, rows: Iterable[bytes], finish: Finish) -> None:
    """Write a file of rows atomically. Besides 12 bytes per row, nothing is kept in memory.

    Args:
        path: the file.
        rows: the rows, which are taken one by one.
        finish: function that is called after the last row and returns (header, arrays): plain values, and further
            arrays by name.

    Raises:
        ConfigError: the file cannot be written.
    """

    def pour(file: BinaryIO) -> None:
        file.write(MAGIC)
        offsets, checks = array("q", [len(MAGIC)]), array("I")
        for row in rows:
            file.write(row)
            offsets.append(offsets[-1] + len(row))
            checks.append(zlib.crc32(row))
        header, arrays = finish()
        own: dict[str, np.ndarray] = {"offsets": np.asarray(offsets, np.int64), "checks": np.asarray(checks, np.uint32)}
        places = {}
        for name, values in [*own.items(), *arrays.items()]:
            file.write(b"\0" * (-file.tell() % 8))
            content = np.ascontiguousarray(values).tobytes()
            places[name] = [file.tell(), values.dtype.str, len(values), zlib.crc32(content)]
            file.write(content)
        text = json.dumps({"header": dict(header), "arrays": places}).encode()
        file.write(text + _END.pack(len(text), zlib.crc32(text)) + MAGIC)

    write_whole(path, pour)


class RowFile:
    """A file of rows: `rows[i]` are the bytes of row i. Copies in other processes open the same file.

    Args:
        path: the file.

    Attributes:
        header: what the writer stated.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is no complete file of rows. Other errors of `BROKEN_ROWS` are possible, too.
    """

    def __init__(self, path: Path):
        self.path = path
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        tail = len(self._map) - len(MAGIC)
        if self._map[: len(MAGIC)] != MAGIC or self._map[max(0, tail) :] != MAGIC:
            raise ValueError("not a complete file of rows")
        length, check = _END.unpack(self._map[tail - _END.size : tail])
        text = self._map[tail - _END.size - length : tail - _END.size]
        if len(text) != length or zlib.crc32(text) != check:
            raise ValueError("a damaged header")
        content = json.loads(text)
        self.header: dict[str, Any] = content["header"]
        self._places: dict[str, list] = content["arrays"]
        self._identity = check
        self._offsets, self._checks = self._array("offsets"), self._array("checks")

    def __len__(self) -> int:
        return len(self._checks)

    def __getitem__(self, index: int) -> bytes:
        """Return one row.

        Raises:
            DataError: the row is damaged.
        """
        row = self._map[self._offsets[index] : self._offsets[index + 1]]
        if zlib.crc32(row) != self._checks[index]:
            raise self.damaged()
        return row

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))

    def array(self, name: str) -> np.ndarray:
        """Return a further array, after comparing it with its checksum.

        Raises:
            ValueError: it is damaged.
        """
        values = self._array(name)
        if zlib.crc32(values.data) != self._places[name][3]:
            raise ValueError(f"a damaged array {name}")
        return values

    def damaged(self) -> DataError:
        """Return the error for a file whose content was damaged after it was written."""
        return DataError(f"{self.path} was damaged after it was written: delete this file, and run the command again")

    def __reduce__(self):
        return _reopen, (self.path, self._identity)

    def _array(self, name: str) -> np.ndarray:
        start, kind, count, _ = self._places[name]
        return np.frombuffer(self._map, kind, count, start)


def _reopen(path: Path, identity: int) -> RowFile:
    """Open a file that another process of this run has opened.

    Raises:
        DataError: the file was replaced since.
    """
    file = RowFile(path)
    if file._identity != identity:
        raise DataError(
            f"{path} was replaced while the run was using it, because the captions have changed: start the run again"
        )
    return file
