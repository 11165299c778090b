"""Accumulate the gradients of several batches into one optimizer step, each batch weighted by its number of items."""

import torch
from torch import Tensor


class Accumulation:
    """Weights for the losses of a step's batches, so that accumulated gradients equal those of one large batch.

    Batch i has c_i items and mean loss L_i. The mean over all items of the step is Σ_i c_i L_i / Σ_i c_i, but the sum
    of the c_i is known only at the end of the step. So `weigh` multiplies each loss by c_i / c_1 and undoes Lightning's
    division by the number of batches. `finish` divides the gradients by Σ_i c_i / c_1. With one batch per step all
    these factors are 1, and nothing is multiplied.
    """

    def __init__(self):
        self.counts: tuple[Tensor, Tensor] | None = None  # items of the step's first batch, and of all batches so far

    def weigh(self, loss, batches: int) -> Tensor:
        """Return the total of a `Loss`, weighted by its number of items.

        Args:
            loss: a `captioning.objectives.Loss` of one batch.
            batches: the number of batches that Lightning accumulates per step.
        """
        count = loss.count.to(loss.total.dtype)
        first, before = self.counts or (not_zero(count), 0)
        self.counts = first, before + count
        return loss.total * (count / first * batches) if batches > 1 else loss.total

    def finish(self, gradients: list[Tensor], batches: int) -> bool:
        """Divide the gradients in place and begin a new step.

        Returns:
            Whether the step had any batch.
        """
        counts, self.counts = self.counts, None
        if counts and gradients and batches > 1:
            torch._foreach_mul_(gradients, counts[0] / not_zero(counts[1]))
        return bool(counts)


def not_zero(count: Tensor) -> Tensor:
    """Replace counts of 0 by 1, to divide sums that are 0 for these counts."""
    return count.masked_fill(count == 0, 1)


def validates_inside_steps(trainer) -> bool:
    """Return whether a validation can fall between two batches whose gradients are accumulated for one step."""
    accumulated, interval, batches = (
        trainer.accumulate_grad_batches, trainer.val_check_batch, trainer.num_training_batches
    )  # fmt: skip
    if accumulated == 1 or interval == float("inf"):
        return False
    if interval % batches == 0:  # the last batch of an epoch always ends a step
        return False
    across = trainer.check_val_every_n_epoch is None  # the interval is counted across epochs
    return interval % accumulated != 0 or (across and batches % accumulated != 0)
