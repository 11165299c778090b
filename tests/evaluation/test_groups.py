"""Scores per group of images, such as the domains of nocaps, and files for its server."""

import json
import sys

import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider
from small_world import run

from captioning import score
from captioning.evaluation import describe_groups, report_groups, score_groups
from captioning.metrics import Scorer

DOMAINS = ("in-domain", "near-domain", "out-domain")
WORDS = [*"abcdefghijklmnopq"]


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def split():
    """References and captions of 60 images in three domains of 10, 35 and 15."""
    random = np.random.default_rng(0)

    def sentence():
        return " ".join(random.choice(WORDS, random.integers(5, 10)))

    references = {number: [sentence() for _ in range(3)] for number in range(60)}
    captions = {number: " ".join(texts[0].split()[:4] + sentence().split()[:3]) for number, texts in references.items()}
    groups = {number: DOMAINS[0 if number < 10 else 1 if number < 45 else 2] for number in references}
    return references, captions, groups


@pytest.fixture(scope="module")
def report(split):
    return Scorer(bootstrap=40)(split[0], split[1])


def test_bleu_and_rouge_of_a_group_are_those_of_its_images_alone(split, report):
    references, captions, groups = split
    found = score_groups(report, groups)
    assert [(name, each.images) for name, each in found.items()] == list(zip(DOMAINS, (10, 35, 15), strict=True))
    for name, each in found.items():
        own = [number for number in references if groups[number] == name]
        alone = Scorer(bootstrap=0)({key: references[key] for key in own}, {key: captions[key] for key in own}).scores
        for metric in ("BLEU-1", "BLEU-4", "ROUGE-L"):
            assert each.scores[metric] == pytest.approx(alone[metric], abs=1e-12)
        assert abs(each.scores["CIDEr"] - alone["CIDEr"]) > 0.01  # its document frequencies are those of the split


def test_cider_of_a_group_is_the_mean_of_pycocoevalcaps_values_of_the_whole_split(split, report):
    references, captions, groups = split
    _, values = Cider().compute_score(references, {key: [text] for key, text in captions.items()})
    found = score_groups(report, groups)
    for name, each in found.items():
        own = [value for key, value in zip(references, values, strict=True) if groups[key] == name]
        assert each.scores["CIDEr"] == pytest.approx(np.mean(own), abs=1e-9)
    weighted = sum(each.images * each.scores["CIDEr"] for each in found.values()) / 60
    assert weighted == pytest.approx(report.scores["CIDEr"], abs=1e-12)


def test_intervals_of_groups(split, report):
    for each in score_groups(report, split[2]).values():
        assert each.intervals.keys() == report.intervals.keys()
        for name, (low, high) in each.intervals.items():
            assert low < each.scores[name] < high
    without = Scorer(bootstrap=0)(split[0], split[1])
    assert all(each.intervals == {} for each in score_groups(without, split[2]).values())


def test_images_without_a_group_count_only_for_the_split(split, report):
    some = {number: "own" if number < 3 else None for number in split[0]} | {999: "other"}
    found = score_groups(report, some)
    assert list(found) == ["own"] and found["own"].images == 3
    assert score_groups(report, dict.fromkeys(split[0])) == score_groups(report, {}) == {}


def test_the_printed_table(split, report):
    found = score_groups(report, split[2])
    lines = describe_groups(found, report).splitlines()
    assert lines[0].split() == [*DOMAINS, "entire"]
    assert lines[1].split() == ["images", "10", "35", "15", "60"]
    assert [line.split()[0] for line in lines[2:-1]] == list(report.scores)
    for line in lines[2:-1]:
        name, *cells = line.split()
        values = [each.scores[name] for each in found.values()] + [report.scores[name]]
        assert cells == [f"{value:.4f}" for value in values]
    assert len({len(line) for line in lines[:-1]}) == 1  # columns are aligned
    assert lines[-1] == "  NOTE: fewer than 20 images in in-domain, out-domain: their scores are mostly chance"


def test_the_file_of_groups_is_that_of_the_last_scores(split, report, tmp_path):
    assert report_groups(tmp_path / "out", report, split[2]).startswith("  ")
    content = json.loads((tmp_path / "out/groups.json").read_text())
    assert list(content) == list(DOMAINS)
    assert content["in-domain"]["images"] == 10
    assert content["in-domain"]["scores"] == score_groups(report, split[2])["in-domain"].scores
    assert content["in-domain"]["intervals"].keys() == report.intervals.keys()
    assert report_groups(tmp_path / "out", report, {}) == ""
    assert not (tmp_path / "out/groups.json").exists()
    assert report_groups(None, report, split[2]) != ""


