"""Scores against the official ones; error bars, diversity, and what bad input gets."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import slow_scores
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning.errors import ConfigError, DataError, ToolError
from captioning.metrics import Scorer, ScoreTable, bootstrap, diversity, from_csv, java, score, to_csv
from captioning.metrics.ciderd import DocumentFrequencies

NAMES = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="no Java here")
REFERENCES = {
    1: ["A red dog runs fast.", "a dog is running"],
    2: ["Two cats sit here now", "Cats on a bed."],
    3: ["a man rides a brown horse on the beach", "a person on a horse"],
}
CAPTIONS = {1: "a dog runs", 2: "two cats on a bed", 3: "a man on a beach"}


def golden(shared_dir, size):
    def read(name):
        return json.loads((shared_dir / "metrics" / f"coco_val2017_{size}_{name}.json").read_text())

    references: dict[int, list[str]] = {}
    for annotation in read("references")["annotations"]:
        references.setdefault(annotation["image_id"], []).append(annotation["caption"])
    return references, {result["image_id"]: result["caption"] for result in read("captions")}, read("scores")


@pytest.mark.parametrize("size", [200, 2500])
def test_raw_captions_score_as_the_official_scorers_say(shared_dir, size):
    references, captions, official = golden(shared_dir, size)
    scores = score(references, captions)
    assert scores == {name: pytest.approx(official[name], abs=1e-6) for name in NAMES}
    assert list(scores) == NAMES


@pytest.mark.slow
@needs_java
@pytest.mark.parametrize("size", [200, 2500])
def test_java_programs_score_as_recorded(shared_dir, size):
    references, captions, official = golden(shared_dir, size)
    report = Scorer(tokenizer="java", meteor=True, bootstrap=20)(references, captions)
    assert report.scores == {name: pytest.approx(official[name], abs=1e-6) for name in [*NAMES, "METEOR"]}
    low, high = report.intervals["METEOR"]
    assert low < report.scores["METEOR"] < high


@pytest.mark.slow
@needs_java
def test_recorded_meteor_of_each_image(shared_dir):
    content = json.loads((shared_dir / "metrics" / "coco_val2014_fakecap334.json").read_text())
    order = [str(image_id) for image_id in content["per_image_order"]]
    texts = [content["tokenized_hyps"][key] for key in order]
    texts = [text[0] if isinstance(text, list) else text for text in texts]
    counts = java.meteor_counts([content["tokenized_refs"][key] for key in order], texts)
    np.testing.assert_allclose(java.meteor(counts), content["per_image"]["METEOR"], atol=1e-6)
    assert java.meteor(counts.sum(0)) == pytest.approx(content["scores"]["METEOR"], abs=1e-6)


EDGES = {  # image id -> (references, caption): what coco-caption's users stumble over
    1: (["a dog runs"], ""),
    2: (["a cat", "two cats"], " . , ! "),
    3: ([""], ""),
    4: (["a dög sees 犬 for ½ of the day"], "a dög sees 犬 for ½"),
    5: (["a b", "a\nb c"], "a\nb"),
    6: (["a|||b"], "a ||| b"),
    7: (["it is 22 3/4 long"], "22 3/4 long"),
    8: (["one"], "one"),
    9: (["the same thing as ever", "the same"], "the same thing as ever"),
}


def test_edges_score_as_the_official_scorers_say():
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    from captioning.text import tokenize

    truths = {key: [" ".join(tokenize(text)) for text in texts] for key, (texts, _) in EDGES.items()}
    results = {key: [" ".join(tokenize(text))] for key, (_, text) in EDGES.items()}
    official, each = Bleu(4).compute_score(truths, results, verbose=0)
    totals = dict(zip(NAMES, official, strict=False))
    images = dict(zip(NAMES, each, strict=False))
    totals["ROUGE-L"], images["ROUGE-L"] = Rouge().compute_score(truths, results)
    totals["CIDEr"], images["CIDEr"] = Cider().compute_score(truths, results)
    report = Scorer(bootstrap=0)({k: texts for k, (texts, _) in EDGES.items()}, {k: c for k, (_, c) in EDGES.items()})
    for name in NAMES:
        assert report.scores[name] == pytest.approx(totals[name], abs=1e-12)
        np.testing.assert_allclose(report.table.values[name], images[name], atol=1e-12)
    assert report.table.values["ROUGE-L"][2] == 1.0  # an empty caption is a perfect match of an empty reference
    assert report.captions["empty"] == pytest.approx(3 / 9)


@pytest.mark.parametrize("mark", ["\r", "\r\n", "\u2028", "\x0b", "\x0c", "\x85", "\n"])
def test_line_ends_are_spaces(mark):
    broken = {key: text.replace(" ", mark) for key, text in CAPTIONS.items()}
    assert score(REFERENCES, broken) == score(REFERENCES, CAPTIONS)


@pytest.mark.slow
@needs_java
def test_java_programs_survive_line_ends_bars_and_nothing():
    captions = {1: "a\rdog\u2028runs", 2: "two ||| cats", 3: ""}
    report = Scorer(tokenizer="java", meteor=True, bootstrap=0)(REFERENCES, captions)
    assert report.scores == Scorer(meteor=True, bootstrap=0)(REFERENCES, captions).scores
    assert report.table.values["METEOR"][2] == 0.0 and report.table.values["METEOR"][0] > 0.2


def test_one_image_alone_has_no_cider():
    scores = score({1: ["a dog runs on grass"]}, {1: "a dog runs on grass"})
    assert scores["CIDEr"] == 0.0 and scores["BLEU-4"] == pytest.approx(1.0) and scores["ROUGE-L"] == 1.0


def test_the_order_of_captions_does_not_matter():
    assert score(REFERENCES, CAPTIONS) == score(REFERENCES, dict(reversed(CAPTIONS.items())))


@pytest.mark.parametrize(
    ("references", "captions", "message"),
    [
        ({}, {}, "nothing to score"),
        ({1: ["a"], 2: ["b"]}, {1: "a"}, r"1 image without a caption.*ids 2"),
        ({1: ["a"]}, {1: "a", 3: "c"}, r"1 image without references.*ids 3"),
        ({1: []}, {1: "a"}, r"empty list of references.*ids 1"),
        ({1: ["a"], 4: ["b"]}, {1: "a", 4: None}, r"caption that is not text.*ids 4"),
        ({1: ["a"], 4: ["b"]}, {1: "a", 4: float("nan")}, r"caption that is not text.*ids 4"),
        ({1: [float("inf")]}, {1: "a"}, r"reference that is not text.*ids 1"),
        ({1: ["a"], 2: []}, {1: "a", 3: None}, r"ids 2; 1 image without references: image ids 3; .*ids 2; .*ids 3"),
    ],
)
def test_images_must_agree(references, captions, message):
    for scorer in (score, Scorer()):
        with pytest.raises(DataError, match=message):
            scorer(references, captions)


def test_without_java_nothing_is_zero(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    report = Scorer(meteor=True, spice=True, bootstrap=0)(REFERENCES, CAPTIONS)
    assert list(report.scores) == NAMES and list(report.table.values) == NAMES
    assert "METEOR needs Java" in report.unavailable["METEOR"] and "install" in report.unavailable["SPICE"]
    with pytest.raises(ToolError, match="Java tokenizer needs Java"):
        Scorer(tokenizer="java")(REFERENCES, CAPTIONS)


@pytest.mark.skipif(shutil.which("false") is None, reason="no program that fails")
def test_a_program_that_breaks_off_is_told(monkeypatch):
    failing = shutil.which("false")
    monkeypatch.setattr(shutil, "which", lambda name: failing)
    report = Scorer(meteor=True, spice=True, bootstrap=0)(REFERENCES, CAPTIONS)
    assert "METEOR's Java program failed" in report.unavailable["METEOR"]
    assert "stanford-corenlp-3.6.0" in report.unavailable["SPICE"]  # told, not downloaded
    with pytest.raises(ToolError, match="the Java tokenizer failed"):
        Scorer(tokenizer="java")(REFERENCES, CAPTIONS)


def test_spice_of_images_in_any_order(monkeypatch, tmp_path):
    """The official scorer sorts image ids; its answers must come back to their own images."""
    from pycocoevalcap.spice import spice

    class Sorting:
        def compute_score(self, truths, results):
            ids = {text: image_id for image_id, text in CAPTIONS.items()}
            return 0.0, [{"All": {"f": ids[results[key][0]] / 100}} for key in sorted(results)]

    monkeypatch.setattr(spice, "Spice", Sorting)
    monkeypatch.setattr(java, "command", lambda *arguments, **names: [])
    monkeypatch.setattr(java, "MODELS", ())
    references = {key: REFERENCES[key] for key in (3, 1, 2)}
    report = Scorer(spice=True, bootstrap=0)(references, CAPTIONS)
    assert report.table.values["SPICE"].tolist() == [0.03, 0.01, 0.02]
    assert report.scores["SPICE"] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("option", "message"),
    [({"tokenizer": "nlkt"}, "nlkt is not .*mean nltk"), ({"bootstrap": -1}, "-1"), ({"seed": -1}, "-1")],
)
def test_options(option, message):
    with pytest.raises(ConfigError, match=message):
        Scorer(**option)


def test_importing_scores_imports_no_torch():
    code = "import sys, captioning.metrics, captioning.score, captioning.compare; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# Error bars


def test_a_resample_scores_as_those_captions_would():
    """Weights 2, 0, 1: the images' counts and own scores, added as often as they were drawn."""
    table = Scorer(bootstrap=0)(REFERENCES, CAPTIONS).table
    totals = table.totals(np.array([[2.0, 0.0, 1.0]]))
    doubled = {1: REFERENCES[1], 11: REFERENCES[1], 3: REFERENCES[3]}
    again = score(doubled, {1: CAPTIONS[1], 11: CAPTIONS[1], 3: CAPTIONS[3]})
    for name in NAMES[:5]:
        assert totals[name][0] == pytest.approx(again[name], abs=1e-12)
    cider = table.values["CIDEr"]  # with the document frequencies of all three images
    assert totals["CIDEr"][0] == pytest.approx((2 * cider[0] + cider[2]) / 3)


