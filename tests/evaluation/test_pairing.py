"""Which result is of which reference: every case of names and ids, by hand."""

from pathlib import Path

import pytest

from captioning.data import Record
from captioning.errors import DataError
from captioning.evaluation import ImageTexts, Matched, file_name, match, of_records, pair
from captioning.evaluation.identity import Pairing, called, listed

FILES = ("r.json", "a.json")


def images(*entries):
    """(id, name) or (id, name, id as it is spelled) of each image, whose text is its place."""
    return [ImageTexts(entry[0], entry[1], [str(at)], *entry[2:]) for at, entry in enumerate(entries)]


def paired(results, references) -> Pairing:
    return pair(images(*results), images(*references), files=FILES)


# Running numbers


def test_a_running_count_beside_names_is_no_identity():
    found = paired([(0, "b"), (1, "a")], [(0, "a"), (1, "b")])
    assert found == Pairing(rows={0: 1, 1: 0}, by_name=2, by_id=0, missing=[], extra=[])


def test_a_running_count_counts_where_a_name_is_missing_or_the_references_have_none():
    with pytest.raises(DataError, match=r"r\.json has b \(image id 0\), but in a\.json this id belongs to a \(im"):
        paired([(0, "b"), (1, None)], [(0, "a"), (5, "b"), (1, "c")])
    assert paired([(0, "b"), (1, "a")], [(1, None), (0, None)]).rows == {1: 0, 0: 1}
    assert paired([(0, None), (1, None)], [(1, "a"), (0, "b")]) == Pairing({1: 0, 0: 1}, 0, 2, [], [])


def test_a_count_from_one_or_with_a_gap_is_no_running_count():
    for ids in ((1, 2), (0, 2), (1, 0)):
        with pytest.raises(DataError, match="contradict"):
            paired(list(zip(ids, "ab", strict=True)), list(zip(ids, "ba", strict=True)))
    assert paired([(1, "a"), (2, "b")], [(1, "a"), (2, "b")]).by_name == 2


# Names and ids


def test_each_kind_is_counted_and_both_sides_leftovers_are_listed():
    found = paired(
        [(7, "a"), (8, None), (9, "x"), (10, None), (11, "c")],
        [(6, "z"), (11, None), (7, "a"), (8, "b"), (5, None)],
    )
    assert found == Pairing(rows={2: 0, 3: 1, 1: 4}, by_name=1, by_id=2, missing=[0, 4], extra=[2, 3])
    assert found.matched_by == "file name (1) and image id (2)"
    assert found._replace(by_id=0).matched_by == "file name" and found._replace(by_name=0).matched_by == "image id"
    assert found.of_first(3) == Pairing({2: 0, 1: 4}, 1, 2, [0], [2, 3])
    assert found.of_first(4) == Pairing({2: 0, 3: 1, 1: 4}, 1, 2, [0], [2, 3])
    assert found.of_first(1) == Pairing({}, 1, 2, [0], [2, 3])


def test_an_id_must_not_contradict_its_name():
    """The name is that of another image, or of none; where either side has no name, the id alone counts."""
    with pytest.raises(
        DataError, match=r"this id belongs to b \(image id 8\) and the name belongs to a \(image id 7\)\. Del"
    ):
        paired([(8, "a")], [(7, "a"), (8, "b")])
    with pytest.raises(
        DataError, match=r"this id belongs to b \(image id 8\) and the name is not in it \(2 such images\)"
    ):
        paired([(8, "x"), (7, "y")], [(7, "a"), (8, "b")])
    assert paired([(8, "x")], [(7, "a"), (8, None)]).rows == {1: 0}
    with pytest.raises(DataError, match=r"this id belongs to image id 8 and the name belongs to a"):
        paired([(8, "a")], [(7, "a"), (8, None)])
    assert paired([(3, "a")], [(7, "a"), (8, "b")]).rows == {0: 0}  # an id that no reference has


def test_a_text_id_may_be_a_name_with_or_without_its_suffix():
    references = [(1, "x/a.jpg"), (2, "x/b.jpg")]
    for text in ("a", "x/a", "y/x/a", "a.jpg", "x/a.jpg", "A.JPG"):
        assert paired([(text, None, text)], references) == Pairing({0: 0}, 1, 0, [1], [])
    assert paired([(None, "a")], references).extra == [0]  # a file name has its suffix
    assert paired([(2, None)], references).rows == {1: 0}  # a number is none
    with pytest.raises(DataError, match=r"1 is the same image|contradict"):
        paired([(1, None, "b.jpg")], references)


