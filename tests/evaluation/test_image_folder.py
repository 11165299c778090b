"""The files of images that a score looks at, found by the names in the annotations."""

import pytest

from captioning.errors import ConfigError, DataError
from captioning.evaluation import find_scored_images
from captioning.evaluation.identity import Matched


def matched(**names):
    """Captions of these images, with file names where they are not None."""
    texts = {key: ["a dog"] for key in names}
    return Matched(texts, texts, {key: name for key, name in names.items() if name}, "image id", len(names), 0)


def found(folder, names, *, needed=True):
    return find_scored_images(matched(**names), str(folder), needed=needed, files=("r.json", "a.json"))


@pytest.fixture
def folder(tmp_path):
    for name in ("1.jpg", "cats/2.jpg", "dogs/3.jpg", "cats/same.jpg", "dogs/same.jpg", "dogs/deep/4.jpg"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"x")
    (tmp_path / "secret.jpg").write_bytes(b"x")
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("1.jpg", "1.jpg"),
        ("cats/2.jpg", "cats/2.jpg"),
        ("cats\\2.jpg", "cats/2.jpg"),
        ("val2014/1.jpg", "1.jpg"),  # the folder itself is val2014
        ("3.jpg", "dogs/3.jpg"),  # the folder of all splits
        ("dogs/same.jpg", "dogs/same.jpg"),
        ("coco/dogs/same.jpg", "dogs/same.jpg"),
        ("/data/coco/dogs/same.jpg", "dogs/same.jpg"),
        ("../coco/cats/2.jpg", "cats/2.jpg"),
        ("C:\\data\\cats\\2.jpg", "cats/2.jpg"),
        ("/data/coco/1.jpg", "1.jpg"),
        ("../1.jpg", "1.jpg"),
    ],
)
def test_a_name_is_found_with_without_and_below_folders(folder, name, file):
    assert found(folder, {"x": name, "y": "dogs/deep/4.jpg"}) == {
        "x": folder / file,
        "y": folder / "dogs/deep/4.jpg",
    }


def test_a_file_outside_the_folder_is_never_read(folder):
    for name in ("../secret.jpg", str(folder.parent / "secret.jpg"), "cats/../../secret.jpg"):
        with pytest.raises(DataError, match="does not have 1 of 1 image: "):
            found(folder, {"x": name})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            {"x": "1.jpg", "y": "9.jpg", "z": "8.jpg"},
            r"^images=.*images does not have 2 of 3 images: 9.jpg, 8.jpg. Give ",
        ),
        ({"x": "deep/4.jpg"}, r"does not have 1 of 1 image: deep/4.jpg"),
        ({"x": "same.jpg"}, r"two files of the same name: .*cats/same.jpg and .*dogs/same.jpg. Give the folder of one"),
        (
            {"x": "a/1.jpg", "y": "b/1.jpg"},
            r"does not have a/1.jpg, and .*images/1.jpg may be another image: 2 ",
        ),
        (
            {"x": "cats/2.jpg", "y": "c/2.jpg"},
            r"does not have c/2.jpg, and .*cats/2.jpg may be another image: 2 ",
        ),
        ({"x": "1.jpg", "y": "b/1.jpg"}, r"does not have b/1.jpg, and .*images/1.jpg may be another image: 2 "),
        (
            {"x": "a/cats/2.jpg", "y": "b/cats/2.jpg"},
            r"does not have a/cats/2.jpg, .* 2 images are named cats/2.jpg",
        ),
        ({"x": "1.jpg", "y": "1.jpg"}, r"^r.json and a.json: image ids x, y have the same file, .*1.jpg. Give each"),
        ({"x": "cats/2.jpg", "y": "./cats/2.jpg"}, r"image ids x, y have the same file, .*cats/2.jpg. Give each"),
        ({"x": "1.jpg", "y": "."}, r"^r.json and a.json: \'.\' is not the name of a file: correct the \'file_name\'"),
        ({"x": "a" * 252 + ".jpg"}, r"^r.json and a.json: \'a+.* is not the name of a file"),
        (
            {"x": "1.jpg", "y": None},
            r"^r.json and a.json: 1 of 2 images without a file name.*: image ids y. Add \'file_name\'",
        ),
    ],
)
def test_what_is_not_found_is_one_error(folder, names, message):
    with pytest.raises(DataError, match=message):
        found(folder, names)


def test_a_folder_is_there_and_needed(folder):
    with pytest.raises(DataError, match=r"images=.*none: there is no such folder"):
        found(folder / "none", {"x": "1.jpg"})
    with pytest.raises(ConfigError, match=r"used only by scores that look at the images: add metrics.clipscore=true"):
        found(folder, {"x": "1.jpg"}, needed=False)
    for needed in (True, False):
        assert find_scored_images(matched(x="1.jpg"), None, needed=needed, files=("r", "a")) is None


def test_a_file_in_the_folder_and_one_below_are_two(folder):
    (folder / "dogs" / "1.jpg").write_bytes(b"y")
    assert found(folder, {"x": "1.jpg"}) == {"x": folder / "1.jpg"}
    with pytest.raises(DataError, match=r"two files of the same name: .*images/1.jpg and .*dogs/1.jpg"):
        found(folder, {"x": "val2014/1.jpg"})
