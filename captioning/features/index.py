"""Find images of a feature store by their ids, in sorted arrays that all processes of a machine share.

The index is one array int64 [6, N] with a column of N numbers per field, sorted by image id: the id, the location of
the features (shard and row), and the stamp of the image file. The file of the array is memory-mapped, so its memory is
the system's file cache.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

FIELDS = 6  # image id, location, and the four numbers of a stamp
CHECKED_AT_ONCE = 1 << 20  # entries or bytes that are checked at a time


class Stamp(NamedTuple):
    """Identity of an image file when it was read.

    Attributes:
        name: file name.
        size: size in bytes.
        modified_ns: time of the last change, in nanoseconds; of a file inside an archive, a number that changes with
            the archive (`captioning.io.FileStatus`).
        digest: hash of the content.
    """

    name: str
    size: int
    modified_ns: int
    digest: str


def stamp_numbers(stamp: Stamp) -> list[int]:
    """Return a stamp as four numbers of 64 bits: size, time, and hashes of the digest and of the name."""
    return [stamp.size, stamp.modified_ns, hash_text(stamp.digest), hash_text(stamp.name)]


def hash_text(text: str) -> int:
    """Return 64 bits of a text's hash, as a signed number."""
    content = text.encode("utf-8", errors="surrogatepass")  # names of files may have undecodable bytes
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


def entries_of(images: Iterable[tuple[int, Stamp]]) -> np.ndarray:
    """Return the images of a shard as an array int64 [5, rows]: ids and stamps.

    Raises:
        OverflowError: a number has more than 64 bits.
    """
    rows = [[image_id, *stamp_numbers(stamp)] for image_id, stamp in images]
    return np.ascontiguousarray(np.array(rows, dtype=np.int64).reshape(-1, FIELDS - 1).T)


def join_location(shard: int | np.ndarray, row: int | np.ndarray) -> Any:
    """Return the location of features as one number: the shard's number in the list, and the row in the shard."""
    return (shard << 32) | row


class Index:
    """Images sorted by id.

    Args:
        columns: int64 [6, N]: ids in increasing order, locations, sizes, times, digests, names.
        file: the file that `columns` is mapped from; None for arrays in memory.
    """

    def __init__(self, columns: np.ndarray, file: Path | None = None):
        self.columns, self.file = columns, file
        self.ids, self.location = columns[0], columns[1]

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, image_ids: np.ndarray) -> np.ndarray:
        """Return the position of each id in the index, int64 [n]; -1 for ids that are not in it."""
        if not len(self):
            return np.full(len(image_ids), -1)
        at = np.minimum(np.searchsorted(self.ids, image_ids), len(self) - 1)
        return np.where(self.ids[at] == image_ids, at, -1)


def map_columns(file: Path) -> np.ndarray:
    """Map an index file into memory.

    Raises:
        ValueError: it is not an index.
        OSError: it cannot be read.
    """
    columns = np.load(file, mmap_mode="r", allow_pickle=False)
    right = isinstance(columns, np.ndarray) and columns.dtype == np.int64 and columns.shape[:-1] == (FIELDS,)
    if not right or not columns.flags.c_contiguous:
        raise ValueError("not an index")
    return np.asarray(columns)


def index_of(shards: Sequence[tuple[int, np.ndarray]]) -> Index:
    """Return the index of shards: pairs of a shard's number in the list, in increasing order, and its entries [5, n].

    If an image is in several rows, the last one counts.
    """
    if not shards:
        return Index(np.empty((FIELDS, 0), np.int64))
    entries = np.concatenate([entries for _, entries in shards], axis=1)
    location = np.concatenate([join_location(shard, np.arange(entries.shape[1])) for shard, entries in shards])
    chosen = _latest(entries[0])
    return Index(np.stack([entries[0][chosen], location[chosen], *(column[chosen] for column in entries[1:])]))


def merge_columns(
    old: Index, new: Index, numbers: np.ndarray | None = None, stamps: Mapping[int, Sequence[int]] | None = None
) -> Iterator[np.ndarray]:
    """Return the columns of two indices as one, column by column, so that two of them are in memory at a time.

    Args:
        old: the index of earlier shards.
        new: the index of later shards; its entry counts for images that are in both.
        numbers: the new number of each shard in the list, or -1 to leave out its images; None to change none.
        stamps: image id -> newer numbers of its stamp.
    """
    chosen = _latest(np.concatenate([old.ids, new.ids]))
    location = np.concatenate([old.location, new.location])[chosen]
    if numbers is not None and len(chosen):
        renumbered = numbers[location >> 32]
        chosen, location = chosen[renumbered >= 0], join_location(renumbered, location & (2**32 - 1))[renumbered >= 0]
    ids = np.concatenate([old.ids, new.ids])[chosen]
    newer = dict(sorted((stamps or {}).items()))
    at = Index(np.stack([ids, location])).find(np.fromiter(newer, np.int64, len(newer)))
    values = np.array(list(newer.values()), np.int64).reshape(-1, FIELDS - 2)[at >= 0]
    yield ids
    yield location
    for field in range(2, FIELDS):
        column = np.concatenate([old.columns[field], new.columns[field]])[chosen]
        column[at[at >= 0]] = values[:, field - 2]
        yield column


def merge(old: Index, new: Index) -> Index:
    """Return two indices as one in memory; see `merge_columns`."""
    return Index(np.stack(list(merge_columns(old, new))))


def merge_all(indices: Sequence[Index]) -> Index:
    """Return indices of shards, of which later ones count for images that are in several, as one in memory."""
    columns = np.concatenate([np.empty((FIELDS, 0), np.int64), *(index.columns for index in indices)], axis=1)
    return Index(columns[:, _latest(columns[0])])


def writer_of(columns: Iterator[np.ndarray], digest: Any) -> Callable[[BinaryIO], None]:
    """Return a function that writes columns as an .npy file to an open file, and adds all bytes to a hash."""

    class Hashing:
        def __init__(self, file: BinaryIO):
            self.file = file

        def write(self, content: bytes | memoryview) -> int:
            digest.update(content)
            return self.file.write(content)

    def write(file: BinaryIO) -> None:
        both: Any = Hashing(file)
        for field, column in enumerate(columns):
            if not field:
                header = {"descr": "<i8", "fortran_order": False, "shape": (FIELDS, len(column))}
                np.lib.format.write_array_header_1_0(both, header)
            both.write(np.ascontiguousarray(column, "<i8").data.cast("B") if len(column) else b"")

    return write


def check_index(index: Index, rows: Sequence[int]) -> None:
    """Check that ids increase and that every location exists.

    Args:
        index: the index.
        rows: the number of rows of each shard.

    Raises:
        ValueError: they do not.
    """
    counts = np.array(rows, dtype=np.int64)
    for start in range(0, len(index), CHECKED_AT_ONCE):
        ids, location = index.ids[start : start + CHECKED_AT_ONCE + 1], index.location[start : start + CHECKED_AT_ONCE]
        shard, row = location >> 32, location & (2**32 - 1)
        inside = len(counts) and location.min() >= 0 and shard.max() < len(counts) and (row < counts[shard]).all()
        if not inside or not (ids[1:] > ids[:-1]).all():
            raise ValueError("not the index of these shards")


def _latest(ids: np.ndarray) -> np.ndarray:
    """Return the positions of the last entry of each id, in increasing order of the ids."""
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    last = np.ones(len(ids), bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    return order[last]
