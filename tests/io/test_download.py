"""Downloads from a server on this machine: broken off, refused, damaged, hostile, and complete."""

import io
import json
import os
import shutil
import threading
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from captioning.data import read_coco
from captioning.errors import ConfigError, DataError
from captioning.io import download as module
from captioning.io import download_coco, refuse_download
from captioning.io.download import COCO, Archive, download


def zipped(**members):
    """Bytes of an archive; stored, so that a flipped byte is a damaged member and nothing else."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    return file.getvalue()


PICTURES = {f"val2017/{number}.jpg": os.urandom(3000) for number in range(4)}
BYTES = zipped(**PICTURES)
SIZE = len(BYTES)


class Handler(BaseHTTPRequestHandler):
    """Serves `server.files`; how well depends on the server's other attributes."""

    def do_GET(self):
        content = self.server.files.get(self.path.lstrip("/"))
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.server.statuses:
            status = self.server.statuses.pop(0)
            return self.send_error(status) if status else self.wfile.write(b"no HTTP at all\r\n\r\n")
        if content is None:
            return self.send_error(404)
        start = int(asked[6:-1]) if asked and self.server.ranges else 0
        if start >= len(content):
            return self.send_error(416)
        shift = self.server.shift if start else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start + shift}-{len(content) - 1}/{len(content)}")
        if self.server.lengths:
            self.send_header("Content-Length", str(len(content) - start - shift))
        self.end_headers()
        stop = start + self.server.drops.pop(0) if self.server.drops else len(content)
        self.wfile.write(content[start + shift : stop])

    def log_message(self, *arguments):
        """The tests' output stays theirs."""


@pytest.fixture
def server(monkeypatch):
    """A server's attributes say how well it serves; `asked` lists the Range headers that came.

    ranges, lengths: it knows Range, tells Content-Length. drops: bytes after which the next answers break off.
    statuses: of the next answers (0: nonsense). shift: bytes by which ranges begin too late.
    """
    monkeypatch.setattr(module, "WAIT_SECONDS", 0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        vars(running).update(
            files={"a.zip": BYTES}, ranges=True, lengths=True, drops=[], statuses=[], shift=0, asked=[]
        )
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def archive(server, *, name="a.zip", size=SIZE, unpacks=("val2017",)):
    return Archive(f"http://127.0.0.1:{server.server_address[1]}/{name}", size, unpacks)


def fetch(server, root, **archives):
    download([archive(server, **archives)], root, progress=False)


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def error_of(function, *arguments, kind=DataError, **keywords):
    with pytest.raises(kind) as caught:
        function(*arguments, **keywords)
    return str(caught.value)


@pytest.mark.parametrize("size", [SIZE, None])
@pytest.mark.parametrize("lengths", [True, False])
def test_fetched_unpacked_and_the_archive_gone(server, tmp_path, size, lengths):
    server.lengths = lengths
    fetch(server, tmp_path / "deep/root", size=size)
    assert contents(tmp_path / "deep/root") == PICTURES
    assert os.listdir(tmp_path / "deep/root") == ["val2017"]


def test_what_is_unpacked_is_not_fetched_again(server, tmp_path):
    fetch(server, tmp_path)
    fetch(server, tmp_path)
    assert len(server.asked) == 1
    shutil.rmtree(tmp_path / "val2017")
    (tmp_path / "val2017").mkdir()  # an empty folder is not an unpacked one
    fetch(server, tmp_path)
    assert contents(tmp_path) == PICTURES and len(server.asked) == 2


@pytest.mark.parametrize("size", [SIZE, None])
def test_half_a_download_is_gone_on_with(server, tmp_path, size):
    (tmp_path / "a.zip.part").write_bytes(BYTES[:5000])
    fetch(server, tmp_path, size=size)
    assert server.asked == ["bytes=5000-"]
    assert contents(tmp_path) == PICTURES


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "a.zip.part").write_bytes(b"x" * 5000)
    fetch(server, tmp_path)
    assert server.asked == ["bytes=5000-"]
    assert contents(tmp_path) == PICTURES


