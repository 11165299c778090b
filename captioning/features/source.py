"""What training, evaluation and grounding read features from: `Source`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from captioning.data import Record, View


class Source(NamedTuple):
    """Where features come from.

    Attributes:
        read: record -> tensor of features or of the image; picklable for loader processes.
        encoder: module that each step applies to a batch of these tensors; the identity for stored features of a frozen
            encoder.
        records: the records that can be read.
        unreadable: (path, reason) for each other record.
        workers: suitable number of loader processes.
        views: further views of training images.
        augment: random change of a training image, as for `CaptionDataset`; None for none.
        encoded: number of images whose features this process has computed and stored now.
    """

    read: Callable[[Record], Tensor]
    encoder: nn.Module
    records: Sequence[Record]
    unreadable: list[tuple[Path, str]]
    workers: int
    views: Sequence[View] = ()
    augment: Callable[..., Tensor] | None = None
    encoded: int = 0
