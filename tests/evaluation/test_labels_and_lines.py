"""What is printed and written around scores: titles, lines, labels of decodings, and tables of grounding."""

import csv
import io
import itertools
import json

import numpy as np
import pytest

from captioning.decoding import beam_search, diverse_beam_search, sample
from captioning.errors import DataError
from captioning.evaluation import (
    decoding_name,
    describe_scores,
    grounding_csv,
    grounding_table,
    read_about,
    read_fingerprint,
    read_scores,
    read_title,
    title,
    write_report,
)
from captioning.evaluation.decoding_label import LABELS
from captioning.metrics import Report, ScoreTable, from_csv
from captioning.metrics.grounding import MEASURES, Grounded
from captioning.metrics.mentions import Mention

ABOUT = {"data": "coco", "split": "val", "decoding": "beam5"}
TABLE = ScoreTable(
    [7, 9, "x"],
    ["a dog", "", "a cat"],
    {"BLEU-1": np.array([0.1, 0.2, 1 / 3]), "CIDEr": np.array([1.0, 2.0, 0.5])},
    {"BLEU": np.array([[1, 2, 2, 3.0], [0, 0, 0, 4], [2, 2, 2, 2]])},
)
REPORT = Report(
    scores={"BLEU-1": 0.123456, "CIDEr": 1.25},
    intervals={"BLEU-1": (0.1, 0.15), "METEOR": (0, 1)},
    table=TABLE,
    captions={
        "distinct": 0.5, "novel": 0.123, "with unknown words": 0.0, "empty": 0.25, "length": 9.46, "vocabulary": 17,
        "length of references": 10.04,
    },
    samples={"an image": 2.0, "div-1": 0.333333},
    unavailable={"METEOR": "no Java"},
    tokenizer="ptb",
    resamples=300,
    notes={"CIDEr": "0 by definition", "WARNING": "no spaces"},
    references="0123abcd",
    models={},
)  # fmt: skip


def test_titles_say_what_scores_are_of():
    about = ABOUT | {"tokenizer": "java", "images": 3}
    start = "coco val, decoding beam5, Penn-Treebank tokens (Java), "
    assert title(about) == start + "3 images"
    assert (
        title(about | {"matched by": "file name"}) == start + "3 images, captions and references matched by file name"
    )
    subset = {"annotated": 8, "captions without references": 0}
    assert title(about | {"subset": subset}) == start + "SUBSET: 3 of 8 annotated images"
    assert title(about | {"subset": subset | {"captions without references": 2}, "matched by": "image id"}) == (
        start + "SUBSET: 3 of 8 annotated images, 2 captions without references skipped, captions and references "
        "matched by image id"
    )
    assert title(about | {"images": 1}) == start + "1 image"
    assert title(about | {"images": 1000}) == start + "1,000 images"


def test_titles_name_both_files_of_a_score():
    about = {"data": "results.json", "annotations": "truth.json", "split": "truth", "decoding": "not stated"}
    about |= {"tokenizer": "ptb", "images": 5}
    end = ", Penn-Treebank tokens, 5 images"
    assert title(about) == "results.json, references of truth.json" + end
    assert title(about | {"split": "val"}) == "results.json, references of truth.json (split val)" + end
    assert title(about | {"decoding": "beam5"}) == "results.json, references of truth.json, decoding beam5" + end


@pytest.mark.parametrize(("count", "noted"), [(1, "1 image"), (19, "19 images"), (20, "")])
def test_scores_of_few_images_have_a_note(count, noted):
    table = ScoreTable(list(range(count)), ["a"] * count, {"CIDEr": np.ones(count)}, {})
    last = describe_scores(REPORT._replace(table=table), ABOUT, extra={}).splitlines()[-1]
    few = f"  NOTE      only {noted}: scores of so few are mostly chance; score 20 or more"
    assert last == (few if noted else "  WARNING   no spaces")


def test_scores_as_lines():
    assert describe_scores(REPORT, ABOUT, extra={"truth": 2 / 3}).splitlines() == [
        "coco val, decoding beam5, Penn-Treebank tokens, 3 images",
        "  BLEU-1      0.1235   95 % 0.1000 … 0.1500",
        "  CIDEr       1.2500   (0 by definition)",
        "  truth       0.6667",
        "  METEOR    not available: no Java",
        "  captions: 50.0% distinct, 12.3% novel, 0.0% with unknown words, 25.0% empty; 9.5 words per caption "
        "(references: 10.0); 17 different words",
        "  samples: an image 2, div-1 0.3333",
        "  WARNING   no spaces",
        "  NOTE      only 3 images: scores of so few are mostly chance; score 20 or more",
    ]
    captions = {name: value for name, value in REPORT.captions.items() if name != "novel"}
    lines = describe_scores(REPORT._replace(captions=captions, samples={}, notes={}), ABOUT, extra={}).splitlines()
    assert lines[2] == "  CIDEr       1.2500" and len(lines) == 6 and "novel" not in lines[4]


