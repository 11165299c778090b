"""The commands with instances=FILE: scores, files, comparison of two folders, and the errors of unusable files."""

import csv
import json
import sys

import pytest

from captioning import compare, evaluate, score
from captioning.data import COCO_WORDS
from captioning.evaluation import ImageTexts, read_objects, read_references
from captioning.metrics import Scorer

REFERENCES = {1: ["a man eats a hot dog", "a person"], 2: ["a dog runs"], 3: ["the sea"]}
CAPTIONS = {1: "a man and two hot dogs", 2: "a dog and a cat", 3: "the blue sea"}
NUMBERS = {"person": 1, "dog": 18, "hot dog": 58, "boat": 9}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def run(module, monkeypatch, *arguments):
    """The command in this process, as its console script starts it."""
    monkeypatch.setattr(sys, "argv", [f"captioning-{module.__name__.rpartition('.')[2]}", *map(str, arguments)])
    module.main()


def instances(objects, names=None):
    """A file of annotated objects with COCO's categories: {image id: categories}."""
    known = [name for line in COCO_WORDS.read_text(encoding="utf-8").splitlines() if (name := category(line))]
    numbers = NUMBERS | {name: 100 + at for at, name in enumerate(known) if name not in NUMBERS}
    named = {number: {"file_name": names[number]} if names else {} for number in objects}
    return {
        "images": [{"id": number, **named[number]} for number in objects],
        "annotations": [{"image_id": number, "category_id": numbers[name]} for number in objects
                        for name in objects[number]],
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
    }  # fmt: skip


def category(line):
    name, colon, _ = line.partition(": [")
    return name if colon and not line.startswith((" ", "#")) and name != "nothing" else None


@pytest.fixture
def files(tmp_path):
    """A results file, its annotations and the annotated objects of these and one further image."""
    listed = [{"image_id": key, "caption": text} for key, texts in REFERENCES.items() for text in texts]
    annotations = write(
        tmp_path / "annotations.json", {"images": [{"id": k} for k in REFERENCES], "annotations": listed}
    )
    results = write(tmp_path / "results.json", [{"image_id": key, "caption": text} for key, text in CAPTIONS.items()])
    objects = {1: ["person", "person"], 2: ["dog"], 3: ["boat"], 9: ["dog"]}
    return results, annotations, write(tmp_path / "instances.json", instances(objects))


def test_captions_of_a_file(files, tmp_path, monkeypatch, capsys):
    results, annotations, objects = files
    run(score, monkeypatch, results, annotations, f"instances={objects}", f"output={tmp_path / 'a'}",
        "metrics.bootstrap=20")  # fmt: skip
    printed = capsys.readouterr().out
    scores = json.loads((tmp_path / "a" / "scores.json").read_text())
    wanted = {"CHAIR-i": 1 / 4, "CHAIR-s": 1 / 3, "Object-precision": 2 / 4, "Object-recall": 2 / 3}
    wanted |= {"Named-precision": 3 / 4, "Named-recall": 1, "Named-recall-no-person": 1}
    assert {name: scores[name] for name in wanted} == pytest.approx(wanted)
    statistics = json.loads((tmp_path / "a" / "statistics.json").read_text())
    for name in wanted:
        low, high = statistics["intervals"][name]
        assert f"  {name:<24}{scores[name]:8.4f}   95 % {low:.4f} … {high:.4f}\n" in printed
    assert statistics["about"]["models"]["CHAIR"].startswith("annotated objects ")
    rows = list(csv.DictReader((tmp_path / "a" / "per_image.csv").open(newline="")))
    assert [row["CHAIR-i"] for row in rows] == ["0", "0.5", ""] and [row["CHAIR:1"] for row in rows] == ["2", "2", "0"]


def test_two_folders_are_compared_and_other_objects_are_refused(files, tmp_path, monkeypatch, capsys):
    results, annotations, objects = files
    other = write(tmp_path / "other.json", [{"image_id": key, "caption": "a bus"} for key in CAPTIONS])
    few = write(tmp_path / "few.json", instances({1: ["person"], 2: [], 3: []}))
    for name, captions, truth in (("a", other, objects), ("b", results, objects), ("c", results, few)):
        run(score, monkeypatch, captions, annotations, f"instances={truth}", f"output={tmp_path / name}",
            "metrics.bootstrap=20")  # fmt: skip
    capsys.readouterr()
    arguments = ["by=CHAIR-i", "metrics.bootstrap=20", f"output={tmp_path / 'compared'}"]
    run(compare, monkeypatch, tmp_path / "a", tmp_path / "b", *arguments)
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("  CHAIR-i")).split()
    assert line[1:4] == ["1.0000", "0.2500", "-0.7500"] and line[-2:] == ["0.0%", "100.0%"]
    better = printed.partition("images for which B is better by CHAIR-i:\n")[2].splitlines()
    assert better[0] == "  1: 1.000 'a bus'  ->  0.000 'a man and two hot dogs'"
    assert better[2:] == ["images for which A is better by CHAIR-i:", "  none",
                          *printed.splitlines()[-1:]]  # fmt: skip
    with pytest.raises(SystemExit, match=r"they cannot be compared\. Score both with the same instances=FILE"):
        run(compare, monkeypatch, tmp_path / "b", tmp_path / "c")


