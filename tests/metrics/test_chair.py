"""CHAIR, and precision and recall of categories: counts and scores by hand, images without objects, resamples."""

import math

import numpy as np
import pytest

from captioning.errors import DataError
from captioning.evaluation import (
    compared,
    describe_comparison,
    describe_groups,
    describe_scores,
    differences,
    score_groups,
)
from captioning.metrics import LOWER_IS_BETTER, AnnotatedObjects, Scorer, compile_phrases, from_csv, to_csv
from captioning.metrics.chair import UNDEFINED, count_objects, shares_of

WORDS = {
    "person": ["person", "people", "man", "woman", "women"],
    "dog": ["dog"],
    "hot dog": ["hot dog"],
    "cat": ["cat"],
    "bus": ["bus"],
    "boat": ["boat"],
    "dining table": ["table"],
    "nothing": ["bus stop"],
}
REFERENCES = {
    1: ["A man eats a hot dog.", "people at a table"],
    2: ["a dog runs", "a brown dog"],
    3: ["the sea"],
    4: ["a woman"],
}
CAPTIONS = {
    1: "a man with two hot dogs and a dog",  # the hot dogs are one mention of "hot dog" and no dog
    2: "a dog and a dog and a cat and cats",  # two mentions of "cat", both hallucinated
    3: "the blue sea",
    4: "two women at a bus stop",
}
ANNOTATED = {1: {"person", "hot dog"}, 2: set(), 3: {"boat"}, 4: {"person"}}
OBJECTS = AnnotatedObjects(ANNOTATED, compile_phrases(WORDS))
# Per image: hallucinated mentions, mentions, captions with one, captions; and so on as `count_objects` says.
COUNTS = {
    "CHAIR": [[1, 3, 1, 1], [2, 4, 1, 1], [0, 0, 0, 1], [0, 1, 0, 1]],
    "Object": [[2, 3, 2], [0, 2, 0], [0, 0, 1], [1, 1, 1]],
    "Named": [[2, 3, 3, 1, 2], [1, 2, 1, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 0, 0]],
}
SCORES = {
    "CHAIR-i": 3 / 8,
    "CHAIR-s": 2 / 4,
    "Object-precision": 3 / 6,
    "Object-recall": 3 / 4,
    "Named-precision": 4 / 6,
    "Named-recall": 4 / 5,
    "Named-recall-no-person": 2 / 3,
}
PER_IMAGE = {
    "CHAIR-i": [1 / 3, 1 / 2, None, 0],
    "CHAIR-s": [1, 1, 0, 0],
    "Object-precision": [2 / 3, 0, None, 1],
    "Object-recall": [1, None, 0, 1],
    "Named-precision": [2 / 3, 1 / 2, None, 1],
    "Named-recall": [2 / 3, 1, None, 1],
    "Named-recall-no-person": [1 / 2, 1, None, None],
}
ABOUT = {"data": "coco", "split": "val", "decoding": "beam5"}


@pytest.fixture(scope="module")
def report():
    return Scorer(bootstrap=200)(REFERENCES, CAPTIONS, objects=OBJECTS)


def test_counts_by_hand(report):
    references = {key: [text.lower().strip(".").split() for text in texts] for key, texts in REFERENCES.items()}
    found = count_objects(references, {key: text.split() for key, text in CAPTIONS.items()}, OBJECTS)
    assert {family: counts.tolist() for family, counts in found.items()} == COUNTS
    assert {family: report.table.counts[family].tolist() for family in COUNTS} == COUNTS


def test_scores_by_hand(report):
    assert {name: report.scores[name] for name in UNDEFINED} == pytest.approx(SCORES, abs=1e-12)
    for name, wanted in PER_IMAGE.items():
        values = [None if math.isnan(value) else value for value in report.table.values[name].tolist()]
        assert values == pytest.approx(wanted, abs=1e-12)
    plain = Scorer(bootstrap=0)(REFERENCES, CAPTIONS)
    assert {name: value for name, value in report.scores.items() if name not in SCORES} == plain.scores
    assert not plain.table.values.keys() & SCORES.keys() and not plain.models and not plain.unavailable


def test_references_and_annotations_each_excuse_a_mention():
    def chair(caption, references=("nothing here",), annotated=()):
        objects = AnnotatedObjects({1: annotated}, OBJECTS.phrases)
        found = count_objects({1: [text.split() for text in references]}, {1: caption.split()}, objects)
        return shares_of("CHAIR", found["CHAIR"])[0].tolist()

    assert chair("a dog") == [1, 1]
    assert chair("a dog", annotated=["dog"]) == chair("a dog", ["two dogs"]) == [0, 0]
    assert chair("a dog", ["a hot dog"], ["hot dog"]) == [1, 1]
    assert chair("a hot dog", ["a dog"], ["dog"]) == [1, 1]
    assert chair("dogs and people", ["a woman"]) == [1 / 2, 1]


def test_the_table_is_written_with_blank_cells_and_read_again(report, tmp_path):
    (tmp_path / "per_image.csv").write_text(to_csv(report.table), encoding="utf-8")
    read = from_csv(tmp_path / "per_image.csv")
    assert read.values.keys() == report.table.values.keys()
    for name, values in report.table.values.items():
        np.testing.assert_allclose(read.values[name], values, rtol=1e-9)
    assert {family: read.counts[family].tolist() for family in COUNTS} == COUNTS
    assert {name: total[0] for name, total in read.totals().items() if name in SCORES} == pytest.approx(SCORES)
    (header, row, *_) = to_csv(report.table).splitlines()
    where = header.split(",").index("CIDEr")
    for column, name in ((where, "CIDEr"), (header.split(",").index("CHAIR:0"), "CHAIR:0")):
        cells = row.split(",")
        cells[column] = ""
        (tmp_path / "per_image.csv").write_text(f"{header}\n{','.join(cells)}\n", encoding="utf-8")
        with pytest.raises(DataError, match="a number is not finite"):
            from_csv(tmp_path / "per_image.csv")
        assert name in header
    short = "image_id,caption,CHAIR-i,CHAIR-s,CHAIR:0,CHAIR:1,CHAIR:2\n1,a,0,0,0,1,0\n"
    (tmp_path / "per_image.csv").write_text(short, encoding="utf-8")
    with pytest.raises(DataError, match="3 columns of counts for 2 scores of CHAIR"):
        from_csv(tmp_path / "per_image.csv")


