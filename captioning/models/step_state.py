"""Update what a part remembers once per optimizer step, from the whole batch of that step.

A moving average that each process or each micro-batch updated by itself would depend on how the batch of a step is
divided. A `StepState` therefore only adds up sums in `forward`. `end_step` adds them over the processes and then lets
the part take them in, so that one process with the whole batch, several processes with a share each, and accumulated
micro-batches all remember the same.

In a plain training loop, where nobody calls `end_step`, every forward pass in training mode is a step. A trainer calls
`defer(model)` once, and then `keep_batch` or `drop_batch` after each batch and `end_step` or `drop_step` at each step.
"""

from collections.abc import Iterator

from torch import Tensor, distributed, nn


class StepState(nn.Module):
    """A part whose memory changes between optimizer steps, and is constant during a step.

    A subclass keeps its memory in buffers, which checkpoints save, calls `note` in `forward` while it is in training
    mode, and implements `take`. The sums of an unfinished step are plain attributes: they are not saved, since a
    resumed run computes the micro-batches of an unfinished step again.
    """

    deferred = False

    def __init__(self):
        super().__init__()
        self._of_batch: Tensor | None = None
        self._of_step: Tensor | None = None

    def note(self, sums: Tensor) -> None:
        """Add sums over the own share of the batch, a vector of fixed length."""
        sums = sums.detach()
        self._of_batch = sums if self._of_batch is None else self._of_batch + sums
        if not self.deferred:
            keep_batch(self)
            end_step(self)

    def take(self, sums: Tensor) -> None:
        """Change the memory by the sums over all processes and micro-batches of a step."""
        raise NotImplementedError


def defer(module: nn.Module, deferred: bool = True) -> None:
    """Let the parts of `module` wait for `end_step`; with False, every forward pass is a step again."""
    for part in _parts(module):
        part.deferred = deferred


def keep_batch(module: nn.Module) -> None:
    """Add the sums of the latest batch to those of the step."""
    for part in _parts(module):
        if part._of_batch is not None:
            part._of_step = part._of_batch if part._of_step is None else part._of_step + part._of_batch
            part._of_batch = None


def drop_batch(module: nn.Module) -> None:
    """Forget the sums of the latest batch, which is left out of the step."""
    for part in _parts(module):
        part._of_batch = None


def end_step(module: nn.Module) -> None:
    """Let all parts take in the sums of the step, added up over the processes of a distributed run.

    All processes must call it together, with the same parts.
    """
    for part in _parts(module):
        if part._of_step is not None:
            sums, part._of_step = part._of_step, None
            if distributed.is_available() and distributed.is_initialized():
                sums = sums.clone()
                distributed.all_reduce(sums)
            part.take(sums)


def drop_step(module: nn.Module) -> None:
    """Forget all sums: the step is left out."""
    for part in _parts(module):
        part._of_batch = part._of_step = None


def _parts(module: nn.Module) -> Iterator[StepState]:
    return (part for part in module.modules() if isinstance(part, StepState))
