"""Find the captions of an image that begin alike, so that a parallel pass computes each beginning only once."""

from typing import NamedTuple

import torch
from torch import Tensor


class Prefixes(NamedTuple):
    """The N real words of B images × K captions, and the M ≤ N different beginnings that end in them.

    What a causal model computes for a word depends only on the image and on the words up to this one. All captions of
    an image begin with `<start>`, and many with the same words.

    Attributes:
        index: Position of each word among all B · K · T, [N].
        first: For each beginning, its position among all B · K · T in the first caption that has it, [M]. At least one:
            without any word, it is position 0.
        row: For each of the B · K · T positions, the number of its beginning; any number at padding.
    """

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nothing uses
    first: Tensor
    row: Tensor

    @classmethod
    def of(cls, words: Tensor, real: Tensor) -> "Prefixes":
        """Compare all captions of each image, on the CPU: the device is waited for only once.

        Args:
            words: The words that a model reads, [B, K, T] int64.
            real: [B, K, T] bool, True at words, False at padding.
        """
        device, (_, rows, length) = real.device, real.shape
        words, real = torch.stack((words, real)).cpu()
        same = (words[:, :, None] == words[:, None]) & (real[:, None] != 0)
        earliest = same.cumprod(-1).argmax(2)  # [B, K, T]: the first caption that begins like this one, up to t
        position = torch.arange(real.numel()).view(real.shape)
        first = position + (earliest - torch.arange(rows)[:, None]) * length
        index = real.flatten().nonzero().squeeze(1)
        distinct, row = first.flatten()[index].unique(return_inverse=True)
        every = torch.zeros(real.numel(), dtype=torch.int64).index_copy(0, index, row)
        distinct = distinct if len(distinct) else torch.zeros(1, dtype=torch.int64)
        return cls(*(part.to(device, non_blocking=True) for part in (index, distinct, every)))
