"""Keep freed memory inside the process, so that the next training step does not wait for the system to provide it."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # the numbers of glibc's parameters in malloc.h
_NEVER, _LARGEST = -1, 32 * 2**20  # glibc accepts no larger threshold


def keep_freed_memory() -> bool:
    """Make glibc keep freed blocks of up to 32 MiB for this process, and return whether this was possible.

    A training step allocates and frees several hundred MiB. By default, glibc returns large blocks to the system, which
    must fill each page (4 KiB) with zeros when the next step uses it for the first time. Without glibc (macOS, Windows,
    musl) nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, _NEVER))
