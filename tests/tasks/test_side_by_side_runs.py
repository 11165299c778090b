"""Runs with two encoders side by side: train, resume, evaluate, caption, export; from stores and online."""

import json

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from small_world import SMALL, run, weights

import captioning
from captioning.config import ExportConfig, check, compose
from captioning.errors import ConfigError
from captioning.export import export

LITE = "encoder: efficientnet_lite0, image_size"
PARTS = f"encoder.parts=[{{{LITE}: 64}},{{{LITE}: 96, layer: blocks.10}}]"
SIDE = ["encoder=side_by_side", PARTS, "data.min_count=1", "schedule=constant", *SMALL[1:]]


@pytest.fixture(scope="module")
def joint(data, tmp_path_factory):
    """The folder of a run of two steps, with stored features."""
    run_dir = tmp_path_factory.mktemp("joint")
    run("train", *data, *SIDE, "trainer.max_steps=2", f"run_dir={run_dir}")
    return run_dir


def test_a_checkpoint_of_named_weights_has_no_encoder_and_loads_them_again(joint, world):
    state = weights(joint)
    assert not any(name.startswith("captioner.encoder.") for name in state["state_dict"])
    assert state["captioning"]["encoder"] is None and state["captioning"]["features"]["size"] == 1280 + 112
    captioner = captioning.load(joint / "checkpoints/last.ckpt")
    (caption,) = captioner.caption(world / "val0.png", max_length=5)
    assert captioner.encoder.grid_shape == (6, 6) and caption.attention.shape[1] == 36
    assert captioner.encoder.fingerprint() == state["captioning"]["fingerprint"]


def test_stored_and_online_features_train_alike(joint, data, tmp_path):
    run("train", *data[:2], *SIDE, "features=online", "trainer.max_steps=2", f"run_dir={tmp_path}")
    stored, online = weights(joint)["state_dict"], weights(tmp_path)["state_dict"]
    assert stored.keys() == online.keys()
    change = max((stored[name] - online[name]).abs().max() for name in stored)
    assert change < 2e-3  # Adam's first steps have the size of the learning rate, whatever the gradient


def test_photos_and_stores_give_the_same_captions(joint, data, world, tmp_path):
    checkpoint = f"checkpoint={joint / 'checkpoints/last.ckpt'}"
    found = {}
    for name, features in {"store": data, "online": [*data[:2], "features=online"]}.items():
        run("evaluate", checkpoint, *features, f"output={tmp_path / name}", "split=val")
        found[name] = json.loads((tmp_path / name / "captions.json").read_text())
    alone = captioning.load(joint / "checkpoints/last.ckpt").caption([world / f"val{n}.png" for n in range(8)])
    assert found["store"] == found["online"] and len(found["store"]) == 8
    by_name = {each["file_name"]: each["caption"] for each in found["store"]}
    assert [by_name[f"val{n}.png"] for n in range(8)] == [caption.text for caption in alone]


def test_an_export_captions_alike(joint, world, tmp_path):
    path = joint / "checkpoints/last.ckpt"
    given = ["dtype=float32", f"checkpoint={path}", f"output={tmp_path / 'both'}"]
    export(check(compose("export", given), ExportConfig))
    photo = world / "val3.png"
    first, second = (captioning.load(file).caption(photo)[0] for file in (path, tmp_path / "both.safetensors"))
    assert first.text == second.text and torch.equal(torch.tensor(first.attention), torch.tensor(second.attention))
    card = (tmp_path / "both.md").read_text()
    assert "efficientnet-lite0 + efficientnet-lite0" in card and "64 × 64 pixels" in card and "96 × 96 pixels" in card


def test_weights_of_a_file_travel_in_the_checkpoint_and_the_file_may_move(data, world, tmp_path):
    torch.save(EfficientNet.from_name("efficientnet-lite0").state_dict(), tmp_path / "lite.pth")
    parts = f"encoder.parts=[{{{LITE}: 64, weights: {tmp_path / 'lite.pth'}}},{{{LITE}: 96, layer: blocks.10}}]"
    given = [*data, *SIDE, parts, f"run_dir={tmp_path / 'run'}"]
    run("train", *given, "trainer.max_steps=1")
    before = captioning.load(tmp_path / "run/checkpoints/last.ckpt").caption(world / "val1.png")[0]
    (tmp_path / "lite.pth").rename(tmp_path / "moved.pth")
    after = captioning.load(tmp_path / "run/checkpoints/last.ckpt").caption(world / "val1.png")[0]
    assert before.text == after.text and (before.attention == after.attention).all()
    moved = [each.replace("lite.pth", "moved.pth") for each in given]
    run("train", *moved, "trainer.max_steps=2", "resume=auto")
    assert weights(tmp_path / "run")["global_step"] == 2
    with pytest.raises(ConfigError, match="other encoder weights"):
        changed = [each.replace("blocks.10", "blocks.9") for each in moved]
        run("train", *changed, "trainer.max_steps=3", "resume=auto")


def test_one_part_can_be_fine_tuned_online(data, tmp_path, world):
    parts = f"encoder.parts=[{{{LITE}: 64, unfreeze_from: head}},{{{LITE}: 96, layer: blocks.10}}]"
    given = [*data[:2], *SIDE, parts, "features=online", "encoder_lr=1e-3", f"run_dir={tmp_path}"]
    run("train", *given, "trainer.max_steps=2")
    tuned = {name: value for name, value in weights(tmp_path)["state_dict"].items() if ".encoder." in name}
    assert any(name.startswith("captioner.encoder.parts.0.") for name in tuned)
    captioner = captioning.load(tmp_path / "checkpoints/last.ckpt")
    own = captioner.encoder.state_dict()
    assert all(torch.equal(own[name.removeprefix("captioner.encoder.")], value) for name, value in tuned.items())
    assert captioner.caption(Image.open(world / "val2.png"))[0].text
