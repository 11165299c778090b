"""Define the result of an objective, and divide its sums by a count over all processes."""

from typing import NamedTuple

import torch
from torch import Tensor, distributed


class Loss(NamedTuple):
    """A loss averaged over the items of a batch.

    Attributes:
        total: Scalar to differentiate.
        parts: The terms of `total` by name, detached; their sum is `total`.
        count: Number of items that they are averaged over (captions, questions, samples or streams), 0 for a batch
            without items. To average the losses of several batches, use these counts as weights.
        words: Number of real words in the batch.
        stats: Further values to log, by name.
    """

    total: Tensor
    parts: dict[str, Tensor]
    count: Tensor  # type: ignore[assignment]  # hides tuple.count, which nothing uses
    words: Tensor
    stats: dict[str, Tensor]


def make_loss(
    sums: dict[str, Tensor], items: Tensor, *, words: Tensor, stats: dict[str, Tensor], training: bool
) -> Loss:
    """Divide sums over the batch by the number of its items.

    In training with several processes, the divisor is the mean of their numbers of items. The mean of their gradients,
    which the optimizer uses, is then that of one process with the full batch. This holds for any distribution of the
    items over the processes, also if some have none. All processes must call this function together. In validation,
    where one process may have one batch more than another, each process divides by its own number.

    Args:
        sums: Terms of the loss by name, summed over the items of this process.
        items: Number of items of this process, a scalar.
        words: See `Loss`.
        stats: See `Loss`.
        training: Whether the loss is differentiated, on all processes together.

    Returns:
        The loss, averaged over the items.
    """
    items = items.to(next(iter(sums.values())).dtype)
    count = mean_over_processes(items) if training else items
    divisor = count.masked_fill(count == 0, 1)  # a batch without items has a loss of 0
    parts = {name: value / divisor for name, value in sums.items()}
    total = torch.stack(list(parts.values())).sum()
    return Loss(total, {name: part.detach() for name, part in parts.items()}, count, words, stats)


def mean_over_processes(count: Tensor) -> Tensor:
    """Return the mean of a number over the processes of a distributed run, or the number if there is one process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return count
    count = count.clone()
    distributed.all_reduce(count)
    return count / distributed.get_world_size()