def test_intervals_of_a_mean_are_those_of_theory():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    table = ScoreTable(list(range(400)), [""] * 400, {"CIDEr": values}, {})
    low, high = bootstrap.intervals(table, resamples=4000, seed=2)["CIDEr"]
    spread = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - spread, abs=0.02)
    assert high == pytest.approx(values.mean() + spread, abs=0.02)
    assert bootstrap.intervals(table, resamples=60, seed=2) == bootstrap.intervals(table, resamples=60, seed=2)


def test_a_paired_comparison_sees_what_intervals_do_not():
    generator = np.random.default_rng(0)
    values = generator.normal(1.0, 1.0, 300)
    tables = [
        ScoreTable(list(range(300)), [""] * 300, {"CIDEr": values + shift}, {})
        for shift in (0.0, generator.normal(0.05, 0.05, 300), generator.normal(0.07, 0.05, 300))
    ]
    found = bootstrap.paired_bootstrap(tables[:1], tables[1:], resamples=500)["CIDEr"]
    difference = (tables[1].values["CIDEr"] + tables[2].values["CIDEr"]) / 2 - values
    assert found.b - found.a == pytest.approx(difference.mean())
    assert found.low == pytest.approx(difference.mean() - 1.96 * difference.std() / 300**0.5, abs=0.002)
    assert (found.a_better, found.b_better) == (0.0, 1.0)
    assert bootstrap.intervals(tables[0], resamples=500)["CIDEr"][1] > found.b  # apart, they overlap
    same = bootstrap.paired_bootstrap(tables[:1], tables[:1], resamples=50)["CIDEr"]
    assert same[2:] == (0.0, 0.0, 0.0, 0.0)


