"""A file that cannot be opened: the message says whether the file or its folder is missing."""

from pathlib import Path

import pytest
from PIL import Image

from captioning.data import open_picture, read_json
from captioning.data.corpus import read_texts
from captioning.data.instances import _words
from captioning.data.tables import table_rows
from captioning.errors import DataError
from captioning.io import counted, unopened
from captioning.metrics import from_csv

OPENERS = {
    "JSON": (read_json, "json", "check the path"),
    "table of captions": (lambda path: list(table_rows(path)), "csv", "add a table whose first line is image,caption "),
    "table of scores": (from_csv, "csv", "check the path"),
    "words": (lambda path: _words(path, set()), "yaml", "check the path"),
    "texts": (lambda path: read_texts([str(path)]), "txt", "correct data.files"),
}


@pytest.mark.parametrize("kind", OPENERS)
def test_a_missing_file_or_folder_is_named(tmp_path, kind):
    read, suffix, advice = OPENERS[kind]
    missing, away, folder = tmp_path / f"x.{suffix}", tmp_path / "no" / "where" / f"x.{suffix}", tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(DataError) as caught:
        read(missing)
    assert str(caught.value).startswith(f"{missing}: there is no such file: {advice}")
    with pytest.raises(DataError, match=rf"^{away}: there is no folder {tmp_path / 'no'}: (?:check|correct) "):
        read(away)
    with pytest.raises(DataError, match=f"^{folder}: this is a folder: give a file$"):
        read(folder)


def test_a_missing_table_lists_the_others(tmp_path):
    (tmp_path / "b.csv").write_text("image,caption\n")
    with pytest.raises(DataError) as caught:
        list(table_rows(tmp_path / "captions.csv"))
    assert str(caught.value) == (
        f"{tmp_path}/captions.csv: there is no such file: add a table whose first line is image,caption or "
        "image,caption,split, or choose one of b.csv with data.reader.file=NAME"
    )
    with pytest.raises(DataError, match=r"there is no folder .*nofolder: check data\.root$"):
        list(table_rows(tmp_path / "nofolder" / "captions.csv"))


def test_messages_of_single_paths(tmp_path):
    gone = FileNotFoundError()
    assert unopened("nosuch.json", gone) == "nosuch.json: there is no such file: check the path"
    assert unopened(tmp_path / "x", gone, advice="do") == f"{tmp_path}/x: there is no such file: do"
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "x.json"
    assert unopened(inside, NotADirectoryError()) == f"{inside}: there is no folder {tmp_path}/file: check the path"
    away = tmp_path / "a" / "b"
    assert unopened(away, gone, folder_advice="do") == f"{away}: there is no folder {tmp_path}/a: do"
    for other in (PermissionError(), ValueError(), UnicodeDecodeError("utf-8", b"", 0, 1, "")):
        assert unopened(Path("x"), other) == ""


def test_counts_have_a_singular():
    assert [counted(number, "image") for number in (0, 1, 2, 1000)] == [
        "0 images",
        "1 image",
        "2 images",
        "1,000 images",
    ]


@pytest.mark.parametrize(
    ("name", "advice"), [("notes.txt", "give an image instead"), ("photo.JPG", "download it again or remove it")]
)
def test_a_text_is_not_downloaded_again(tmp_path, name, advice):
    """A text that is named like a photo may be a server's error."""
    (tmp_path / name).write_text("a few notes")
    with pytest.raises(DataError) as caught:
        open_picture(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: not an image (it looks like plain text): {advice}"
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    assert open_picture(tmp_path / "x.png").size == (8, 8)
