"""Captions are scored against the references of their own image, whatever the two files call it."""

import itertools
import json
import random
import sys

import pytest

from captioning import compare, score
from captioning.errors import DataError
from captioning.evaluation import ImageTexts, match, pair, read_id
from captioning.metrics import Scorer

# Four images whose captions are told apart by every word, so that a wrong match shows in every score.
TEXTS = {
    "dogs/1.jpg": "a red dog runs over grass",
    "cats/1.jpg": "two white cats sleep indoors",
    "horse.jpg": "some man rides his brown horse",
    "plane.jpg": "the big plane lands at night",
}
NAMES = list(TEXTS)
FILES = ("results.json", "annotations.json")


def run(module, monkeypatch, *arguments):
    """The command in this process, as its console script starts it."""
    monkeypatch.setattr(sys, "argv", [f"captioning-{module.__name__.rpartition('.')[2]}", *map(str, arguments)])
    module.main()


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def annotations(ids, names=NAMES):
    images = [{"id": number, **({"file_name": name} if name else {})} for number, name in zip(ids, names, strict=True)]
    listed = [
        {"image_id": number, "id": at, "caption": TEXTS[own]}
        for at, (number, own) in enumerate(zip(ids, NAMES, strict=True))
    ]
    return {"images": images, "annotations": listed}


def results(ids, names=NAMES, texts=NAMES):
    rows = zip(ids, names, texts, strict=True)
    return [
        {"caption": TEXTS[own], **({"file_name": name} if name else {}), **({} if key is None else {"image_id": key})}
        for key, name, own in rows
    ]


def scores(tmp_path, monkeypatch, capsys, found, truths, *arguments):
    """(printed title, BLEU-4) of the command."""
    output = tmp_path / "out"
    files = write(tmp_path / "results.json", found), write(tmp_path / "annotations.json", truths)
    run(score, monkeypatch, *files, f"output={output}", "metrics.bootstrap=0", *arguments)
    return capsys.readouterr().out.splitlines()[0], json.loads((output / "scores.json").read_text())["BLEU-4"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[1::5])
def test_file_names_count_for_more_than_running_numbers(tmp_path, monkeypatch, capsys, order):
    """captioning-caption counts 0, 1, 2 …; the references happen to have these ids in another order."""
    named = results(range(4), [f"photos/{name}" for name in NAMES])
    title, bleu = scores(tmp_path, monkeypatch, capsys, named, annotations(order))
    assert bleu == pytest.approx(1.0) and title.endswith("4 images, captions and references matched by file name")
    rows = json.loads((tmp_path / "out" / "captions.json").read_text())
    assert {(row["file_name"], row["image_id"], row["caption"]) for row in rows} == {
        (name, number, TEXTS[name]) for name, number in zip(NAMES, order, strict=True)
    }


def test_names_and_ids_that_contradict_each_other_are_refused(tmp_path, monkeypatch, capsys):
    """Ids that are not a running count are somebody's: the files do not mean the same images by them."""
    with pytest.raises(SystemExit) as ended:
        scores(tmp_path, monkeypatch, capsys, results([7, 8, 9, 10]), annotations([7, 8, 10, 9]))
    assert ended.value.code == (
        f"error: file names and image ids contradict each other: {tmp_path}/results.json has horse.jpg (image id 9), "
        f"but in {tmp_path}/annotations.json this id belongs to plane.jpg (image id 9) and the name belongs to "
        f"horse.jpg (image id 10) (2 such images). Delete 'image_id' from {tmp_path}/results.json to match by file "
        "name, or delete 'file_name' to match by image id"
    )
    renamed = results([7, 8, 9, 10], [*NAMES[:3], "other.jpg"])
    with pytest.raises(
        SystemExit,
        match=r"other\.jpg \(image id 10\), but in .* this id belongs to plane\.jpg .* the name is not in it",
    ):
        scores(tmp_path, monkeypatch, capsys, renamed, annotations([7, 8, 9, 10]))


