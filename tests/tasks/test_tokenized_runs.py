"""Runs with another tokenizer than the default: train, resume, caption, evaluate and export use the same one."""

import json

import pytest
import torch
from small_world import run, short

import captioning
from captioning.checkpoints import read_checkpoint
from captioning.errors import ConfigError


@pytest.fixture(scope="module")
def spelled(data, tmp_path_factory):
    """A checkpoint of one step whose words have pieces."""
    run_dir = tmp_path_factory.mktemp("spelled")
    run("train", *short(data, run_dir, "trainer.max_steps=1", "data.tokenizer=bpe:60"))
    return run_dir / "checkpoints" / "last.ckpt"


def test_the_tokenizer_travels_in_the_checkpoint(spelled):
    metadata = read_checkpoint(spelled)["captioning"]
    assert metadata["tokenizer"]["name"] == metadata["config"]["data"]["tokenizer"] == "bpe:60"
    captioner = captioning.load(spelled)
    assert captioner.vocabulary.tokenizer.state_dict() == metadata["tokenizer"]
    learned = captioner.vocabulary.tokenizer.learned_pieces()
    assert 50 < len(learned) <= 60 and set(captioner.vocabulary.words[4:]) == set(learned)
    assert captioner.max_length == metadata["config"]["data"]["max_length"] >= 20


def test_captions_are_words_and_scores_name_their_tokenizer(spelled, data, world, tmp_path, capsys):
    image = next(world.glob("*.png"))
    (caption,) = captioning.load(spelled).caption(image)
    assert "@@" not in caption.text and caption.tokens == caption.text.split()
    assert caption.attention is None or len(caption.attention) == len(caption.tokens)
    run("evaluate", f"checkpoint={spelled}", *data, f"output={tmp_path}", "split=val")
    assert "Penn-Treebank tokens, 8 images" in capsys.readouterr().out
    assert json.loads((tmp_path / "statistics.json").read_text())["about"]["tokenizer"] == "ptb"
    run("evaluate", f"checkpoint={spelled}", *data, f"output={tmp_path}", "split=val", "metrics.tokenizer=whitespace")
    assert "tokens of whitespace, 8 images" in capsys.readouterr().out


def test_a_run_resumes_and_starts_only_with_its_own_tokenizer(spelled, data, tmp_path):
    for key in ("resume", "start_from"):
        with pytest.raises(ConfigError, match=r"tokenizer is bpe:60, not ptb.*data\.tokenizer"):
            run("train", *short(data, tmp_path / key, f"{key}={spelled}"))
    run("train", *short(data, tmp_path / "on", f"resume={spelled}", "trainer.max_steps=2", "data.tokenizer=bpe:60"))
    assert torch.load(tmp_path / "on/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


def test_rewards_are_of_words(data, spelled, tmp_path):
    run(
        "train",
        *short(data, tmp_path / "scst", f"start_from={spelled}", "trainer.max_steps=2", "data.tokenizer=bpe:60"),
        "objective=self_critical",
    )
    frequencies = read_checkpoint(tmp_path / "scst/checkpoints/last.ckpt")["captioning"]["frequencies"]
    assert "dog" in frequencies["words"] and not any(word.endswith("@@") for word in frequencies["words"])
