"""Run the commands in this process on the world of eight images that conftest.py draws."""

import csv

import torch

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


def short(data, run_dir, *overrides):
    return [*data, *SMALL, "data.min_count=1", "schedule=constant", f"run_dir={run_dir}", *overrides]


def weights(run_dir, name="last"):
    return torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)


def rows(run_dir):
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))
