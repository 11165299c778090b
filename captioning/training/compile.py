"""Compile the small parts of a model with torch.compile: the elementwise operations between matrix products."""

import torch
from torch import nn

from captioning.models import Additive, Cell

# A few compiled graphs of each part serve all steps and batches: only the number of rows varies. Compiling a whole step
# instead would need a new graph each time a row ends, at ten seconds per graph on a CPU.
_PARTS = (Cell, Additive)
# Graphs per part: one row or several, one image or several, with or without gradients, in training and in a search.
# By default torch stops at 8 and runs all further cases uncompiled.
GRAPHS = 32


def compile_parts(module: nn.Module, device: torch.device | str) -> str:
    """Mark the cells and additive scorers inside a module for compilation at their first call.

    The names of the weights do not change.

    Args:
        module: a captioner, or a module that contains one.
        device: the device that the module will run on.

    Returns:
        The reason in one line if nothing can be compiled; "" otherwise.
    """
    fault = why_not(device)
    torch._dynamo.config.recompile_limit = GRAPHS
    for part in module.modules() if not fault else ():
        if isinstance(part, _PARTS):
            part.compile(dynamic=True)
    return fault


def why_not(device: torch.device | str) -> str:
    """Return in one line why torch cannot compile for a device; "" if it can compile a tiny test function."""
    try:
        torch.compile(lambda x: 2 * x.sigmoid(), dynamic=True)(torch.zeros(3, device=device))
    except Exception as error:  # no working compiler, no Triton, a too new Python: each raises its own type
        cause = getattr(error, "inner_exception", error)
        return (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    return ""
