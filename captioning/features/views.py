"""Read mirrored and cropped views of an image: one view at a time in training, all views together in decoding."""

from collections.abc import Callable, Sequence
from numbers import Real

import torch
from torch import Tensor, nn

from captioning.data import CORNERS, Record, Transform
from captioning.errors import ConfigError, must_be


def views_of(transform: Transform, *, mirror: bool, crops: float | None) -> list[tuple[Transform, bool]]:
    """Return the further views of an image for training, each as (transform, whether it mirrors).

    Args:
        transform: the transform of the unchanged view.
        mirror: add the mirror image.
        crops: add the image's four corners; their size as a share of both sides of the image, between 0 and 1. With
            `mirror`, two of the four are mirrored.

    Raises:
        ConfigError: `crops` is out of range.
    """
    must_be("features.crops", crops, above=0, below=1)
    views = [(transform.mirrored(), True)] if mirror else []
    if crops is None:
        return views
    for corner in CORNERS:
        turned = mirror and corner in ("top right", "bottom left")
        views.append(((transform.mirrored() if turned else transform).cropped(crops, corner), turned))
    return views


def crop_shares(crops: float | Sequence[float] | None) -> tuple[float, ...]:
    """Return the setting `crops` (one share, several, or None) as a tuple.

    Raises:
        ConfigError: a share is not a number between 0 and 1.
    """
    shares = () if crops is None else (crops,) if isinstance(crops, Real | float | str) else tuple(crops)
    wrong = [share for share in shares if isinstance(share, bool) or not isinstance(share, Real)]
    if wrong:
        given = "null" if wrong[0] is None else repr(wrong[0])
        raise ConfigError(f"crops must be shares of an image's sides, such as 0.75, not {given}")
    for share in shares:
        must_be("crops", share, above=0, below=1)
    return tuple(map(float, shares))


def corner_crops(transform: Transform, shares: Sequence[float]) -> list[Transform]:
    """Return the transforms of an image's four corners, for each share of its sides."""
    return [transform.cropped(share, corner) for share in shares for corner in CORNERS]


class AllViews:
    """Reader of all views of an image: called with a record, it returns their tensors stacked, [V, …].

    Args:
        reads: one reader per view, record -> tensor.
    """

    def __init__(self, reads: Sequence[Callable[..., Tensor]]):
        self.reads = reads

    def __call__(self, record: Record) -> Tensor:
        return torch.stack([read(record) for read in self.reads])


class EachView(nn.Module):
    """Encoder of all views, one view at a time: [B, V, …] -> [B, V, …]."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, views: Tensor) -> Tensor:
        """Return the encoder's features of each view, stacked."""
        return torch.stack([self.encoder(view) for view in views.unbind(1)], 1)
