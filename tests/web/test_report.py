"""The report: its numbers by hand, its page by a parser, and what it takes from a run's folder."""

import base64
import io
import json
import os
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from PIL import Image
from small_runs import SENTENCES, leave_evaluation, make_run

from captioning.config import ReportConfig, check, compose
from captioning.data import read_csv
from captioning.errors import CheckpointError, ConfigError, DataError
from captioning.evaluation import score_groups
from captioning.inference import load
from captioning.metrics import Scorer, ScoreTable
from captioning.report import build_reader, moved, report
from captioning.text import make_tokenizer
from captioning.web.report import caption_statistics, charts

NASTY = "<img src=x onerror=alert(1)>\"'&amp;</title><script>alert(2)</script>"


def run_report(run, *overrides: str) -> str:
    """The page of a run."""
    report(check(compose("report", [f"run_dir={run}", "metrics.bootstrap=20", *overrides]), ReportConfig))
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of soft attention with its report, which had to evaluate first."""
    run = make_run(tmp_path_factory.mktemp("soft"))
    run_report(run, "decoding=greedy", "examples=1")
    return run


class Page(HTMLParser):
    """tags: every one, with its attributes. text: all text, outside of styles."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.parts, self._style = [], [], False
        self.feed(html)
        self.text = " ".join(" ".join(self.parts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_endtag(self, tag):
        self._style = False

    def handle_data(self, data):
        self.parts += [] if self._style else [data]


# ---- numbers


def test_ticks_are_round():
    assert charts.ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert charts.ticks(0, 2819, count=4) == [0, 1000, 2000]
    assert charts.ticks(-0.3, 0.31) == pytest.approx([-0.2, 0, 0.2])
    assert charts.ticks(3.2e-7, 9.9e-7) == pytest.approx([4e-7, 6e-7, 8e-7])
    assert charts.ticks(2, 2) == [2] and charts.ticks(0, float("inf")) == [0]


def test_a_curve_by_hand():
    chart = charts.curves("x", {"a": ([0, 5, 10], [0.0, 0.5, 1.0]), "b": ([0, 10], [1.0, float("nan")])})
    x, y, width, height = chart.inner
    low, high = 0.0, 1.06  # a twentieth and a little of room above; below, zero is near enough to begin there
    first, second = chart.curves
    points = [tuple(map(float, pair.split(","))) for pair in first.points.split()]
    expected = [
        (width * step / 10, height * (high - value) / (high - low)) for step, value in ((0, 0), (5, 0.5), (10, 1))
    ]
    np.testing.assert_allclose(points, expected, atol=0.05)
    assert (first.last, second.last) == ("1", "1") and second.points.count(",") == 1
    assert abs(first.end - second.end) >= charts._SPACING - 0.2
    for tick in chart.up:
        assert tick.at == pytest.approx(y + height * (high - float(tick.label)) / (high - low))
    for tick in chart.across:
        assert tick.at == pytest.approx(x + width * float(tick.label) / 10)


def test_a_long_curve_keeps_its_mean_and_a_high_start_does_not_flatten_it():
    values = np.where(np.arange(3000) < 30, 1000.0, np.linspace(2, 1, 3000))
    chart = charts.curves("loss", {"train": (list(range(3000)), values.tolist())}, robust=True)
    (curve,) = chart.curves
    assert len(curve.points.split()) == 300
    assert max(float(tick.label) for tick in chart.up) <= 3
    assert charts.curves("nothing", {"a": ([1], [float("inf")]), "b": ([], [])}) is None


def drawn(steps, values, **options):
    """The chart of one curve, and its points."""
    chart = charts.curves("x", {"a": (steps, values)}, **options)
    return chart, [tuple(map(float, pair.split(","))) for pair in chart.curves[0].points.split()]


def test_the_scale_of_a_curve_by_hand():
    _, y, width, height = charts.Chart("", [], [], []).inner
    chart, points = drawn([50, 100], [0.0, 1.0])
    assert points[0] == (round(width / 2, 1), height) and chart.curves[0].end == round(y + height * 0.06 / 1.06, 1)
    assert drawn([0, 1], [0.0, 1.0])[1][1][0] == width
    assert drawn([0, 1], [-1.0, 1.0])[1][0][1] == round(height * 2.12 / 2.24, 1)  # room below what is negative
    chart, points = drawn([0, 1], [-2.0, -2.0])
    assert points[0][1] == height / 2 and len(chart.up) > 1
    assert drawn(list(range(100)), [1.0] * 99 + [1000.0], robust=True)[1][-1][1] > 0  # the last value has a name there
    assert [len(drawn(list(range(n)), [1.0] * n)[0].curves[0].dots) for n in (30, 31)] == [30, 0]


def test_points_that_follow_one_another_become_their_mean():
    steps, values = charts._thin(list(range(301)), [float(step % 2) for step in range(300)] + [7.0])
    assert len(steps) == 151 and (steps[0], values[0]) == (0.5, 0.5) and (steps[-1], values[-1]) == (300, 7)


def test_names_of_many_lines_stay_apart_and_inside():
    for count, spread in ((2, 0), (6, 0), (6, 0.01), (14, 0.2), (20, 0)):
        chart = charts.curves("x", {f"line {i}": ([0, 1], [0, 1 + spread * i]) for i in range(count)})
        ends = sorted(curve.end for curve in chart.curves)
        assert min(np.diff(ends)) >= charts._SPACING - 0.2
        assert ends[0] > 0 and (ends[-1] < charts.HEIGHT or count == 20)


def test_bars_by_hand():
    first, second = charts.bars([(3, 0.5, 0.25), (4, 0.5, 1.0)])
    assert (first.written, first.reference, second.written, second.reference) == (0.5, 0.25, 0.5, 1.0)
    assert first.told == "3 words: 50.0% of generated captions, 25.0% of references" and (
        first.label,
        second.label,
    ) == ("3", "4")
    assert charts.bars([(3, 0.5, 0.25), (4, 0.5, 1.0)], most=4)[1].label == "4+"
    (only,) = charts.bars([(3, 0.5, 0.25)])
    assert (only.written, only.reference) == (1, 0.5)
    many = charts.bars([(length, 0.01, 0.01) for length in range(1, 61)])
    assert many[-1].left + many[-1].width == pytest.approx(charts.WIDTH)
    assert [bar.label for bar in many if bar.label] == [str(length) for length in range(3, 61, 3)]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.1234, "0.123"), (1234.5, "1234"), (12_345, "12.3k"), (2.5e6, "2.5M"), (1.2e-4, "1.2e-4"), (-3, "-3")],
)
def test_short_numbers(value, text):
    assert charts.short(value) == text


