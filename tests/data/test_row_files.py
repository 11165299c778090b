"""Files of rows: what is written is read, in this process and in others, and damage is never read as data."""

import pickle

import numpy as np
import pytest

from captioning.data import BROKEN_ROWS, RowFile, write_rows
from captioning.errors import DataError

ROWS = [b"one", b"", "zwei \n drei é 狗".encode(), bytes(range(256))]
IDS = np.array([2**40, -1, 0, 7], np.int64)


def written(path, rows=ROWS):
    write_rows(path, iter(rows), lambda: ({"about": "é"}, {"ids": IDS[: len(rows)], "empty": np.empty(0, np.float32)}))
    return RowFile(path)


def test_rows_arrays_and_header_are_read_as_they_were_written(tmp_path):
    file = written(tmp_path / "a.rows")
    assert len(file) == 4 and list(file) == ROWS and [file[index] for index in (3, 0)] == [ROWS[3], ROWS[0]]
    assert file.header == {"about": "é"}
    assert file.array("ids").tolist() == IDS.tolist() and file.array("ids").dtype == np.int64
    assert file.array("empty").shape == (0,)
    again = pickle.loads(pickle.dumps(file))
    assert list(again) == ROWS and len(pickle.dumps(file)) < 300  # the path alone
    assert [len(list(written(tmp_path / "b.rows", rows))) for rows in ([], [b""])] == [0, 1]


def test_every_byte_counts(tmp_path):
    """Any changed byte is an error when the file is opened, or when the row or the array is read."""
    path = tmp_path / "a.rows"
    written(path)
    whole = path.read_bytes()
    start = len(b"captioning rows 1\n")
    for at in range(len(whole)):
        content = bytearray(whole)
        content[at] ^= 0x41
        path.write_bytes(content)
        try:
            file = RowFile(path)
            found = [file[index] for index in range(len(file))], file.array("ids").tolist(), file.header
        except (*BROKEN_ROWS, DataError):
            continue
        assert found == (ROWS, IDS.tolist(), {"about": "é"})  # padding between arrays
        assert at >= start + sum(map(len, ROWS))
    path.write_bytes(whole[:start] + b"O" + whole[start + 1 :])
    file = RowFile(path)
    assert file[1] == b""
    with pytest.raises(DataError, match=r"a\.rows was damaged after it was written: delete this file"):
        file[0]


def test_a_truncated_file_is_no_file_of_rows(tmp_path):
    path = tmp_path / "a.rows"
    written(path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(BROKEN_ROWS):
            RowFile(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(BROKEN_ROWS):
        RowFile(path)


def test_an_open_file_keeps_its_content_and_no_other_is_taken_for_it(tmp_path):
    path = tmp_path / "a.rows"
    file = written(path)
    copy = pickle.dumps(file)
    written(path, [b"other", b"rows"])
    assert list(file) == ROWS
    with pytest.raises(DataError, match=r"a\.rows was replaced while the run was using it"):
        pickle.loads(copy)
