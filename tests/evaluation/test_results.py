"""Files of captions and scores, and the commands that need no model."""

import csv
import json
import re
import sys

import pytest

from captioning import compare, score
from captioning.config import CompareConfig, ScoreConfig, check, compose
from captioning.errors import ConfigError, DataError
from captioning.evaluation import read_references, read_results, read_samples, write_server_file

REFERENCES = {1: ["a red dog runs", "a dog"], 2: ["two cats on a bed"], 3: ["a man rides a horse"]}
GOOD = {1: "a red dog runs.", 2: "two cats on a bed", 3: "A man rides a brown horse"}
POOR = {1: "a dog", 2: "two cats", 3: "a man on a <unk>"}


def write(path, content):
    path.write_text(json.dumps(content))
    return str(path)


def results(captions):
    return [{"image_id": image_id, "caption": text} for image_id, text in captions.items()]


@pytest.fixture
def annotations(tmp_path):
    listed = [{"image_id": key, "caption": text, "id": 0} for key, texts in REFERENCES.items() for text in texts]
    return write(
        tmp_path / "captions_val2014.json", {"images": [{"id": key} for key in REFERENCES], "annotations": listed}
    )


def run(module, monkeypatch, *arguments):
    """The command in this process, as its console script starts it."""
    monkeypatch.setattr(sys, "argv", [f"captioning-{module.__name__.rpartition('.')[2]}", *map(str, arguments)])
    module.main()


