"""Read the features of several encoders of one image from the stores of each, packed into one tensor per image."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from captioning.data import Record, View
from captioning.features.source import Source


class Packed:
    """Reader of what is stored for one image, part by part, flattened and packed into one tensor [P].

    Args:
        reads: one reader per part.
    """

    def __init__(self, reads: Sequence[Callable[[Record], Tensor]]):
        self.reads = list(reads)

    def __call__(self, record: Record) -> Tensor:
        return torch.cat([read(record).flatten() for read in self.reads])


def store_parts(make: Callable[..., Source], encoder: Any, transform: Any, records: Sequence[Record]) -> Source:
    """Return the source of an encoder with `parts`, from one store per part, which other encoders can use as well.

    Args:
        make: `stored`, with all further arguments set.
        encoder: a `captioning.models.SideBySide`.
        transform: a `SeveralInputs`, with one transform per part.
        records: the images.
    """
    sources: list[Source] = []
    for part, its in zip(encoder.parts, transform.parts, strict=True):
        # Images that one part cannot read are left out for the next ones, too.
        sources.append(make(part, its, sources[-1].records if sources else records))
    last = sources[-1]
    shapes = [source.read(last.records[0]).shape if last.records else (0,) for source in sources]
    return last._replace(
        read=Packed([source.read for source in sources]),
        encoder=encoder.of_stored([source.encoder for source in sources], shapes),
        encoded=sum(source.encoded for source in sources),
        unreadable=[fault for source in sources for fault in source.unreadable],
        views=[
            View(Packed([view.read for view in same]), same[0].turned)
            for same in zip(*(source.views for source in sources), strict=True)
        ],
    )
