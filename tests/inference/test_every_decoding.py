"""Every decoding through the commands and the predictor, on two small trained runs of one vocabulary."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

import captioning
from captioning.caption import caption
from captioning.config import CaptionConfig, EvaluateConfig, check, compose
from captioning.config.schemas import TrainConfig
from captioning.decoding import consensus
from captioning.errors import CheckpointError, ConfigError, DataError
from captioning.evaluate import evaluate
from captioning.inference import load, load_all
from captioning.train import train

COMMANDS = {"train": (train, TrainConfig), "evaluate": (evaluate, EvaluateConfig), "caption": (caption, CaptionConfig)}
SENTENCES = ["a red dog runs on grass", "two blue cats sit on the grass", "the green bird runs", "a dog"]


def run(command, *overrides):
    job, schema = COMMANDS[command]
    job(check(compose(command, list(overrides)), schema))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Four pictures of noise, each for training and validation."""
    root, random = tmp_path_factory.mktemp("world"), np.random.default_rng(0)
    with (root / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "split"])
        for index, sentence in enumerate(SENTENCES):
            noise = Image.fromarray(random.integers(0, 256, (4, 6, 3), np.uint8)).resize((96, 64), Image.NEAREST)
            for split in ("train", "val"):
                noise.save(root / f"{split}{index}.png")
                writer.writerow([f"{split}{index}.png", sentence, split])
    return root


@pytest.fixture(scope="module")
def data(world):
    return ["data=csv", f"data.root={world}", f"features.root={world / 'features'}"]


@pytest.fixture(scope="module")
def checkpoints(data, tmp_path_factory):
    """Two runs on features of different encoders, trained until their captions are neither random nor certain."""
    paths = []
    for overrides in (["seed=1"], ["model/attention=none", "encoder.output=fc", "model/cell=gru", "seed=2"]):
        run_dir = tmp_path_factory.mktemp("run")
        run(
            "train",
            *data,
            *overrides,
            "encoder.image_size=64",
            "model.width=24",
            "model.embedding_size=16",
            "loader.batch_size=4",
            "data.min_count=1",
            "model.dropout=0.0",
            "optimizer.lr=1e-2",
            "trainer.max_epochs=12",
            "trainer.check_val_every_n_epoch=12",
            "trainer.enable_progress_bar=false",
            "trainer.accelerator=cpu",
            "decoding=sample",
            "decoding.seed=0",
            f"run_dir={run_dir}",
        )
        paths.append(run_dir / "checkpoints" / "last.ckpt")
    return paths


def evaluated(checkpoint, data, output, *overrides):
    run("evaluate", f"checkpoint={checkpoint}", *data, f"output={output}", *overrides)
    return [result["caption"] for result in json.loads((output / "captions.json").read_text())]


def captioned(checkpoint, world, output, *overrides):
    pictures = ",".join(str(world / f"val{index}.png") for index in range(4))
    run("caption", f"checkpoint={checkpoint}", f"images=[{pictures}]", f"output={output}", *overrides)
    return json.loads((output / "captions.json").read_text())


@pytest.mark.slow
def test_sampling_in_both_commands(checkpoints, data, world, tmp_path, capsys):
    first = evaluated(checkpoints[0], data, tmp_path, "decoding=sample", "decoding.seed=3")
    assert "val, decoding sample, " in capsys.readouterr().out
    assert first == evaluated(checkpoints[0], data, tmp_path, "decoding=sample", "decoding.seed=3")
    assert first != evaluated(checkpoints[0], data, tmp_path, "decoding=sample", "decoding.seed=4")
    results = captioned(checkpoints[0], world, tmp_path, "decoding=sample", "decoding.samples=3", "decoding.seed=1")
    assert all(len(result["others"]) == 2 for result in results)
    assert capsys.readouterr().out.count("val0.png: ") == 3


def test_diverse_beams_in_both_commands(checkpoints, data, world, tmp_path, capsys):
    best = evaluated(checkpoints[0], data, tmp_path, "decoding=diverse_beam", "decoding.diversity=3")
    assert "val, decoding diverse6x3_lambda3_length0.6, " in capsys.readouterr().out
    results = captioned(checkpoints[0], world, tmp_path, "decoding=diverse_beam", "decoding.diversity=3")
    assert [result["caption"] for result in results] == best
    for result in results:
        assert len({result["caption"], *(other["caption"] for other in result["others"])}) > 1
        assert result["score"] >= result["others"][0]["score"] and result["log_prob"] < 0
    assert {path.name for path in tmp_path.glob("*.png")} == {f"val{index}.png" for index in range(4)}


