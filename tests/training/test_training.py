"""Training beyond the plain path: hard attention, self-critical, regions, fine-tuning's warm-up, numbers gone wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from small_world import SENTENCES, rows, run, run_until_killed, short, weights

from captioning.checkpoints import read_checkpoint
from captioning.data import read_csv
from captioning.errors import CheckpointError, ConfigError, DataError, TrainingError
from captioning.inference import load
from captioning.metrics import Reward
from captioning.objectives import CrossEntropy
from captioning.training import CaptioningTask
from captioning.training.run import _optimizer


@pytest.fixture(scope="module")
def hard(data, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("hard")
    run("train", *short(data, run_dir, "model/attention=hard", "trainer.max_epochs=2", "trainer.log_every_n_steps=1"))
    return run_dir


def test_hard_attention_logs_its_parts_and_remembers_its_baseline(hard):
    parts = {"train/cross_entropy", "train/doubly_stochastic", "train/location", "train/location_entropy"}
    assert parts | {"train/location_return"} <= rows(hard)[0].keys()
    for row in rows(hard):
        if row["train/loss"]:
            assert float(row["train/loss"]) == pytest.approx(sum(float(row[part]) for part in parts), rel=1e-4)
    assert weights(hard)["state_dict"]["objective.location_loss.baseline.value"] < 0


def test_decoding_states_where_hard_attention_looks(hard, data, tmp_path, capsys):
    checkpoint = f"checkpoint={hard}/checkpoints/last.ckpt"
    run("evaluate", checkpoint, *data, f"output={tmp_path}")
    assert "hard attention: most_likely" in capsys.readouterr().out
    run("evaluate", checkpoint, *data, f"output={tmp_path}", "hard_attention=expectation")
    assert "hard attention: expectation" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"most_likely, sample, expectation"):
        run("evaluate", checkpoint, *data, f"output={tmp_path}", "hard_attention=best")
    assert load(hard / "checkpoints" / "last.ckpt", hard_attention="sample").hard_attention == "sample"


def test_a_checkpoint_of_another_task_is_told_apart(hard, tmp_path):
    checkpoint = torch.load(hard / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["captioning"]["task"] == "image_captioning"
    checkpoint["captioning"]["task"] = "melodies"
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(
        CheckpointError, match=r"other\.ckpt is a checkpoint of task=melodies, but task=image_captioning"
    ):
        load(tmp_path / "other.ckpt")
    for damaged in (None, 3):
        torch.save(checkpoint | {"captioning": checkpoint["captioning"] | {"task": damaged}}, tmp_path / "other.ckpt")
        with pytest.raises(
            CheckpointError, match=r"other\.ckpt is a checkpoint without a task, but task=image_captioning"
        ):
            load(tmp_path / "other.ckpt")


def test_a_checkpoint_of_an_older_format_is_refused_in_one_sentence(hard, tmp_path):
    checkpoint = torch.load(hard / "checkpoints" / "last.ckpt", weights_only=True)
    for older in (1, None, "2"):
        checkpoint["captioning"]["format"] = older
        torch.save(checkpoint, tmp_path / "older.ckpt")
        version = "no format number" if older is None else f"format {older}"
        expected = rf"^\S+older\.ckpt has {version}, but this version of captioning reads format 2: train it again, "
        with pytest.raises(CheckpointError, match=expected + "or load it with the version that wrote it$"):
            load(tmp_path / "older.ckpt")


def test_resumed_hard_attention_equals_a_run_that_never_stopped(data, tmp_path, monkeypatch):
    arguments = [
        "trainer.max_epochs=3",
        "model/attention=hard",
        "objective=scheduled_sampling",
        "objective.inputs.every=1",
        "weight_averaging=ema",
        "weight_averaging.decay=0.5",
    ]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run("train", *short(data, whole, *arguments))
    calls, original = [], CrossEntropy.forward

    def dies(self, model, batch):
        calls.append(1)
        if len(calls) == 8:  # an epoch has 2 steps and 2 validation batches: in the second epoch
            raise RuntimeError("killed")
        return original(self, model, batch)

    monkeypatch.setattr(CrossEntropy, "forward", dies)
    with pytest.raises(RuntimeError, match="killed"):
        run("train", *short(data, broken, *arguments))
    monkeypatch.undo()
    run("train", *short(data, broken, *arguments, f"resume={broken}/checkpoints/last.ckpt"))
    for key in ("state_dict", "current_model_state"):  # the average, and what it is of
        first, second = weights(whole)[key], weights(broken)[key]
        assert first.keys() == second.keys() and "objective.inputs.batches" in first
        assert not any(name.startswith("captioner.encoder.") for name in first)
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_average_of_the_weights_is_what_is_validated_and_kept(data, tmp_path, monkeypatch):
    validated, word = [], "captioner.decoder.embedding.weight"

    def remember(self, *args):
        validated.append(self.state_dict()[word].clone())

    monkeypatch.setattr(CaptioningTask, "on_validation_epoch_start", remember, raising=False)
    after, step = [], CaptioningTask.on_train_batch_end

    def follow(self, *args):
        after.append(self.state_dict()[word].clone())
        step(self, *args)

    monkeypatch.setattr(CaptioningTask, "on_train_batch_end", follow)
    run("train", *short(data, tmp_path, "trainer.max_epochs=2", "weight_averaging=ema", "weight_averaging.decay=0.7"))
    average = after[0]
    for weight in after[1:]:
        average = 0.7 * average + 0.3 * weight
    saved = weights(tmp_path)
    assert torch.allclose(validated[-1], average) and torch.equal(saved["state_dict"][word], validated[-1])
    assert torch.equal(saved["current_model_state"][word], after[-1])
    assert not torch.allclose(after[-1], average)


def test_self_critical_training_goes_on_from_a_checkpoint(hard, data, tmp_path):
    start = f"start_from={hard}/checkpoints/last.ckpt"
    arguments = [
        "model/attention=hard",
        "objective=self_critical",
        "trainer.max_epochs=1",
        "trainer.log_every_n_steps=1",
    ]
    run("train", *short(data, tmp_path, start, *arguments))
    assert {"train/self_critical", "train/location", "train/reward", "val/loss"} <= rows(tmp_path)[0].keys()
    assert float(rows(tmp_path)[0]["train/reward"]) >= 0
    before, after = weights(hard)["state_dict"], weights(tmp_path)["state_dict"]
    name = "captioner.decoder.embedding.weight"
    assert 0 < (before[name] - after[name]).abs().max() < 0.1
    with pytest.raises(ConfigError, match=r"start_from: the checkpoint's vocabulary"):
        run("train", *short(data, tmp_path / "other", start, *arguments, "data.min_count=2"))


REWARDED = ["objective=self_critical", "trainer.log_every_n_steps=1", "reward.bleu_4=0.5"]


def test_resumed_self_critical_training_equals_a_run_that_never_stopped(hard, data, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    arguments = [*REWARDED, "model/attention=hard", f"start_from={hard}/checkpoints/last.ckpt", "trainer.max_epochs=3"]
    run("train", *short(data, whole, *arguments))
    assert weights(hard)["captioning"]["frequencies"] is None  # no reward, nothing to keep
    # An epoch has 2 steps: it is killed in the second epoch.
    run_until_killed(monkeypatch, *short(data, broken, *arguments), calls=4)

    taken_over, make = [], Reward.__init__

    def remember(self, *args, **named):
        make(self, *args, **named)
        taken_over.append(self.taken_over)

    monkeypatch.setattr(Reward, "__init__", remember)
    run("train", *short(data, broken, *arguments, f"resume={broken}/checkpoints/last.ckpt"))
    assert taken_over == [True]
    first, second = weights(whole), weights(broken)
    assert first["global_step"] == second["global_step"] == 6
    assert all(torch.equal(value, second["state_dict"][name]) for name, value in first["state_dict"].items())
    assert str(first["captioning"]["frequencies"]) == str(second["captioning"]["frequencies"])

    def logged(run_dir):
        return [{name: value for name, value in row.items() if name != "words/s"} for row in rows(run_dir)]

    assert logged(whole) == logged(broken) and float(rows(whole)[0]["train/reward"]) >= 0


def test_saved_frequencies_of_other_captions_or_of_nothing(data, tmp_path, capsys):
    run("train", *short(data, tmp_path / "a", *REWARDED, "trainer.max_epochs=1"))
    last, other = tmp_path / "a" / "checkpoints" / "last.ckpt", tmp_path / "other.ckpt"
    arguments = [*REWARDED, "trainer.max_epochs=1", "trainer.max_steps=1"]
    assert "counted again" not in capsys.readouterr().out
    run("train", *short(data, tmp_path / "b", *arguments, f"start_from={last}", "+reward.count_end=false"))
    assert (
        capsys.readouterr().out.count("document frequencies of other training captions, so they were counted again")
        == 1
    )
    run("train", *short(data, tmp_path / "c", *arguments, f"start_from={last}"))
    assert "counted again" not in capsys.readouterr().out
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["captioning"]["frequencies"]["counts"] = torch.tensor([0.5])
    torch.save(checkpoint, other)
    with pytest.raises(CheckpointError, match=r"other\.ckpt: the saved document `frequencies` are damaged \(counts\)"):
        run("train", *short(data, tmp_path / "d", *arguments, f"start_from={other}"))
    del checkpoint["captioning"]["frequencies"]  # as before they were kept
    torch.save(checkpoint, other)
    run("train", *short(data, tmp_path / "e", *arguments, f"start_from={other}"))
    assert weights(tmp_path / "e")["captioning"]["frequencies"]["images"] == 8


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_run_that_turns_nan_stops_with_the_step_the_part_and_the_images(data, tmp_path, monkeypatch, capsys, what):
    original, calls = CrossEntropy.forward, []

    def breaks(self, model, batch):
        loss = original(self, model, batch)
        if model.training:
            calls.append(batch.image_ids.tolist())
        if not model.training or len(calls) not in (3, 4):
            return loss
        if what == "gradient":  # finite, but its derivative is not
            bad = model.decoder.embedding.weight[1].sum()
            return loss._replace(total=loss.total + (bad - bad.detach()).abs().sqrt())
        parts = loss.parts | {"cross_entropy": loss.total.detach() * torch.nan}
        return loss._replace(total=loss.total * torch.nan, parts=parts)

    monkeypatch.setattr(CrossEntropy, "forward", breaks)
    arguments = short(data, tmp_path / "run", "trainer.max_epochs=3")
    with pytest.raises(TrainingError) as caught:
        run("train", *arguments)
    told = "train/cross_entropy is nan" if what == "loss" else "the gradient is not finite"
    assert f"step 2: {told} (batch with image ids {', '.join(map(str, calls[2]))})" in str(caught.value)
    saved = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert saved["global_step"] == 2 and all(value.isfinite().all() for value in saved["state_dict"].values())
    calls.clear()
    with pytest.raises(TrainingError, match="step 3"):  # a batch that is left out counts as a step
        run("train", *arguments, "overwrite=true", "trainer.skip_nonfinite=1")
    calls.clear()
    capsys.readouterr()
    run("train", *arguments, "overwrite=true", "trainer.skip_nonfinite=2")
    assert capsys.readouterr().err.count("Skipped this batch (") == 2
    final = weights(tmp_path / "run")
    assert final["skipped"] == 2 and all(value.isfinite().all() for value in final["state_dict"].values())


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_run_that_stopped_at_a_batch_goes_on_by_leaving_it_out(data, tmp_path, monkeypatch, what):
    """It is left out once, and counted once; what is drawn for its step is drawn again."""
    original, seen = CrossEntropy.forward, []

    def breaks(self, model, batch):
        if model.training:
            seen.append((batch.image_ids.tolist(), torch.get_rng_state()))
        loss = original(self, model, batch)
        if not model.training or len(seen) not in (4, 6):
            return loss
        bad = model.decoder.embedding.weight[1].sum()
        return loss._replace(
            total=loss.total + ((bad - bad.detach()).abs().sqrt() if what == "gradient" else torch.inf)
        )

    monkeypatch.setattr(CrossEntropy, "forward", breaks)
    arguments = ["trainer.max_epochs=1", "loader.batch_size=2", "trainer.accumulate_grad_batches=2"]
    with pytest.raises(TrainingError, match="step 1: "):
        run("train", *short(data, tmp_path, *arguments))
    stopped = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert len(seen) == 4 and stopped["skipped"] == 0 and stopped["position"]["batches"] == 2
    last = f"resume={tmp_path}/checkpoints/last.ckpt"
    run("train", *short(data, tmp_path, *arguments, last, "trainer.skip_nonfinite=1"))
    assert weights(tmp_path)["skipped"] == 1 and [ids for ids, _ in seen[4:]] == [ids for ids, _ in seen[2:4]]
    assert all(torch.equal(again, first) for (_, again), (_, first) in zip(seen[4:], seen[2:4], strict=True))


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_validation_that_turns_nan_stops_the_run(data, tmp_path, monkeypatch, epoch):
    original, seen = CrossEntropy.forward, []

    def breaks(self, model, batch):
        loss = original(self, model, batch)
        seen.append((model.training, batch.image_ids.tolist()))
        if model.training or sum(not training for training, _ in seen) <= 3 * (epoch - 1) + 1:
            return loss
        parts = loss.parts | {"cross_entropy": loss.total.detach() * torch.inf}
        return loss._replace(total=loss.total * torch.inf, parts=parts)  # of the last two batches of three

    monkeypatch.setattr(CrossEntropy, "forward", breaks)
    with pytest.raises(TrainingError) as caught:
        run("train", *short(data, tmp_path / "run", "trainer.max_epochs=3", "loader.val_batch_size=3"))
    ids = ", ".join(map(str, seen[-2][1]))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    fault = f"val/cross_entropy is inf (batch with image ids {ids}) (and 1 more batches). "
    assert str(caught.value).startswith(f"validation after step {2 * epoch}: {fault}")
    assert last.is_file() == (f"resume={last}" in str(caught.value)) == (epoch == 2)
    if epoch == 2:
        assert weights(tmp_path / "run")["global_step"] == weights(tmp_path / "run", "best")["global_step"] == 2


def test_the_encoders_rate_rises_by_itself(data, tmp_path):
    online = [item for item in data if not item.startswith("features.root")]
    tuning = ["features=online", "encoder.unfreeze_from=head", "encoder_lr=0.01", "encoder_warmup=4"]
    run("train", *short(online, tmp_path, *tuning, "trainer.max_epochs=2", "trainer.log_every_n_steps=1"))
    rates = [float(row["lr-Adam/pg2"]) for row in rows(tmp_path) if row["lr-Adam/pg2"]]
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    assert {float(row["lr-Adam/pg1"]) for row in rows(tmp_path) if row["lr-Adam/pg1"]} == {4e-4}


@pytest.fixture
def region_files(world, tmp_path):
    """Two to five regions a picture, in the layout of bottom-up extractors, filled up to 6 rows."""
    folder, random = tmp_path / "regions", np.random.default_rng(0)
    folder.mkdir()
    for record in read_csv(world):
        count = 2 + record.image_id % 4
        features = np.zeros((6, 12), np.float32)
        features[:count] = random.normal(size=(count, 12))
        features[count:] = np.nan  # must never be looked at
        boxes = np.tile([0, 0, 10, 10], (6, 1)).astype(np.float32)
        np.savez(folder / f"{record.image_id}.npz", x=features, bbox=boxes, num_bbox=count, image_w=96, image_h=64)
    return folder


@pytest.mark.slow
def test_regions_are_a_third_kind_of_feature(data, region_files, world, tmp_path):
    only = [item for item in data if not item.startswith("features.root")]
    regions = ["encoder=regions", "encoder.size=12", "features=regions", f"features.root={region_files}"]
    small = ["data.min_count=1", "model.width=32", "model.embedding_size=24", "loader.batch_size=4"]
    small += ["model.dropout=0.0", "optimizer.lr=1e-2", "objective.doubly_stochastic=0", "trainer.accelerator=cpu"]
    small += ["trainer.max_epochs=60", "trainer.check_val_every_n_epoch=60", "trainer.enable_progress_bar=false"]
    run("train", *only, *regions, *small, "model/recurrence=up_down", f"run_dir={tmp_path}/run")
    checkpoint = f"checkpoint={tmp_path}/run/checkpoints/last.ckpt"
    wanted = ["features=regions", f"features.root={region_files}", f"output={tmp_path}/out"]
    for batch_size in (1, 8):  # with other pictures' padding, and without
        run("evaluate", checkpoint, *only, *wanted, "split=train", f"batch_size={batch_size}")
        found = json.loads((tmp_path / "out" / "captions.json").read_text())
        assert [item["caption"] for item in found] == SENTENCES
    with pytest.raises(ConfigError, match="cannot compute from an image"):
        run("caption", checkpoint, f"images=[{world}/val0.png]", f"output={tmp_path}/none")
    (region_files / f"{read_csv(world)[4].image_id}.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match="cannot read region features"):
        run("train", *only, *regions, *small, f"run_dir={tmp_path}/other")
    (region_files / f"{read_csv(world)[3].image_id}.npz").unlink()
    with pytest.raises(DataError, match=r"\.npz is missing: no region features of .*val1\.png"):
        run("train", *only, *regions, *small, f"run_dir={tmp_path}/other")
    with pytest.raises(ConfigError, match="set features=regions"):
        run("train", *only, *regions[:2], f"features.root={tmp_path}/store", f"run_dir={tmp_path}/other")


@pytest.mark.slow
def test_coco_in_its_own_layout_trains_evaluates_and_captions(shared_dir, tmp_path):
    root = shared_dir / "coco-sample"
    coco = ["data=coco", f"data.root={root}", "data.layout=2017", f"features.root={tmp_path / 'features'}"]
    small = [
        "experiment=coco_soft",
        "trainer.max_steps=20",
        "loader.batch_size=16",
        "trainer.enable_progress_bar=false",
    ]
    run("train", *small, *coco, "model.width=64", f"run_dir={tmp_path}/run")
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 20
    checkpoint = f"checkpoint={tmp_path}/run/checkpoints/best.ckpt"
    run("evaluate", checkpoint, *coco, f"output={tmp_path}/val", "decoding.beam_size=5")
    found = json.loads((tmp_path / "val" / "captions.json").read_text())
    assert len(found) == 79 and {item["image_id"] for item in found} == {
        image["id"] for image in json.loads((root / "annotations" / "captions_val2017.json").read_text())["images"]
    }
    # After so few steps the most probable caption may well be none: what it scores is not asked.
    assert {"BLEU-4", "ROUGE-L", "CIDEr"} < json.loads((tmp_path / "val" / "scores.json").read_text()).keys()
    pictures = sorted((root / "val2017").glob("*.jpg"))[:2]
    run("caption", checkpoint, f"images=[{pictures[0]},{pictures[1]}]", f"output={tmp_path}/captions")
    assert {path.suffix for path in (tmp_path / "captions").iterdir()} == {".json", ".png"}


def test_a_group_of_none_is_none_beside_an_experiment_that_sets_its_arguments(data, tmp_path):
    overrides = ["experiment=scenes_fc", "weight_averaging=none", "trainer.max_epochs=1"]
    run("train", *short(data, tmp_path / "run", *overrides))
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["weight_averaging"] is None


@pytest.mark.parametrize(
    ("settings", "precision", "fused"),
    [
        ({}, "32-true", True),
        ({}, "bf16-mixed", None),
        ({"fused": False}, "32-true", False),
        ({"foreach": True}, "32-true", None),
        ({"_target_": "torch.optim.NAdam"}, "32-true", None),
    ],
)
def test_the_optimizer_is_fused_where_it_can_be(settings, precision, fused):
    adam = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 1e-3}
    make = _optimizer({"optimizer": adam | settings, "trainer": {"precision": precision}})
    assert make([torch.nn.Parameter(torch.zeros(2))]).defaults.get("fused") == fused


def test_a_fused_optimizer_in_mixed_precision_is_refused():
    adam = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 1e-3, "fused": True}
    with pytest.raises(
        ConfigError, match=r"optimizer\.fused=true .* trainer\.precision=bf16-mixed, .*Remove optimizer\.fused"
    ):
        _optimizer({"optimizer": adam, "trainer": {"precision": "bf16-mixed"}})


@pytest.mark.parametrize("path", ["/checkpoints/../../victim", "/checkpoints/../../victim/..", "/elsewhere/x.ckpt"])
def test_a_checkpoint_cannot_name_what_training_deletes(tmp_path, path):
    from captioning.training import Checkpoint

    folder = tmp_path / "checkpoints"
    callback = Checkpoint(dirpath=folder, filename="best", monitor="x", mode="max")
    state = callback.state_dict() | {"best_k_models": {f"{tmp_path}{path}": torch.tensor(-5.0)}, "best_model_path": ""}
    callback.load_state_dict(state | {"kth_best_model_path": f"{tmp_path}{path}", "dirpath": str(folder)})
    named = [callback.kth_best_model_path, callback.best_model_path, *callback.best_k_models]
    assert all(not name or Path(name).parent == folder for name in named)