def test_a_complete_part_needs_no_server(server, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(BYTES)
    fetch(server, tmp_path)
    assert server.asked == [] and contents(tmp_path) == PICTURES


def test_an_archive_put_there_by_hand_is_unpacked(server, tmp_path):
    (tmp_path / "a.zip").write_bytes(BYTES)
    fetch(server, tmp_path)
    assert server.asked == [] and contents(tmp_path) == PICTURES
    shutil.rmtree(tmp_path / "val2017")
    (tmp_path / "a.zip").write_bytes(BYTES[:-1])
    message = error_of(fetch, server, tmp_path)
    assert f"has {SIZE - 1} bytes, not {SIZE}" in message


@pytest.mark.parametrize("size", [SIZE, None])
def test_a_part_that_is_too_long_is_of_another_file(server, tmp_path, size):
    (tmp_path / "a.zip.part").write_bytes(b"x" * (SIZE + 1))
    fetch(server, tmp_path, size=size)
    assert contents(tmp_path) == PICTURES


def test_dropped_connections_are_taken_up_where_they_broke(server, tmp_path):
    server.drops = [1000] * 9  # more than the retries in a row, but each brings something
    fetch(server, tmp_path)
    assert server.asked == [None, *(f"bytes={1000 * number}-" for number in range(1, 10))]
    assert contents(tmp_path) == PICTURES


def test_a_line_that_stays_down_keeps_what_came(server, tmp_path):
    server.drops = [1000] + [0] * 50
    message = error_of(fetch, server, tmp_path)
    assert server.asked[-1] == "bytes=1000-" and len(server.asked) == 1 + 1 + module.RETRIES
    assert "a.zip" in message and "Run this again to resume at byte 1000" in message
    server.drops = []
    fetch(server, tmp_path)
    assert server.asked[-1] == "bytes=1000-" and contents(tmp_path) == PICTURES


def test_no_server_at_all(server, tmp_path):
    gone = archive(server)._replace(url="http://127.0.0.1:1/a.zip")
    assert "http://127.0.0.1:1/a.zip" in error_of(download, [gone], tmp_path, progress=False)


def test_a_busy_server_is_asked_again_and_a_firm_no_is_not(server, tmp_path):
    server.statuses = [503, 0, 429, 500]
    fetch(server, tmp_path)
    assert contents(tmp_path) == PICTURES and len(server.asked) == 5
    server.asked.clear()
    assert "404" in error_of(fetch, server, tmp_path, name="b.zip", unpacks=("other",))
    assert len(server.asked) == 1


def test_a_range_other_than_asked_is_never_joined_on(server, tmp_path):
    server.shift = 7
    (tmp_path / "a.zip.part").write_bytes(BYTES[:5000])
    fetch(server, tmp_path)
    assert server.asked == ["bytes=5000-", None] and contents(tmp_path) == PICTURES


def test_a_size_other_than_the_known_one(server, tmp_path):
    message = error_of(fetch, server, tmp_path, size=SIZE + 5)
    assert str(SIZE) in message and str(SIZE + 5) in message
    assert len(server.asked) == 1 and not contents(tmp_path)
    server.lengths = False
    message = error_of(fetch, server, tmp_path, size=SIZE + 5)
    assert f"received {SIZE} of {SIZE + 5} bytes" in message


def test_too_little_disk_is_said_before_anything_is_fetched(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    other = server.files["b.zip"] = zipped(**{"train2017/1.jpg": bytes(7000)})
    archives = [archive(server), archive(server, name="b.zip", size=len(other), unpacks=("train2017",))]
    (tmp_path / "a.zip.part").write_bytes(BYTES[:2000])
    needed = 2 * (SIZE + len(other)) - 2000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, needed - 1))
    message = error_of(download, archives, tmp_path, progress=False)
    assert "a.zip, b.zip" in message and "GB free" in message and "data.root" in message
    assert server.asked == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, needed))
    download(archives, tmp_path, progress=False)
    assert contents(tmp_path) == PICTURES | {"train2017/1.jpg": bytes(7000)}


def test_a_damaged_archive_is_deleted_and_fetched_anew(server, tmp_path):
    place = BYTES.index(PICTURES["val2017/2.jpg"])
    server.files["a.zip"] = BYTES[:place] + bytes([BYTES[place] ^ 1]) + BYTES[place + 1 :]
    message = error_of(fetch, server, tmp_path)
    assert "a.zip was damaged" in message and "CRC" in message
    assert not (tmp_path / "a.zip").exists() and not (tmp_path / "val2017").exists()
    server.files["a.zip"] = BYTES
    fetch(server, tmp_path)
    assert contents(tmp_path) == PICTURES


def test_what_is_no_zip_archive(server, tmp_path):
    server.files["a.zip"] = b"<html>please log in</html>"
    assert "a.zip was damaged" in error_of(fetch, server, tmp_path, size=None)


@pytest.mark.parametrize("name", ["../evil.jpg", "val2017/../../evil.jpg", "/tmp/evil.jpg"])
def test_members_that_leave_the_folder_are_refused(server, tmp_path, name):
    server.files["a.zip"] = zipped(**{"val2017/1.jpg": b"good", name: b"evil"})
    root = tmp_path / "root"
    message = error_of(fetch, server, root, size=None)
    assert "a.zip" in message and repr(name) in message
    assert list(contents(tmp_path)) == ["root/a.zip"]


def test_an_archive_without_what_it_should_hold(server, tmp_path):
    assert "lacks train2017: delete it" in error_of(fetch, server, tmp_path, unpacks=("val2017", "train2017"))


@pytest.mark.parametrize("survives", [0, 2])
def test_a_killed_unpacking_is_done_again(server, tmp_path, monkeypatch, survives):
    unpacked, extract = [], zipfile.ZipFile.extract

    def killed(bundle, member, path):
        if len(unpacked) == survives:
            raise KeyboardInterrupt
        unpacked.append(extract(bundle, member, path))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(zipfile.ZipFile, "extract", killed)
        fetch(server, tmp_path)
    assert not (tmp_path / "val2017").exists()
    fetch(server, tmp_path)
    assert contents(tmp_path) == PICTURES and len(server.asked) == 1


