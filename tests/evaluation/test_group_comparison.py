"""Two runs compared per group: the numbers are those of the group's images alone, in the files and on the screen."""

import csv
import json
import sys

import numpy as np
import pytest

from captioning import compare, score
from captioning.errors import DataError
from captioning.evaluation import (
    aligned,
    compare_groups,
    compared,
    describe_compared_groups,
    read_tables,
    with_groups,
    write_report,
)
from captioning.metrics import Scorer, ScoreTable, from_csv, to_csv

DOMAINS = ("in-domain", "near-domain", "out-domain")
ABOUT = {"data": "drawn", "split": "val", "decoding": "beam5"}


@pytest.fixture(scope="module")
def split():
    """References of 50 images in three domains of 12, 24 and 13 and one image without a group; captions of A and B."""
    random = np.random.default_rng(1)

    def sentence(size):
        return " ".join(random.choice([*"abcdefghijklmn"], size))

    references = {number: [sentence(8) for _ in range(3)] for number in range(50)}
    made = {
        side: {number: " ".join([*texts[0].split()[:kept], sentence(4)]) for number, texts in references.items()}
        for side, kept in (("a", 4), ("b", 5))
    }
    groups = {number: DOMAINS[0 if number < 12 else 1 if number < 36 else 2] for number in references} | {49: None}
    return references, made, groups


def written(folder, references, captions, groups=None):
    write_report(folder, Scorer(bootstrap=0)(references, captions), ABOUT, extra={}, groups=groups)
    return folder


@pytest.fixture(scope="module")
def folders(split, tmp_path_factory):
    references, made, groups = split
    root = tmp_path_factory.mktemp("scored")
    return {side: written(root / side, references, made[side], groups) for side in made}


def tables_of(folders):
    return read_tables(folders["a"], folders["b"])


def test_groups_are_compared_as_their_images_alone(split, folders, tmp_path):
    references, made, groups = split
    found = compare_groups(tables_of(folders), resamples=30, seed=3)
    assert list(found) == list(DOMAINS)
    for group, (tables, scores) in found.items():
        own = [number for number in references if groups[number] == group]
        assert tables["a"][0].image_ids == tables["b"][0].image_ids == own
        few = {key: references[key] for key in own}
        alone = {
            side: written(tmp_path / group / side, few, {key: texts[key] for key in own})
            for side, texts in made.items()
        }
        wanted = compared(tables_of(alone), resamples=30, seed=3)
        assert scores.keys() == wanted.keys()
        for name in ("BLEU-1", "BLEU-4", "ROUGE-L"):
            assert scores[name] == pytest.approx(wanted[name], abs=1e-9)
        for side in made:  # CIDEr keeps the document frequencies of the whole split
            whole = from_csv(folders[side] / "per_image.csv")
            rows = [whole.image_ids.index(key) for key in own]
            assert getattr(scores["CIDEr"], side) == pytest.approx(np.mean(whole.values["CIDEr"][rows]), abs=1e-9)


def test_groups_stay_with_their_images_when_rows_are_sorted(folders):
    a, b = (from_csv(folders[side] / "per_image.csv") for side in "ab")
    mixed = b.take(np.random.default_rng(0).permutation(50))
    tables = {"a": [a], "b": [mixed]}
    found = compare_groups(aligned(tables, {"a": ["one"], "b": ["two"]}), resamples=10)
    assert found["out-domain"].scores == compare_groups(tables_of(folders), resamples=10)["out-domain"].scores


def test_the_groups_of_one_side_are_enough_and_contradictions_are_refused():
    table = ScoreTable([1, 2], ["", ""], {"CIDEr": np.array([0.1, 0.3])}, {}, None, ["x", "y"])
    runs = {"a": ["one"], "b": ["two"]}
    known = with_groups({"a": [table._replace(groups=None)], "b": [table]}, runs)
    assert [each.groups for found in known.values() for each in found] == [["x", "y"]] * 2
    with pytest.raises(DataError, match=r"^image 2 is in the group 'y' of 'one', but in 'z' of 'two'\. Score both"):
        with_groups({"a": [table], "b": [table._replace(groups=["x", "z"])]}, runs)
    bare = {side: [table._replace(groups=None)] for side in runs}
    assert with_groups(bare, runs) == bare and compare_groups(bare) == {} and describe_compared_groups({}) == ""


