"""Accumulate the gradients of several batches into one optimizer step, each batch weighted by its number of items."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Accumulation:
    """Weights the losses of a step's batches, so that their gradients add up to that of one batch of all their items.

    The mean over all items of a step is Σ_i c_i L_i / Σ_i c_i, and the last c_i is known only at its end. So `weigh`
    multiplies each loss by c_i / c_1 and undoes Lightning's division by the number of batches, and `finish` divides the
    gradients by Σ_i c_i / c_1. For one batch per step all of these are 1, and nothing is multiplied.
    """

    def __init__(self):
        self.counts: tuple[Tensor, Tensor] | None = None  # of the step's batches: the first, and all of them

    def weigh(self, loss, batches: int) -> Tensor:
        """The total of a `Loss`, weighted. batches: that Lightning accumulates."""
        count = loss.count.to(loss.total.dtype)
        first, before = self.counts or (not_zero(count), 0)
        self.counts = first, before + count
        return loss.total * (count / first * batches) if batches > 1 else loss.total

    def finish(self, gradients: Sequence[Tensor], batches: int) -> bool:
        """Divide the gradients in place, and begin a new step. Returns whether the step had any batch."""
        counts, self.counts = self.counts, None
        if counts and gradients and batches > 1:
            torch._foreach_mul_(gradients, counts[0] / not_zero(counts[1]))
        return bool(counts)


def not_zero(count: Tensor) -> Tensor:
    """A divisor of sums that are 0 where it is."""
    return count.masked_fill(count == 0, 1)


def validates_inside_steps(trainer) -> bool:
    """Whether a validation may come between two batches whose gradients are accumulated for one step."""
    accumulated, interval, batches = (
        trainer.accumulate_grad_batches, trainer.val_check_batch, trainer.num_training_batches
    )  # fmt: skip
    if accumulated == 1 or interval == float("inf"):
        return False
    if interval % batches == 0:  # an epoch's last batch ends a step
        return False
    across = trainer.check_val_every_n_epoch is None  # the interval is counted over the ends of epochs
    return interval % accumulated != 0 or (across and batches % accumulated != 0)