def test_a_table_survives_its_file(tmp_path):
    table = Scorer(bootstrap=0)(REFERENCES, CAPTIONS | {1: 'a "dog",\r\nruns\u2028'}).table
    file = tmp_path / "per_image.csv"
    file.write_text(to_csv(table), encoding="utf-8", newline="")
    again = from_csv(file)
    assert again.image_ids == [1, 2, 3] and again.captions == table.captions
    assert {k: v[0] for k, v in again.totals().items()} == pytest.approx({k: v[0] for k, v in table.totals().items()})


NO_TABLES = {
    "empty": "",
    "another": "a,b\n",
    "no number": "image_id,caption,CIDEr\n1,a,x\n",
    "unknown counts": "image_id,caption,X:0\n1,a,3\n",
    "no images": "image_id,caption,CIDEr\n",
    "an image twice": "image_id,caption,CIDEr\n1,a,0.5\n1,b,0.5\n",
    "a column twice": "image_id,caption,CIDEr,CIDEr\n1,a,0.5,0.5\n",
    "not finite": "image_id,caption,CIDEr\n1,a,0.5\n2,b,nan\n",
    "infinite": "image_id,caption,CIDEr\n1,a,-inf\n",
    "counts short": "image_id,caption,BLEU-1,BLEU:0,BLEU:1,BLEU:2\n1,a,0.5,1,1,1\n",
    "counts of METEOR short": "image_id,caption,METEOR,METEOR:0\n1,a,0.5,1\n",
}


