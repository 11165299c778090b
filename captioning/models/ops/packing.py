"""Pack a batch so that a loop over time computes nothing for padding."""

from typing import NamedTuple

import torch
from torch import Tensor


class Layout(NamedTuple):
    """The N real words of targets [B, K, T], step by step, and row by row within a step.

    Attributes:
        index: Position of each word in the flattened targets, [N].
        image: Image index b of each word, [N].
        counts: Number of words n_t of each step; steps without words at the end are left out.
        needed: For each step, the smallest number of leading rows per image that includes all its words.
        slots: For each step, the position [n_t] of each word's row in the flattened [B, needed_t]; None if every row
            has a word.
        kept: For each step, the position [n_t] of each word's row among the rows of the step before (for the first
            step, among all B · K rows); None if no row has ended.
    """

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nothing uses
    image: Tensor
    counts: list[int]
    needed: list[int]
    slots: list[Tensor | None]
    kept: list[Tensor | None]

    @classmethod
    def of(cls, real: Tensor) -> "Layout":
        """Compute the layout from a mask of real words, [B, K, T] bool; a row that has ended does not start again.

        This is computed on the CPU, which must know the number of words of each step. One transfer from the device and
        one to it serve the full batch, and nothing else waits for the device.
        """
        device, real = real.device, real.cpu()
        batch, rows, length = real.shape
        by_step = real.permute(2, 0, 1).flatten(1)  # [T, B · K]
        needed = (real.any(0) * torch.arange(1, rows + 1, device=real.device)[:, None]).amax(0)  # [T]
        step, row = by_step.nonzero().unbind(1)
        before = torch.cat((torch.ones_like(by_step[:1]), by_step[:-1]))  # before the first step all rows are present
        table = torch.stack(
            (
                row * length + step,
                row // rows,
                row // rows * needed[step] + row % rows,
                (before.cumsum(1) - 1)[step, row],
            )
        )
        index, image, slots, kept = table.to(device, non_blocking=True)
        counts, widths = by_step.sum(1).tolist(), needed.tolist()
        slots, kept = slots.split(counts), kept.split(counts)
        steps = range(max(1, sum(count > 0 for count in counts)))
        return cls(
            index,
            image,
            [counts[t] for t in steps],
            [widths[t] for t in steps],
            [None if counts[t] == batch * widths[t] else slots[t] for t in steps],
            [None if counts[t] == (counts[t - 1] if t else batch * rows) else kept[t] for t in steps],
        )