def test_without_ids_names_are_enough(tmp_path, monkeypatch, capsys):
    title, bleu = scores(tmp_path, monkeypatch, capsys, results([None] * 4), annotations([9, 8, 7, 6]))
    assert bleu == pytest.approx(1.0) and title.endswith("matched by file name")


def test_without_names_on_one_side_ids_count(tmp_path, monkeypatch, capsys):
    for names, others in ((NAMES, [None] * 4), ([None] * 4, NAMES)):
        title, bleu = scores(
            tmp_path, monkeypatch, capsys, results([4, 5, 6, 7], names), annotations([4, 5, 6, 7], others)
        )
        assert bleu == pytest.approx(1.0) and title.endswith("matched by image id")
    mixed = annotations([4, 5, 6, 7], [*NAMES[:2], None, None])
    title, bleu = scores(tmp_path, monkeypatch, capsys, results([4, 5, 6, 7]), mixed)
    assert bleu == pytest.approx(1.0) and title.endswith("matched by file name (2) and image id (2)")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("photos/caf\u00e9.jpg", "x/photos/cafe\u0301.jpg"),
        ("IMAGES/A.JPG", "images/a.jpg"),
        ("images\\a.jpg", "/data/images/a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("COCO_val2014_000000397133.jpg", "val2017/000000397133.jpg"),
        ("val2014/COCO_val2014_000000397133.jpg", "images/COCO_val2014_000000397133.jpg"),
        ("val2014/COCO_val2014_000000397133.jpg", "train2017/000000397133.jpg"),
    ],
)
def test_spellings_of_one_name(theirs, ours):
    other = ImageTexts(1, "other.jpg" if "/" not in theirs else f"{theirs.rpartition('/')[0]}/other.jpg", [])
    found = pair([ImageTexts(5, ours, ["a"])], [other, ImageTexts(9, theirs, ["b"])], files=FILES)
    assert found.rows == {1: 0} and found.matched_by == "file name"


def test_names_that_are_not_the_same():
    cats = [ImageTexts(5, "cats/1.jpg", ["a"])]
    assert pair([ImageTexts(0, "dogs/1.jpg", ["a"])], cats, files=FILES).extra == [0]  # another folder's image
    numbered = [ImageTexts(5, "val/00000001.jpg", ["a"])]  # as data sets number each split from 1
    assert pair([ImageTexts(0, "train/00000001.jpg", ["a"])], numbered, files=FILES).extra == [0]
    assert pair([ImageTexts(0, "2.jpg", ["a"])], cats, files=FILES).extra == [0]
    assert pair([ImageTexts(0, "1.png", ["a"])], cats, files=FILES).extra == [0]
    both = [*cats, ImageTexts(6, "dogs/1.jpg", ["b"])]
    with pytest.raises(
        DataError,
        match=r"1\.jpg may be cats/1\.jpg or dogs/1\.jpg of annotations\.json\. Write the file name with its folder",
    ):
        pair([ImageTexts(0, "1.jpg", ["a"])], both, files=FILES)
    nested = [ImageTexts(1, "1.jpg", []), ImageTexts(2, "cats/1.jpg", [])]
    found = pair([ImageTexts(0, "x/cats/1.jpg", []), ImageTexts(1, "x/1.jpg", [])], nested, files=FILES)
    assert found.rows == {1: 0, 0: 1}
    with pytest.raises(DataError, match=r"a/1\.jpg .*and b/1\.jpg .*are the same image.*Keep one"):
        pair([ImageTexts(3, "a/1.jpg", []), ImageTexts(4, "b/1.jpg", [])], [ImageTexts(9, "1.jpg", [])], files=FILES)


@pytest.mark.parametrize(
    ("spelled", "number"),
    [
        (397133, 397133), (397133.0, 397133), ("397133", 397133), (" 397133 ", 397133), ("397133.0", 397133),
        ("000000397133", 397133), ("COCO_val2014_000000397133", 397133), ("COCO_val2014_000000397133.jpg", 397133),
        ("000000397133.jpg", 397133), (0, 0), (0.0, 0), (2**63 - 1, 2**63 - 1), ("b0f6f93dab", "b0f6f93dab"),
        ("coco_397133", "coco_397133"), ("9" * 20, "9" * 20), ("1e3", "1e3"), ("-1", "-1"), ("٣", "٣"),
        ("cafe\u0301", "caf\u00e9"),
    ],
)  # fmt: skip
def test_ids_in_their_one_spelling(spelled, number):
    assert read_id(spelled, "here") == number and type(read_id(spelled, "here")) is type(number)