@pytest.mark.parametrize("names", [None, ["a, b.jpg", ""]])
@pytest.mark.parametrize("groups", [None, ["in, domain", ""]])
def test_the_columns_of_names_and_groups(names, groups, tmp_path):
    table = ScoreTable([1, 2], ["a dog", ""], {"CIDEr": np.array([0.1, 0.3])}, {}, names, groups)
    (tmp_path / "per_image.csv").write_text(to_csv(table), encoding="utf-8")
    read = from_csv(tmp_path / "per_image.csv")
    assert (read.names, read.groups, read.captions) == (names, groups, table.captions)
    assert read.values["CIDEr"].tolist() == [0.1, 0.3]


def run_command(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [f"captioning-{module.__name__.rpartition('.')[2]}", *map(str, arguments)])
    module.main()


def test_the_command_prints_and_writes_the_groups(split, folders, tmp_path, monkeypatch, capsys):
    given = ["metrics.bootstrap=25", "show=1", f"output={tmp_path}"]
    run_command(compare, monkeypatch, folders["a"], folders["b"], *given)
    printed = capsys.readouterr().out
    found = compare_groups(tables_of(folders), resamples=25)
    assert describe_compared_groups(found) in printed and f"comparison per group: {tmp_path / 'groups.json'}" in printed
    assert printed.index("better: share of 25") < printed.index("in-domain: 12 images")
    notes = [line for line in printed.splitlines() if "NOTE" in line]
    assert notes == ["  NOTE: fewer than 20 images: these scores are mostly chance"] * 2  # not of 24 images
    content = json.loads((tmp_path / "groups.json").read_text())
    assert {group: each["images"] for group, each in content.items()} == dict(zip(DOMAINS, (12, 24, 13), strict=True))
    assert content["near-domain"]["scores"]["CIDEr"] == found["near-domain"].scores["CIDEr"]._asdict()
    with (tmp_path / "differences.csv").open(newline="") as file:
        assert {int(row["image_id"]): row["group"] or None for row in csv.DictReader(file)} == split[2]
    for side in "ab":
        written(tmp_path / side, split[0], split[1][side])
    run_command(compare, monkeypatch, tmp_path / "a", tmp_path / "b", *given)
    assert "domain" not in capsys.readouterr().out and not (tmp_path / "groups.json").exists()


def test_results_files_have_the_groups_of_their_annotations(split, tmp_path, monkeypatch, capsys):
    references, made, groups = split
    images = [{"id": key, **({"domain": group} if group else {})} for key, group in groups.items()]
    texts = [{"image_id": key, "caption": text} for key, own in references.items() for text in own]
    (tmp_path / "nocaps.json").write_text(json.dumps({"images": images, "annotations": texts}))
    for side, captions in made.items():
        entries = [{"image_id": key, "caption": text} for key, text in captions.items()]
        (tmp_path / f"{side}.json").write_text(json.dumps(entries))
    files, few = [tmp_path / "a.json", tmp_path / "b.json"], "metrics.bootstrap=10"
    run_command(compare, monkeypatch, *files, f"annotations={tmp_path / 'nocaps.json'}", few, "show=0")
    of_files = capsys.readouterr().out.partition("in-domain: 12 images")[2]
    for file in files:
        run_command(score, monkeypatch, file, tmp_path / "nocaps.json", f"output={tmp_path / file.stem}", few)
    capsys.readouterr()
    run_command(compare, monkeypatch, tmp_path / "a", tmp_path / "b", few, "show=0")
    assert of_files and capsys.readouterr().out.partition("in-domain: 12 images")[2] == of_files