def test_killed_between_moves_and_folders_that_two_archives_share(server, tmp_path, monkeypatch):
    files = {
        f"annotations/{name}2017.json": name.encode() for name in ("captions_train", "captions_val", "instances_val")
    }
    server.files["a.zip"] = zipped(**files)
    mine = tmp_path / "annotations/captions_val2014.json"
    mine.parent.mkdir()
    mine.write_bytes(b"older")
    moved, replace = [], os.replace

    def killed(source, target):
        if Path(source).suffix == ".json" and len(moved) == 2:
            raise KeyboardInterrupt
        moved.extend([source] if Path(source).suffix == ".json" else [])
        replace(source, target)

    wanted = {"size": None, "unpacks": tuple(files)[:1]}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        fetch(server, tmp_path, **wanted)
    fetch(server, tmp_path, **wanted)
    assert contents(tmp_path) == files | {"annotations/captions_val2014.json": b"older"}


def test_a_root_that_cannot_be(server, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write into" in error_of(fetch, server, tmp_path / "file/root")


def test_a_full_disk_keeps_what_came(server, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extract", full)
        assert "No space left" in error_of(fetch, server, tmp_path)
    fetch(server, tmp_path)
    assert contents(tmp_path) == PICTURES and len(server.asked) == 1


def test_a_full_disk_is_not_tried_again(server, tmp_path, monkeypatch):
    tried = []

    def full(*arguments, **keywords):
        tried.append(arguments)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_receive", full)
    assert "No space left" in error_of(fetch, server, tmp_path)
    assert len(tried) == 1


def test_progress_shows_bytes_from_where_it_goes_on(server, tmp_path, capsys):
    (tmp_path / "a.zip.part").write_bytes(BYTES[: SIZE // 2])
    download([archive(server)], tmp_path, progress=True)
    output = capsys.readouterr()
    assert output.out == ""
    assert "\ra.zip:  50%" in output.err and "\ra.zip: 100%" in output.err and "B/s" in output.err
    assert "unpacking a.zip" in output.err


def test_a_download_is_quiet_where_nobody_looks(server, tmp_path, capsys):
    download([archive(server)], tmp_path)
    assert capsys.readouterr() == ("", "")


# The official archives


@pytest.mark.parametrize(
    ("layout", "names", "gigabytes"),
    [
        ("karpathy", {"caption_datasets.zip", "annotations_trainval2014.zip", "train2014.zip", "val2014.zip"}, 20.4),
        ("auto", {"caption_datasets.zip", "annotations_trainval2014.zip", "train2014.zip", "val2014.zip"}, 20.4),
        ("2014", {"annotations_trainval2014.zip", "train2014.zip", "val2014.zip"}, 20.4),
        (2017, {"annotations_trainval2017.zip", "train2017.zip", "val2017.zip"}, 20.4),
    ],
)
def test_which_archives_a_layout_needs(tmp_path, monkeypatch, layout, names, gigabytes):
    fetched = []
    monkeypatch.setattr(module, "download", lambda archives, root: fetched.extend(archives))
    download_coco(tmp_path, layout=layout)
    assert {archive.name for archive in fetched} == names
    assert round(sum(archive.size for archive in fetched) / 1e9, 1) == gigabytes


@pytest.mark.parametrize("layout", ["karpathy", "2014", "2017"])
def test_what_the_archives_unpack_is_what_the_reader_reads(tmp_path, layout):
    numbers = {"train": 1, "val": 2}
    entries = [
        {"cocoid": number, "filepath": f"{split}2014", "filename": f"{number}.jpg", "split": split}
        | {"sentences": [{"raw": "a"}]}
        for split, number in numbers.items()
    ]
    for place in (tmp_path / path for archive in COCO[layout] for path in archive.unpacks):
        number = numbers["train" if "train" in place.name else "val"]
        images = [{"id": number, "file_name": f"{number}.jpg"}]
        content = {"images": images, "annotations": [{"image_id": number, "caption": "a"}]}
        file = place if place.suffix else place / f"{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"images": entries} if file.name == "dataset_coco.json" else content))
    assert {record.image_id for record in read_coco(tmp_path, layout=layout)} == {1, 2}
    download(COCO[layout], tmp_path)  # all is there: nothing is asked of any server


def test_an_unknown_layout(tmp_path):
    assert "'2015'" in error_of(download_coco, tmp_path, layout="2015", kind=ConfigError)


@pytest.mark.parametrize("name", ["flickr8k", "flickr30k"])
def test_data_sets_given_out_on_request(tmp_path, name):
    message = error_of(refuse_download, tmp_path, name=name)
    for wanted in (f"dataset_{name}.json", "caption_datasets.zip", "forms.illinois.edu", str(tmp_path / "images")):
        assert wanted in message
    assert "data=own" in error_of(refuse_download, tmp_path, name="own", kind=ConfigError)
