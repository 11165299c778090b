"""Which captions tags guide by default: those of a checkpoint that recommends it, and of no other."""

import json
from types import SimpleNamespace

import pytest
from small_runs import save_checkpoint
from small_world import run

import captioning
from captioning.checkpoints import find_checkpoint, make_card, read_checkpoint, write_exported
from captioning.errors import CheckpointError
from captioning.inference import choose_guide, load_all, recommended_tags

GRID = {"encoder": {"_target_": "captioning.models.efficientnet_lite_encoder"}}


def guide_of(tags, predictor):
    return choose_guide(tags, lambda source: f"guide by {source}", predictor)


def predictor_of(*metadata, pieces=None):
    """A stand-in for a predictor, or for an ensemble if there are several metadata."""
    members = [SimpleNamespace(metadata={"config": GRID, **each}, path="own.ckpt") for each in metadata]
    tokenizer = SimpleNamespace(learned_pieces=lambda: pieces)
    return SimpleNamespace(members=members, vocabulary=SimpleNamespace(tokenizer=tokenizer))


def test_the_packaged_captioner_recommends_the_classifier_and_python_guides_nothing():
    predictor = captioning.load("flickr8k-small", device="cpu")
    assert predictor.guide is None and recommended_tags(predictor) == "classifier"
    assert guide_of("auto", predictor) == "guide by classifier" and guide_of(None, predictor) is None


def test_a_checkpoint_without_the_entry_has_no_tags(tmp_path):
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    save_checkpoint(path)
    predictor = captioning.load(path, device="cpu")
    assert guide_of("auto", predictor) is None and guide_of("tags.json", predictor) == "guide by tags.json"


def test_an_ensemble_has_the_tags_that_all_members_recommend():
    assert recommended_tags(load_all("flickr8k-small", ["flickr8k-small"], device="cpu")) == "classifier"
    assert recommended_tags(predictor_of({"tags": "classifier"}, {})) is None


def test_word_pieces_and_regions_have_no_tags():
    own = {"tags": "classifier"}
    assert recommended_tags(predictor_of(own)) == "classifier"
    assert recommended_tags(predictor_of(own, pieces=["do", "g"])) is None
    regions = {"encoder": {"_target_": "captioning.features.RegionEncoder"}}
    assert recommended_tags(predictor_of({**own, "config": regions})) is None


def test_a_checkpoint_cannot_name_a_file():
    with pytest.raises(CheckpointError, match=r"own\.ckpt: its metadata recommend tags=/etc/passwd.*Set tags=null"):
        recommended_tags(predictor_of({"tags": "/etc/passwd"}))


def test_an_exported_copy_recommends_the_same(tmp_path):
    checkpoint = read_checkpoint(find_checkpoint("flickr8k-small"))
    document = write_exported(tmp_path / "copy", checkpoint, dtype="float16", about={})
    assert "guides the captions by tags (`tags=classifier`)" in make_card("copy", document)
    assert json.loads((tmp_path / "copy.json").read_text(encoding="utf-8"))["tags"] == "classifier"


def test_a_score_says_that_tags_guided_its_captions(data, tmp_path):
    labels = []
    for tags in ("auto", "null"):
        own = ["split=val", f"tags={tags}", "device=cpu", "metrics.bootstrap=20", f"output={tmp_path / tags}"]
        run("evaluate", "checkpoint=flickr8k-small", *data, *own)
        statistics = json.loads((tmp_path / tags / "statistics.json").read_text(encoding="utf-8"))
        labels.append(statistics["about"]["decoding"])
    assert labels == ["beam3_length0.6, guided by tags: classifier", "beam3_length0.6"]
