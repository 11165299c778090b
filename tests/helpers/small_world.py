"""A world of eight drawn images with captions, and the commands run in this process on it."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from captioning.caption import caption
from captioning.config import CaptionConfig, EvaluateConfig, PrepareConfig, check, compose
from captioning.config.schemas import TrainConfig
from captioning.evaluate import evaluate
from captioning.prepare import prepare
from captioning.train import train

COMMANDS = {
    "train": (train, TrainConfig),
    "evaluate": (evaluate, EvaluateConfig),
    "prepare": (prepare, PrepareConfig),
    "caption": (caption, CaptionConfig),
}


SMALL = [
    "encoder.image_size=64",
    "model.width=32",
    "model.embedding_size=24",
    "loader.batch_size=4",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
]


SENTENCES = [
    "a red dog runs on grass",
    "two blue cats sit",
    "the green bird flies over a lake",
    "one white horse",
    "a man rides the yellow bike",
    "children play with balls in a park",
    "the sea",
    "an old grey house stands alone",
]


def run(command: str, *overrides: str) -> None:
    job, schema = COMMANDS[command]
    job(check(compose(command, list(overrides)), schema))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Eight pictures of noise with a caption each, for training and validation alike in a CSV file."""
    root = tmp_path_factory.mktemp("world")
    random = np.random.default_rng(0)
    with (root / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "split"])
        for index, sentence in enumerate(SENTENCES):
            for split in ("train", "val"):
                name = f"{split}{index}.png"
                noise = random.integers(0, 256, (4, 6, 3), np.uint8) if split == "train" else noise  # noqa: F821
                Image.fromarray(noise).resize((96, 64), Image.NEAREST).save(root / name)
                writer.writerow([name, sentence.capitalize() + ".", split])
    return root


@pytest.fixture(scope="module")
def data(world):
    return ["data=csv", f"data.root={world}", f"features.root={world / 'features'}"]


def short(data, run_dir, *overrides):
    return [*data, *SMALL, "data.min_count=1", "schedule=constant", f"run_dir={run_dir}", *overrides]


def weights(run_dir, name="last"):
    return torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A checkpoint of one step."""
    run_dir = tmp_path_factory.mktemp("trained")
    run("train", *short(data, run_dir, "trainer.max_steps=1"))
    return run_dir / "checkpoints" / "last.ckpt"


def rows(run_dir):
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))
