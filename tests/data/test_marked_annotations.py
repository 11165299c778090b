"""VizWiz: rejected and precanned annotations are neither learnt nor references, and are counted."""

import json

import pytest

from captioning.data import counted_annotations, left_out_notice, mark_of
from captioning.data.readers import read_coco_files
from captioning.errors import DataError


def annotation(number, caption, rejected=False, precanned=False):
    return {"id": 0, "image_id": number, "caption": caption, "is_rejected": rejected, "is_precanned": precanned}


def test_a_mark_that_is_kept_does_not_hide_another_one():
    both = annotation(1, "a", rejected=True, precanned=True)
    assert mark_of(both, "here", keep=["rejected"]) == "precanned"
    assert mark_of(both, "here", keep=["rejected", "precanned"]) is None
    assert mark_of(annotation(1, "a", rejected=True), "here", keep=["precanned"]) == "rejected"


def test_both_marks_are_left_out_and_an_annotation_with_both_is_counted_once():
    found = [("0", annotation(1, "a")), ("1", annotation(1, "b", rejected=True, precanned=True))]
    found += [("2", annotation(1, "c", precanned=True)), ("3", {"image_id": 1, "caption": "d"})]
    kept, left_out = counted_annotations(found)
    assert [entry["caption"] for _, entry in kept] == ["a", "d"]
    assert left_out == {"rejected": 1, "precanned": 1}
    assert left_out_notice(left_out, 4, "val.json") == (
        "val.json: 2 of 4 annotations are left out, as the VizWiz API does: 1 rejected ('is_rejected') and 1 precanned "
        "('is_precanned')"
    )
    assert left_out_notice(counted_annotations(found[:1])[1], 1, "val.json") is None


@pytest.mark.parametrize("value", [True, 1, 1.0, "true", "True", "1"])
def test_the_ways_to_write_true(value):
    assert mark_of({"is_rejected": value}, "here") == "rejected"


@pytest.mark.parametrize("value", [False, 0, 0.0, None, "false", "False", "0", ""])
def test_the_ways_to_write_false(value):
    assert mark_of({"is_rejected": value}, "here") is None


@pytest.mark.parametrize("value", ["maybe", 2, [], {}, "NaN"])
def test_what_is_neither_is_refused(value):
    with pytest.raises(DataError, match=r"^here: 'is_precanned' must be true or false, not "):
        mark_of({"is_precanned": value}, "here")


def test_the_reader_learns_none_of_them_and_says_how_many(tmp_path, capsys):
    marked = [annotation(1, "a cat"), annotation(1, "blurred", rejected=True), annotation(2, "none", precanned=True)]
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2)]
    (tmp_path / "train").mkdir()
    (tmp_path / "train/1.jpg").touch()
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations/captions_train.json"
    file.write_text(json.dumps({"images": images, "annotations": marked}))
    assert [(record.image_id, record.captions) for record in read_coco_files(tmp_path)] == [(1, ("a cat",))]
    assert capsys.readouterr().err == (
        f"{file}: 2 of 3 annotations are left out, as the VizWiz API does: 1 rejected ('is_rejected') and 1 precanned "
        "('is_precanned'); also left out, because of no other caption: 1 image\n"
    )