@pytest.mark.parametrize(
    "value", [None, True, 1.5, float("nan"), float("inf"), -1, -1.0, 2**63, 2.0**53, "", " ", [], {}]
)
def test_no_ids(value):
    with pytest.raises(DataError, match=r"^here: 'image_id' must be a whole number .*, or text, not "):
        read_id(value, "here")


def test_text_ids_of_every_kind_are_scored(tmp_path, monkeypatch, capsys):
    ids = [397133, 349860, 217285, 11813]
    kinds = [ids, list(map(float, ids)), list(map(str, ids)), [f"COCO_val2014_{number:012}" for number in ids]]
    for left, right in itertools.product(kinds, kinds):
        found = results(left, [None] * 4)
        title, bleu = scores(tmp_path, monkeypatch, capsys, found, annotations(right, [None] * 4))
        assert bleu == pytest.approx(1.0) and title.endswith("matched by image id")
    hashes = ["b0f6", "5ee0", "83ca", "0a04"]
    title, bleu = scores(tmp_path, monkeypatch, capsys, results(hashes, [None] * 4), annotations(hashes))
    assert bleu == pytest.approx(1.0)
    with pytest.raises(
        SystemExit, match=r"have no image in common.*dogs/1\.jpg \(image id b0f6\).*image ids 11813, 217285"
    ):
        scores(tmp_path, monkeypatch, capsys, results(ids, [None] * 4), annotations(hashes))
    with pytest.raises(SystemExit, match=r"images\[1\]: the ids '7' and 7 are the same\. Give each image its own id"):
        scores(tmp_path, monkeypatch, capsys, results(ids), annotations(["7", 7, 8, 9]))


def test_text_ids_that_are_file_names(tmp_path, monkeypatch, capsys):
    for spelled in (NAMES, [*NAMES[:2], "horse", "plane"]):
        title, bleu = scores(tmp_path, monkeypatch, capsys, results(spelled, [None] * 4), annotations([4, 3, 2, 1]))
        assert bleu == pytest.approx(1.0) and title.endswith("matched by file name")


def test_a_subset_is_scored_when_asked_and_says_so(tmp_path, monkeypatch, capsys):
    found, truths = results([1, 2, 9], [None] * 3, NAMES[:3]), annotations([1, 2, 3, 4])
    with pytest.raises(SystemExit, match=(
        r"do not have the same images: 2 of 4 annotated images have no caption: horse\.jpg \(image id 3\), plane\.jpg "
        r"\(image id 4\); "
        r"1 of 3 captioned images have no references: image ids 9\. To score the 2 images that both have, add --subset"
    )):  # fmt: skip
        scores(tmp_path, monkeypatch, capsys, found, truths)
    title, bleu = scores(tmp_path, monkeypatch, capsys, found, truths, "subset=true")
    assert bleu == pytest.approx(1.0) and title.endswith(
        "SUBSET: 2 of 4 annotated images, 1 caption without references skipped, captions and references matched by "
        "image id"
    )
    about = json.loads((tmp_path / "out" / "statistics.json").read_text())["about"]
    assert about["subset"] == {"annotated": 4, "captions without references": 1} and about["images"] == 2
    part = match([ImageTexts(2, None, ["a"])], [ImageTexts(k, None, ["b"]) for k in (1, 2)], files=FILES, subset=True)
    assert part.references == {2: ["b"]} and part.captions == {2: ["a"]}


def karpathy(split_of):
    return {
        "images": [
            {"filename": name.rpartition("/")[2], "imgid": 50 + at, "split": split, "sentences": [{"raw": TEXTS[name]}]}
            for at, (name, split) in enumerate(zip(NAMES, split_of, strict=True))
        ]
    }  # fmt: skip