def table(values) -> ScoreTable:
    size = len(values)
    return ScoreTable(list(range(100, 100 + size)), [""] * size, {"CIDEr": np.array(values, dtype=float)}, {})


def test_examples_are_the_best_the_worst_and_those_in_the_middle():
    chosen = caption_statistics.choose(table([5, 1, 9, 3, 7, 0, 8]), "CIDEr", 2)
    assert chosen == {"best": [102, 106], "typical": [100, 103], "worst": [105, 101]}
    for size in range(1, 12):
        chosen = caption_statistics.choose(table(range(size)), "CIDEr", 3)
        every = [image_id for ids in chosen.values() for image_id in ids]
        assert len(set(every)) == len(every) and chosen["best"][0] == 99 + size


def test_examples_in_the_middle_are_near_the_median_and_the_better_first():
    assert caption_statistics.choose(table([0, 1, 2, 3, 4, 50, 60]), "CIDEr", 1)["typical"] == [103]
    assert caption_statistics.choose(table([10, 9, 5, 6, 1, 0]), "CIDEr", 2)["typical"] == [103, 102]
    assert caption_statistics.choose(table([5, 1, 9, 3]), "CIDEr", 2) == {
        "best": [102],
        "typical": [100],
        "worst": [101],
    }


def test_repeated_captions_by_hand():
    written = [("a", "dog"), ("a", "cat"), ("a", "dog"), ("b",), ("a", "dog"), ("b",)]
    found, several, share = caption_statistics.repeated(written, [("b",), ("b",), ("x",)], join=" ".join, most=1)
    assert found == [("a dog", 3, 0)] and several == 2 and share == pytest.approx(5 / 6)
    assert caption_statistics.repeated(written, [("b",), ("b",)], join=" ".join, most=9)[0][1] == ("b", 2, 2)
    assert caption_statistics.repeated([("a",)], [], join=" ".join, most=9) == ([], 0, 0.0)
    chinese = [["一", "只", "狗"]] * 2
    assert caption_statistics.repeated(chinese, [], join=make_tokenizer("unicode").join, most=9)[0][0][0] == "一只狗"


