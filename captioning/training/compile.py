"""Compile a model's small parts with torch.compile: the sums between the matrix products of a step."""

import torch
from torch import nn

from captioning.models import Additive, Cell

# A few graphs of each serve all steps and batches, whose rows are their only unknowns. Of a whole step there is a new
# one wherever a row ends, or none has ended: on a CPU ten seconds each.
_PARTS = (Cell, Additive)
# Of each part: one row or more, one image or more, with or without gradient, in training and in a search. torch would
# stop at 8, and run all else uncompiled.
GRAPHS = 32


def compile_parts(module: nn.Module, device: torch.device | str) -> str:
    """Has the parts inside of a module compiled when they are first called; names of weights stay as they are.

    Args:
        module: a captioner, or what holds one and its objective.
        device: that it will run on.

    Returns:
        Why nothing is compiled, in a line; "" where it is.
    """
    fault = why_not(device)
    torch._dynamo.config.recompile_limit = GRAPHS
    for part in module.modules() if not fault else ():
        if isinstance(part, _PARTS):
            part.compile(dynamic=True)
    return fault


def why_not(device: torch.device | str) -> str:
    """What keeps torch from compiling for a device, in a line; "" for nothing. A tiny function is compiled to see."""
    try:
        torch.compile(lambda x: 2 * x.sigmoid(), dynamic=True)(torch.zeros(3, device=device))
    except Exception as error:  # no compiler, none that works, no Triton, a Python that is too new: each has its own
        cause = getattr(error, "inner_exception", error)
        return (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    return ""