def test_karpathys_file_is_read_as_references(tmp_path, monkeypatch, capsys):
    truths = karpathy(["train", "restval", "test", "test"])
    named = [name.rpartition("/")[2] for name in NAMES]
    listed = [{"image_id": 52, "caption": TEXTS["horse.jpg"]}, {"image_id": 53, "caption": TEXTS["plane.jpg"]}]
    forms = [
        listed,
        {str(row["image_id"]): row["caption"] for row in listed},
        {str(row["image_id"]): [row["caption"]] for row in listed},
        [{"image_id": named[at], "caption": TEXTS[NAMES[at]]} for at in (2, 3)],
    ]
    for form in forms:
        title, bleu = scores(tmp_path, monkeypatch, capsys, form, truths)
        assert (
            bleu == pytest.approx(1.0)
            and ", references of annotations.json (split test), Penn-Tr" in title
            and " 2 images, " in title
        )
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, listed)) + "\n")
    run(
        score,
        monkeypatch,
        tmp_path / "lines.jsonl",
        tmp_path / "annotations.json",
        f"training={tmp_path}/annotations.json",
    )
    assert "100.0% novel" in capsys.readouterr().out  # the training captions are of other images
    one = [{"image_id": 50, "caption": TEXTS[NAMES[0]]}]
    for split in ("train", "val"):
        with pytest.raises(SystemExit, match=r"have no caption|has no captions in split val"):
            scores(tmp_path, monkeypatch, capsys, one, truths, f"split={split}")
    with pytest.raises(SystemExit, match=r"no test split\. Choose split=train or split=val"):
        scores(tmp_path, monkeypatch, capsys, listed, karpathy(["train", "val", "val", "restval"]))
    title, _ = scores(tmp_path, monkeypatch, capsys, listed + one + one[:0] + [
        {"image_id": 51, "caption": "a"}], karpathy(["val"] * 4))  # fmt: skip
    assert ", references of annotations.json (split val), Penn-" in title  # the only split that there is


def test_cider_that_is_zero_by_definition_says_so(tmp_path, monkeypatch, capsys):
    alone, same = (
        Scorer()({1: ["a dog"]}, {1: "a dog"}),
        Scorer()({k: ["a dog"] for k in range(5)}, dict.fromkeys(range(5), "a")),
    )
    assert alone.notes == {"CIDEr": "0 for any caption of one image alone, by its definition; score two images or more"}
    assert same.notes == {"CIDEr": "0 for any caption, by its definition: all 5 images have the same references"}
    assert alone.scores["CIDEr"] == same.scores["CIDEr"] == 0.0
    assert not Scorer(bootstrap=0)({1: ["a dog"], 2: ["a dog"], 3: ["a cat"]}, dict.fromkeys((1, 2, 3), "a")).notes
    truths = {"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": "a dog"}]}
    files = write(tmp_path / "r.json", [{"image_id": 1, "caption": "a dog"}]), write(tmp_path / "a.json", truths)
    run(score, monkeypatch, *files)
    assert "  CIDEr       0.0000   (0 for any caption of one image alone" in capsys.readouterr().out


def test_novel_captions_are_not_counted_without_training_captions(tmp_path, monkeypatch, capsys):
    report = Scorer(bootstrap=0)({1: ["a dog"], 2: ["a cat"]}, {1: "a dog", 2: "a cat"}, training=[])
    assert "novel" not in report.captions
    assert report.unavailable == {"novel": "the data set has no training captions"}
    assert Scorer(bootstrap=0)({1: ["a dog"]}, {1: "a dog"}, training=["a cat"]).captions["novel"] == 1.0
    empty = Scorer(bootstrap=0)({1: ["a dog"], 2: ["a cat"]}, {1: "", 2: "a dog"}, training=["a cat"])
    assert empty.captions["novel"] == 0.5  # an empty caption is not new