def test_consensus_in_both_commands_weighs_words_by_their_rarity(
    checkpoints, data, world, tmp_path, capsys, monkeypatch
):
    best = evaluated(checkpoints[0], data, tmp_path, "decoding=consensus", "decoding.samples=9")
    assert "val, decoding consensus5of15+9_length0.6, " in capsys.readouterr().out
    results = captioned(checkpoints[0], world, tmp_path, "decoding=consensus", "decoding.samples=9")
    assert len(best) == len(results) and all(0 < result["score"] <= 1 for result in results)
    captioner, given = load(checkpoints[0]), []

    def agreement(captions, rarity):
        given.append(rarity)
        return np.eye(len(captions))

    monkeypatch.setattr(consensus, "agreement", agreement)
    captioner.caption(world / "val0.png", "consensus", samples=2)
    assert given[0] == captioner.vocabulary.rarity()
    captioner.caption(world / "val0.png", "consensus", samples=2, rarity=[1.0] * len(captioner.vocabulary))
    assert set(given[1]) == {1.0}


def test_consensus_in_python_is_the_same_each_time_and_a_seed_has_64_bits(checkpoints, world):
    captioner, pictures = load(checkpoints[0]), [world / f"val{index}.png" for index in range(4)]
    once, again = ([each.text for each in captioner.caption(pictures, "consensus", samples=5)] for _ in range(2))
    assert once == again
    with pytest.raises(ConfigError, match=r"decoding\.seed=100000000000000000000 must be"):
        captioner.caption(pictures, "sample", seed=10**20)


def test_rules_by_words(checkpoints, data, tmp_path, capsys):
    rules = ["decoding.require=[cats]", "decoding.avoid=[dog,the]", "decoding.avoid_endings=[grass,on]"]
    captions = evaluated(checkpoints[0], data, tmp_path, *rules, "decoding.beam_size=6")
    assert "beam6_length0.6_avoid-dog-the_require-cats_noend-grass-on" in capsys.readouterr().out
    for text in captions:
        words = text.split()
        assert "cats" in words and not {"dog", "the"} & set(words) and words[-1] not in ("grass", "on")
    endless = evaluated(checkpoints[0], data, tmp_path, "decoding=greedy", "decoding.min_length=9")
    assert all(len(text.split()) >= 8 for text in endless)


def test_the_unknown_word_is_written_only_where_it_is_allowed(checkpoints, world):
    captioner = load(checkpoints[0])
    every = list(captioner.vocabulary.words[4:])
    assert captioner.caption(world / "val0.png", "greedy", max_length=3, avoid=every)[0].text == ""
    allowed = captioner.caption(world / "val0.png", "greedy", avoid=every, allow=["<unk>"], min_length=4, max_length=4)
    assert allowed[0].text == "<unk> <unk> <unk>"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("decoding.avoid=[dgo]", r"decoding\.avoid: 'dgo' is not in the vocabulary\. Did you mean 'dog'\?"),
        ("decoding.require=[2]", r"decoding\.require contains 2, which is not text\. Put the word in quotes"),
        ("decoding.avoid=dog", r"decoding\.avoid must be a list of words such as \[dog,ball\], not 'dog'"),
        ("decoding.min_length=30", r"min_length \(30\) must not exceed"),
    ],
)
def test_words_that_are_not_there_are_one_clear_error(checkpoints, data, tmp_path, rule, message):
    with pytest.raises(ConfigError, match=message):
        evaluated(checkpoints[0], data, tmp_path, rule)


def test_ensembles_in_both_commands(checkpoints, data, world, tmp_path, capsys):
    second = f"decoding.checkpoints=[{checkpoints[1]}]"
    both = evaluated(checkpoints[0], data, tmp_path, second, "decoding.beam_size=4")
    assert "val, decoding ensemble2_beam4_length0.6, " in capsys.readouterr().out
    results = captioned(checkpoints[0], world, tmp_path, second, "decoding.beam_size=4")
    assert [result["caption"] for result in results] == both
    made = load_all(checkpoints[0], [checkpoints[1]]).captions(world / "val1.png", beam_size=4)[0][0]
    assert made.text == both[1] and made.attention is None
    itself = f"decoding.checkpoints=[{checkpoints[0]}]"
    assert evaluated(checkpoints[0], data, tmp_path, itself) == evaluated(checkpoints[0], data, tmp_path)
    once = load(checkpoints[0]).caption(world / "val2.png", "greedy")[0]
    twice = load_all(checkpoints[0], [checkpoints[0]]).caption(world / "val2.png", "greedy")[0]
    assert twice.text == once.text and twice.log_prob == pytest.approx(once.log_prob, abs=1e-4)
    np.testing.assert_allclose(twice.attention, once.attention, rtol=1e-5)


def test_an_ensemble_of_two_vocabularies_is_refused(checkpoints, data, tmp_path):
    checkpoint = torch.load(checkpoints[1], weights_only=True)
    checkpoint["captioning"]["vocabulary"][-1] = "zebra"
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"other\.ckpt has another vocabulary than .*ckpt \(2 words differ\)"):
        evaluated(checkpoints[0], data, tmp_path, f"decoding.checkpoints=[{tmp_path}/other.ckpt]")