def test_unknown_words_by_hand():
    found = caption_statistics.unknown_words([["a", "dog"], ["a", "fox", "fox"], ["owl"]], {"a", "dog"}, most=1)
    assert found == (pytest.approx(3 / 6), pytest.approx(2 / 3), [("fox", 2)], 2)
    assert caption_statistics.unknown_words([], {"a"}, most=1) == (0.0, 0.0, [], 0)


def test_lengths_by_hand():
    found = caption_statistics.lengths([["a"] * 2, ["a"] * 4], [["a"] * 3, ["a"] * 90, ["a"] * 3, ["a"] * 4], most=5)
    assert found == [(2, 0.5, 0.0), (3, 0.0, 0.5), (4, 0.5, 0.25), (5, 0.0, 0.25)]


def test_settings_are_flattened():
    node = {
        "_target_": "a.b.LSTM",
        "_partial_": True,
        "width": 3,
        "parts": [{"_target_": "c.D", "x": None}],
        "list": [1],
    }
    assert caption_statistics.flatten(node, "cell") == [
        ("cell", "LSTM"), ("cell.width", "3"), ("cell.parts.0", "D"), ("cell.parts.0.x", "–"), ("cell.list", "[1]"),
    ]  # fmt: skip


# ---- the page


def test_the_page_holds_all_that_it_shows(run):
    html = (run / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert html.startswith("<!doctype html>")
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "embed", "base", "form", "audio", "video"}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
    assert "url(" not in html and "@import" not in html
    (policy,) = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_scores_and_captions_are_those_of_the_scorer(run):
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    records = [r for r in read_csv(run.parent / "data") if r.split == "val"]
    predictor = load(run / "checkpoints" / "best.ckpt", device="cpu")
    made = {r.image_id: predictor.caption(r.path, "greedy")[0].text for r in records}
    seen = [c for r in read_csv(run.parent / "data") if r.split == "train" for c in r.captions]
    scored = Scorer(bootstrap=20)({r.image_id: r.captions for r in records}, made, training=seen)
    for name, value in scored.scores.items():
        low, high = scored.intervals[name]
        assert f"{name} {value:.4f} {low:.4f} … {high:.4f}" in page.text
    chosen = caption_statistics.choose(scored.table, "CIDEr", 1)
    for image_id in chosen["best"] + chosen["worst"]:
        assert made[image_id] in page.text
    assert "csv val, decoding greedy, 4 images" in page.text


def test_scores_per_group_are_those_of_the_evaluation(tmp_path):
    """A run whose data is nocaps: the report shows what captioning-evaluate writes to groups.json."""
    run, root = make_run(tmp_path), tmp_path / "nocaps"
    (root / "val").mkdir(parents=True)
    domains = ["in-domain", "out-domain", "in-domain", "out-domain"]
    images, texts = [], []
    for record, domain in zip((r for r in read_csv(tmp_path / "data") if r.split == "val"), domains, strict=True):
        (root / "val" / record.path.name).write_bytes(record.path.read_bytes())
        images.append({"id": record.image_id, "file_name": record.path.name, "domain": domain})
        texts += [
            {"image_id": record.image_id, "id": len(texts) + at, "caption": c} for at, c in enumerate(record.captions)
        ]
    (root / "nocaps_val_4500_captions.json").write_text(json.dumps({"images": images, "annotations": texts}))
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["data"] |= {"root": str(root), "reader": {"_target_": "captioning.data.read_nocaps", "root": str(root)}}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    made = {image["id"]: SENTENCES[at] for at, image in enumerate(images)}
    leave_evaluation(run / "val", made)
    text = Page(run_report(run)).text
    references = {
        image["id"]: [each["caption"] for each in texts if each["image_id"] == image["id"]] for image in images
    }
    scored = Scorer(bootstrap=20)(references, made)
    found = score_groups(scored, {image["id"]: image["domain"] for image in images})
    assert "Scores per group Score in-domain 2 images out-domain 2 images BLEU-1" in text
    for name in scored.scores:
        cells = [
            f"{g.scores[name]:.4f} {g.intervals[name][0]:.4f} … {g.intervals[name][1]:.4f}" for g in found.values()
        ]
        assert f"{name} {' '.join(cells)}" in text
    assert "Fewer than 20 images in in-domain, out-domain: these scores are mostly chance" in text