def test_runs_are_compared_by_file_names(tmp_path, monkeypatch, capsys):
    """Two evaluations that number the images differently, as a table that has got another row does."""
    for name, ids in (("a", [0, 1, 2, 3]), ("b", [3, 1, 0, 2])):
        found = results(ids), annotations(ids)
        files = write(tmp_path / f"{name}.json", found[0]), write(tmp_path / f"{name}_truths.json", found[1])
        run(score, monkeypatch, *files, f"output={tmp_path / name}", "metrics.bootstrap=0")
    with pytest.raises(SystemExit, match="file names and image ids contradict each other"):
        run(compare, monkeypatch, tmp_path / "a", tmp_path / "b", "metrics.bootstrap=10")
    text = (tmp_path / "b" / "per_image.csv").read_text()
    for number in range(4):  # ids of another numbering altogether
        text = text.replace(f"\n{number},", f"\n10{number},")
    (tmp_path / "b" / "per_image.csv").write_text(text)
    capsys.readouterr()
    run(compare, monkeypatch, tmp_path / "a", tmp_path / "b", "metrics.bootstrap=10", f"output={tmp_path / 'out'}")
    printed = capsys.readouterr().out
    assert "none\n" in printed and "\n4 images, matched by file name\n" in printed
    rows = (tmp_path / "out" / "differences.csv").read_text().splitlines()
    assert rows[0].startswith("image_id,file_name,a,b,") and all(",0.0," in row for row in rows[1:])


def test_thousand_shuffled_files_are_scored_right_or_refused():
    """Whatever ids and names are at odds, no caption meets another image's references."""
    draw = random.Random(0)
    outcomes = {"right": 0, "refused": 0}
    for _ in range(1000):
        count = draw.randint(1, 6)
        names = [f"{draw.choice(['', 'a/', 'b/'])}{number}.jpg" for number in range(count)]
        owners = list(range(count))
        ids = draw.sample(range(8), count)
        truths = [ImageTexts(ids[at], draw.choice([names[at], names[at], None]), [str(at)]) for at in owners]
        draw.shuffle(owners)
        if draw.random() < 0.3:
            theirs = list(range(count))
        else:
            theirs = [ids[owner] for owner in owners]
            if draw.random() < 0.5 and count > 1:
                i, j = draw.sample(range(count), 2)
                theirs[i], theirs[j] = theirs[j], theirs[i]
        found = [ImageTexts(key, f"/x/{names[own]}", [str(own)]) for key, own in zip(theirs, owners, strict=True)]
        try:
            matched = match(found, truths, files=FILES)
        except DataError:
            outcomes["refused"] += 1
            continue
        named = {entry.image_id for entry in truths if entry.name is not None}
        for key, texts in matched.captions.items():
            if key in named:  # identity is by name wherever both have it
                assert texts == matched.references[key]
        outcomes["right"] += 1
    assert min(outcomes.values()) > 100


def test_text_that_the_tokenizer_cannot_split_is_told_with_its_scores(tmp_path, monkeypatch, capsys):
    """One character off scored BLEU-4 0 without a word."""
    texts = ["一只黑色的猫在草地上奔跑", "两个男孩在沙滩上玩球", "一个老人在公园里坐着"]
    truths = {
        "images": [{"id": at} for at in range(3)],
        "annotations": [{"image_id": at, "id": at, "caption": text} for at, text in enumerate(texts)],
    }
    near = [{"image_id": at, "caption": text[:-1]} for at, text in enumerate(texts)]
    _, bleu = scores(tmp_path, monkeypatch, capsys, near, truths)
    run(score, monkeypatch, tmp_path / "results.json", tmp_path / "annotations.json", "metrics.bootstrap=0")
    printed = capsys.readouterr().out
    assert bleu < 1e-6 and "WARNING   references: 3 of 3 captions (100%) are written without spaces" in printed
    spaced = [{"image_id": at, "caption": " ".join(text[:-1])} for at, text in enumerate(texts)]
    truths["annotations"] = [row | {"caption": " ".join(row["caption"])} for row in truths["annotations"]]
    _, bleu = scores(tmp_path, monkeypatch, capsys, spaced, truths)
    assert bleu > 0.8 and not json.loads((tmp_path / "out" / "statistics.json").read_text())["notes"]


