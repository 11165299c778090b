"""Define what an objective returns, and divide its sums by a count that is taken over all processes."""

from typing import NamedTuple

import torch
from torch import Tensor, distributed


class Loss(NamedTuple):
    """A loss averaged over the items of a batch.

    total: scalar to differentiate. parts: its terms by name, detached; they add up to it. count: the number of items
    that they are averaged over (captions, questions, samples or streams), 0 for a batch without any; losses of several
    batches are averaged with these as weights. words: real words in the batch. stats: what else is worth a curve.
    """

    total: Tensor
    parts: dict[str, Tensor]
    count: Tensor
    words: Tensor
    stats: dict[str, Tensor]


def make_loss(
    sums: dict[str, Tensor], items: Tensor, *, words: Tensor, stats: dict[str, Tensor], training: bool
) -> Loss:
    """Divide sums over the batch by the number of its items.

    In training by several processes the divisor is the mean of their numbers of items: the mean of their gradients,
    which the optimizer takes, is then that of one process with the whole batch, however unevenly the items are spread
    over them, and where some processes have none. All processes must come here together. In validation, where one
    process may have a batch more than another, each divides by its own number.

    Args:
        sums: terms of the loss by name, summed over the items of this process.
        items: their number, a scalar. words, stats: see `Loss`.
        training: whether the loss is differentiated, on all processes together.
    """
    items = items.to(next(iter(sums.values())).dtype)
    count = mean_over_processes(items) if training else items
    divisor = count.masked_fill(count == 0, 1)  # a batch without items has a loss of 0
    parts = {name: value / divisor for name, value in sums.items()}
    total = torch.stack(list(parts.values())).sum()
    return Loss(total, {name: part.detach() for name, part in parts.items()}, count, words, stats)


def mean_over_processes(count: Tensor) -> Tensor:
    """The mean of a number over the processes of a distributed run; the number itself where there is one process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return count
    count = count.clone()
    distributed.all_reduce(count)
    return count / distributed.get_world_size()
