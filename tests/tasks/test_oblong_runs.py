"""A run with images that are not square: trained, evaluated from its store and online, grounded, exported."""

import json
from pathlib import Path

import pytest
import torch
from small_world import SMALL, run, weights

import captioning
from captioning.config import ExportConfig, check, compose
from captioning.export import export

OBLONG = ["encoder=efficientnet_lite0", "encoder.image_size=[64,128]", "encoder.layer=blocks.10"]
OBLONG += ["model/positions=coordinates", "data.min_count=1", "schedule=constant", *SMALL[1:]]


@pytest.fixture(scope="module")
def oblong(data, tmp_path_factory):
    """The folder of a run of two steps, with stored features of 4 × 8 locations."""
    run_dir = tmp_path_factory.mktemp("oblong")
    run("train", *data, *OBLONG, "trainer.max_steps=2", f"run_dir={run_dir}")
    return run_dir


def test_the_checkpoint_has_the_shape(oblong):
    found = weights(oblong)["captioning"]
    assert found["features"] == {"size": 112, "grid": True, "shape": [4, 8]}
    assert found["config"]["transform"]["size"] == [64, 128]


def test_photos_stores_and_exports_give_the_same_captions_and_maps(oblong, data, world, tmp_path):
    path = oblong / "checkpoints/last.ckpt"
    found = {}
    for name, features in {"store": data, "online": [*data[:2], "features=online"]}.items():
        run("evaluate", f"checkpoint={path}", *features, f"output={tmp_path / name}", "split=val")
        found[name] = json.loads((tmp_path / name / "captions.json").read_text())
    assert found["store"] == found["online"] and len(found["store"]) == 8
    given = ["dtype=float32", f"checkpoint={path}", f"output={tmp_path / 'small'}"]
    export(check(compose("export", given), ExportConfig))
    assert "128 × 64 pixels" in (tmp_path / "small.md").read_text()  # width × height
    images = [world / f"val{number}.png" for number in range(8)]
    by_name = {each["file_name"]: each["caption"] for each in found["store"]}
    alone, again = (captioning.load(file).caption(images) for file in (path, tmp_path / "small"))
    for image, one, other in zip(images, alone, again, strict=True):
        assert one.grid == other.grid == (4, 8) and one.attention.shape[1] == 32
        assert one.text == other.text == by_name[image.name]
        torch.testing.assert_close(torch.tensor(one.attention), torch.tensor(other.attention))


def test_the_store_of_a_square_is_another(oblong, data, tmp_path):
    """Features of [64, 128] and of [128, 64] have as many locations, but never share a store."""
    turned = [value.replace("[64,128]", "[128,64]") for value in OBLONG]
    run("train", *data, *turned, "trainer.max_steps=1", f"run_dir={tmp_path}")
    assert weights(tmp_path)["captioning"]["features"]["shape"] == [8, 4]
    root = next(value for value in data if value.startswith("features.root=")).partition("=")[2]
    sizes = [json.loads(file.read_text())["key"]["transform"]["size"] for file in Path(root).glob("*/manifest.json")]
    assert [64, 128] in sizes and [128, 64] in sizes