def test_images_of_a_data_set_keep_its_ids(tmp_path):
    from captioning.evaluation import image_ids

    coco = [tmp_path / "COCO_val2014_000000397133.jpg", tmp_path / "000000000007.jpg"]
    assert image_ids(coco, None) == [397133, 7]
    assert image_ids([*coco, tmp_path / "a.jpg"], None) is None
    assert image_ids([*coco, tmp_path / "x" / coco[0].name], None) is None
    paths = [tmp_path / name for name in reversed(NAMES)]
    file = write(tmp_path / "annotations.json", annotations(["a", 9, 7, 5]))
    assert image_ids(paths, file) == [5, 7, 9, "a"]
    named = write(tmp_path / "named.json", karpathy(["train", "restval", "val", "test"]))
    assert image_ids(paths[:2], named) == [53, 52]
    with pytest.raises(DataError, match=r"annotations\.json does not list 1 of the images: .*b\.jpg"):
        image_ids([tmp_path / "b.jpg"], file)


def test_rejected_and_precanned_captions_are_no_references(tmp_path, monkeypatch, capsys):
    """As VizWiz's official evaluator has it, which skips images that have no other caption."""
    truths = annotations([1, 2, 3, 4])
    for at, key in ((0, "is_rejected"), (1, "is_precanned")):
        bad = {"image_id": [1, 2][at], "id": 9 + at, "caption": "quality issues are too severe"}
        truths["annotations"].append(bad | {"is_rejected": False, "is_precanned": False} | {key: True})
    truths["annotations"][3] |= {"is_rejected": True}
    title, bleu = scores(tmp_path, monkeypatch, capsys, results([1, 2, 3, 4]), truths)
    assert bleu == pytest.approx(1.0) and title.endswith("3 images, captions and references matched by file name")
    assert json.loads((tmp_path / "out" / "statistics.json").read_text())["notes"] == {
        "NOTE": f"{tmp_path}/annotations.json: 3 of 6 annotations are left out, as the VizWiz API does: "
        "2 rejected ('is_rejected') and 1 precanned ('is_precanned'); not scored, because they have no other caption: "
        "1 image"
    }
    _, without = scores(tmp_path, monkeypatch, capsys, results([1, 2, 3], NAMES[:3], NAMES[:3]), truths)
    assert without == bleu
    canned = results([1, 2, 3, 4], NAMES, [*NAMES[1:], NAMES[0]])
    _, wrong = scores(tmp_path, monkeypatch, capsys, canned, truths)
    assert wrong < 0.1


def test_a_text_id_that_is_a_file_name_is_that_file(tmp_path, monkeypatch, capsys):
    """Image 1 is 000000000003.jpg here, and image 3 is another."""
    names = [f"{number:012}.jpg" for number in (3, 1, 4, 2)]
    truths = annotations([1, 2, 3, 4], names)
    for spelled in (names, [f"COCO_val2014_{name[:12]}" for name in names], [f"COCO_val2014_{name}" for name in names]):
        with pytest.raises(SystemExit, match="file names and image ids contradict each other"):
            scores(tmp_path, monkeypatch, capsys, results(spelled, [None] * 4), truths)
    own = annotations([7, 8, 9, 10], names)
    for spelled in (names, [name[:12] for name in names], [f"COCO_val2014_{name}" for name in names]):
        title, bleu = scores(tmp_path, monkeypatch, capsys, results(spelled, [None] * 4), own)
        assert bleu == pytest.approx(1.0) and title.endswith("matched by file name")
    title, bleu = scores(tmp_path, monkeypatch, capsys, results([1, 2, 3, 4], [None] * 4), truths)
    assert bleu == pytest.approx(1.0) and title.endswith("matched by image id")