def test_files_without_the_objects_are_errors(files, tmp_path, monkeypatch):
    results, annotations, objects = files
    content = json.loads(objects.read_text())

    def error(path):
        with pytest.raises(SystemExit) as ended:
            run(score, monkeypatch, results, annotations, f"instances={path}")
        assert str(path) in ended.value.code and "\n" not in ended.value.code
        return ended.value.code

    assert "there is no such file. Give COCO's annotated objects" in error(tmp_path / "missing.json")
    assert "this is a folder" in error(tmp_path)
    assert "(it has no list 'categories'): give COCO's instances" in error(annotations)
    assert "(it has no list 'images')" in error(results)
    lacking = write(tmp_path / "lacking.json", content | {"images": content["images"][:1]})
    assert "lacks 2 of the 3 images that are scored: image ids 2, 3. Give the" in error(lacking)
    persons = write(tmp_path / "persons.json", content | {"categories": content["categories"][:1]})
    assert "79 of 80 are missing in 'categories', such as 'airplane'" in error(persons)
    unknown = write(tmp_path / "unknown.json", content | {"annotations": [{"image_id": 1, "category_id": 7}]})
    assert "annotations[0]: category 7 is not in 'categories'" in error(unknown)


def test_images_are_matched_by_file_name_where_both_have_one(tmp_path):
    names = {11: "COCO_val2014_000000000001.jpg", 12: "COCO_val2014_000000000002.jpg"}
    file = write(tmp_path / "objects.json", instances({11: ["dog"], 12: ["boat"]}, names))
    images = [ImageTexts(12, "val2017/000000000001.jpg", []), ImageTexts(5, "000000000002.jpg", [])]
    assert read_objects(file, images, source="data.root=x").categories == {12: {"dog"}, 5: {"boat"}}
    images = [ImageTexts(12, None, []), ImageTexts(11, "000000000002.jpg", [])]
    assert read_objects(file, images, source="data.root=x").categories == {12: {"boat"}, 11: {"dog"}}


def test_a_model_is_evaluated(data, trained, tmp_path, monkeypatch, capsys):
    names = {number: f"val{number}.png" for number in range(8)}  # the world of conftest.py
    file = write(tmp_path / "instances.json", instances({number: ["dog"] for number in names}, names))
    given = [trained, *data, "split=val", "metrics.bootstrap=20", "device=cpu", "decoding=greedy"]
    run(evaluate, monkeypatch, *given, f"instances={file}", f"output={tmp_path / 'out'}")
    assert "  CHAIR-s " in capsys.readouterr().out
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores.keys() >= {"CHAIR-s", "Object-recall", "Named-recall", "Named-recall-no-person"}
    few = write(tmp_path / "few.json", instances({0: []}, names))
    with pytest.raises(SystemExit, match=r"lacks 7 of the 8 images that are scored: val1\.png"):
        run(evaluate, monkeypatch, *given, f"instances={few}", f"output={tmp_path / 'none'}")
    assert not (tmp_path / "none").exists()


def test_a_reference_as_caption_names_nothing_that_is_not_there(shared_dir):
    folder = shared_dir / "coco-sample" / "annotations"
    images = read_references(folder / "captions_val2017.json").images
    objects = read_objects(folder / "instances_val2017.json", images, source="captions")
    references = {entry.image_id: entry.texts for entry in images}
    found = Scorer(bootstrap=0)(references, {key: texts[0] for key, texts in references.items()}, objects=objects)
    assert found.scores["CHAIR-i"] == found.scores["CHAIR-s"] == 0 and found.scores["Named-precision"] == 1
    assert 0.3 < found.scores["Named-recall-no-person"] < found.scores["Object-precision"] < 1
    others = {key: texts[1:] for key, texts in references.items()}
    swapped = Scorer(bootstrap=0)(others, {key: texts[0] for key, texts in references.items()}, objects=objects)
    wanted = {"CHAIR-i": 0.016, "CHAIR-s": 0.025, "Named-recall-no-person": 0.621, "Object-recall": 0.419}
    assert {name: round(swapped.scores[name], 3) for name in wanted} == wanted  # docs/evaluate.md
