"""Files inside tar archives: they are found, read and stamped as `tarfile` sees them, and nothing is ever followed."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from tars import link, write_tar

from captioning.data import Disk, find_images, open_picture
from captioning.errors import DataError
from captioning.io import (
    ArchiveMember,
    archive_ending,
    archive_members,
    archives,
    file_exists,
    file_status,
    how_to_decompress,
    read_file,
    split_archive,
)

LONG = "a" * 90 + "/" + "b" * 150 + ".jpg"


def members_of(path):
    with open(path, "rb") as file:
        return list(archive_members(file, path))


def error_of(call, *arguments):
    with pytest.raises(DataError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_has_the_members_that_tarfile_finds(tmp_path, form):
    names = ["a.jpg", "sub/é.jpg", "./b.jpg", "sub//c.jpg", "p" * 80 + "/" + "q" * 60 + ".jpg", "x" * 100]
    names += [LONG, "狗" * 60 + ".jpg"] if form != tarfile.USTAR_FORMAT else []
    path = write_tar(
        tmp_path / "a.tar", {name: os.urandom(number * 300) for number, name in enumerate(names)}, form=form
    )
    with tarfile.open(path) as archive:
        wanted = [(os.path.normpath(each.name), each.offset_data, each.size) for each in archive]
    assert [(each.name, each.offset, each.size) for each in members_of(path)] == wanted and len(wanted) == len(names)
    with tarfile.open(path) as archive:
        for name in names:
            assert read_file(path / name) == archive.extractfile(name).read() and file_exists(path / name)


def test_pax_headers_for_all_members_and_sizes_in_base_256(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "of git archive"}) as archive:
        info = tarfile.TarInfo("a.jpg")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
        info = tarfile.TarInfo("b.jpg")
        info.size, info.pax_headers = 2, {"path": "other.jpg"}
        archive.addfile(info, io.BytesIO(b"de"))
    assert [each.name for each in members_of(path)] == ["a.jpg", "other.jpg"]
    header = bytearray(tarfile.TarInfo("c.jpg").tobuf())
    header[124:136] = b"\x80" + (4).to_bytes(11)
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    (tmp_path / "b.tar").write_bytes(bytes(header) + b"wxyz".ljust(512, b"\0") + bytes(1024))
    assert members_of(tmp_path / "b.tar") == [ArchiveMember("c.jpg", 512, 4)]


def test_links_folders_and_names_that_lead_out_are_never_files(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    folder, sparse = tarfile.TarInfo("sub"), tarfile.TarInfo("s.jpg")
    folder.type, sparse.type = tarfile.DIRTYPE, tarfile.FIFOTYPE
    outside = [("../secret.jpg", b"x"), ("sub/../../secret.jpg", b"x"), (str(tmp_path / "secret.jpg"), b"x")]
    links = [link("l.jpg", "../secret.jpg"), link("h.jpg", "a.jpg", tarfile.LNKTYPE)]
    path = write_tar(tmp_path / "a.tar", [("sub", folder), ("s.jpg", sparse), *outside, *links, ("a.jpg", b"a")])
    found = {each.name: each.unusable for each in members_of(path)}
    away = "a name that leads out of the archive"
    assert list(found.values()) == ["not a regular file", away, away, away, "a link", "a link", ""]
    for name in ("../secret.jpg", "sub/../../secret.jpg", "l.jpg", "h.jpg", "s.jpg", "sub", "", "nothing.jpg"):
        assert not file_exists(f"{path}/{name}")
        with pytest.raises(OSError):
            read_file(f"{path}/{name}")
    assert read_file(path / "a.jpg") == b"a"


def test_the_last_of_two_members_of_one_name_counts_as_in_tar(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("a.jpg", b"old"), ("b.jpg", b"b"), ("a.jpg", b"newer")])
    assert read_file(path / "a.jpg") == b"newer" and read_file(path / "b.jpg") == b"b"


def test_only_an_archive_that_is_a_file_is_looked_into(tmp_path):
    write_tar(tmp_path / "folder.tar" / "in.tar", {"b.tar/c.jpg": b"c"})
    (tmp_path / "folder.tar" / "plain.jpg").write_bytes(b"plain")
    assert split_archive(tmp_path / "folder.tar/in.tar/b.tar/c.jpg") == (
        str(tmp_path / "folder.tar/in.tar"),
        "b.tar/c.jpg",
    )
    assert split_archive(tmp_path / "folder.tar/plain.jpg") is None and split_archive(tmp_path / "no.tar/a.jpg") is None
    assert read_file(tmp_path / "folder.tar/plain.jpg") == b"plain" and file_exists(tmp_path / "folder.tar/plain.jpg")
    assert read_file(tmp_path / "folder.tar/in.tar/b.tar/c.jpg") == b"c"
    assert file_exists(tmp_path / "folder.tar/in.tar") and not file_exists(tmp_path / "no.tar/a.jpg")


def test_an_archive_that_changes_is_read_as_it_is_now(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"a.jpg": b"one", "b.jpg": b"two"})
    assert read_file(path / "b.jpg") == b"two"
    before = file_status(path / "b.jpg")
    assert before == file_status(path / "a.jpg") and before.size is None
    write_tar(path, {"c.jpg": b"three"}, mode="a")
    assert read_file(path / "c.jpg") == b"three" and read_file(path / "b.jpg") == b"two"
    assert file_status(path / "b.jpg") != before
    write_tar(tmp_path / "new.tar", {"b.jpg": b"changed"})
    os.replace(tmp_path / "new.tar", path)
    assert read_file(path / "b.jpg") == b"changed" and not file_exists(path / "a.jpg")
    plain = tmp_path / "b.jpg"
    plain.write_bytes(b"1234")
    assert file_status(plain) == (4, plain.stat().st_mtime_ns)


def test_the_indexes_that_a_process_keeps_have_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_INDEXED", 5)
    monkeypatch.setattr(archives, "_indexes", archives._Indexes())
    paths = [write_tar(tmp_path / f"{n}.tar", {f"{m}.jpg": f"{n} {m}" for m in range(2)}) for n in range(4)]
    for _ in range(2):
        for number, path in enumerate(paths):
            assert read_file(path / "1.jpg") == f"{number} 1".encode()
            assert str(path) in archives._indexes.known and len(archives._indexes.known) <= 2
    large = write_tar(tmp_path / "large.tar", {f"{m}.jpg": b"x" for m in range(9)})
    assert read_file(large / "8.jpg") == b"x" and list(archives._indexes.known) == [str(large)]
    write_tar(large, {"new.jpg": b"x"}, mode="a")
    assert read_file(large / "new.jpg") == b"x" and archives._indexes.files == 10


def test_an_archive_is_cut_short_wherever_it_ends_before_its_end_mark(tmp_path):
    whole = write_tar(tmp_path / "a.tar", {"a.jpg": b"x" * 700, LONG: b"y" * 10, "c.jpg": b"z"}).read_bytes()
    end = max(each.offset for each in members_of(tmp_path / "a.tar")) + 512
    cut = tmp_path / "cut.tar"
    for size in [*range(1, end + 512, 128), end, end + 1]:
        cut.write_bytes(whole[:size])
        told = error_of(members_of, cut)
        assert told.startswith(str(cut)) and ": download it again" in told, size
        assert "is cut short after" in told or size < 512, (size, told)
    cut.write_bytes(whole[: end + 512])
    assert len(members_of(cut)) == 3
    cut.write_bytes(whole[: end - 512] + os.urandom(512) + whole[end:])
    assert len(members_of(cut)) == 3  # content has no checksum in a tar archive
    cut.write_bytes(whole[:1536] + b"\xff" * 512 + whole[2048:] * 9)
    assert "is damaged at byte 1,536" in error_of(members_of, cut)
    assert not file_exists(cut / "a.jpg")


def test_the_folders_of_an_archive_are_listed_with_one_reading(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "a.tar", {"x/y/1.jpg": b"", "x/2.jpg": b"", "x/y/z/3.jpg": b"", "4.jpg": b""})
    read, original = [], archives.archive_members
    monkeypatch.setattr(archives, "archive_members", lambda *given: read.append(1) or original(*given))
    wanted = {
        "": ({"4.jpg"}, {"x"}),
        "/x": ({"2.jpg"}, {"y"}),
        "/x/y": ({"1.jpg"}, {"z"}),
        "/x/y/z": ({"3.jpg"}, set()),
        "/no": (set(), set()),
        "/x/2.jpg": (set(), set()),
    }
    assert {name: archives.files_in_archive(f"{path}{name}") for name in wanted} == wanted and len(read) == 1
    write_tar(path, {"no/5.jpg": b""}, mode="a")
    assert archives.files_in_archive(path / "no") == ({"5.jpg"}, set())
    assert archives.files_in_archive(tmp_path) is None


def test_a_read_does_not_go_through_all_indexes(tmp_path, monkeypatch):
    paths = [write_tar(tmp_path / f"{n}.tar", {"a.jpg": b"a"}) for n in range(5)]
    monkeypatch.setattr(archives, "_indexes", archives._Indexes())
    for path in paths:
        read_file(path / "a.jpg")
    monkeypatch.setattr(archives._Index, "__len__", lambda self: pytest.fail("counted again"))
    assert read_file(paths[0] / "a.jpg") == b"a"


def test_what_follows_the_end_mark_is_not_left_out_in_silence(tmp_path):
    first = write_tar(tmp_path / "a.tar", {"a.jpg": b"x" * 700, "b.jpg": b"y"}).read_bytes()
    path = tmp_path / "b.tar"
    for content, end in [
        (first + first, 2560),  # joined by `cat`
        (first[:1536] + bytes(len(first) - 1536) + b"x", 1536),
        (first[:1536] + bytes(4 << 20), 1536),  # an interrupted download into a file of the full size
    ]:
        path.write_bytes(content)
        told = f"{path} has its end mark at byte {end:,} of {len(content):,}, and tar does not read what follows: "
        assert error_of(members_of, path).startswith(told)
    path.write_bytes(first + bytes(1 << 19))  # tar --blocking-factor=1024
    assert len(members_of(path)) == 2
    write_tar(path, {"c.jpg": b"z"}, mode="a")
    assert len(members_of(path)) == 3


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty: download it again, or delete it"),
        (b"<html>404</html>" * 99, "is not a tar archive (it looks like a web page (HTML)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "(it looks like a Git LFS pointer"),
        (b"\xff\x00" * 999, "is not a tar archive, or damaged ("),
        (b"\x1f\x8b\x08" + bytes(999), "is compressed, so its images cannot be read one by one. Run: mv "),
        (b"BZh9" + bytes(999), "bunzip2 "),
        (b"\xfd7zXZ\0" + bytes(999), "unxz "),
        (b"\x28\xb5\x2f\xfd" + bytes(999), "unzstd "),
    ],
)
def test_what_is_no_tar_archive(tmp_path, content, told):
    (tmp_path / "it's.tar").write_bytes(content)
    assert told in error_of(members_of, tmp_path / "it's.tar")


def test_the_program_that_decompresses_archives_is_named():
    assert how_to_decompress("my data/0.tar.gz").endswith("Run: gunzip 'my data'/*.tar.gz")
    assert how_to_decompress(Path("d/0.tar.zst")).endswith("Run: unzstd d/*.tar.zst")
    assert [archive_ending(name) for name in ("a.tar", "a.tgz", "a.zip", "tar")] == [".tar", ".tgz", "", ""]


def test_pictures_in_an_archive_are_opened_and_what_is_wrong_is_named(tmp_path):
    from PIL import Image

    content = io.BytesIO()
    Image.new("RGB", (6, 4), "red").save(content, "PNG")
    files = {
        "sub/a.png": content.getvalue(),
        "empty.jpg": b"",
        "page.jpg": b"<html>404",
        "cut.png": content.getvalue()[:50],
    }
    path = write_tar(tmp_path / "a.tar", files)
    picture = open_picture(path / "sub/a.png")
    assert picture.size == (6, 4) and picture.getpixel((0, 0)) == (255, 0, 0)
    assert find_images([path / "sub/a.png"]).paths == [path / "sub/a.png"]
    for name, told in [
        ("empty.jpg", "the file is empty: download it again or remove it"),
        ("page.jpg", "a web page"),
        ("cut.png", "damaged"),
        ("no.png", "there is no such image: check the path"),
    ]:
        assert told in error_of(open_picture, path / name) and str(path / name) in error_of(open_picture, path / name)
    assert "no such image or folder" in error_of(find_images, [path / "no.png"])
    told = "a tar archive, not an image: name an image in it, such as archive.tar/photo.jpg"
    assert error_of(open_picture, path) == f"{path}: {told}"
    assert f"only a.tar ({told})" in error_of(find_images, [tmp_path])
    os.truncate(write_tar(tmp_path / "cut.tar", files), 700)
    assert "cut.tar is cut short after 700 bytes: download it again" in error_of(
        find_images, [tmp_path / "cut.tar/empty.jpg"]
    )
    disk = Disk()
    assert disk.listing(path) == ({"empty.jpg", "page.jpg", "cut.png"}, set(), {"sub"})
    assert (
        disk.has(path / "sub/a.png") and not disk.has(path / "sub/b.png") and not disk.listing(path / "sub/a.png").files
    )


def test_a_guessed_range_of_values_names_the_file_in_the_archive(tmp_path, capsys, monkeypatch):
    import numpy as np
    from PIL import Image

    from captioning.data import pixel_range

    monkeypatch.setattr(pixel_range, "_shown", set())
    content = io.BytesIO()
    Image.fromarray(np.full((4, 4), 4000, np.uint16)).save(content, "TIFF")
    path = write_tar(tmp_path / "a.tar", {"deep.tif": content.getvalue()})
    open_picture(path / "deep.tif")
    assert capsys.readouterr().err.startswith(f"{path / 'deep.tif'}: 16-bit pixels")