@pytest.mark.parametrize("text", NO_TABLES.values(), ids=list(NO_TABLES))
def test_a_file_that_is_no_table(tmp_path, text):
    file = tmp_path / "per_image.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=r"per_image\.csv as a table of scores"):
        from_csv(file)


# Diversity


def test_captions_are_described():
    captions = [["a", "dog"], ["a", "dog"], ["a", "<unk>", "cat"], []]
    described = diversity.describe_diversity(captions, [[["a", "b", "c"]]], training={("a", "dog"), ("x",)})
    assert described == {
        "distinct": 3 / 4,
        "vocabulary": 4,
        "div-1": 4 / 7,
        "div-2": 3 / 7,
        "length": 7 / 4,
        "shortest": 0,
        "longest": 3,
        "length of references": 3.0,
        "empty": 1 / 4,
        "with unknown words": 1 / 4,
        "unknown words": 1 / 7,
        "novel": 1 / 4,
    }
    assert "novel" not in diversity.describe_diversity(captions, [[["a"]]])


def test_oracle_scores_are_the_best_of_every_choice():
    samples = {1: ["a dog", "a red dog runs"], 2: ["two cats", "cats on a bed", "x"], 3: ["a man on a horse"]}
    found = Scorer(bootstrap=0)(REFERENCES, CAPTIONS, samples=samples).samples
    assert found["an image"] == 2.0
    choices = [
        Scorer(bootstrap=0)(REFERENCES, {1: a, 2: b, 3: samples[3][0]}).table.values
        for a in samples[1]
        for b in samples[2]
    ]
    for name in ("ROUGE-L", "CIDEr"):
        assert found[f"oracle {name}"] == pytest.approx(max(values[name].mean() for values in choices))
    best = Scorer(bootstrap=0)(REFERENCES, {1: samples[1][1], 2: samples[2][1], 3: samples[3][0]}).scores
    assert found["oracle BLEU-4"] == pytest.approx(best["BLEU-4"])


words = st.lists(st.sampled_from("abcde"), min_size=1, max_size=6)


@given(st.lists(words, min_size=2, max_size=4))
@settings(max_examples=40, deadline=None)
def test_self_cider_from_its_definition(group):
    references = {1: [["a", "b", "c"]], 2: [["a", "d"]], 3: [["e", "b"]], 4: [["x"]]}
    slow = slow_scores.document_frequencies(references)
    matrix = [[slow_scores.cider(a, [b], *slow, plain=True) for b in group] for a in group]
    roots = np.sqrt(np.clip(np.linalg.eigvalsh(matrix), 0, None))
    wanted = -np.log(roots.max() / roots.sum()) / np.log(len(group))
    found = diversity.self_cider([group], DocumentFrequencies.build(references))
    assert found == pytest.approx(wanted, abs=1e-6)


def test_diversity_has_its_ends():
    frequencies = DocumentFrequencies.build({1: [["a", "b", "c", "d"]], 2: [["e", "f", "g", "h"]]})
    alike, apart = [list("abcd")] * 3, [list("abcd"), list("efgh")]
    assert diversity.self_cider([alike], frequencies) == pytest.approx(0.0, abs=1e-6)
    assert diversity.self_cider([apart], frequencies) == pytest.approx(1.0)
    assert diversity.self_cider([[["a"]], [[], []]], frequencies) == 0.0
    assert diversity.mutual_bleu([alike]) == pytest.approx(1.0) and diversity.mutual_bleu([apart]) < 1e-3
    assert diversity.mutual_bleu([[["a"]]]) == 0.0
