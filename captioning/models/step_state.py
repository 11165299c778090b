"""Update a part's running statistics once per optimizer step, from all samples of that step.

If each process or micro-batch updated a moving average by itself, the result would depend on how the batch of a step is
divided. A `StepState` therefore only accumulates sums in `forward`. `end_step` adds the sums over all processes and
then updates the part. The statistics are thus the same for one process with the full batch, for several processes with
a share each, and for accumulated micro-batches.

In a plain training loop, which never calls `end_step`, every forward pass in training mode counts as a step. A trainer
calls `defer(model)` once, then `keep_batch` or `drop_batch` after each batch, and `end_step` or `drop_step` at each
step.
"""

from collections.abc import Iterator

from torch import Tensor, distributed, nn


class StepState(nn.Module):
    """A part whose memory changes between optimizer steps and is constant during a step.

    A subclass keeps its memory in buffers, which checkpoints save. It calls `note` in `forward` in training mode, and
    implements `take`. The sums of an unfinished step are plain attributes. Checkpoints do not save them, because a
    resumed run computes the micro-batches of an unfinished step again.
    """

    deferred = False

    def __init__(self):
        super().__init__()
        self._of_batch: Tensor | None = None
        self._of_step: Tensor | None = None

    def note(self, sums: Tensor) -> None:
        """Add sums over this process's share of the batch.

        Args:
            sums: Vector of fixed length.
        """
        sums = sums.detach()
        self._of_batch = sums if self._of_batch is None else self._of_batch + sums
        if not self.deferred:
            keep_batch(self)
            end_step(self)

    def take(self, sums: Tensor) -> None:
        """Update the memory from the sums over all processes and micro-batches of a step.

        Args:
            sums: Vector of the same length as in `note`.
        """
        raise NotImplementedError


def defer(module: nn.Module, deferred: bool = True) -> None:
    """Make the parts of `module` wait for `end_step`; with False, every forward pass counts as a step again."""
    for part in _parts(module):
        part.deferred = deferred


def keep_batch(module: nn.Module) -> None:
    """Add the sums of the latest batch to those of the step."""
    for part in _parts(module):
        if part._of_batch is not None:
            part._of_step = part._of_batch if part._of_step is None else part._of_step + part._of_batch
            part._of_batch = None


def drop_batch(module: nn.Module) -> None:
    """Discard the sums of the latest batch, so that it does not count in the step."""
    for part in _parts(module):
        part._of_batch = None


def end_step(module: nn.Module) -> None:
    """Update all parts from the sums of the step, added over the processes of a distributed run.

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
    """Discard all sums, so that the step does not count."""
    for part in _parts(module):
        part._of_batch = part._of_step = None


def _parts(module: nn.Module) -> Iterator[StepState]:
    return (part for part in module.modules() if isinstance(part, StepState))