def test_scores_of_a_file(tmp_path, monkeypatch, capsys, annotations):
    folder = tmp_path / "a b, c=1 'd'"  # what hydra would parse, were it not quoted
    folder.mkdir()
    file = write(folder / "results (1).json", results(GOOD))
    samples = write(tmp_path / "samples.json", results(GOOD) + results(POOR))
    output = tmp_path / "out"
    run(score, monkeypatch, file, annotations, f"output={output}", f"samples={samples}", f"training={annotations}",
        "split=val", "decoded_by=beam5", "metrics.bootstrap=50")  # fmt: skip
    printed = capsys.readouterr().out
    assert printed.startswith(
        "results (1).json, references of captions_val2014.json (split val), decoding beam5, Penn-Treebank tokens, "
        "3 images, captions and references matched by image id\n"
    )
    scores = json.loads((output / "scores.json").read_text())
    assert list(scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    assert all(isinstance(value, float) for value in scores.values())
    for name, value in scores.items():
        assert f"{name:<10}{value:8.4f}" in printed
    statistics = json.loads((output / "statistics.json").read_text())
    low, high = statistics["intervals"]["CIDEr"]
    assert low <= scores["CIDEr"] <= high and f"95 % {low:.4f} … {high:.4f}" in printed
    assert statistics["captions"]["novel"] == pytest.approx(1 / 3)
    assert statistics["samples"]["an image"] == 2.0
    rows = list(csv.DictReader((output / "per_image.csv").open(newline="")))
    assert [(int(row["image_id"]), row["caption"]) for row in rows] == list(GOOD.items())
    assert sum(float(row["CIDEr"]) for row in rows) / 3 == pytest.approx(scores["CIDEr"])
    assert json.loads((output / "captions.json").read_text()) == results(GOOD)


def test_nothing_is_written_unasked(tmp_path, monkeypatch, capsys, annotations):
    file = write(tmp_path / "results.json", results(POOR))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    run(score, monkeypatch, file, annotations)
    assert sorted(tmp_path.rglob("*")) == before
    assert "33.3% with unknown words" in capsys.readouterr().out


BAD = {
    "repeated": ([*results(GOOD), {"image_id": 2, "caption": "again"}], r"more than one caption for 1 image.*ids 2\."),
    "null": (results(GOOD | {3: None}), r"not text: image ids 3\."),
    "not a number": (results(GOOD | {1: float("nan")}), r"not text: image ids 1\."),
    "no caption": ([{"image_id": 7}], r"not text: image ids 7\."),
    "odd id": ([{"image_id": float("inf"), "caption": "a"}], r"\[0\].*'image_id' must be a whole number .*, not Inf"),
    "half id": ([{"caption": "a", "image_id": 1.5}], r"'image_id' must be a whole number .*, or text, not 1\.5"),
    "true id": ([{"caption": "a", "image_id": True}], r"'image_id' must be a whole number .*, not true"),
    "no id": ([{"caption": "a", "image_id": None}], r"'image_id' must be a whole number .*, not null"),
    "blank id": ([{"caption": "a", "image_id": " "}], r"'image_id' must be a whole number .*, not \" \""),
    "inexact id": ([{"caption": "a", "image_id": 1e16}], r"'image_id' must be a whole number .*, not 1e\+16"),
    "empty": ([], r"results\.json has no captions\. Write"),
    "no entry": (["a dog"], r"'image_id' is missing"),
    "no list": ({"annotations": []}, r"must be a JSON list .*, not a JSON object"),
    "missing": (results({1: "a", 2: "b"}), r"1 of 3 annotated images have no caption: image ids 3\. .* add --subset"),
    "extra": (results(GOOD | {9: "b"}), r"1 of 4 captioned images have no references: image ids 9\. .* add --subset"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_results_are_one_line_with_the_ids(tmp_path, monkeypatch, annotations, fault):
    content, message = BAD[fault]
    file = write(tmp_path / "results.json", content)
    with pytest.raises(SystemExit) as ended:
        run(score, monkeypatch, file, annotations)
    assert ended.value.code.startswith("error: ") and "\n" not in ended.value.code
    with pytest.raises(DataError, match=message):
        score.score_results(check(compose("score", [f"results={file}", f"annotations={annotations}"]), ScoreConfig))


def test_readers(tmp_path, annotations):
    references = read_references(tmp_path / "captions_val2014.json")
    assert {entry.image_id: entry.texts for entry in references.images} == REFERENCES
    assert references.split == "captions_val2014" and not references.unscored and references.notice is None
    assert read_references(tmp_path / "captions_val2014.json", "val").split == "val"
    several = write(tmp_path / "samples.json", results(GOOD) + results(POOR))
    samples = read_samples(tmp_path / "samples.json")
    assert {entry.image_id: entry.texts for entry in samples} == {key: [GOOD[key], POOR[key]] for key in GOOD}
    with pytest.raises(DataError, match=r"3 images: image ids 1, 2, 3\. Keep one per image"):
        read_results(tmp_path / "samples.json")
    assert several


def two_runs(tmp_path, monkeypatch, annotations):
    for name, captions in (("good", GOOD), ("poor", POOR)):
        file = write(tmp_path / f"{name}.json", results(captions))
        run(score, monkeypatch, file, annotations, f"output={tmp_path / name}", "metrics.bootstrap=0")
    return tmp_path / "good", tmp_path / "poor"


def test_two_runs_are_compared(tmp_path, monkeypatch, capsys, annotations):
    good, poor = two_runs(tmp_path, monkeypatch, annotations)
    capsys.readouterr()
    output = tmp_path / "compared"
    run(compare, monkeypatch, poor, good, f"output={output}", "by=ROUGE-L", "show=2", "metrics.bootstrap=100")
    printed = capsys.readouterr().out
    assert f"A: {poor}\nB: {good}\npoor.json, references of captions_val2014.json, Penn-Treebank" in printed
    found = json.loads((output / "compare.json").read_text())
    scores = {path: json.loads((path / "scores.json").read_text()) for path in (good, poor)}
    for name, row in found.items():
        assert (row["a"], row["b"]) == pytest.approx((scores[poor][name], scores[good][name]), abs=1e-8)
        assert row["low"] <= row["b"] - row["a"] <= row["high"]
    assert found["ROUGE-L"]["b_better"] > 0.9  # all but resamples of image 2 alone, which both wrote alike
    assert found["ROUGE-L"]["a_better"] == 0.0
    rows = list(csv.DictReader((output / "differences.csv").open(newline="")))
    assert sorted(int(row["image_id"]) for row in rows) == [1, 2, 3]
    differences = [float(row["difference"]) for row in rows]
    assert differences == sorted(differences) and "images for which B is better by ROUGE-L:\n  " in printed
    monkeypatch.chdir(tmp_path)
    run(compare, monkeypatch, poor, tmp_path / "good.json", f"annotations={annotations}", "output=again",
        "metrics.bootstrap=100")  # fmt: skip
    again = json.loads((tmp_path / "again" / "compare.json").read_text())
    assert again["CIDEr"] == pytest.approx(found["CIDEr"], abs=1e-8)


def test_images_that_both_write_alike_are_better_for_neither(tmp_path, monkeypatch, capsys, annotations):
    good, _ = two_runs(tmp_path, monkeypatch, annotations)
    capsys.readouterr()
    run(compare, monkeypatch, good, good, "metrics.bootstrap=10")
    printed = capsys.readouterr().out
    for side in "AB":
        assert f"images for which {side} is better by CIDEr:\n  none\n" in printed
    assert "'a red dog runs.'" not in printed


def test_runs_of_several_seeds_count_as_their_mean(tmp_path, monkeypatch, capsys, annotations):
    good, poor = two_runs(tmp_path, monkeypatch, annotations)
    run(compare, monkeypatch, f"a=[{good},{poor}]", f"b={good}", f"output={tmp_path / 'out'}", "metrics.bootstrap=20")
    row = json.loads((tmp_path / "out" / "compare.json").read_text())["CIDEr"]
    first, second = (json.loads((path / "scores.json").read_text())["CIDEr"] for path in (good, poor))
    assert row["a"] == pytest.approx((first + second) / 2) and row["b"] == pytest.approx(first)
    spread = (first - second) / 2**0.5  # of two numbers
    printed = capsys.readouterr().out
    assert "A is the mean of 2 runs; standard deviation of the runs: BLEU-1" in printed
    assert f"CIDEr {spread:.4f}" in printed


def test_runs_that_cannot_be_compared(tmp_path, monkeypatch, annotations):
    good, poor = two_runs(tmp_path, monkeypatch, annotations)

    def compared(*overrides):
        compare.compare(check(compose("compare", list(overrides)), CompareConfig))

    with pytest.raises(ConfigError, match=r"nowhere is not a folder with scores.*annotations=FILE"):
        compared(f"a={good}", "b=nowhere")
    with pytest.raises(ConfigError, match="by=SPICE"):
        compared(f"a={good}", f"b={poor}", "by=SPICE")
    with pytest.raises(ConfigError, match=r"b=\[\] names no run to compare"):
        compared(f"a={good}", "b=[]")
    with pytest.raises(ConfigError, match="show must be 0 or more"):
        compared(f"a={good}", f"b={poor}", "show=-1")
    with pytest.raises(ConfigError, match="bootstrap"):
        compared(f"a={good}", f"b={poor}", "metrics.bootstrap=0")
    (poor / "per_image.csv").write_text((good / "per_image.csv").read_text().replace("\n3,", "\n4,"))
    with pytest.raises(DataError, match=r"scores of different images: image ids 3, 4"):
        compared(f"a={good}", f"b={poor}")
    (poor / "per_image.csv").unlink()
    with pytest.raises(DataError, match=r"per_image\.csv"):
        compared(f"a={good}", f"b={poor}")


def test_files_for_the_server(tmp_path):
    path = write_server_file(tmp_path, GOOD, name="mine-2", split="val2014", wanted=GOOD)
    assert path.name == "captions_val2014_mine-2_results.json" and json.loads(path.read_text()) == results(GOOD)
    with pytest.raises(
        DataError, match=r"captions_val2014_.*: 1 caption missing: image ids 5; 1 caption not of the split: image ids 3"
    ):
        write_server_file(tmp_path, GOOD, name="x", split="val2014", wanted=[1, 2, 5])
    for blank in ("", " ", " . , ! "):
        with pytest.raises(DataError, match=r"without words: image ids 2"):
            write_server_file(tmp_path, GOOD | {2: blank}, name="x", split="test2014", wanted=GOOD)
    with pytest.raises(DataError, match=r"server=… needs the images of the split"):
        write_server_file(tmp_path, {}, name="x", split="test2014", wanted=[])
    with pytest.raises(ConfigError, match=r"server=a_b"):
        write_server_file(tmp_path, GOOD, name="a_b", split="test2014", wanted=GOOD)
    with pytest.raises(ConfigError, match=r"split=val: .* split=val2014 or split=test2014"):
        write_server_file(tmp_path, GOOD, name="ab", split="val", wanted=GOOD)


@pytest.mark.parametrize("mark", ["\n", "\r", "\x0b", "\x0c", "\u2028", "\x85", " \r\n "])
def test_the_server_gets_a_line_a_caption(tmp_path, mark):
    path = write_server_file(tmp_path, {1: f"a{mark}dog"}, name="x", split="val2014", wanted=[1])
    assert json.loads(path.read_text()) == results({1: "a dog"})


def test_half_an_emoji_is_scored_and_written(tmp_path, monkeypatch, capsys, annotations):
    """JSON can hold it (a text that was cut inside an emoji), UTF-8 cannot; it is dropped as emoji are."""
    broken, output = GOOD | {1: "a red dog\ud83d runs \udc36"}, tmp_path / "out"
    file = write(tmp_path / "results.json", results(broken))
    run(score, monkeypatch, file, annotations, f"output={output}", "metrics.bootstrap=10")
    assert json.loads((output / "captions.json").read_text()) == results(broken)
    plain = write(tmp_path / "plain.json", results(GOOD))
    run(score, monkeypatch, plain, annotations, f"output={tmp_path / 'plain'}", "metrics.bootstrap=10")
    assert (output / "scores.json").read_text() == (tmp_path / "plain" / "scores.json").read_text()
    run(compare, monkeypatch, output, tmp_path / "plain", f"output={tmp_path / 'both'}", "metrics.bootstrap=10")
    assert "\\ud83d" in (tmp_path / "both" / "differences.csv").read_text() and capsys.readouterr().out


def test_an_output_that_cannot_be_a_folder(tmp_path, monkeypatch, annotations):
    file = write(tmp_path / "results.json", results(GOOD))
    for output in (file, f"{file}/inside"):
        with pytest.raises(SystemExit, match=r"error: cannot create the folder .*results\.json"):
            run(score, monkeypatch, file, annotations, f"output={output}", "metrics.bootstrap=0")


def test_captions_of_a_folder_become_a_file_for_the_server(tmp_path, monkeypatch, capsys):
    listed = [{"id": key, "file_name": f"COCO_{key}.jpg"} for key in GOOD]
    images = write(tmp_path / "image_info_test2014.json", {"images": listed})
    named = [
        {"image_id": at, "caption": text, "file_name": f"some/where/COCO_{key}.jpg", "log_prob": -1.0}
        for at, (key, text) in enumerate(GOOD.items())
    ]
    arguments = ["split=test2014", "server=mine", f"output={tmp_path / 'out'}"]
    for content in (named, results(GOOD)):
        run(score, monkeypatch, write(tmp_path / "results.json", content), images, *arguments)
        file = tmp_path / "out" / "captions_test2014_mine_results.json"
        assert json.loads(file.read_text()) == results(GOOD)
        assert "3 captions for the COCO server, not scored" in capsys.readouterr().out
        file.unlink()
    for content, message in (
        ([named[0], *named], r"more than one caption for 1 image: image ids 0"),
        (
            [named[0] | {"file_name": "x.jpg"}],
            r"1 caption of images that .*image_info_test2014\.json does not list: x\.jpg",
        ),
        (named[:2], r"1 caption missing: image ids 3"),
    ):
        with pytest.raises(SystemExit, match=message):
            run(score, monkeypatch, write(tmp_path / "results.json", content), images, *arguments)
    with pytest.raises(SystemExit, match="needs output=DIR"):
        run(score, monkeypatch, tmp_path / "results.json", images, "server=mine", "split=test2014")


@pytest.mark.parametrize(
    ("split", "name", "told"),
    [
        ("nocaps_test", "nocaps_val_image_info.json", "split=nocaps_test is of test, but NAME is of val by its name"),
        ("textcaps_val", "TextCaps_0.1_test.json", "is of val, but NAME is of test by its name"),
        ("vizwiz_test", "val.json", "is of test, but NAME is of val by its name"),
        ("val2014", "captions_val2017.json", "is of 2014, but NAME is of 2017 by its name"),
        ("test2014", "nocaps_test_image_info.json", "is of coco, but NAME is of nocaps by its name"),
        ("nocaps_val", "captions_val2014.json", "is of nocaps, but NAME is of coco by its name"),
        ("nocaps_val", "nocaps_val_image_info.json", None),
        ("nocaps_test", "evalai_images.json", None),
        ("val2014", "latest.json", None),
        ("test2014", "images_for_evaluation.json", None),
        ("vizwiz_test", "constrained.json", None),
        ("val2014", "val2014-and-train2014.json", None),
        ("vizwiz_test", "list.json", None),
    ],
)
def test_a_list_of_another_split_is_refused(tmp_path, monkeypatch, split, name, told):
    images = write(tmp_path / name, {"images": [{"id": key} for key in GOOD]})
    arguments = [f"split={split}", "server=mine", f"output={tmp_path / 'out'}"]
    file = write(tmp_path / "results.json", results(GOOD))
    if told is None:
        return run(score, monkeypatch, file, images, *arguments)
    with pytest.raises(SystemExit, match=re.escape(told.replace("NAME", str(images)))):
        run(score, monkeypatch, file, images, *arguments)
    assert not (tmp_path / "out").exists()


OPEN_IMAGES = ("011e7e629fb9ae7b", "0000000000000012", "fedcba9876543210")  # one has only digits, and leading zeros


@pytest.mark.parametrize("split", ["textcaps_val", "textcaps_test"])
def test_the_file_for_textcaps_has_the_ids_of_open_images(split, tmp_path, monkeypatch, capsys):
    """Its own files have one entry per caption; data=textcaps numbers images otherwise, captioning-caption from 0."""
    texts = {name: f"a sign {at}" for at, name in enumerate(OPEN_IMAGES)}
    data = [{"image_id": name, "caption_str": caption} for name in OPEN_IMAGES for caption in ("a", "b")]
    images = write(tmp_path / "TextCaps_0.1.json", {"data": data})
    named = {name: {"caption": text, "file_name": f"images/{name}.jpg"} for name, text in texts.items()}
    forms = {
        "by data=textcaps": [{"image_id": int(name[:15], 16), **entry} for name, entry in named.items()],
        "by captioning-caption": [{"image_id": at, **entry} for at, entry in enumerate(named.values())],
        "by the server's ids": results(texts),
    }
    arguments = [f"split={split}", "server=mine", f"output={tmp_path}"]
    for content in forms.values():
        run(score, monkeypatch, write(tmp_path / "results.json", content), images, *arguments)
        assert json.loads((tmp_path / f"{split}_mine_results.json").read_text()) == results(texts)
        assert "3 captions for the TextCaps server, not scored" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"the TextCaps server would refuse .*: 1 caption missing: image ids fedcba98"):
        run(score, monkeypatch, write(tmp_path / "results.json", content[:2]), images, *arguments)
    numbered = write(tmp_path / "listed.json", {"images": [{"id": 7}]})
    with pytest.raises(
        SystemExit, match=r"needs the ids of Open Images, .* not 7\. Give TextCaps_0\.1_(val|test)\.json"
    ):
        run(score, monkeypatch, write(tmp_path / "results.json", results({7: "a"})), numbered, *arguments)


def test_references_need_the_id_of_their_image(tmp_path):
    """Results may name a file instead: captions of several files would become those of one image without an id."""
    file = write(tmp_path / "a.json", {"annotations": [{"file_name": name, "caption": name} for name in ("a", "b")]})
    with pytest.raises(DataError, match=r"annotations\[0\].*: the key 'image_id' is missing\. Add it"):
        read_references(tmp_path / "a.json")
    assert file
