"""Runs with loader.order=shards: the same steps on several processes, a resumed run, and what is refused."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from kills import differing, left
from small_world import run, short, weights

import captioning.training.datamodule as datamodule
from captioning.data import ImageSampler, ShardSampler
from captioning.errors import ConfigError
from captioning.features import store
from captioning.tasks import image_captioning
from captioning.training import CaptioningTask

SHARDS = ["loader.order=shards", "loader.shuffle_buffer=2"]
EXACT = ["model.dropout=0.0", "model.conditioning.dropout=0.0", "trainer.max_epochs=2", "trainer.precision=64-true"]


@pytest.fixture
def shards(data, tmp_path, monkeypatch):
    """Overrides of a data set whose 16 images are stored in shards of four, two of them for training."""
    monkeypatch.setattr(store, "SHARD_BYTES", 4 * 2 * 4 * 1280)
    settings = [*data[:-1], f"features.root={tmp_path / 'features'}"]
    run("prepare", *settings, "encoder.image_size=64")
    (folder,) = [path for path in (tmp_path / "features").iterdir() if (path / "manifest.json").is_file()]
    assert len(list(folder.glob("shard-*.npy"))) == 4
    return settings


def test_a_run_by_shards_that_was_killed_goes_on_as_if_it_had_not_been(shards, tmp_path, monkeypatch):
    settings = [*SHARDS, "trainer.max_epochs=3", "trainer.log_every_n_steps=1", "loader.batch_size=2"]
    run("train", *short(shards, tmp_path / "whole", *settings))
    original, calls = CaptioningTask.training_step, []

    def dies(self, *given):
        calls.append(given[0].image_ids.tolist())
        if len(calls) == 7:
            raise RuntimeError("killed")
        return original(self, *given)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(CaptioningTask, "training_step", dies)
        run("train", *short(shards, tmp_path / "killed", *settings, "trainer.save_every_minutes=1e-9"))
    position = weights(tmp_path / "killed")["position"]
    assert position["epoch"] == 1 and position["batches"] > 0  # inside an epoch
    with pytest.raises(ConfigError, match=r"loader\.shuffle_buffer was 2 and is 3 now"):
        run("train", *short(shards, tmp_path / "killed", *settings, "resume=auto", "loader.shuffle_buffer=3"))
    with monkeypatch.context() as patch, pytest.raises(ConfigError, match="the images are in other shards of features"):
        patch.setattr(image_captioning, "_locations", lambda source, records: np.zeros((8, 2), np.int64))
        run("train", *short(shards, tmp_path / "killed", *settings, "resume=auto"))
    run("train", *short(shards, tmp_path / "killed", *settings, "resume=auto"))
    assert not differing(left(tmp_path / "whole"), left(tmp_path / "killed"))
    assert sorted(calls[0] + calls[1] + calls[2] + calls[3]) == list(range(0, 16, 2))  # every image once


@pytest.mark.parametrize("features", ["online", "blank", "regions"])
def test_an_order_of_shards_needs_shards(data, tmp_path, features):
    root = ["features.root=nowhere", "encoder=regions"] if features == "regions" else []
    with pytest.raises(
        ConfigError, match=r"loader\.order=shards .* has none: set loader\.order=images, or features=st"
    ):
        run("train", *data[:-1], f"features={features}", *root, *SHARDS, f"run_dir={tmp_path}")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_by_shards_take_the_steps_of_one_process_with_their_batches(
    shards, tmp_path, monkeypatch, pytestconfig, processes
):
    environment = {**os.environ, "PYTHONPATH": str(pytestconfig.rootpath), "PYTHONWARNINGS": "ignore"}
    size = 4 // processes
    options = [*EXACT, *SHARDS, f"loader.batch_size={size}", f"trainer.devices={processes}", "trainer.strategy=ddp"]
    command = [sys.executable, "-m", "captioning.train", *short(shards, tmp_path / "many", *options)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=400)
    seen = []

    class Together(ImageSampler):
        """The batches of all processes, one after the other in each step."""

        def __init__(self, locations, **options):
            super().__init__(len(locations), shuffle=True)
            self.parts = [
                ShardSampler(locations, **options | {"rank": rank, "world": processes}) for rank in range(processes)
            ]

        def __iter__(self):
            for part in self.parts:
                part.set_epoch(self.epoch)
            orders = [list(part) for part in self.parts]
            for first in range(0, len(orders[0]), size):
                seen.extend(orders[0][first : first + size])
                for order in orders:
                    yield from order[first : first + size]

    monkeypatch.setattr(datamodule, "ShardSampler", Together)
    run("train", *short(shards, tmp_path / "one", *EXACT, *SHARDS, "loader.batch_size=4"))
    assert seen
    one, many = weights(tmp_path / "one"), weights(tmp_path / "many")
    assert one["global_step"] == many["global_step"] > 2
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(many["state_dict"][name], value, rtol=1e-6, atol=1e-8)
