"""Train small models for a few steps, whole or in shares: what the processes of test_scaling.py run.

Apart from the tests, so that the processes start with few imports. Nothing here is random: hard attention, samples and
scheduled sampling look at fixed numbers that depend on the row of a caption alone, so that every division of a batch
draws the same.
"""

import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import captioning.objectives.cross_entropy
import captioning.objectives.self_critical
from captioning.models import ScoreFunction
from captioning.models.gradient_estimators import Draw, entropy
from captioning.training import CaptioningTask
from captioning.training.trainer import Trainer


class Case(NamedTuple):
    """model, objective: before training. steps: the whole batch of each optimizer step."""

    model: nn.Module
    objective: nn.Module
    steps: list


class ByRow(ScoreFunction):
    """Looks at locations that the row of a caption and log α decide."""

    def __init__(self):
        super().__init__(expected_share=0.0)

    def __call__(self, log_weights: Tensor, expected: Tensor | None) -> Draw:
        rows, locations = log_weights.shape[1:]
        noise = torch.arange(1, rows * locations + 1, dtype=log_weights.dtype).view(rows, locations)
        places = (log_weights + 3 * (noise * 2.4).sin()).argmax(-1)
        one_hot = nn.functional.one_hot(places, locations).to(log_weights.dtype)
        log_prob = log_weights.gather(-1, places[..., None]).squeeze(-1)
        return Draw(one_hot, places, log_prob, entropy(log_weights))


def by_row(probabilities: Tensor) -> Tensor:
    """Ids that the row of a sample and the distribution [B, K, V] decide."""
    rows = probabilities.shape[1]
    at = (torch.arange(rows, dtype=probabilities.dtype)[:, None] + 0.5) / rows
    return torch.searchsorted(probabilities.cumsum(-1), at.expand(len(probabilities), -1, 1).contiguous()).squeeze(-1)


def by_second_row(shape) -> Tensor:
    """In the place of uniform numbers [B, K]: scheduled sampling takes the model's words in every second row."""
    return (torch.arange(shape[-1]) % 2 * 0.9 + 0.01).expand(shape)


def draw_nothing() -> None:
    """Fixed numbers in the place of all draws of words."""
    captioning.objectives.cross_entropy.draw_ids = captioning.objectives.self_critical.draw_ids = by_row
    torch.rand = lambda shape, **_: by_second_row(shape)


def part_of(batch, images: slice):
    return type(batch)(*(None if part is None else part[images] for part in batch))


def train(case: Case, batches: list, folder: Path, *, accumulate: int = 1, devices: int = 1, **options) -> dict:
    """Train by SGD on this process's batches, by the trainer of real runs; returns the state of model and objective.

    options: of the trainer.
    """
    task = make_task(case)
    trainer = make_trainer(folder, devices, accumulate_grad_batches=accumulate, limit_val_batches=0, **options)
    trainer.fit(task, DataLoader(batches, batch_size=None))
    return {name: value.detach().clone() for name, value in task.state_dict().items()}


def validate(case: Case, batches: list, folder: Path, *, devices: int = 1) -> float:
    """val/loss of these batches of this process, with those of the others."""
    (found,) = make_trainer(folder, devices).validate(
        make_task(case), DataLoader(batches, batch_size=None), verbose=False
    )
    return found["val/loss"]


def make_task(case: Case) -> CaptioningTask:
    return CaptioningTask(
        case.model,
        case.objective,
        predict=lambda *_: {},
        score=lambda _: {},
        optimizer=partial(torch.optim.SGD, lr=0.3, momentum=0.9),
        schedule=lambda steps: lambda step: 1.0,
        metadata={},
    )


def make_trainer(folder: Path, devices: int, **options) -> Trainer:
    usual = {"max_epochs": 1} | ({} if "plugins" in options else {"precision": "64-true"})  # a plugin has its own
    quiet = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary", "logger"), False)
    strategy = "ddp" if devices > 1 else "auto"
    return Trainer(
        **usual | quiet | options, devices=devices, accelerator="cpu", strategy=strategy, use_distributed_sampler=False,
        default_root_dir=folder,
    )  # fmt: skip


def learn(rank: int, folder: str, port: int) -> None:
    """One of two processes: its share of every case, in steps of so many accumulated batches; none: in validation."""
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2",
        "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0",
    }  # fmt: skip
    draw_nothing()
    torch.manual_seed(5)  # as every process of a run begins
    jobs = torch.load(f"{folder}/jobs.pt", weights_only=False)
    found = {}
    for name, (case, shares, accumulate) in jobs.items():
        if accumulate:
            found[name] = train(case, shares[rank], Path(folder), accumulate=accumulate, devices=2)
        else:
            found[name] = validate(case, shares[rank], Path(folder), devices=2)
    found["seed"] = torch.initial_seed()
    torch.save(found, f"{folder}/{rank}.pt")
