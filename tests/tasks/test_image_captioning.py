"""The whole path on a drawn toy world: prepare, train, resume, evaluate, caption; and what bad input gets."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_world import SENTENCES, SMALL, run, short, weights

import captioning
from captioning.checkpoints import read_checkpoint
from captioning.errors import CheckpointError, ConfigError, DataError
from captioning.inference import load
from captioning.objectives import CrossEntropy
from captioning.tasks import image_captioning


@pytest.fixture(scope="module")
def overfitted(data, tmp_path_factory):
    """A run that has learnt the eight pictures by heart."""
    run_dir = tmp_path_factory.mktemp("run")
    run(
        "train",
        *data,
        *SMALL,
        "data.min_count=1",
        "model.dropout=0.0",
        "model.scorer.width=32",  # else most of the time is that of writing last.ckpt after each epoch
        "objective.doubly_stochastic=0",
        "optimizer.lr=1e-2",
        "trainer.max_epochs=120",
        "trainer.check_val_every_n_epoch=120",
        f"run_dir={run_dir}",
    )
    return run_dir


def test_eight_pictures_are_learnt_by_heart(overfitted, data, tmp_path):
    checkpoint = f"checkpoint={overfitted}/checkpoints/best.ckpt"
    only_csv = [item for item in data if not item.startswith("features.root")]
    run("evaluate", checkpoint, *data, f"output={tmp_path}", "decoding.beam_size=5", "split=val")
    captions = json.loads((tmp_path / "captions.json").read_text())
    assert sorted(captions[0]) == ["caption", "file_name", "image_id"]
    assert [result["caption"] for result in captions] == SENTENCES
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert list(scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    assert scores["BLEU-4"] == pytest.approx(1.0, abs=1e-6)
    statistics = json.loads((tmp_path / "statistics.json").read_text())
    about = {"data": "csv", "split": "val", "decoding": "beam5_length0.6", "tokenizer": "ptb", "images": 8}
    assert statistics["about"] == about and statistics["captions"]["novel"] == 0.0
    assert len((tmp_path / "per_image.csv").read_text().splitlines()) == 9
    run("evaluate", checkpoint, *only_csv, "features=online", f"output={tmp_path}", "split=train")
    assert [result["caption"] for result in json.loads((tmp_path / "captions.json").read_text())] == SENTENCES


def test_what_a_run_leaves(overfitted):
    assert {path.name for path in (overfitted / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    rows = list(csv.DictReader((overfitted / "metrics.csv").open()))
    last = [row for row in rows if row["val/greedy/CIDEr"]][-1]
    assert float(last["val/greedy/BLEU-4"]) == pytest.approx(1.0, abs=1e-3)
    assert {"train/loss", "train/cross_entropy", "words/s", "val/loss"} <= last.keys()
    config = (overfitted / "config.yaml").read_text()
    assert "captioning.models.SoftAttention" in config
    checkpoint = read_checkpoint(overfitted / "checkpoints" / "best.ckpt")
    assert not any("encoder" in name for name in checkpoint["state_dict"])  # had again from its wheel


def test_your_own_pictures(overfitted, world, tmp_path, capsys):
    turned = tmp_path / "turned.jpg"
    picture = Image.open(world / "val4.png").convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise
    picture.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif, quality=100)
    output = tmp_path / "out"
    run(
        "caption",
        f"checkpoint={overfitted}/checkpoints/best.ckpt",
        f"images=[{world}/val2.png,{turned}]",
        f"output={output}",
    )
    results = json.loads((output / "captions.json").read_text())
    assert [result["caption"] for result in results] == [SENTENCES[2], SENTENCES[4]]
    assert [result["image_id"] for result in results] == [0, 1]
    assert {path.name for path in output.iterdir()} == {"captions.json", "val2.png", "turned.png"}
    assert SENTENCES[2] in capsys.readouterr().out


def test_in_python(overfitted, world):
    captioner = captioning.load(overfitted / "checkpoints" / "best.ckpt")
    made = captioner.caption([world / "val0.png", Image.open(world / "val3.png")], beam_size=3)
    assert [item.text for item in made] == [SENTENCES[0], SENTENCES[3]]
    assert made[0].tokens == SENTENCES[0].split()
    assert made[0].attention.shape == (6, 4)  # 64 px give 2 × 2 places
    np.testing.assert_allclose(made[0].attention.sum(1), 1, rtol=1e-5)
    assert made[0].box == (0, 0, 96, 64)
    assert -0.5 < made[0].log_prob < 0
    alone = captioner.caption(world / "val0.png", beam_size=3)[0]
    assert alone.log_prob == pytest.approx(made[0].log_prob, abs=1e-4)


def test_a_resumed_run_equals_one_that_never_stopped(data, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    arguments = ["trainer.max_epochs=4", "schedule=cosine"]
    run("train", *short(data, whole, *arguments))
    calls, original = [], CrossEntropy.__call__

    def dies(self, model, batch):
        calls.append(1)
        if len(calls) == 11:  # an epoch has 2 steps and 1 validation batch: in the fourth epoch
            raise RuntimeError("killed")
        return original(self, model, batch)

    monkeypatch.setattr(CrossEntropy, "__call__", dies)
    with pytest.raises(RuntimeError, match="killed"):
        run("train", *short(data, broken, *arguments))
    monkeypatch.undo()
    assert weights(broken)["global_step"] == 6
    run("train", *short(data, broken, *arguments, f"resume={broken}/checkpoints/last.ckpt"))
    first, second = weights(whole), weights(broken)
    assert first["global_step"] == second["global_step"] == 8
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name
    assert first["optimizer_states"][0]["state"][0]["exp_avg"].equal(
        second["optimizer_states"][0]["state"][0]["exp_avg"]
    )

    def logged(run_dir):
        rows = csv.DictReader((run_dir / "metrics.csv").open())
        return [{name: value for name, value in row.items() if name != "words/s"} for row in rows]

    assert logged(whole) == logged(broken)


def test_the_same_seed_gives_the_same_run_and_another_does_not(data, tmp_path):
    runs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("train", *short(data, tmp_path / name, "trainer.max_epochs=1", f"seed={seed}"))
        runs.append(weights(tmp_path / name)["state_dict"]["captioner.decoder.embedding.weight"])
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_a_run_that_ends_inside_an_epoch_is_validated_there(data, tmp_path):
    run("train", *short(data, tmp_path, "trainer.max_steps=3"))  # of two an epoch
    assert read_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["captioning"]
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 3
    with (tmp_path / "metrics.csv").open(newline="") as file:
        validated = [int(row["step"]) for row in csv.DictReader(file) if row["val/greedy/CIDEr"]]
    assert validated == [1, 2]  # steps count from 0


def test_a_run_without_validation_says_so(data, tmp_path, capsys):
    run("train", *short(data, tmp_path, "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=2"))
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert f"no validation was run; the last checkpoint is {last}" in capsys.readouterr().out
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 2


def test_a_run_is_never_overwritten_by_accident(overfitted, data):
    before = (overfitted / "checkpoints" / "best.ckpt").stat().st_mtime_ns
    with pytest.raises(ConfigError, match=r"already contains a run.*resume=.*overwrite=true"):
        run("train", *short(data, overfitted))
    assert (overfitted / "checkpoints" / "best.ckpt").stat().st_mtime_ns == before


@pytest.mark.parametrize("conditioning", ["initial_state", "first_step", "every_step"])
@pytest.mark.parametrize(("attention", "output"), [("none", "fc"), ("none", "grid"), ("soft", "grid")])
def test_parts_swap_by_one_override_each(data, tmp_path, conditioning, attention, output):
    overrides = [f"model/conditioning={conditioning}", f"model/attention={attention}", f"encoder.output={output}"]
    run("train", *short(data, tmp_path, "trainer.max_epochs=1", *overrides))
    assert torch.isfinite(torch.tensor(float(list(csv.DictReader((tmp_path / "metrics.csv").open()))[-1]["val/loss"])))
    assert load(tmp_path / "checkpoints" / "last.ckpt").captioner is not None


def test_attention_over_an_fc_vector_is_one_clear_error(data, tmp_path):
    with pytest.raises(ConfigError, match=r"encoder\.output=grid or model/attention=none"):
        run("train", *short(data, tmp_path, "encoder.output=fc"))


def test_fine_tuning_moves_the_named_layers_only_and_travels_along(data, tmp_path, world):
    online = [item for item in data if not item.startswith("features.root")]
    arguments = ["features=online", "encoder.unfreeze_from=head", "encoder_lr=0.01", "trainer.max_epochs=1"]
    run("train", *short(online, tmp_path, *arguments))
    checkpoint = weights(tmp_path)["state_dict"]
    fresh = load_encoder(tmp_path)
    moved = {
        name
        for name, value in fresh.state_dict().items()
        if not torch.equal(value, checkpoint[f"captioner.encoder.{name}"])
    }
    assert moved and all("head" in name and "norm" not in name for name in moved)
    tuned = load(tmp_path / "checkpoints" / "last.ckpt").encoder.state_dict()
    assert all(torch.equal(tuned[name], checkpoint[f"captioner.encoder.{name}"]) for name in moved)


def load_encoder(run_dir):
    from captioning.config import build

    node = dict(read_checkpoint(run_dir / "checkpoints" / "last.ckpt")["captioning"]["config"]["encoder"])
    return build(node)


def test_encoder_weights_that_cannot_be_had_again_travel_in_the_checkpoint(data, tmp_path, world):
    file = tmp_path / "encoder.pth"
    from efficientnet_lite_pytorch import EfficientNet

    torch.save(EfficientNet.from_name("efficientnet-lite0").state_dict(), file)
    run("train", *short(data, tmp_path / "run", f"encoder.weights={file}", "trainer.max_epochs=1"))
    file.unlink()
    made = load(tmp_path / "run" / "checkpoints" / "last.ckpt").caption(world / "val0.png")
    assert made[0].log_prob < 0


# What bad input gets -------------------------------------------------------------------------------------------------


def test_a_missing_data_folder(tmp_path):
    for name, wanted in (
        ("flickr8k", "dataset_flickr8k.json"),
        ("coco", r"captions_\{train,val\}2017\.json"),
        ("csv", "captions.csv"),
    ):
        with pytest.raises(DataError, match=wanted):
            run("train", f"data={name}", f"data.root={tmp_path / 'nowhere'}", f"run_dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_an_empty_split(overfitted, data, tmp_path):
    with pytest.raises(DataError, match="test"):
        run("evaluate", f"checkpoint={overfitted}/checkpoints/best.ckpt", *data, "split=test", f"output={tmp_path}")


def broken_world(tmp_path, world):
    for path in world.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "train3.png").write_bytes((world / "train3.png").read_bytes()[:60])
    return ["data=csv", f"data.root={tmp_path}"]


@pytest.mark.parametrize("features", ["store", "online"])
def test_an_unreadable_picture_is_named_or_skipped_and_counted(tmp_path, world, capsys, features):
    broken = [*broken_world(tmp_path, world), f"features={features}"]
    if features == "store":
        broken.append(f"features.root={tmp_path / 'features'}")
    with pytest.raises(DataError, match=r"train3\.png"):
        run("train", *short(broken, tmp_path / "run", "trainer.max_epochs=1"))
    run("train", *short(broken, tmp_path / "run2", "trainer.max_epochs=1", "data.skip_unreadable=true"))
    printed = capsys.readouterr()
    assert "left out: 1 unreadable image:" in printed.err and "train3.png" in printed.err
    assert "data: 7 training images, 8 validation images; " in printed.out


def test_checkpoints_that_are_none(tmp_path, world, overfitted):
    nonsense = tmp_path / "nonsense.ckpt"
    nonsense.write_bytes(b"not a checkpoint at all")
    other = tmp_path / "other.ckpt"
    torch.save({"weights": torch.zeros(3)}, other)
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes((overfitted / "checkpoints" / "best.ckpt").read_bytes()[:5000])
    for path in (tmp_path / "absent.ckpt", nonsense, other, cut):
        with pytest.raises(CheckpointError, match=path.name):
            run("caption", f"checkpoint={path}", f"images=[{world}/val0.png]", f"output={tmp_path / 'out'}")


def test_a_checkpoint_runs_no_code(tmp_path, overfitted):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'owned'}",)

    hostile = tmp_path / "pickle.ckpt"
    torch.save({"captioning": Payload(), "state_dict": {}}, hostile)
    with pytest.raises(CheckpointError, match=r"pickle\.ckpt"):
        load(hostile)
    checkpoint = weights(overfitted, "best")
    checkpoint["captioning"]["config"]["model"]["cell"] = {
        "_target_": "os.system",
        "command": f"touch {tmp_path}/owned",
    }
    torch.save(checkpoint, tmp_path / "target.ckpt")
    with pytest.raises(CheckpointError, match=r"os\.system"):
        load(tmp_path / "target.ckpt")
    assert not (tmp_path / "owned").exists()


def test_weights_that_do_not_fit(tmp_path, overfitted, data):
    checkpoint = weights(overfitted, "best")
    checkpoint["captioning"]["config"]["model"]["width"] = 40
    torch.save(checkpoint, tmp_path / "wide.ckpt")
    with pytest.raises(CheckpointError, match=r"wide\.ckpt: weights do not fit"):
        load(tmp_path / "wide.ckpt")
    with pytest.raises((CheckpointError, ConfigError), match="nofile"):
        run("prepare", "encoder.weights=nofile.pth", *data)


def test_pictures_to_caption_must_be_there(tmp_path, overfitted):
    checkpoint = f"checkpoint={overfitted}/checkpoints/best.ckpt"
    with pytest.raises(DataError, match=r"no images given"):
        run("caption", checkpoint, "images=[]", f"output={tmp_path / 'out'}")
    with pytest.raises(DataError, match="gone"):
        run("caption", checkpoint, f"images=[{tmp_path}/gone.jpg]", f"output={tmp_path / 'out'}")


def test_prepare_goes_on_and_a_changed_picture_is_encoded_again(tmp_path, world, capsys):
    data = [*broken_world(tmp_path, world), f"features.root={tmp_path / 'features'}", "encoder.image_size=64"]
    (tmp_path / "train3.png").write_bytes((world / "train3.png").read_bytes())
    run("prepare", *data, "splits=[val]")
    assert "features of 8 images (0 train, 8 val)" in capsys.readouterr().out
    run("prepare", *data)
    assert "features of 16 images (8 train, 8 val)" in capsys.readouterr().out


def test_figures_never_fall_on_pictures_nor_on_one_another(tmp_path, overfitted, world):
    from captioning.caption import figure_names

    paths = [Path("x/a.jpg"), Path("y/a.jpg"), Path("x/a_1.jpg"), Path("b.png"), Path("A.png"), Path("b_strip.png")]
    names = figure_names(paths, [".png", "_strip.png"])
    assert len({name.lower() for each in names for name in each}) == 12 and names[3] == ["b.png", "b_strip.png"]
    own = tmp_path / "val0.png"
    own.write_bytes((world / "val0.png").read_bytes())
    with pytest.raises(ConfigError, match=r"would replace the photo .* by a figure: give another folder"):
        run("caption", f"checkpoint={overfitted}/checkpoints/best.ckpt", f"images=[{own}]", f"output={tmp_path}")
    assert own.read_bytes() == (world / "val0.png").read_bytes()


def test_a_run_goes_on_only_as_what_it_was_and_where_it_was(data, tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        run("train", *short(data, folder, "trainer.max_epochs=1"))
    before = (first / "config.yaml").read_bytes(), (second / "checkpoints" / "best.ckpt").read_bytes()
    last = f"resume={first}/checkpoints/last.ckpt"
    others = {
        "model.width=24": "model.width was 32 and is 24 now",
        "objective=scheduled_sampling": "objective.inputs was null and is ScheduledSampling now",
    }
    for other, told in others.items():
        with pytest.raises(ConfigError, match=f"resume: the settings differ from the original run: {told}"):
            run("train", *short(data, first, "trainer.max_epochs=2", last), other)
    with pytest.raises(ConfigError, match="already contains a run"):
        run("train", *short(data, second, "trainer.max_epochs=2", last))
    assert before == ((first / "config.yaml").read_bytes(), (second / "checkpoints" / "best.ckpt").read_bytes())


def test_a_run_that_moved_keeps_its_best_checkpoint(data, tmp_path, monkeypatch):
    from captioning.training import CaptioningTask

    original = CaptioningTask.log_dict
    heights = iter((3.0, 1.0, 2.0))

    def falls(self, scores, **options):
        return original(self, {name: next(heights) if "CIDEr" in name else 0.0 for name in scores}, **options)

    monkeypatch.setattr(CaptioningTask, "log_dict", falls)
    monkeypatch.setattr(image_captioning, "LEAST_FOR_CIDER", 1)  # there are 8 images
    run("train", *short(data, tmp_path / "here", "trainer.max_epochs=2"))
    (tmp_path / "here").rename(tmp_path / "there")
    best = (tmp_path / "there" / "checkpoints" / "best.ckpt").read_bytes()
    last = f"resume={tmp_path}/there/checkpoints/last.ckpt"
    run("train", *short(data, tmp_path / "there", "trainer.max_epochs=3", last))
    assert (tmp_path / "there" / "checkpoints" / "best.ckpt").read_bytes() == best
    assert read_checkpoint(tmp_path / "there" / "checkpoints" / "last.ckpt")["global_step"] == 6


def test_overwriting_a_run_leaves_nothing_of_it(data, tmp_path):
    run("train", *short(data, tmp_path, "trainer.max_epochs=1"))
    run("train", *short(data, tmp_path, "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=2", "overwrite=true"))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert not any("val/" in name for name in csv.DictReader(file).fieldnames)
