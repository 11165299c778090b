"""Write to standard output safely: closed streams, readers that stop early (`| head`), and full disks."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

BROKEN_PIPE = 141  # the status that a shell reports for a program that SIGPIPE ended


def open_closed_streams() -> None:
    """Replace an input or output that the shell closed (`>&-`) by one that discards everything.

    In Python a closed stream is None. The next file that is opened would get its number, and libraries would print
    into that file.
    """
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


@contextmanager
def quiet_pipe() -> Iterator[None]:
    """End the program without a traceback if its output is closed early, as by `| head`, or if a disk is full."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _close_output()
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _close_output()
        sys.exit(f"error: cannot write {error.filename or 'the output'}: {error.strerror}. Free some space, then retry")


def _close_output() -> None:
    """Discard the buffered output, so that Python does not try to write it at its end."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