def test_a_key_that_is_there_twice_loses_no_caption(tmp_path, monkeypatch):
    truths = write(tmp_path / "a.json", {"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": "a dog"}]})
    for text in ('{"1": "a dog", "1": "the moon"}', '[{"image_id": 1, "caption": "a dog", "caption": "the moon"}]'):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(SystemExit, match=r"r\.json as JSON \(an object has the key '(1|caption)' twice; keep"):
            run(score, monkeypatch, tmp_path / "r.json", truths)
    (tmp_path / "r.json").write_text('{"1": "a dog", "01": "the moon"}')
    with pytest.raises(SystemExit, match=r"more than one caption for 1 image: image ids 1"):
        run(score, monkeypatch, tmp_path / "r.json", truths)


def test_forms_of_results_and_what_is_none(tmp_path, monkeypatch, capsys):
    listed = [{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": "a cat"}]
    truths = {"images": [{"id": 1}, {"id": 2}], "annotations": listed}
    file, annotated = tmp_path / "r.jsonl", write(tmp_path / "a.json", truths)
    lines = [json.dumps(row | {"caption": f"{row['caption']}\u2028"}, ensure_ascii=False) for row in listed]
    file.write_text("\n".join(lines), encoding="utf-8")
    run(score, monkeypatch, file, annotated, "metrics.bootstrap=0")
    assert "  BLEU-1      1.0000" in capsys.readouterr().out
    file.write_text(json.dumps(listed[0]))
    run(score, monkeypatch, file, annotated, "metrics.bootstrap=0", "subset=true")
    assert "SUBSET: 1 of 2" in capsys.readouterr().out
    (tmp_path / "r.csv").write_text("image_id,caption\n1,a dog\n")
    with pytest.raises(SystemExit, match=r"r\.csv must be a JSON list .*, not a table"):
        run(score, monkeypatch, tmp_path / "r.csv", annotated)
    with pytest.raises(SystemExit, match=r"list\.json must be a COCO caption file, a JSON object .*, not a list"):
        run(score, monkeypatch, annotated, write(tmp_path / "list.json", listed))
    stray = annotations([1, 2, 3, 4])
    stray["images"].pop()
    with pytest.raises(SystemExit, match=r"captions of image ids that 'images' does not list: 4\. Add these images"):
        scores(tmp_path, monkeypatch, capsys, results([1, 2, 3, 4]), stray)
    with pytest.raises(SystemExit, match=r"a\.jpg \(image id 4\) and a\.jpg \(image id 5\) have the same file name"):
        scores(
            tmp_path,
            monkeypatch,
            capsys,
            results([4, 5, 6, 7], ["a.jpg", "a.jpg", "b", "c"]),
            annotations([4, 5, 6, 7]),
        )
    by_chance = results([42, 1, 2, 9], [None] * 4)
    with pytest.raises(SystemExit, match=r"only some image ids of .* match, perhaps by chance"):
        scores(tmp_path, monkeypatch, capsys, by_chance, annotations([42, 73, 133, 11]), "subset=true")


def test_scores_against_different_references_are_not_compared(tmp_path, monkeypatch, capsys):
    """The same captions: B would be worse by its references alone."""
    other = annotations(range(4))
    other["annotations"][0]["caption"] = "something else is here"
    for name, truths in (("a", annotations(range(4))), ("b", other), ("c", annotations([7, 8, 9, 10]))):
        files = write(tmp_path / "r.json", results(range(4))), write(tmp_path / f"{name}.json", truths)
        run(score, monkeypatch, *files, f"output={tmp_path / name}", "metrics.bootstrap=0")
    with pytest.raises(SystemExit, match=r"a' and .*b' were scored against different references\. Score both against "):
        run(compare, monkeypatch, tmp_path / "a", tmp_path / "b", "metrics.bootstrap=10")
    run(compare, monkeypatch, tmp_path / "a", tmp_path / "c", "metrics.bootstrap=10")
    shuffled = {1: ["a dog", "a cat"], "x": ["a man"]}, {"y": ["a man"], 5: ["a cat", "A dog."]}
    marks = [Scorer(bootstrap=0)(truths, dict.fromkeys(truths, "a")).references for truths in shuffled]
    assert marks[0] == marks[1]