def test_two_results_of_one_image_are_refused():
    with pytest.raises(DataError, match=r"^r\.json: x/a \(image id 5\) and a \(image id 6\) are the same image, a \("):
        paired([(5, "x/a"), (6, "a")], [(1, "a")])
    with pytest.raises(
        DataError, match=r"^r\.json: a \(image id 5\) and \./a \(image id 6\) have the same file name\. G"
    ):
        paired([(5, "a"), (6, "./a")], [(1, "a")])
    assert paired([(5, None), (6, None)], [(5, None)]).extra == [1]


# Which name


@pytest.mark.parametrize(
    ("name", "references", "row"),
    [
        ("a.jpg", ["a.jpg", "b.jpg"], 0),
        ("b.jpg", ["a.jpg", "b.jpg"], 1),
        ("B.JPG", ["a.jpg", "b.jpg"], 1),
        ("A.jpg", ["a.jpg", "A.jpg"], 1),  # the case of letters counts where both are there
        ("a.jpg", ["A.jpg", "a.jpg"], 1),
        ("x/a.jpg", ["y/a.jpg", "x/a.jpg"], 1),
        ("X/a.jpg", ["y/a.jpg", "x/a.jpg"], 1),
        ("z/x/a.jpg", ["y/a.jpg", "x/a.jpg"], 1),
        ("x/a.jpg", ["y/x/a.jpg"], 0),
        ("x/a.jpg", ["x/y/a.jpg"], None),
        ("a.png", ["a.jpg"], None),
        ("a", ["a.jpg"], None),
        ("x/y/a.jpg", ["a.jpg", "y/a.jpg"], 1),  # the nearest folder
        ("a.jpg", ["a.jpg", "y/a.jpg"], 0),
        ("z/a.jpg", ["a.jpg", "y/a.jpg"], 0),
        ("w/x/y/a.jpg", ["y/a.jpg", "a.jpg", "x/y/a.jpg", "v/x/y/a.jpg"], 2),
        ("val/000000000007.jpg", ["train/000000000007.jpg"], 0),  # COCO's numbers are of one image in any folder
        ("val/000000000007.jpg", ["train/000000000007.jpg", "val2/000000000008.jpg"], None),  # where there is one
        ("val/00000000007.jpg", ["train/00000000007.jpg"], None),  # eleven digits
        ("COCO_val2014_000000000007.jpg", ["000000000007.jpg"], 0),
        ("COCO_val14_000000000007.jpg", ["000000000007.jpg"], None),
        ("COCO_val2014_00000000007.jpg", ["00000000007.jpg"], None),
        ("val/000000000007.jpg", ["train/000000000007.jpg", "train/x/000000000008.jpg"], None),
        ("val/000000000007.jpg", ["train/000000000007.jpg"] * 2, None),
        ("x/val/000000000007.jpg", ["train/000000000007.jpg"], 0),
        ("./", ["a.jpg"], None),
        ("x/a.jpg", ["A.jpg", "a.jpg"], 1),
        ("x/A.JPG", ["x/a.jpg"], 0),
        ("x\\\\a.jpg", ["x/a.jpg"], 0),
        ("/x//./a.jpg", ["x/a.jpg"], 0),
    ],
)
def test_names_from_the_right(name, references, row):
    found = paired([(None, name)], [(at, reference) for at, reference in enumerate(references)])
    assert found.rows == ({} if row is None else {row: 0}) and found.by_name == (row is not None)


@pytest.mark.parametrize(
    ("name", "references", "message"),
    [
        ("a.jpg", ["x/a.jpg", "y/a.jpg"], r"^r\.json: a\.jpg may be x/a\.jpg or y/a\.jpg of a\.json\. Write the fil"),
        ("A.JPG", ["x/a.jpg", "y/A.jpg"], "may be x/a.jpg or y/A.jpg of"),
        ("a.jpg", [f"{at}/a.jpg" for at in range(5)], "may be 0/a.jpg or 1/a.jpg or 2/a.jpg of"),
        ("a.jpg", ["a.jpg", "./a.jpg"], r"^a\.json: a\.jpg is the file name of 2 images\. Give each image one entry"),
    ],
)
def test_names_that_may_be_several(name, references, message):
    with pytest.raises(DataError, match=message):
        paired([(None, name)], [(at, reference) for at, reference in enumerate(references)])


# What is scored


