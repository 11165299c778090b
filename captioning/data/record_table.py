"""Keep the records of a data set in a file that all processes of a machine share, instead of in the memory of each."""

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np

from captioning.data.records import SPLITS, Record
from captioning.data.row_files import RowFile, write_rows
from captioning.errors import DataError


def write_records(path: Path, records: Iterable[Record], header: Callable[[], Mapping[str, Any]]) -> None:
    """Write records as a file for `RecordTable`: the splits one after the other, each in its order.

    Args:
        path: the file.
        records: all records.
        header: function that is called after the last record and returns plain values for the file's header.

    Raises:
        ConfigError: the file cannot be written.
    """
    groups: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for record in records:
        groups.setdefault(record.split, []).append(record)
    ids = np.array([record.image_id for group in groups.values() for record in group], np.int64)
    sizes = [[split, len(group)] for split, group in groups.items() if group]
    rows = (_row(record) for group in groups.values() for record in group)
    write_rows(path, rows, lambda: ({**header(), "splits": sizes}, {"ids": ids}))


def _row(record: Record) -> bytes:
    content = [str(record.path), record.group, *record.captions]
    # "surrogatepass": JSON may contain half of an emoji, and names of files may have bytes that are not UTF-8.
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")


class RecordTable(Sequence[Record]):
    """Records in a file of `write_records`. A `Record` is made when it is asked for, and not kept.

    A part of a table (one split, for instance) is a table of the same file.

    Args:
        file: the file.
        rows: the rows of the file that the table has, in its order; None for all.
        ids: the checked image ids of the file; None: they are checked now.

    Attributes:
        rows: as given.
        header: what `write_records` was given.

    Raises:
        ValueError: the file is damaged.
    """

    def __init__(self, file: RowFile, rows: "range | np.ndarray | None" = None, ids: np.ndarray | None = None):
        self._file = file
        self.header = file.header
        self.rows = range(len(file)) if rows is None else rows
        self._splits = [split for split, _ in file.header["splits"]]
        self._ends = list(accumulate(size for _, size in file.header["splits"]))
        self._ids = file.array("ids") if ids is None else ids

    @property
    def image_ids(self) -> np.ndarray:
        """The image ids [N] int64."""
        at = slice(self.rows.start, self.rows.stop) if isinstance(self.rows, range) else self.rows
        return self._ids[at]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> "RecordTable": ...
    def __getitem__(self, index):
        """Return one record, or a part of the table.

        Raises:
            DataError: the file was damaged.
        """
        if isinstance(index, slice):
            return self._part(self.rows[index])
        row = int(self.rows[index])
        path, group, *captions = json.loads(self._file[row])
        split = self._splits[bisect_right(self._ends, row)]
        return Record(int(self._ids[row]), Path(path), split, tuple(captions), group)

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def split(self, name: str) -> "RecordTable":
        """Return the records of one split; there may be none."""
        if name not in self._splits:
            return self._part(range(0))
        number = self._splits.index(name)
        first, last = ([0, *self._ends][number], self._ends[number])
        if isinstance(self.rows, range):
            return self._part(range(max(first, self.rows.start), max(first, min(last, self.rows.stop))))
        return self._part(self.rows[(self.rows >= first) & (self.rows < last)])

    def counts(self) -> dict[str, int]:
        """Return {split: number of records} of the splits that have any."""
        return {split: size for split in self._splits if (size := len(self.split(split)))}

    def with_ids(self, image_ids: np.ndarray) -> "RecordTable":
        """Return the records with these image ids, in their order.

        Raises:
            KeyError: an id is not in the table.
        """
        own = self.image_ids
        if np.array_equal(own, image_ids):
            return self
        order = np.argsort(own)
        at = order[np.minimum(np.searchsorted(own, image_ids, sorter=order), len(own) - 1)]
        if not np.array_equal(own[at], image_ids):
            raise KeyError("image ids that are not in the table")
        return self._part(np.asarray(self.rows)[at])

    def chosen(self, which: np.ndarray) -> "RecordTable":
        """Return the records for which `which` [N] is True: the same table if it is for all."""
        return self if which.all() else self._part(np.asarray(self.rows)[which])

    def _part(self, rows: "range | np.ndarray") -> "RecordTable":
        return RecordTable(self._file, rows, self._ids)

    def __reduce__(self):
        return RecordTable, (self._file, self.rows)  # without the ids, which are in the file


def chosen_records(records: Sequence[Record], which: np.ndarray) -> Sequence[Record]:
    """Return the records for which `which` [N] is True, as a list, or as a table if the records are one."""
    if isinstance(records, RecordTable):
        return records.chosen(which)
    return [record for record, keep in zip(records, which.tolist(), strict=True) if keep]


def image_ids_of(records: Sequence[Record]) -> np.ndarray:
    """Return the image ids [N] int64 of records."""
    if isinstance(records, RecordTable):
        return records.image_ids
    return np.array([record.image_id for record in records], np.int64)


def counts_of_splits(records: Iterable[Record]) -> str:
    """Return the number of records of each split, for messages, such as "train 6, val 2"."""
    counts = records.counts() if isinstance(records, RecordTable) else Counter(record.split for record in records)
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


@overload
def of_split(records: RecordTable, split: str) -> RecordTable: ...
@overload
def of_split(records: Iterable[Record], split: str) -> Sequence[Record]: ...
def of_split(records, split):
    """Return the records of one split, as a list, or as a table if the records are one; there may be none."""
    if isinstance(records, RecordTable):
        return records.split(split)
    return [record for record in records if record.split == split]


@overload
def select(records: RecordTable, split: str) -> RecordTable: ...
@overload
def select(records: Iterable[Record], split: str) -> Sequence[Record]: ...
def select(records, split):
    """Return the records of one split, as a list, or as a table if the records are one.

    Raises:
        DataError: the split has no records.
    """
    records = records if isinstance(records, RecordTable) else list(records)
    chosen = of_split(records, split)
    if not chosen:
        raise DataError(
            f"no images with captions in split '{split}'; images per split: {counts_of_splits(records)}. Add the files "
            "of that split (see docs/data.md in the repository)"
        )
    return chosen
