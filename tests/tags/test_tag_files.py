"""Tags of other programs are read, and every fault names the file, the entry and what is expected."""

import json

import pytest

from captioning.errors import DataError
from captioning.tags import read_tags
from captioning.tags.tag_files import COCO_IDS


@pytest.fixture
def written(tmp_path):
    def write(content):
        (tmp_path / "tags.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path / "tags.json"

    return write


def test_tags_per_image(written):
    first = {"noun": " Fire  Hydrant", "confidence": 0.25}
    second = {"noun": "zebra", "confidence": 1, "box": [10, 20.5, 30, 40], "of": "no use"}
    found = read_tags(written({"a.jpg": [first, second], "7": []}))
    assert list(found) == ["a.jpg", "7"] and found["7"] == []
    assert found["a.jpg"] == [("zebra", 1.0, (10, 20.5, 40, 60.5), None), ("fire hydrant", 0.25, None, None)]
    assert [tag.noun for tag in read_tags(written({"a": [first, second]}), min_confidence=0.3)["a"]] == ["zebra"]


def test_results_of_a_detector(written):
    entries = [
        {"image_id": 42, "category_id": 90, "score": 0.2, "bbox": [0, 0, 5, 5]},
        {"image_id": 42, "category_id": 24, "score": 0.9},
        {"image_id": "b.jpg", "category_id": 1, "score": 0.5, "bbox": None},
    ]
    found = read_tags(written(entries))
    assert found == {
        "42": [("zebra", 0.9, None, None), ("toothbrush", 0.2, (0, 0, 5, 5), None)],
        "b.jpg": [("person", 0.5, None, None)],
    }
    assert len(COCO_IDS) == 80 and read_tags(written([])) == {}


def test_ids_are_those_of_cocos_instances(shared_dir):
    content = json.loads((shared_dir / "coco-sample" / "annotations" / "instances_train2017.json").read_text())
    from captioning.tags.nouns import coco_words

    listed = [(each["id"], each["name"]) for each in content["categories"]]
    assert listed == list(zip(COCO_IDS, coco_words(), strict=True))


ZEBRA = {"noun": "zebra", "confidence": 0.9}
RESULT = {"image_id": 1, "category_id": 24, "score": 0.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"cannot read .*tags\.json as JSON"),
        ("3", r"tags\.json: the tags must be .* or a list of COCO's detection results, not 3"),
        ({"a.jpg": "zebra"}, r"tags\.json, 'a\.jpg': must be a list of tags .*not 'zebra'"),
        ({"a.jpg": ["zebra"]}, r"tags\.json, 'a\.jpg', tag 0: the key 'noun' is missing"),
        ({"a.jpg": [ZEBRA, {"noun": 3, "confidence": 1}]}, r"'a\.jpg', tag 1: 'noun' must be text, not 3"),
        ({"a.jpg": [{"noun": " ", "confidence": 1}]}, r"'noun' is empty: write the noun"),
        ({"a.jpg": [{"noun": "zebra"}]}, r"the key 'confidence' is missing: add it, from 0 to 1"),
        ({"a.jpg": [{"noun": "a", "confidense": 1}]}, r"'confidence' is missing: rename 'confidense'"),
        ({"a.jpg": [{"noun": "zebra", "confidence": 93}]}, r"'confidence' must be a number from 0 to 1, not 93"),
        ({"a.jpg": [{"noun": "zebra", "confidence": True}]}, r"'confidence' must be a number from 0 to 1, not True"),
        ({"a.jpg": [{"noun": "zebra", "confidence": None}]}, r"'confidence' must be a number from 0 to 1, not null"),
        ({"a.jpg": [ZEBRA | {"box": [1, 2, 3]}]}, r"tag 0: 'box' must be \[x, y, width, height\] in pixels, not"),
        ({"a.jpg": [ZEBRA | {"box": [1, 2, -3, 4]}]}, r"'box' must be \[x, y, width, height\] in pixels"),
        ('{"a.jpg": [{"noun": "a", "confidence": NaN}]}', r"tags\.json"),
        ([3], r"tags\.json, entry 0: must be a detection .*, not 3"),
        ([RESULT, RESULT | {"category_id": 12}], r"entry 1: 'category_id' must be one of the 80 ids .*, not 12"),
        ([RESULT | {"score": "0.5"}], r"entry 0: 'score' must be a number from 0 to 1, not '0\.5'"),
        ([RESULT | {"image_id": 1.5}], r"entry 0: 'image_id' must be a whole number, not 1\.5"),
        ([RESULT | {"bbox": "0 0 1 1"}], r"entry 0: 'bbox' must be \[x, y, width, height\] in pixels"),
        ([{"category_id": 24, "score": 0.5}], r"entry 0: the key 'image_id' is missing"),
    ],
)
def test_faults_are_named(written, content, message):
    with pytest.raises(DataError, match=message):
        read_tags(written(content))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.json: there is no such file"):
        read_tags(tmp_path / "none.json")
