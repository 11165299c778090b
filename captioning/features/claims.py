"""Claim image ids for one process at a time, so that many processes and machines fill one store together.

A claim is a lock on a range of bytes of one file, `claims.lock`, with one byte per image id. The file has no content.
Two ids from 2^62 on share a byte, and all negative ids share one with id 0, so that every range of ids is one of bytes.
The operating system drops a process's locks when the process ends, however it ends, and such locks also work between
the machines of a network disk. Ranges that overlap exclude each other, so runs with different lists of images are safe
beside each other, too.

Python's lock packages (`filelock`, `portalocker`) lock whole files: that would need one file per claim. On Windows,
where a range cannot be as long as the range of ids, every claim locks the whole file. So there, processes take turns.
"""

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from captioning.errors import DataError

if sys.platform != "win32":
    import fcntl

HELD_BY_OTHERS = (errno.EACCES, errno.EAGAIN)  # another process has the lock; POSIX allows both
ONE_BYTE_EACH = 2**62  # ids from 0 below this have a byte of their own
END = 2**63  # of the positions in a file


class Ids(NamedTuple):
    """A range of image ids, both ends included. `ALL` is every id."""

    first: int
    last: int

    @classmethod
    def of(cls, image_ids: Sequence[int]) -> "Ids":
        """Return the range of some ids."""
        return cls(min(image_ids), max(image_ids))

    def positions(self) -> tuple[int, int]:
        """Return the range of bytes that are locked, without its end."""
        return _position(self.first), END if self == ALL else _position(self.last) + 1


ALL = Ids(-(2**63), 2**63 - 1)


class ImageClaims:
    """The claims of this process on one store; leaving the context drops them.

    A process may use one object per store at a time, because closing the file drops all locks that the process has on
    it. Processes that it forks do not inherit its claims.

    Args:
        folder: the store's folder, which must exist.

    Raises:
        DataError: the file cannot be opened, or the file system has no locks.
    """

    def __init__(self, folder: Path):
        self.path = folder / "claims.lock"
        self._file: int | None = None
        self._whole: FileLock | None = None
        self._held: list[Ids] = []

    def __enter__(self) -> "ImageClaims":
        try:
            if sys.platform == "win32":
                self._whole = FileLock(self.path)
            else:
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._refused(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._held.clear()
        if self._whole is not None:
            self._whole.release(force=True)
        if self._file is not None:
            os.close(self._file)
        self._file = self._whole = None

    def take(self, ids: Ids, *, wait: bool = False) -> bool:
        """Claim the ids, and return whether no other process has any of them.

        Args:
            ids: the range.
            wait: wait until the ids are free, instead of returning False. Only for processes without other claims:
                two that wait for each other would wait forever.
        """
        try:
            if self._whole is not None:
                if not self._held:
                    self._whole.acquire(timeout=-1 if wait else 0)
            else:
                self._lock(fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB, *ids.positions())
        except Timeout:
            return False
        except OSError as error:
            if error.errno in HELD_BY_OTHERS:
                return False
            raise self._refused(error) from error
        self._held.append(ids)
        return True

    def drop(self, ids: Ids) -> None:
        """Give a claim back."""
        self._held.remove(ids)
        if self._whole is None:
            free = [ids.positions()]
            for start, stop in (held.positions() for held in self._held):  # the system keeps no count of locks
                parts = [part for low, high in free for part in ((low, min(high, start)), (max(low, stop), high))]
                free = [(low, high) for low, high in parts if low < high]
            for low, high in free:
                self._lock(fcntl.LOCK_UN, low, high)
        elif not self._held:
            self._whole.release()

    def _lock(self, command: int, start: int, stop: int) -> None:
        assert self._file is not None  # only used inside the context
        # A lock of length 0 reaches to the end of the file, however long that is.
        fcntl.lockf(self._file, command, 0 if stop == END else stop - start, start)

    def _refused(self, error: OSError) -> DataError:
        return DataError(
            f"cannot lock {self.path} ({error.strerror or error}): check the permissions of its folder, or set "
            "features.root to a folder on a disk with file locks"
        )


def _position(image_id: int) -> int:
    """Return the byte of an image id. It never decreases with the id."""
    return max(image_id, 0) if image_id < ONE_BYTE_EACH else ONE_BYTE_EACH // 2 + image_id // 2
