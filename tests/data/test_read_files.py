"""Which files a reader reads is recorded, and a change of any of them is noticed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from captioning.data import first_change, read_csv, watch_reads


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "texts").mkdir()
    for name in ("a.json", "b.csv", "texts/1.txt", "texts/1.jpg"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1e9, 1e9))
    for name in ("texts", "."):
        os.utime(tmp_path / name, (1e9, 1e9))
    return tmp_path


def read(folder):
    with watch_reads() as reads:
        (folder / "a.json").read_bytes()
        sorted((folder / "texts").iterdir())
        assert not (folder / "missing.json").exists()
        with pytest.raises(FileNotFoundError):
            (folder / "missing.txt").read_text()
    return reads


def test_files_folders_and_what_is_missing_are_recorded(folder):
    reads = read(folder)
    names = {os.path.relpath(path, folder) for path in reads if Path(path).is_relative_to(folder)}
    assert names == {".", "a.json", "missing.txt", "texts", "texts/1.txt"}  # no images
    assert reads[str(folder / "a.json")] == [6, 10**18]
    assert reads[str(folder / "texts")] == [-1, 10**18] and reads[str(folder / "missing.txt")] is None
    assert first_change(reads) is None and first_change(reads, read_at=time.time_ns()) is None
    (folder / "b.csv").write_text("other")  # which was not read; its folder is the same
    assert first_change(reads) is None
    (folder / "a.json").read_bytes()  # not recorded any more
    assert len(reads) == len(read(folder))


@pytest.mark.parametrize("change", ["content", "time", "deleted", "added", "below", "appeared", "listed"])
def test_every_change_is_noticed(folder, change):
    reads = read(folder)
    if change == "content":
        (folder / "a.json").write_text("other!!")
        os.utime(folder / "a.json", (1e9, 1e9))
    elif change == "time":
        os.utime(folder / "a.json", (1e9 + 1, 1e9 + 1))
    elif change == "deleted":
        (folder / "texts" / "1.txt").unlink()
    elif change == "added":
        (folder / "c.json").write_text("")
    elif change == "below":
        (folder / "texts" / "2.jpg").write_text("")
    elif change == "appeared":
        (folder / "missing.txt").write_text("")
        os.utime(folder, (1e9, 1e9))
    else:
        (folder / "texts" / "1.txt").write_text("longer than before")
    assert first_change(reads) is not None


def test_a_file_that_has_just_changed_may_change_again(folder):
    reads, now = read(folder), 10**18
    assert first_change(reads, read_at=now + 3 * 10**9) is None
    assert first_change(reads, read_at=now + 10**9) is not None


def test_what_is_written_inside_is_recorded_as_it_is_at_the_end(folder):
    with watch_reads() as reads:
        (folder / "new.json").write_text("one")
        (folder / "new.json").write_text("three")
        with watch_reads() as inner:
            (folder / "b.csv").read_text()
    assert reads[str(folder / "new.json")][0] == 5 and str(folder / "b.csv") not in reads
    assert str(folder / "b.csv") in inner and first_change(inner) is None
    assert first_change(reads) == str(folder)  # which has a new file: it is read again once


def test_a_reader_of_the_package_is_followed(folder):
    (folder / "captions.csv").write_text("image,caption\n1.jpg,a dog\n")
    (folder / "1.jpg").write_bytes(b"")
    with watch_reads() as reads:
        read_csv(folder)
    assert str(folder / "captions.csv") in reads and str(folder) in reads
    assert not [path for path in reads if path.endswith((".py", ".pyc", ".jpg"))]


def test_other_threads_and_loops_of_events_do_no_harm(tmp_path):
    """In a process of its own, because an audit hook stays."""
    script = """
import threading, os
from captioning.data import watch_reads
with watch_reads() as reads:
    threads = [threading.Thread(target=lambda: [os.listdir("."), open("f").read()]) for _ in range(8)]
    [thread.start() for thread in threads]; [thread.join() for thread in threads]
print(len([path for path in reads if path.endswith("/f")]))
"""
    (tmp_path / "f").write_text("1")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("1\n", "")
