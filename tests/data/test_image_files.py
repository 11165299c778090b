"""Which files of a folder are images: decided by content; everything else is named with a reason."""

import io
import os
from importlib.util import find_spec

import pytest
from PIL import Image, features

from captioning.data import find_images, list_pictures, open_picture, read_picture
from captioning.data.image_files import holds_image, image_kind
from captioning.errors import DataError

PICTURE = Image.new("RGB", (40, 30), "red")
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
without_heic = pytest.mark.skipif(find_spec("pillow_heif") is not None, reason="pillow_heif is there")


def content(kind: str) -> bytes:
    file = io.BytesIO()
    PICTURE.save(file, kind)
    return file.getvalue()


JPEG = content("JPEG")


def reasons(folder) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): reason for path, reason in find_images([folder]).left_out}


def test_content_decides_and_not_the_suffix(tmp_path):
    """The JPEG and other files as users have them: only three of these have a suffix that used to count."""
    names = [
        "IMG_1.JPE",
        "IMG_2.JPEG",
        "a.jfif",
        "b.jpg",
        "c",
        "d.dat",
        "e.pjpeg",
        "f.PNG",
        "g.jpg!d",
        "h.jpg?w=9",
        "ü 1",
    ]
    for name in names:
        (tmp_path / name).write_bytes(JPEG)
    assert [path.name for path in list_pictures([tmp_path])] == names and reasons(tmp_path) == {}
    assert {open_picture(path).getpixel((3, 3)) for path in list_pictures([tmp_path])} == {(254, 0, 0)}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", pytest.param("AVIF", marks=needs_avif)])
def test_every_format_is_known_by_its_first_bytes(tmp_path, kind):
    (tmp_path / "scan").write_bytes(content(kind))
    assert image_kind(content(kind)) == kind and list_pictures([tmp_path]) == [tmp_path / "scan"]
    assert open_picture(tmp_path / "scan").size == (40, 30)


def test_what_is_no_image_is_named_with_its_reason(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "absent.jpg")
    files = {
        ".DS_Store": b"\0\0",
        "BMW.txt": b"BM is no bitmap here, whatever the first two letters are",
        "README": b"Photos of 2024",
        "Thumbs.db": b"\xd0\xcf\x11\xe0" + bytes(range(200)),
        "captions.json": b'[{"image": "a.jpg"}]',
        "clip.mp4": b"\0\0\0\x18ftypisom\0\0\0\0isomavc1" + bytes(64),
        "cut.jpg.part": JPEG[:300],
        "empty.txt": b"",
        "icon.svg": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
        "layers.psd": b"8BPS" + bytes(64),
        "new.jxl": b"\xff\x0a" + bytes(64),
        "photo.jpg": JPEG,
        "photo.nef": content("TIFF"),
        "shot.crdownload": JPEG,
        "old.jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64),
        "page.html": b"<!DOCTYPE html><html></html>",
    }
    for name, made in files.items():
        (tmp_path / name).write_bytes(made)
    save = "which cannot be read: save it as"
    assert find_images([tmp_path]).paths == [tmp_path / "photo.jpg"]
    assert reasons(tmp_path) == {
        ".DS_Store": "hidden",
        "BMW.txt": "not an image: plain text",
        "README": "not an image: plain text",
        "Thumbs.db": "not an image",
        "captions.json": "not an image: JSON text",
        "clip.mp4": "not an image",
        "cut.jpg.part": "an unfinished download (.part)",
        "empty.txt": "not an image: an empty file",
        "icon.svg": f"a vector drawing (SVG), {save} PNG",
        "layers.psd": f"Photoshop, {save} JPEG or PNG",
        "new.jxl": f"JPEG XL, {save} JPEG or PNG",
        "nowhere.jpg": "a broken link",
        "old.jp2": f"JPEG 2000, {save} JPEG or PNG",
        "page.html": "not an image: a web page (HTML): the server sent it instead of the file",
        "photo.nef": f"a camera's raw file (.nef), {save} JPEG",
        "pipe": "not a regular file",
        "shot.crdownload": "an unfinished download (.crdownload)",
    }


