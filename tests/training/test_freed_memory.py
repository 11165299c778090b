"""Test that memory which a step frees is used again by the next step, without new pages from the system."""

import subprocess
import sys

import pytest

import captioning.training.run as training_run

# Allocate and free five blocks of 20 MiB, three times, and print how many pages the last round got from the system.
PROGRAM = """
import ctypes, resource, sys
from captioning.training import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(20 * 2**20) for _ in range(5)]
    for block in blocks:
        ctypes.memset(block, 1, 20 * 2**20)
    for block in blocks:
        libc.free(block)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has these settings")
def test_freed_blocks_are_used_again_without_new_pages():
    def pages(mode: str) -> tuple[str, int]:
        output = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
        kept, number = output.stdout.split()
        return kept, int(number)

    assert pages("keep") == ("True", 0)
    assert pages("default")[1] > 1000


def test_training_keeps_freed_memory():
    """The call is in `train`, directly before the trainer starts."""
    names = training_run.train.__code__.co_names
    assert "keep_freed_memory" in names


def test_without_glibc_nothing_is_changed(monkeypatch):
    from captioning.training import freed_memory

    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(freed_memory.ctypes, "CDLL", missing)
    assert freed_memory.keep_freed_memory() is False