def test_a_report_written_and_read(tmp_path):
    write_report(tmp_path / "new", REPORT, ABOUT, extra={"truth": 0.5}, names={7: "a.jpg", "x": "b.jpg"})
    captions = json.loads((tmp_path / "new" / "captions.json").read_text())
    assert captions == [
        {"image_id": 7, "caption": "a dog", "file_name": "a.jpg"},
        {"image_id": 9, "caption": ""},
        {"image_id": "x", "caption": "a cat", "file_name": "b.jpg"},
    ]
    table = from_csv(tmp_path / "new" / "per_image.csv")
    assert table.names == ["a.jpg", "", "b.jpg"] and table.image_ids == [7, 9, "x"]
    assert table.captions == TABLE.captions
    for name, values in TABLE.values.items():
        np.testing.assert_allclose(table.values[name], values, rtol=1e-9)
    assert table.counts["BLEU"].tolist() == TABLE.counts["BLEU"].tolist()
    text = (tmp_path / "new" / "per_image.csv").read_text()
    assert text.splitlines()[0] == "image_id,caption,file_name,BLEU-1,CIDEr,BLEU:0,BLEU:1,BLEU:2,BLEU:3"
    assert "0.3333333333," in text  # ten digits
    about = ABOUT | {"tokenizer": "ptb", "images": 3}
    assert read_about(tmp_path / "new") == about
    assert read_title(tmp_path / "new") == title(about)
    assert read_fingerprint(tmp_path / "new") == "0123abcd"
    found = read_scores(tmp_path / "new")
    assert found == {
        "of": title(about),
        "about": {key: about[key] for key in ("data", "split", "decoding")},
        "values": REPORT.scores | {"truth": 0.5},
        "intervals": {"BLEU-1": [0.1, 0.15], "METEOR": [0, 1]},
    }
    statistics = json.loads((tmp_path / "new" / "statistics.json").read_text())
    assert statistics["intervals are"] == "95 %, 300 bootstrap resamples of images, CIDEr's document frequencies fixed"
    assert {key: statistics[key] for key in ("captions", "samples", "unavailable", "notes")} == {
        "captions": REPORT.captions,
        "samples": REPORT.samples,
        "unavailable": REPORT.unavailable,
        "notes": REPORT.notes,
    }


def test_a_report_without_file_names(tmp_path):
    write_report(tmp_path, REPORT, ABOUT, extra={})
    assert json.loads((tmp_path / "captions.json").read_text())[0] == {"image_id": 7, "caption": "a dog"}
    assert from_csv(tmp_path / "per_image.csv").names is None


def test_reports_that_are_none(tmp_path):
    assert read_fingerprint(tmp_path) is None
    (tmp_path / "statistics.json").write_text('{"references": 3, "about": {"data": "x"}, "intervals": {}}')
    assert read_fingerprint(tmp_path) is None
    with pytest.raises(DataError, match=r"the key 'images' is missing in 'about'") as caught:
        read_title(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'statistics.json'}: ")
    for change in ({"images": "3"}, {"images": None}, {"annotations": 5}, {"subset": 5}):
        about = {**ABOUT, "tokenizer": "ptb", "images": 3, **change}
        (tmp_path / "statistics.json").write_text(json.dumps({"about": about}))
        with pytest.raises(DataError, match=r"statistics\.json: a value in 'about' has a wrong type"):
            read_title(tmp_path)
    (tmp_path / "statistics.json").write_text("[]")
    assert read_fingerprint(tmp_path) is None
    with pytest.raises(DataError):
        read_about(tmp_path)
    for scores in ("[]", '{"CIDEr": "high"}', '{"CIDEr": 1.0, "BLEU-1": "low"}', '{"CIDEr": true}', '{"CIDEr": null}'):
        (tmp_path / "scores.json").write_text(scores)
        with pytest.raises(DataError, match=r"scores\.json does not have the scores .*Evaluate again"):
            read_scores(tmp_path)


# Labels of decodings

VALUES = {  # argument -> (a value that is no default, how it shows)
    "temperature": (0.7, "_t0.7"),
    "top_k": (5, "_k5"),
    "top_p": (0.9, "_p0.9"),
    "length_normalization": (0.75, "_length0.75"),
    "min_length": (3, "_min3"),
    "max_length": (30, "_max30"),
    "no_repeat_ngram": (2, "_ngram2"),
    "avoid": (["a", "b"], "_avoid-a-b"),
    "allow": (["<unk>"], "_allow-<unk>"),
    "require": (["dog"], "_require-dog"),
    "avoid_endings": (["of", "the"], "_noend-of-the"),
}


def test_every_setting_that_changes_captions_shows_in_its_place():
    node = {"_target_": "captioning.decoding.sample"}
    assert decoding_name(node) == "sample"
    for keys in itertools.chain(itertools.combinations(VALUES, 1), itertools.combinations(VALUES, 2), [tuple(VALUES)]):
        given = {key: VALUES[key][0] for key in reversed(keys)}
        assert decoding_name(node | given) == "sample" + "".join(VALUES[key][1] for key in VALUES if key in keys)
    assert VALUES.keys() | {"length_penalty", "diversity"} == LABELS.keys()
    assert decoding_name(node | {"avoid": [], "require": [], "seed": 3, "samples": 9}) == "sample"


