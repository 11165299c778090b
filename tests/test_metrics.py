"""Scores against the official ones, and faults."""

import json

import pytest

from captioning.errors import DataError
from captioning.metrics import score


@pytest.mark.parametrize("size", [200, pytest.param(2500, marks=pytest.mark.slow)])
def test_raw_captions_score_as_the_official_scorers_say(shared_dir, size):
    def read(name):
        return json.loads((shared_dir / "metrics" / f"coco_val2017_{size}_{name}.json").read_text())

    references: dict[int, list[str]] = {}
    for annotation in read("references")["annotations"]:
        references.setdefault(annotation["image_id"], []).append(annotation["caption"])
    captions = {result["image_id"]: result["caption"] for result in read("captions")}
    scores, official = score(references, captions), read("scores")
    assert scores == {name: pytest.approx(official[name], abs=1e-4) for name in scores}
    assert list(scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]


def test_the_order_of_captions_does_not_matter():
    references = {1: ["a red dog runs fast"], 2: ["two cats sit here now", "cats"]}
    captions = {1: "A red dog runs.", 2: "two cats"}
    assert score(references, captions) == score(references, dict(reversed(captions.items())))


@pytest.mark.parametrize(
    ("references", "captions", "message"),
    [
        ({}, {}, "nothing to score"),
        ({1: ["a"], 2: ["b"]}, {1: "a"}, r"1 images without a caption.*ids 2"),
        ({1: ["a"]}, {1: "a", 3: "c"}, r"1 images without references.*ids 3"),
        ({1: []}, {1: "a"}, r"empty list of references.*ids 1"),
    ],
)
def test_images_must_agree(references, captions, message):
    with pytest.raises(DataError, match=message):
        score(references, captions)
