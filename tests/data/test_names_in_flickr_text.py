"""Names of images in the text files of Flickr8k and Flickr30k: suffixes, case, accents, and two files of captions."""

import unicodedata

import pytest
from miniatures import FLICKR_LISTS, put

from captioning.data import Faults, read_coco_cn, read_flickr_text
from captioning.errors import DataError


def folder_of(root, names, *, listed=None, captioned=None):
    """Write Flickr8k's files with one image per split; the lists and the captions may spell its name differently."""
    listed, captioned = listed or names, captioned or names
    put(root, {f"images/{name}": None for name in names})
    put(root, {FLICKR_LISTS[split]: f"{name}\n" for split, name in zip(("train", "val", "test"), listed, strict=True)})
    lines = "".join(f"{name}#0\ta dog {number}\n" for number, name in enumerate(captioned))
    put(root, {"Flickr8k.token.txt": lines})


def records_of(root, **options):
    return read_flickr_text(root, **{"captions": "Flickr8k.token.txt", "lists": FLICKR_LISTS} | options)


@pytest.mark.parametrize(
    ("names", "listed", "captioned"),
    [
        (["a.JPG", "b.png", "c.jpeg"], None, None),
        (["a.jpg", "b.jpg", "c.jpg"], ["a", "b", "c"], None),
        (["a.jpg", "b.jpg", "c.jpg"], None, ["A.jpg", "b.JPG", "C.JPG"]),
        (["A.jpg", "b.jpg", "c.jpg"], None, ["a.jpg", "b.jpg", "c"]),
        (["\xe9.jpg", "b.jpg", "c.jpg"], [unicodedata.normalize("NFD", "\xe9.jpg"), "b.jpg", "c.jpg"], None),
    ],
)
def test_lists_and_captions_are_matched_whatever_their_spelling(tmp_path, names, listed, captioned, capsys):
    folder_of(tmp_path, names, listed=listed, captioned=captioned)
    records = records_of(tmp_path)
    assert [record.path.name for record in records] == names
    assert [record.captions for record in records] == [(f"a dog {number}",) for number in range(3)]
    assert "left out" not in capsys.readouterr().err


def test_two_names_that_differ_by_case_in_one_file_are_refused(tmp_path):
    folder_of(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], captioned=["a.jpg", "A.jpg", "c.jpg"])
    with pytest.raises(DataError, match=r"token\.txt, line 2: A\.jpg and a\.jpg differ only by case: use one"):
        records_of(tmp_path)


def test_the_second_of_two_files_of_captions_is_named(tmp_path, capsys):
    folder_of(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    put(tmp_path, {"other.txt": "a.jpg#0\tanother dog\n"})
    records = records_of(tmp_path, captions=["none.txt", "Flickr8k.token.txt", "other.txt"])
    assert records[0].captions == ("a dog 0",)
    assert "token.txt is read, and other.txt beside it is not: one file is enough" in capsys.readouterr().err


def test_repeated_and_silent_images_of_coco_cn_are_reported(tmp_path, capsys):
    names = ["COCO_train2014_000000000009", "COCO_val2014_000000000042", "COCO_val2014_000000000043"]
    put(tmp_path, {f"{name.split('_')[1]}/{name}.jpg": None for name in names})
    put(tmp_path, {f"coco-cn_{split}.txt": f"{name}\n" for split, name in zip(FLICKR_LISTS, names, strict=True)})
    lines = f"{names[0]}#0\t\u4e00\u53ea\u72d7\n" * 2 + f"{names[1]}#0\t\u4e00\u53ea\u732b\n"
    put(tmp_path, {"imageid.human-written-caption.txt": lines})
    assert [len(record.captions) for record in read_coco_cn(tmp_path)] == [2, 1]
    printed = capsys.readouterr().err
    assert f"1 number of a caption in more than one line (first: {names[0]}#0, 2 lines); all lines are used" in printed
    assert f"1 image without captions left out ({names[2]}, …)" in printed
    faults = Faults()
    read_coco_cn(tmp_path, faults=faults)
    assert [item["file"] for item in faults.noted["captions with the same number"]] == [f"{names[0]}#0"]
