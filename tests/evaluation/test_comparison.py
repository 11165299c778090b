"""Comparing runs: whose rows meet whose, differences image by image, and the printed lines, all by hand."""

import itertools
import json
import statistics

import numpy as np
import pytest

from captioning.errors import DataError
from captioning.evaluation import (
    aligned,
    compared,
    describe_comparison,
    differences,
    matched_by,
    read_tables,
    same_references,
    same_tokenizers,
)
from captioning.metrics import ScoreTable, bootstrap, to_csv

SCORES = {"a": 0.1, "b": 0.5, "c": 0.2, "d": 0.9}  # of images by their letter


def table(letters, *, ids=None, names=True, shift=0.0, extra=()):
    """A table of the images of some letters, whose file names they are."""
    values = np.array([SCORES[letter] + shift * at for at, letter in enumerate(letters)])
    return ScoreTable(
        [ord(letter) for letter in letters] if ids is None else list(ids),
        [f"caption of {letter}" for letter in letters],
        {"CIDEr": values, **dict.fromkeys(extra, values)},
        {},
        [f"{letter}.jpg" if name else "" for letter, name in zip(letters, [*map(bool, names)], strict=True)]
        if not isinstance(names, bool)
        else [f"{letter}.jpg" for letter in letters]
        if names
        else None,
    )


RUNS = {"a": ["one"], "b": ["two"]}


@pytest.mark.parametrize("order", ["".join(letters) for letters in itertools.permutations("abcd")])
@pytest.mark.parametrize("names", [True, False])
def test_rows_of_all_tables_come_in_the_order_of_the_first(order, names):
    found = aligned({"a": [table("cabd", names=names)], "b": [table(order, names=names)]}, RUNS)
    for side in "ab":
        (only,) = found[side]
        assert only.image_ids == [ord(letter) for letter in "cabd"]
        assert only.captions == [f"caption of {letter}" for letter in "cabd"]
        assert only.values["CIDEr"].tolist() == [SCORES[letter] for letter in "cabd"]
    assert matched_by(found) == ("file name" if names else "image id")


def test_file_names_decide_and_ids_where_one_side_has_no_names():
    renumbered = aligned({"a": [table("abcd", ids=range(4))], "b": [table("dcba", ids=[7, 8, 9, 10])]}, RUNS)
    assert renumbered["b"][0].image_ids == [10, 9, 8, 7]
    assert renumbered["b"][0].captions == renumbered["a"][0].captions
    by_id = aligned({"a": [table("abcd", ids=[1, 2, 3, 4])], "b": [table("dcba", ids=[1, 2, 3, 4], names=False)]}, RUNS)
    assert by_id["b"][0].captions == [f"caption of {letter}" for letter in "dcba"] and matched_by(by_id) == "image id"
    mixed = aligned({"a": [table("ab", names=[1, 0])], "b": [table("ba")]}, RUNS)
    assert matched_by(mixed) == "file name, or image id where a file name is missing"
    assert matched_by({"a": [table("ab")], "b": [table("ab"), table("ab", names=[0, 0])]}) == "image id"
    assert matched_by({"a": [table("ab")], "b": [table("ab", names=False)]}) == "image id"
    with pytest.raises(DataError, match="contradict each other"):
        aligned({"a": [table("abcd", ids=[1, 2, 3, 4])], "b": [table("abcd", ids=[2, 1, 3, 4])]}, RUNS)


def test_every_run_must_have_the_images_of_the_first():
    runs = {"a": ["one", "more"], "b": ["two"]}
    for second, third, named in (("abc", "abcd", "more"), ("abcd", "bcd", "two")):
        with pytest.raises(DataError, match=f"^'one' and '{named}' have scores of different images: [ad].jpg"):
            aligned({"a": [table("abcd"), table(second)], "b": [table(third)]}, runs)
    with pytest.raises(
        DataError, match=r"^'one' and 'two' have scores of different images: d.jpg \(image id 100\), c.jpg "
    ):
        aligned({"a": [table("abc")], "b": [table("abd")]}, RUNS)
    with pytest.raises(DataError, match=r"^'one' and 'two' .*: image ids 99, 100\. Score both on the same images$"):
        aligned({"a": [table("abc", names=False)], "b": [table("abd", names=False)]}, RUNS)


def test_references_must_be_the_same_where_they_are_known():
    same_references({"a": ["x"], "b": ["x"]}, RUNS)
    same_references({"a": [None], "b": ["x"]}, RUNS)
    same_references({"a": [None], "b": [None]}, RUNS)
    with pytest.raises(DataError, match=r"^'one' and 'two' were scored against different references"):
        same_references({"a": ["x"], "b": ["y"]}, RUNS)
    with pytest.raises(DataError, match=r"^'more' and 'two' were scored against"):
        same_references({"a": [None, "x"], "b": ["y"]}, {"a": ["one", "more"], "b": ["two"]})
    with pytest.raises(DataError, match=r"^'one' and 'three' were"):
        same_references({"a": ["x"], "b": [None, "x", "y"]}, {"a": ["one"], "b": ["none", "two", "three"]})