@pytest.mark.slow
def test_corners_in_both_commands(checkpoints, data, world, tmp_path, capsys):
    one = evaluated(checkpoints[0], data, tmp_path / "one", "crops=0.75", "decoding.beam_size=2")
    assert "with crops of 0.75" in capsys.readouterr().out
    afresh = evaluated(checkpoints[0], [part for part in data if "features" not in part], tmp_path / "afresh",
                       "features=online", "crops=0.75", "decoding.beam_size=2")  # fmt: skip
    assert one == afresh
    predictor = captioning.load(checkpoints[0], device="cpu", crops=0.75)
    pictures = sorted(world.glob("val*.png"))
    made = predictor.caption(pictures, beam_size=2)
    assert [each.text for each in made] == one
    for each in made:
        assert each.attention.shape == (len(each.tokens), 4)
        np.testing.assert_allclose(each.attention.sum(1), 1.0, rtol=1e-5)
    plain = captioning.load(checkpoints[0], device="cpu").caption(pictures, beam_size=2)
    assert [a.log_prob for a in plain] != [b.log_prob for b in made]  # the corners are looked at
    followed = predictor.forced_captions(pictures, [each.text for each in made])
    assert [a.log_prob for a in followed] == pytest.approx([b.log_prob for b in made], rel=1e-4)
    again = captioned(checkpoints[0], world, tmp_path / "two", "crops=0.75", "decoding.beam_size=2")
    assert [each["caption"] for each in again] == one


@pytest.mark.slow
def test_corners_of_an_ensemble_and_of_vectors(checkpoints, data, world, tmp_path):
    vectors = evaluated(checkpoints[1], data, tmp_path / "vectors", "crops=0.75")
    predictor = captioning.load(checkpoints[1], device="cpu", crops=0.75)
    assert [c.text for c in predictor.caption(sorted(world.glob("val*.png")), beam_size=3)] == vectors
    both = evaluated(
        checkpoints[0], data, tmp_path / "both", "crops=[0.75,0.6]", f"decoding.checkpoints=[{checkpoints[1]}]"
    )
    assert json.loads((tmp_path / "both" / "statistics.json").read_text())["about"]["crops"] == [0.75, 0.6]
    predictor = load_all(checkpoints[0], [checkpoints[1]], device="cpu", crops=[0.75, 0.6])
    assert [c.text for c in predictor.caption(sorted(world.glob("val*.png")), beam_size=3)] == both


def test_any_decoding_in_python(checkpoints, world):
    captioner = captioning.load(checkpoints[0])
    pictures = [world / f"val{index}.png" for index in range(3)]
    default = captioner.caption(pictures, beam_size=3)
    assert [item.text for item in default] == [item.text for item in captioner.caption(pictures)]
    several = captioner.captions(pictures, "beam", beam_size=5, n_best=4, batch_size=2)
    assert [len(group) for group in several] == [4, 4, 4]
    for group in several:
        scores = [item.score for item in group]
        assert scores == sorted(scores, reverse=True)
        assert all(item.attention.shape == (len(item.tokens), 4) and item.places is None for item in group)
    samples = captioner.captions(pictures, "sample", samples=5, seed=2)
    assert [len(group) for group in samples] == [5, 5, 5]
    again = captioner.captions(pictures, "sample", samples=5, seed=2)
    assert [[item.text for item in group] for group in samples] == [[item.text for item in group] for group in again]
    with pytest.raises(
        ConfigError, match=r"method='beams' does not exist\. Choose one of greedy, beam, diverse_beam, sample"
    ):
        captioner.caption(pictures, "beams")


def test_given_captions_are_scored_as_decoding_scores_its_own(checkpoints, world):
    captioner = captioning.load(checkpoints[0])
    pictures = [world / f"val{index}.png" for index in range(4)]
    made = captioner.captions(pictures, beam_size=4, n_best=3)
    texts = [[item.text for item in group] for group in made]
    for scored, group in zip(captioner.score_captions(pictures, texts, batch_size=3), made, strict=True):
        for one, other in zip(scored, group, strict=True):
            assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)
            assert sum(one.word_log_probs) == pytest.approx(one.log_prob, abs=1e-6)
            assert len(one.word_log_probs) == len(one.tokens) + 1 and one.tokens == other.tokens
            assert one.perplexity == pytest.approx(math.exp(-one.log_prob / (len(one.tokens) + 1)))
            assert one.unknown == 0
    one, other = captioner.score_captions(pictures[:2], ["A Dog runs.", "a platypus runs"])
    assert one.tokens == ["a", "dog", "runs"] and one.unknown == 0
    assert other.tokens == ["a", "<unk>", "runs"] and other.unknown == 1
    (lone,) = captioning.score_captions(checkpoints[0], pictures[0], "a dog runs")
    assert lone.log_prob == pytest.approx(one.log_prob, abs=1e-4)
    (both,) = load_all(checkpoints[0], checkpoints[1:]).score_captions(pictures[0], "a dog runs")
    second = captioning.score_captions(checkpoints[1], pictures[0], "a dog runs")[0]
    for mean, p, q in zip(both.word_log_probs, lone.word_log_probs, second.word_log_probs, strict=True):
        assert mean == pytest.approx(math.log((math.exp(p) + math.exp(q)) / 2), abs=1e-4)
    with pytest.raises(DataError, match=r"3 images, but 1 captions\. Give a list with one entry per image"):
        captioner.score_captions(pictures[:3], ["a dog"])