def matched(results, references, **options) -> Matched:
    return match(images(*results), images(*references), files=FILES, **options)


def test_captions_and_references_by_the_references_ids_in_their_order():
    found = matched([(None, "b"), (None, "a")], [(5, "a"), (3, "b")])
    assert found == Matched({5: ["0"], 3: ["1"]}, {5: ["1"], 3: ["0"]}, {5: "a", 3: "b"}, "file name", 2, 0)
    assert list(found.captions) == list(found.references) == [5, 3] and found.about == {"matched by": "file name"}
    named = matched([(5, "x"), (3, None), (4, "y")], [(5, None), (3, None), (4, "z/y")])
    assert named.names == {5: "x", 4: "z/y"}  # the references' name, or else the results'
    assert named.about == {"matched by": "file name (1) and image id (2)"}


def test_a_subset_counts_what_either_side_lacks():
    results, references = [(1, None), (2, None), (9, None)], [(1, None), (2, None), (3, None), (4, None)]
    with pytest.raises(
        DataError,
        match=r"^r\.json and a\.json do not .* 2 of 4 annotated images have no caption: image ids 3, 4; 1 of 3",
    ):
        matched(results, references)
    found = matched(results, references, subset=True)
    assert (found.annotated, found.unscored, list(found.captions)) == (4, 1, [1, 2])
    assert found.about["subset"] == {"annotated": 4, "captions without references": 1}
    only_missing = matched(results[:2], references, subset=True)
    assert only_missing.about["subset"] == {"annotated": 4, "captions without references": 0}
    only_extra = matched(results, references[:2], subset=True)
    assert only_extra.about["subset"] == {"annotated": 2, "captions without references": 1}


@pytest.mark.parametrize(
    ("common", "extra", "fine"), [(2, 1, True), (2, 2, False), (3, 1, True), (3, 2, False), (4, 2, True)]
)
def test_ids_that_agree_by_chance(common, extra, fine):
    """More than half as many strange ids as common ones, and images that lack a caption: a warning sign."""
    results = [(at, None) for at in [*range(1, common + 1), *range(50, 50 + extra)]]
    references = [(at, None) for at in range(1, common + 2)]
    if fine:
        assert len(matched(results, references, subset=True).captions) == common
    else:
        with pytest.raises(DataError, match=r"only some image ids of r\.json and a\.json match, perhaps by chance"):
            matched(results, references, subset=True)
    assert len(matched(results, references[:-1], subset=True).captions) == common  # all images have a caption
    results[0], references[0] = (None, "a"), (0, "a")
    assert len(matched(results, references, subset=True).captions) == common  # a name agrees


def test_nothing_to_score():
    with pytest.raises(DataError, match=r"^a\.json has no references\. Give a file"):
        matched([(1, None)], [])
    with pytest.raises(
        DataError, match=r"^r\.json and a\.json have no image in common: 1 of 1 .* ids 2; 1.*Give the annotations"
    ):
        matched([(1, None)], [(2, None)], subset=True)


def test_captions_of_images_that_count_for_nothing():
    found = matched([(1, None), (2, None)], [(1, None)], unscored=images((2, None), (3, None)))
    assert found == Matched({1: ["0"]}, {1: ["0"]}, {}, "image id", 1, 0) and "subset" not in found.about


# Names in records and in errors


def test_file_names_below_the_root():
    records = [Record(4, Path("/data/x/a.jpg"), "val", ("one", "two")), Record(5, Path("/other/b.jpg"), "val", ())]
    assert of_records(records, "/data") == [
        ImageTexts(4, "x/a.jpg", ["one", "two"]),
        ImageTexts(5, "b.jpg", []),
    ]
    assert [entry.name for entry in of_records(records)] == ["a.jpg", "b.jpg"]
    assert file_name(Path("/data/x/a.jpg"), Path("/data/x")) == "a.jpg"


def test_images_as_errors_name_them():
    assert [called(entry) for entry in images((4, "a"), (4, None), (None, "a"), (4, "a", "04"))] == [
        "a (image id 4)", "image id 4", "a", "a (image id 04)",
    ]  # fmt: skip
    entries = images((4, None), (3, None), (9, "b"), (8, "c"), (7, "d"))
    assert listed(entries, [0, 1]) == "image ids 3, 4"
    assert listed(entries, [0, 2, 3]) == "image id 4, b (image id 9), c (image id 8)"
    assert listed(entries, [2, 3, 4, 0]) == "b (image id 9), c (image id 8), d (image id 7) …"