def test_beams_groups_and_candidates():
    beam = {"_target_": "captioning.decoding.beam_search", "beam_size": 5, "n_best": 4}
    assert decoding_name(beam) == "beam5"
    assert decoding_name(beam | {"length_penalty": 0.6, "length_normalization": 0.9}) == "beam5_gnmt0.6"
    assert decoding_name(beam | {"length_penalty": 0.0, "length_normalization": 0.9}) == "beam5_length0.9"
    assert decoding_name(beam | {"checkpoints": ["b"]}) == "ensemble2_beam5"
    assert decoding_name(beam | {"checkpoints": []}) == decoding_name(beam | {"checkpoints": None}) == "beam5"
    assert decoding_name({"_target_": beam["_target_"]}) == "beam3"  # the search's own width
    diverse = {"_target_": "captioning.decoding.diverse_beam_search"}
    assert decoding_name(diverse) == "diverse6x3"
    assert decoding_name(diverse | {"beam_size": 4, "groups": 2, "diversity": 1.5}) == "diverse4x2_lambda1.5"
    assert decoding_name(diverse | {"diversity": 0}) == "diverse6x3_lambda0"
    consensus = {"_target_": "captioning.decoding.consensus_search"}
    assert decoding_name(consensus) == "consensus5of15+40"
    assert decoding_name(consensus | {"finalists": 0}) == "consensus40"
    assert decoding_name(consensus | {"temperature": 0}) == "consensus5of15+40_t0"
    assert decoding_name(consensus | {"finalists": 2, "beam_size": 3, "samples": 0}) == "consensus2of3+0"
    assert all(callable(search) for search in (beam_search, diverse_beam_search, sample))


# Grounding

CELL = {"mean": 0.12345, "low": 0.1, "high": 0.2}


def test_the_table_of_grounding():
    row = {measure: CELL | {"mean": at / 8} for at, measure in enumerate(MEASURES)}
    summary = {
        "images": 5, "images with scored words": 3, "words": 7, "hallucinated": 2,
        "means": {"attention": row}, "differences": {"attention - chance": row},
    }  # fmt: skip
    lines = grounding_table(summary, title="t").splitlines()
    assert lines[0] == (
        "t: 7 words name an object in the image, in 3 of 5 images; 2 more words name an object that is not in the image"
    )
    assert lines[1:3] == ["mean over words [95 % interval by bootstrap over images]", ""]
    assert lines[3].split("  ")[-1].strip() == "mass mask" and lines[3].index("pointing box") == 22
    cells = ["0.000 [0.100, 0.200]", "0.125 [0.100, 0.200]", "0.250 [0.100, 0.200]", "0.375 [0.100, 0.200]"]
    assert lines[4] == "  attention           " + (5 * " ").join(cells)
    assert lines[5] == "  attention - chance  " + (5 * " ").join(cells) and len(lines) == 6
    assert grounding_table(summary | {"means": None}, title="t").splitlines() == lines[:1]


def test_columns_of_the_table_of_grounding_do_not_touch():
    """The widest cell has three minus signs."""
    row = {measure: {"mean": -0.347, "low": -0.612, "high": -0.08} for measure in MEASURES}
    summary = {"images": 1, "images with scored words": 1, "words": 1, "hallucinated": 0}
    summary |= {"means": {"centre": row}, "differences": {"attention - uniform": row, "attention - centre": row}}
    lines = grounding_table(summary, title="t").splitlines()[3:]
    starts = [lines[0].index(measure) for measure in MEASURES]
    for line, name in zip(lines[1:], ("center", "attention - uniform", "attention - center"), strict=True):
        assert line[: starts[0]].strip() == name
        assert all(line[at - 1 : at + 6] == " -0.347" for at in starts) and line.count("-0.080]") == 4


def test_a_row_per_mention():
    seen = {"attention mass box": 1 / 3, "chance box": 0.25}
    grounded = {
        4: [Grounded(Mention(2, 4, "hot dog"), "hot dogs", None), Grounded(Mention(5, 6, "dog"), "dog", seen)],
        5: [],
        3: [Grounded(Mention(0, 1, "cat"), "cats", {"attention mass box": 1e-9, "chance box": 1.0})],
    }
    rows = list(csv.reader(io.StringIO(grounding_csv(grounded))))
    assert rows == [
        ["image_id", "position", "words", "category", "in_picture", "attention_mass_box", "chance_box"],
        ["4", "2", "hot dogs", "hot dog", "0", "", ""],
        ["4", "5", "dog", "dog", "1", "0.333333", "0.25"],
        ["3", "0", "cats", "cat", "1", "1e-09", "1"],
    ]
    assert grounding_csv({}) == "image_id,position,words,category,in_picture\n"
