"""Find the place of this process among those that torchrun, srun or a SLURM job array has started together.

The place decides only where a process begins, which device and how many threads it uses, and what it shows. Processes
that share a feature store never count on each other.
"""

import math
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from captioning.io import cpu_quota


class Rank(NamedTuple):
    """The place of a process.

    Attributes:
        number: 0 … world - 1 among all processes.
        world: number of all processes.
        local: 0 … beside - 1 among the processes on this machine.
        beside: number of processes on this machine.
    """

    number: int = 0
    world: int = 1
    local: int = 0
    beside: int = 1


ONLY = Rank()


def launched_rank(variables: Mapping[str, str] | None = None) -> Rank:
    """Return the place of this process, from the variables that its launcher has set; ONLY without a launcher.

    The tasks of a SLURM job array are counted like further ranks, each with all ranks of its own job.

    Args:
        variables: environment variables; None for those of this process.
    """
    given = os.environ if variables is None else variables

    def number(name: str, default: int = 0) -> int:
        found = re.match(r"\d+", given.get(name, ""))
        return int(found[0]) if found else default

    if "WORLD_SIZE" in given:
        local = number("LOCAL_RANK")
        found = (number("RANK", local), number("WORLD_SIZE", 1), local, number("LOCAL_WORLD_SIZE", 1))
    else:
        # SLURM_STEP_TASKS_PER_NODE is "4" or, for two machines, "4(x2)".
        beside = number("SLURM_STEP_TASKS_PER_NODE", 1)
        found = (number("SLURM_PROCID"), number("SLURM_STEP_NUM_TASKS", 1), number("SLURM_LOCALID"), beside)
    rank, world, local, beside = found
    if tasks := number("SLURM_ARRAY_TASK_COUNT"):
        task = (number("SLURM_ARRAY_TASK_ID") - number("SLURM_ARRAY_TASK_MIN")) // number("SLURM_ARRAY_TASK_STEP", 1)
        rank, world = task * world + rank, tasks * world
    return Rank(rank, world, local, beside) if 0 <= rank < world else ONLY


def cores_per_process(rank: Rank) -> int:
    """Return how many cores a process should use, so that those on the same machine do not disturb each other."""
    every = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else every
    own = allowed if allowed < every else every // rank.beside  # srun may have limited each process already
    quota = cpu_quota()  # of the container, which all its processes share
    return max(1, own if quota is None else min(own, math.ceil(quota) // rank.beside))