def test_resamples_add_the_counts_of_their_images(report):
    random = np.random.default_rng(1)
    weights = np.stack([np.bincount(random.integers(0, 4, 4), minlength=4) for _ in range(30)]).astype(float)
    totals = report.table.totals(weights)
    hallucinated, mentions = weights @ [1, 2, 0, 0], weights @ [3, 4, 0, 1]
    for value, above, below in zip(totals["CHAIR-i"], hallucinated, mentions, strict=True):
        assert value == pytest.approx(above / below) if below else math.isnan(value)
    assert totals["CHAIR-s"].tolist() == (weights @ [1, 1, 0, 0] / 4).tolist()
    for name in SCORES:
        low, high = report.intervals[name]
        assert 0 <= low <= report.scores[name] <= high <= 1


def test_scores_without_any_object_are_not_available():
    captions = dict.fromkeys(REFERENCES, "the sea")
    found = Scorer(bootstrap=20)(REFERENCES, captions, objects=OBJECTS)
    undefined = {"CHAIR-i", "Object-precision", "Named-precision"}
    assert found.unavailable == dict.fromkeys(undefined, "no caption names an object")
    assert SCORES.keys() - found.scores.keys() == SCORES.keys() - found.intervals.keys() == undefined
    assert [found.scores[name] for name in ("CHAIR-s", "Object-recall", "Named-recall")] == [0, 0, 0]
    printed = describe_scores(found, ABOUT, extra={})
    assert f"  {'CHAIR-i':<24}not available: no caption names an object" in printed and "nan" not in printed
    nowhere = Scorer(bootstrap=0)({1: ["the sea"]}, {1: "a dog"}, objects=AnnotatedObjects({1: set()}, OBJECTS.phrases))
    assert nowhere.scores["CHAIR-i"] == nowhere.scores["CHAIR-s"] == 1
    assert nowhere.unavailable == {name: UNDEFINED[name] for name in UNDEFINED if "recall" in name}


def test_the_words_are_english():
    found = Scorer(tokenizer="unicode", bootstrap=0)(REFERENCES, CAPTIONS, objects=OBJECTS)
    assert found.unavailable == {"CHAIR": "it finds objects by English words, and the tokens are those of unicode"}
    assert not found.scores.keys() & SCORES.keys() and not found.models


def test_an_image_without_an_entry_is_an_error():
    with pytest.raises(DataError, match=r"^'objects' lacks 3 images, such as image id 2: add their categories$"):
        Scorer()(REFERENCES, CAPTIONS, objects=AnnotatedObjects({1: set()}, OBJECTS.phrases))


def test_objects_are_known_by_their_categories_and_words(report):
    renamed = AnnotatedObjects({f"image {key}": own for key, own in reversed(ANNOTATED.items())}, OBJECTS.phrases)
    mark = report.models["CHAIR"]
    assert mark.startswith("annotated objects ") and renamed.describe(renamed.categories) == mark
    assert AnnotatedObjects(ANNOTATED | {3: set()}, OBJECTS.phrases).describe(ANNOTATED) != mark
    assert AnnotatedObjects(ANNOTATED, compile_phrases(WORDS | {"cat": []})).describe(ANNOTATED) != mark
    assert describe_scores(report, ABOUT, extra={}).splitlines()[0].endswith(f", CHAIR of {mark}")


def test_fewer_hallucinations_are_better():
    worse = {**CAPTIONS, 3: "a cat", 4: "a dog and a bus"}
    tables = {
        side: [Scorer(bootstrap=0)(REFERENCES, captions, objects=OBJECTS).table]
        for side, captions in (("a", worse), ("b", CAPTIONS))
    }
    found = compared(tables, resamples=50)
    for name in LOWER_IS_BETTER:
        assert found[name].b < found[name].a and found[name].b_better > 0.5 > found[name].a_better == 0
    assert found["Named-precision"].b_better > 0.5
    assert describe_comparison(found, tables).endswith("scores higher (lower for CHAIR-i and CHAIR-s)")
    rows = differences(tables, "CHAIR-i")
    assert [row["image_id"] for row in rows] == [4, 1, 2]  # image 3 has no CHAIR-i in b
    nothing = Scorer(bootstrap=0)(REFERENCES, dict.fromkeys(REFERENCES, "the sea"), objects=OBJECTS).table
    assert "CHAIR-i" not in compared({"a": tables["a"], "b": [nothing]}, resamples=20)
    assert compared({"a": tables["a"], "b": [nothing]}, resamples=20)["CHAIR-s"].b_better == 1


def test_a_group_without_objects_has_a_dash(report):
    found = score_groups(report, {1: "land", 2: "land", 3: "sea", 4: "land"})
    assert found["land"].scores["CHAIR-i"] == pytest.approx(3 / 8) and "CHAIR-i" not in found["sea"].scores
    lines = {line.split()[0]: line.split()[1:] for line in describe_groups(found, report).splitlines()}
    assert lines["CHAIR-i"] == ["0.3750", "–", "0.3750"] and lines["CHAIR-s"] == ["0.6667", "0.0000", "0.5000"]