def test_a_data_set_without_groups_has_no_table_of_them(run):
    assert "Scores per group" not in (run / "report.html").read_text(encoding="utf-8")


def test_panels_are_of_the_words_and_pictures_open(run):
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    panels = [each for each in pictures if "title" in each]
    assert panels and len(pictures) - len(panels) == 3  # best, typical, worst
    for each in pictures:
        opened = Image.open(io.BytesIO(base64.b64decode(each["src"].partition(",")[2])))
        assert opened.format == "JPEG" and opened.size == (96, 64)


def test_it_tells_of_training_settings_and_versions(run):
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    for text in ("train 3", "val 3.5", "BLEU-4 0.2", "embedding_ size 8", "LSTM of width 16", "torch", "Unknown words"):
        assert text in page.text, text


def test_nothing_from_outside_becomes_markup(tmp_path):
    captions = [f"{NASTY} a dog", *SENTENCES[1:]]
    run = make_run(tmp_path, names=("<b>one<b>.png", "&lt;two.png", "three.png", "four.png"), captions=captions)
    records = [r for r in read_csv(run.parent / "data") if r.split == "val"]
    leave_evaluation(tmp_path / "scored", {record.image_id: NASTY for record in records})
    settings = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(settings | {"<u>key</u>": NASTY}))
    html = run_report(run, f"evaluation={tmp_path / 'scored'}")
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "b", "u"}
    assert "alert" in page.text and "<script" not in html and "<img src=x" not in html
    shown = [attributes for tag, attributes in page.tags if tag == "img"]
    assert all(attributes["src"].startswith("data:") and "onerror" not in attributes for attributes in shown)
    assert NASTY.split("'")[0] in page.text and "<b>one<b>.png" in page.text and "&lt;two.png" in page.text


