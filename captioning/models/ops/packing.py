"""Lay out a batch so that a loop over time computes nothing for padding."""

from typing import NamedTuple

import torch
from torch import Tensor


class Layout(NamedTuple):
    """The N real words of targets [B, K, T], one step after the other, and within a step row by row.

    index: [N] place of each word in the flattened targets. image: [N] the b of each.
    counts: n_t, words of each step; steps at the end without any are left out.
    needed: of each step, how many of an image's first rows hold all its words.
    slots: by step, [n_t] place of each word's row in the flattened [B, needed_t]; None where they are all of them.
    kept: by step, [n_t] place of each word's row among those of the step before (before the first, among all B · K);
        None where none has ended.
    """

    index: Tensor
    image: Tensor
    counts: list[int]
    needed: list[int]
    slots: list[Tensor | None]
    kept: list[Tensor | None]

    @classmethod
    def of(cls, real: Tensor) -> "Layout":
        """From where the words are, [B, K, T] bool; a row that has ended does not begin again.

        Worked out on the CPU, which has to know how much there is at each step: one transfer from the device and one
        to it serve the whole batch, and nothing waits for the device in between or afterwards.
        """
        device, real = real.device, real.cpu()
        batch, rows, length = real.shape
        by_step = real.permute(2, 0, 1).flatten(1)  # [T, B · K]
        needed = (real.any(0) * torch.arange(1, rows + 1, device=real.device)[:, None]).amax(0)  # [T]
        step, row = by_step.nonzero().unbind(1)
        before = torch.cat((torch.ones_like(by_step[:1]), by_step[:-1]))  # there are all rows before the first step
        places = torch.stack(
            (
                row * length + step,
                row // rows,
                row // rows * needed[step] + row % rows,
                (before.cumsum(1) - 1)[step, row],
            )
        )
        index, image, slots, kept = places.to(device, non_blocking=True)
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