def test_tables_are_read_from_two_folders(tmp_path):
    for name, letters, mark in (("one", "abcd", "x"), ("two", "dbca", "x"), ("odd", "abcd", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "per_image.csv").write_text(to_csv(table(letters)))
        (tmp_path / name / "statistics.json").write_text(json.dumps({"references": mark}))
    found = read_tables(tmp_path / "one", tmp_path / "two")
    assert list(found) == ["a", "b"] and [len(side) for side in found.values()] == [1, 1]
    assert found["a"][0].captions == found["b"][0].captions == [f"caption of {letter}" for letter in "abcd"]
    with pytest.raises(DataError, match="different references"):
        read_tables(tmp_path / "one", tmp_path / "odd")


def test_differences_are_means_of_runs_from_a_better_to_b_better():
    a = [table("abcd"), table("abcd", shift=0.2)]
    b = [table("abcd", shift=-0.1)._replace(captions=list("wxyz")), table("abcd", shift=-0.3)]
    rows = differences({"a": a, "b": b}, "CIDEr")
    assert [row["image_id"] for row in rows] == [100, 99, 98, 97]  # A is better on later images
    for row, (letter, at) in zip(rows, [("d", 3), ("c", 2), ("b", 1), ("a", 0)], strict=True):
        assert row["a"] == pytest.approx(SCORES[letter] + 0.1 * at)
        assert row["b"] == pytest.approx(SCORES[letter] - 0.2 * at)
        assert row["difference"] == pytest.approx(-0.3 * at)
        assert (row["caption_a"], row["caption_b"]) == (f"caption of {letter}", "wxyz"[at])
    assert (
        "file_name" not in differences({"a": [table("ab", names=False)], "b": b[:1]} | {"b": [table("ab")]}, "CIDEr")[0]
    )


def test_equal_differences_keep_the_tables_order():
    even = differences({"a": [table("cabd")], "b": [table("cabd")]}, "CIDEr")
    assert [row["image_id"] for row in even] == [99, 97, 98, 100]
    values = np.array([0.0, 1.0, 2.0] * 100)
    many = ScoreTable([*range(300)], [""] * 300, {"CIDEr": values}, {})
    rows = differences({"a": [many], "b": [many._replace(values={"CIDEr": -values})]}, "CIDEr")
    assert [row["image_id"] for row in rows] == [*range(2, 300, 3), *range(1, 300, 3), *range(0, 300, 3)]


def test_a_comparison_is_the_paired_bootstrap_of_its_seed():
    random = np.random.default_rng(0)
    a, b = (
        [ScoreTable([*range(30)], [""] * 30, {"CIDEr": random.normal(size=30)}, {}) for _ in range(2)] for _ in range(2)
    )
    for options in ({}, {"seed": 5}, {"resamples": 40}):
        wanted = bootstrap.paired_bootstrap(a, b, **{"resamples": 1000, "seed": 0} | options)
        assert compared({"a": a, "b": b}, **options) == wanted
    assert compared({"b": b, "a": a})["CIDEr"].a == pytest.approx(np.mean([t.values["CIDEr"].mean() for t in a]))


def test_the_printed_comparison():
    scores = {
        "CIDEr": bootstrap.Comparison(0.51234, 0.53334, -0.00101, 0.04302, 0.02, 0.975),
        "BLEU-4": bootstrap.Comparison(0.30006, 0.2, -0.20001, 0.0, 1.0, 0.0),
    }
    values = {"CIDEr": np.array([0.1, 0.3]), "BLEU-4": np.array([0.5, 0.7])}
    other = {"CIDEr": np.array([0.5, 0.3]), "BLEU-4": np.array([0.5, 0.9])}
    a = [ScoreTable([1, 2], ["", ""], given, {}) for given in (values, other, values)]
    lines = describe_comparison(scores, {"a": a, "b": a[:2]}, resamples=77).splitlines()
    assert lines[0].split() == ["A", "B", "B", "-", "A", "95", "%", "interval", "A", "better", "B", "better"]
    assert lines[1].split() == ["CIDEr", "0.5123", "0.5333", "+0.0210", "-0.0010", "…", "+0.0430", "2.0%", "97.5%"]
    assert lines[2].split() == ["BLEU-4", "0.3001", "0.2000", "-0.1001", "-0.2000", "…", "+0.0000", "100.0%", "0.0%"]
    spread = [statistics.stdev([0.2, 0.4, 0.2]), statistics.stdev([0.6, 0.6, 0.6])]  # means of each table
    spread[1] = statistics.stdev([0.6, 0.7, 0.6])
    assert lines[3] == (
        f"  A is the mean of 3 runs; standard deviation of the runs: CIDEr {spread[0]:.4f}, BLEU-4 {spread[1]:.4f}"
    )
    assert lines[4] == (
        "  B is the mean of 2 runs; standard deviation of the runs: "
        f"CIDEr {statistics.stdev([0.2, 0.4]):.4f}, BLEU-4 {statistics.stdev([0.6, 0.7]):.4f}"
    )
    better = "  better: share of {} bootstrap resamples of the images in which this side scores higher"
    assert lines[5] == better.format(77) and len(lines) == 6
    short = describe_comparison(scores, {"a": a[:1], "b": a[:1]}).splitlines()
    assert short == [*lines[:3], better.format(1000)]


def test_scores_of_different_tokenizers_are_not_compared():
    for names in ({"a": ["ptb"], "b": ["java"]}, {"a": [None], "b": ["unicode"]}, {"a": ["python"], "b": ["ptb"]}):
        same_tokenizers(names, RUNS)
    with pytest.raises(DataError, match=r"tokenizer ptb, but '.*' of whitespace\. Score both with the same metrics"):
        same_tokenizers({"a": ["ptb"], "b": ["whitespace"]}, RUNS)
    with pytest.raises(DataError, match=r"'one' has scores of the tokenizer unicode, but 'two' of unicode:jieba"):
        same_tokenizers({"a": [None, "unicode"], "b": ["unicode:jieba"]}, {"a": ["none", "one"], "b": ["two"]})