def test_an_evaluation_that_is_there_is_not_made_again(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    records = [r for r in read_csv(run.parent / "data") if r.split == "val"]
    captions = dict.fromkeys((record.image_id for record in records), "a dog runs")
    leave_evaluation(run / "val", captions)
    os.utime(run / "val" / "captions.json")
    monkeypatch.setattr("captioning.evaluation.write_captions", None)
    text = Page(run_report(run)).text
    assert "decoding beam7" in text and "a dog runs 4 0" in text and "100 % of the images have such a caption" in text


def test_examples_look_where_the_evaluation_looked(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    records = read_csv(tmp_path / "data")
    leave_evaluation(run / "val", {record.image_id: "a dog" for record in records if record.split == "val"})
    statistics = json.loads((run / "val" / "statistics.json").read_text())
    statistics["about"]["crops"] = [0.75]
    (run / "val" / "statistics.json").write_text(json.dumps(statistics))
    loaded = []

    def watched(*given, **named):
        loaded.append(load(*given, **named))
        return loaded[-1]

    monkeypatch.setattr("captioning.inference.load", watched)
    run_report(run)
    assert [len(predictor.views) for predictor in loaded] == [5]


def test_an_evaluation_of_an_older_checkpoint_is(tmp_path):
    run = make_run(tmp_path)
    leave_evaluation(run / "val", {1: "of another checkpoint"})
    os.utime(run / "val" / "captions.json", (1, 1))
    text = Page(run_report(run, "decoding=greedy")).text
    assert "evaluated for this report" in text and "of another checkpoint" not in text


def test_a_run_without_validation_is_reported_by_its_last_checkpoint(tmp_path):
    run = make_run(tmp_path)
    (run / "checkpoints/best.ckpt").rename(run / "checkpoints/last.ckpt")
    assert "evaluated for this report" in Page(run_report(run, "decoding=greedy")).text


@pytest.mark.parametrize("kind", ["hard", "none"])
def test_other_attention(tmp_path, kind):
    page = Page(run_report(make_run(tmp_path, f"model/attention={kind}"), "decoding=greedy", "examples=1"))
    panels = [attributes for tag, attributes in page.tags if tag == "img" and "title" in attributes]
    assert bool(panels) is (kind == "hard")
    assert ("The frame marks the location that hard attention chose" in page.text) is (kind == "hard")
    assert ("has no attention" in page.text) is (kind == "none")


def test_a_run_that_moved(tmp_path):
    run = make_run(tmp_path)
    (run.parent / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="data"):
        run_report(run)
    page = run_report(run, f"data.root={tmp_path / 'elsewhere'}", f"features.root={tmp_path / 'f'}", "decoding=greedy")
    assert (tmp_path / "f").is_dir() and "evaluated for this report" in page


def test_roots_are_moved_with_what_lies_in_them():
    node = {"root": "a/b", "reader": {"root": "a/b", "file": "a/b/c.json", "images": "a/bc", "n": 1}, "x": ["a/b"]}
    expected = {"root": "z", "reader": {"root": "z", "file": "z/c.json", "images": "a/bc", "n": 1}, "x": ["a/b"]}
    assert moved(node, "a/b", "z") == expected
    assert moved(node, "a/b", None) is node


def test_a_picture_that_is_gone_is_told(tmp_path):
    run = make_run(tmp_path)
    run_report(run, "decoding=greedy")
    records = [r for r in read_csv(run.parent / "data") if r.split == "val"]
    leave_evaluation(run / "val", {record.image_id: "a dog" for record in records})
    for record in records:
        record.path.write_bytes(b"no picture any more")
    page = Page(run_report(run))
    assert "not an image" in page.text and not [tag for tag, _ in page.tags if tag == "img"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [(["by=SPICE"], "by=SPICE"), (["examples=0"], "examples"), (["split=dev"], "dev"), (["evaluation=none"], "none")],
)
def test_what_cannot_be_is_told(run, overrides, message):
    with pytest.raises((ConfigError, DataError), match=message):
        run_report(run, *overrides)


def test_folders_that_are_no_run(tmp_path, run):
    with pytest.raises(DataError, match=r"config\.yaml"):
        run_report(tmp_path)
    for content in ("a: [", "text", "data: {name: x}\nfeatures: {_target_: y}", "\xff"):
        (tmp_path / "config.yaml").write_bytes(content.encode("latin-1"))
        with pytest.raises(DataError, match=r"config\.yaml"):
            run_report(tmp_path)
    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    with pytest.raises(CheckpointError, match=r"best\.ckpt"):
        run_report(tmp_path)


@pytest.mark.slow
def test_the_training_s_own_versions_are_told(tmp_path, run):
    assert "versions not recorded in the run's folder" in Page((run / "report.html").read_text(encoding="utf-8")).text
    run = make_run(tmp_path)
    starts = [{"commit": "old"}, {"commit": "abc123-dirty", "versions": {"torch": "9.9.9"}, "command": NASTY}]
    (run / "provenance.json").write_text(json.dumps(starts), encoding="utf-8")
    html = run_report(run, "decoding=greedy", "examples=1")
    text = Page(html).text
    assert "starts 2 commit abc123-dirty versions. torch 9.9.9" in text and "<script" not in html and "alert(2)" in text
    for content in ("[", "{}", '["text"]', "[null]"):
        (run / "provenance.json").write_text(content, encoding="utf-8")
        assert "<h3>Training</h3>" in run_report(run, "decoding=greedy", "examples=1")


def test_a_run_without_a_log_has_a_report(tmp_path):
    run = make_run(tmp_path)
    (run / "metrics.csv").unlink()
    assert "metrics.csv" in Page(run_report(run, "decoding=greedy", "examples=1")).text


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "touch hacked"},
        {"_target_": "captioning.io.download.download", "archives": []},
        {"_target_": "captioning.data.scenes._draw", "root": "x"},
        {"_target_": "captioning.data.scenes.tqdm", "iterable": []},
        {"_target_": "captioning.features.sources.nothing"},
        {"_target_": "captioning.data.readers.os.system", "command": "touch hacked"},
        {"_target_": "captioning.data.read_csv", "root": {"_target_": "os.getcwd"}},
        {"_target_": ["os.system"]},
        "os.system",
        None,
    ],
)
def test_a_configuration_of_a_stranger_builds_readers_only(node, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        build_reader(node)
    assert not list(tmp_path.iterdir())