# nocaps


@pytest.fixture(scope="module")
def nocaps(world, tmp_path_factory):
    """The layout of nocaps, with the images of the small world."""
    root, photos = tmp_path_factory.mktemp("nocaps"), sorted(world.glob("val*.png"))
    (root / "val").mkdir()
    for photo in photos:
        (root / "val" / photo.name).write_bytes(photo.read_bytes())
    images = [
        {"id": 100 + at, "file_name": photo.name, "open_images_id": photo.stem, "domain": DOMAINS[at % 3]}
        for at, photo in enumerate(photos)
    ]
    texts = [f"a {word} {number}" for number in range(8) for word in ("dog", "red cat")]
    annotations = [{"id": at, "image_id": 100 + at // 2, "caption": text} for at, text in enumerate(texts)]
    write_json(root / "nocaps_val_4500_captions.json", {"images": images, "annotations": annotations})
    bare = [{key: value for key, value in image.items() if key != "domain"} for image in images]
    write_json(root / "nocaps_test_image_info.json", {"images": bare})
    return root


def test_evaluation_prints_and_writes_the_domains(trained, nocaps, tmp_path, capsys):
    run(
        "evaluate",
        f"checkpoint={trained}",
        "data=nocaps",
        f"data.root={nocaps}",
        "features=online",
        "split=val",
        f"output={tmp_path}",
    )
    printed = capsys.readouterr().out
    assert "in-domain  near-domain  out-domain    entire" in printed
    assert f"intervals of these scores: {tmp_path}/groups.json" in printed
    groups = json.loads((tmp_path / "groups.json").read_text())
    assert {name: each["images"] for name, each in groups.items()} == {
        "in-domain": 3,
        "near-domain": 3,
        "out-domain": 2,
    }
    entries = json.loads((tmp_path / "captions.json").read_text())
    assert sorted(entry["image_id"] for entry in entries) == list(range(100, 108))


def score_file(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["captioning-score", *map(str, arguments)])
    score.main()


def test_a_results_file_is_scored_per_domain_too(nocaps, tmp_path, monkeypatch, capsys):
    results = write_json(
        tmp_path / "results.json", [{"image_id": number, "caption": "a dog 1"} for number in range(100, 108)]
    )
    annotations = nocaps / "nocaps_val_4500_captions.json"
    score_file(monkeypatch, results, annotations, f"output={tmp_path / 'out'}", "metrics.bootstrap=10")
    assert "in-domain  near-domain  out-domain    entire" in capsys.readouterr().out
    assert list(json.loads((tmp_path / "out/groups.json").read_text())) == list(DOMAINS)
    score_file(monkeypatch, results, annotations, "metrics.bootstrap=0")
    assert "near-domain" in capsys.readouterr().out


@pytest.mark.parametrize("split", ["nocaps_val", "nocaps_test"])
def test_captions_of_photos_become_the_file_of_nocaps_server(split, nocaps, tmp_path, monkeypatch, capsys):
    """captioning-caption numbers photos 0, 1, 2, …; the server needs the ids of nocaps."""
    photos = sorted((nocaps / "val").glob("*.png"))
    entries = [{"image_id": at, "caption": "A dog\nruns", "file_name": str(path)} for at, path in enumerate(photos)]
    results = write_json(tmp_path / "captions.json", entries)
    listed = tmp_path / f"{split}_image_info.json"
    listed.write_bytes((nocaps / "nocaps_test_image_info.json").read_bytes())
    score_file(monkeypatch, results, listed, f"split={split}", "server=soft", f"output={tmp_path}")
    assert capsys.readouterr().out == (
        f"{split}: 8 captions for the nocaps server, not scored: {tmp_path}/{split}_soft_results.json\n"
    )
    written = json.loads((tmp_path / f"{split}_soft_results.json").read_text())
    assert written == [{"image_id": number, "caption": "A dog runs"} for number in range(100, 108)]
    write_json(results, entries[:-1])
    with pytest.raises(SystemExit, match=r"the nocaps server would refuse .*: 1 caption missing: image ids 107"):
        score_file(monkeypatch, results, listed, f"split={split}", "server=soft", f"output={tmp_path}")


def test_a_split_without_a_server(nocaps, tmp_path, monkeypatch):
    results = write_json(tmp_path / "results.json", [{"image_id": 100, "caption": "a dog"}])
    listed = nocaps / "nocaps_test_image_info.json"
    with pytest.raises(SystemExit, match=r"split=nocaps_test_image_info: no server accepts it\. The COCO server split"):
        score_file(monkeypatch, results, listed, "server=soft", f"output={tmp_path}")
