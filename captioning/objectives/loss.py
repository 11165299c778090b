"""Define what an objective returns, and the number of captions that its sums are divided by."""

from typing import NamedTuple

import torch
from torch import Tensor, distributed


class Loss(NamedTuple):
    """total: scalar to differentiate. parts: its terms by name, detached; they add up to it. words: real words in the
    batch. stats: what else is worth a curve, by name."""

    total: Tensor
    parts: dict[str, Tensor]
    words: Tensor
    stats: dict[str, Tensor]


def make_loss(parts: dict[str, Tensor], words: Tensor, stats: dict[str, Tensor]) -> Loss:
    total = torch.stack(list(parts.values())).sum()
    return Loss(total, {name: part.detach() for name, part in parts.items()}, words, stats)


def per_caption(captions: Tensor, *, training: bool) -> Tensor:
    """What sums over a batch's captions are divided by: how many of `captions` [B, K] bool there are, at least 1.

    Of several processes that train together it is their mean count: the mean of their gradients, which they go on
    with, is then that of one process with the whole batch, however unevenly the captions are spread over them. In
    validation, where one may have a batch more than another, nobody waits, and the count is the process's own.
    """
    count = captions.sum()
    if not (training and distributed.is_available() and distributed.is_initialized()):
        return count.clamp(min=1)  # a batch of pictures without a word to learn has a loss of 0
    distributed.all_reduce(count)
    return count.clamp(min=1) / distributed.get_world_size()
