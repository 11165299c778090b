"""Exchange faults, predictions and random generators between the processes of a run."""

from collections.abc import Sequence
from typing import Any

import torch

from captioning.errors import ConfigError


def world_size() -> int:
    """Return the number of processes of the run; 1 if it is not distributed."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if there else 1


def faults_of_all(fault: str, ids: torch.Tensor, device: torch.device) -> list[tuple[str, list[int]]]:
    """Return the faults of all processes, each with the ids of its batch; the list is the same on every process.

    All processes must act on it together. If one process alone skipped a batch or stopped, the others would wait
    forever for its gradient.

    Args:
        fault: the fault of this process; "" for none.
        ids: [B] ids of this process's batch.
        device: device of the run.
    """
    parts = [(fault, ids)]
    if world_size() > 1:
        flag = torch.tensor(int(bool(fault)), device=device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        parts = of_all((fault, ids.cpu())) if flag else []
    return [(what, own.tolist()) for what, own in parts if what]


def gather_by_id(predictions: dict[int, Any]) -> dict[int, Any]:
    """Return the predictions of all processes, sorted by id."""
    return dict(sorted(pair for part in of_all(predictions) for pair in part.items()))


def generator_states() -> dict[str, Any]:
    """Return the states of this process's random generators."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}


def own_state(states: Sequence[dict[str, Any]] | dict[str, Any], trainer) -> dict[str, Any]:
    """Return this process's generator states from a checkpoint.

    Args:
        states: the generator states of all processes.
        trainer: the trainer, for the rank and number of processes.

    Raises:
        ConfigError: the checkpoint is of a run with another number of processes.
    """
    states = [states] if isinstance(states, dict) else states  # earlier versions saved a dict
    if len(states) != trainer.world_size:
        raise ConfigError(
            f"resume: the checkpoint is of a run with {len(states)} processes, but this run has {trainer.world_size}, "
            "so its batches differ. Set trainer.devices and trainer.num_nodes as in the first run (its config.yaml)"
        )
    return states[trainer.global_rank]


def of_all(part: Any) -> list[Any]:
    """Return the objects `part` of all processes, in the order of their ranks."""
    parts: list[Any] = [part]
    if world_size() > 1:
        parts = [None] * world_size()
        torch.distributed.all_gather_object(parts, part)
    return parts
