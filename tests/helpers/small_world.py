"""Run the commands in this process on the world of eight images that conftest.py draws."""

import csv

import pytest
import torch

from captioning.caption import caption
from captioning.config import CaptionConfig, EvaluateConfig, PrepareConfig, check, compose
from captioning.config.schemas import TrainConfig
from captioning.evaluate import evaluate
from captioning.metrics import Reward
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
    """Settings of a small and short run; most of the default model's weights would be those of its scorer."""
    other = any(each.startswith(("model=", "model/scorer=", "task=", "experiment=")) for each in (*data, *overrides))
    narrow = [] if other else ["model.scorer.width=32"]
    return [*data, *SMALL, *narrow, "data.min_count=1", "schedule=constant", f"run_dir={run_dir}", *overrides]


def run_until_killed(monkeypatch, *overrides: str, calls: int) -> None:
    """Train with a reward until its call number `calls`, which raises an error as a kill would end the process."""
    made, original = [], Reward.__call__

    def dies(self, *asked):
        made.append(1)
        if len(made) == calls:
            raise RuntimeError("killed")
        return original(self, *asked)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(Reward, "__call__", dies)
        run("train", *overrides)


def weights(run_dir, name="last"):
    return torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)


def rows(run_dir):
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))
