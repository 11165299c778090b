"""Exchange faults, predictions and random generators between the processes of a run."""

from collections.abc import Sequence
from typing import Any

import torch

from captioning.errors import ConfigError


def world_size() -> int:
    """The number of processes; 1 where nothing is distributed."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if there else 1


def faults_of_all(fault: str, ids: torch.Tensor, device: torch.device) -> list[tuple[str, list[int]]]:
    """Faults of all processes, each with the items of its batch; the same list on all of them.

    A process that left a batch out alone, or stopped, would keep the others waiting for its gradient for ever.
    """
    parts = [(fault, ids)]
    if world_size() > 1:
        flag = torch.tensor(int(bool(fault)), device=device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        parts = of_all((fault, ids.cpu())) if flag else []
    return [(what, own.tolist()) for what, own in parts if what]


def gather_by_id(predictions: dict[int, Any]) -> dict[int, Any]:
    """The predictions of all processes, in the order of their ids."""
    return dict(sorted(pair for part in of_all(predictions) for pair in part.items()))


def generator_states() -> dict[str, Any]:
    """The states of this process's random generators."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}


def own_state(states: Sequence[dict[str, Any]] | dict[str, Any], trainer) -> dict[str, Any]:
    """This process's, of those that a checkpoint holds.

    Raises:
        ConfigError: the run had another number of processes.
    """
    states = [states] if isinstance(states, dict) else states  # the former is of an earlier version
    if len(states) != trainer.world_size:
        raise ConfigError(
            f"resume: the run had {len(states)} processes and has {trainer.world_size} now, which would see other "
            "batches: set trainer.devices and trainer.num_nodes as in the first run (its config.yaml)"
        )
    return states[trainer.global_rank]


def of_all(part: Any) -> list[Any]:
    """One object per process, in the order of their ranks."""
    parts = [part]
    if world_size() > 1:
        parts = [None] * world_size()
        torch.distributed.all_gather_object(parts, part)
    return parts