@without_heic
def test_heic_is_named_with_the_extra_to_install(tmp_path):
    needed = "HEIC, which needs one more package: pip install 'captioning[heic]'"
    for name in ("a.heic", "b.jpg"):
        (tmp_path / name).write_bytes(HEIC)
        with pytest.raises(DataError) as caught:
            open_picture(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {needed}"
    (tmp_path / "c.jpg").write_bytes(JPEG)
    assert reasons(tmp_path) == {"a.heic": needed, "b.jpg": needed}
    with pytest.raises(DataError, match=r"^the file is HEIC, which needs one more package: pip install"):
        read_picture(HEIC, name="the file", max_pixels=99)


def test_avif_without_pillows_part(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(64))
    (tmp_path / "c.jpg").write_bytes(JPEG)
    assert reasons(tmp_path) == {"a.avif": "AVIF, which this Pillow cannot read: pip install --upgrade 'pillow>=11.3'"}


def test_a_file_that_is_called_an_image_is_kept_so_that_opening_it_is_an_error(tmp_path):
    made = {"a.jpg": JPEG, "cut": JPEG[:300], "empty.JPG": b"", "page.png": b"<html>", "zeros.heic": bytes(99)}
    for name, each in made.items():
        (tmp_path / name).write_bytes(each)
    found = find_images([tmp_path])
    assert [path.name for path in found.paths] == list(made) and found.left_out == []
    expected = {
        "cut": "damaged or cut short",
        "empty.JPG": "the file is empty",
        "page.png": "not an image .it looks like a web page",
        "zeros.heic": "not an image .it looks like a file of zeros",
    }
    for name, message in expected.items():
        with pytest.raises(DataError, match=f"{name}: {message}"):
            open_picture(tmp_path / name)


def test_sub_folders_are_included_in_order(tmp_path):
    for name in ("top.jpg", "cats/1.jpg", "dogs/1.jpg", "dogs/deep/1.jpg", "dogs/deep/er/0", "a.png/h.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(JPEG)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.jpg").write_bytes(JPEG)
    (tmp_path / "dogs" / "._1.jpg").write_bytes(b"Mac")
    order = ["a.png/h.tif", "cats/1.jpg", "dogs/1.jpg", "dogs/deep/1.jpg", "dogs/deep/er/0", "top.jpg"]
    assert [path.relative_to(tmp_path).as_posix() for path in list_pictures([tmp_path])] == order
    assert reasons(tmp_path) == {".git": "hidden", "dogs/._1.jpg": "hidden"}


def test_links(tmp_path):
    """A link to an image is that image; links to folders are named, so that no cycle has no end."""
    photos, others = tmp_path / "photos", tmp_path / "others"
    (photos / "deep").mkdir(parents=True)
    others.mkdir()
    (others / "a.jpg").write_bytes(JPEG)
    (photos / "linked.jpg").symlink_to(others / "a.jpg")
    (photos / "deep" / "up").symlink_to(photos, target_is_directory=True)
    (photos / "out").symlink_to(others, target_is_directory=True)
    (photos / "self").symlink_to(photos / "self")
    told = "a link to a folder; name that folder to include it"
    assert list_pictures([photos]) == [photos / "linked.jpg"]
    assert reasons(photos) == {"deep/up": told, "out": told, "self": "a broken link"}
    assert list_pictures([photos / "out"]) == [photos / "out" / "a.jpg"]


def test_results_are_not_captioned_in_turn(tmp_path):
    for name in ("a.jpg", "runs/now/a.png", "runs/before/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(JPEG)
    (tmp_path / "runs" / "before" / "captions.json").write_text('[{"image_id": 0, "caption": "a", "log_prob": -1.0}]')
    found = find_images([tmp_path], exclude=[tmp_path / "runs" / "now"])
    assert found.paths == [tmp_path / "a.jpg"]
    assert [reason for _, reason in found.left_out] == [
        "results of captioning-caption",
        "the output folder",
    ]
    assert find_images([tmp_path / "runs" / "before"]).paths == [tmp_path / "runs" / "before" / "a.png"]  # as asked


def test_a_file_that_is_named_is_taken_as_it_is(tmp_path):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "b.jpg").write_bytes(JPEG)
    files = [tmp_path / "notes.txt", tmp_path / "b.jpg"]
    assert list_pictures([str(files[0]), tmp_path, files[1]]) == [files[0], files[1], files[1]]


def test_nothing_to_list(tmp_path):
    with pytest.raises(DataError, match="no images given"):
        list_pictures([])
    with pytest.raises(DataError, match=f"{tmp_path}: no images in this folder .it is empty.: add images"):
        list_pictures([tmp_path])
    for number in range(7):
        (tmp_path / f"{number}.txt").write_text("words")
    with pytest.raises(DataError, match=r"gone\.jpg: there is no such image or folder"):
        list_pictures([tmp_path / "0.txt", tmp_path / "gone.jpg"])
    with pytest.raises(DataError) as caught:
        list_pictures([tmp_path])
    listed = ", ".join(f"{number}.txt (not an image: plain text)" for number in range(5))
    assert (
        str(caught.value)
        == f"{tmp_path}: no images in this folder, only {listed}, 2 more: add images, or choose another folder"
    )


def test_files_beside_a_data_set(tmp_path):
    for name, made in {"a": JPEG, "b.jpg": b"", "c.txt": b"words"}.items():
        (tmp_path / name).write_bytes(made)
    assert [holds_image(tmp_path / name) for name in ("a", "b.jpg", "c.txt", "absent")] == [True, True, False, False]
