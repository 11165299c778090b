"""Read mirrored and cropped views of an image: one at a time in training, image and crops together in decoding."""

from collections.abc import Callable, Sequence
from numbers import Real

import torch
from torch import Tensor, nn

from captioning.data import CORNERS, Transform
from captioning.errors import ConfigError, must_be


def views_of(transform: Transform, *, mirror: bool, crops: float | None) -> list[tuple[Transform, bool]]:
    """The other views that training takes of a picture, and of each whether it is turned left to right.

    Args:
        mirror: the mirror image is one.
        crops: the picture's four corners are, of this share of both sides; with `mirror` two of the four are turned.
    """
    must_be("features.crops", crops, above=0, below=1)
    views = [(transform.mirrored(), True)] if mirror else []
    for corner in CORNERS if crops else ():
        turned = mirror and corner in ("top right", "bottom left")
        views.append(((transform.mirrored() if turned else transform).cropped(crops, corner), turned))
    return views


def crop_shares(crops: float | Sequence[float] | None) -> tuple[float, ...]:
    """One share, several or none, as a tuple.

    Raises:
        ConfigError: one is not a number between 0 and 1.
    """
    shares = () if crops is None else (crops,) if isinstance(crops, Real | str) else tuple(crops)
    for share in shares:
        if isinstance(share, bool) or not isinstance(share, Real):
            raise ConfigError(f"crops must be shares of a picture's sides, such as 0.75, not {share!r}")
        must_be("crops", share, above=0, below=1)
    return tuple(map(float, shares))


def corner_crops(transform: Transform, shares: Sequence[float]) -> list[Transform]:
    """The views of a picture's four corners, of each share of its sides."""
    return [transform.cropped(share, corner) for share in shares for corner in CORNERS]


class AllViews:
    """Reads all views of a picture: record -> what each of them gives, [V, …]."""

    def __init__(self, reads: Sequence[Callable[..., Tensor]]):
        self.reads = reads

    def __call__(self, record) -> Tensor:
        return torch.stack([read(record) for read in self.reads])


class EachView(nn.Module):
    """What an encoder makes of each view: [B, V, …] -> [B, V, …], one view at a time."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, views: Tensor) -> Tensor:
        return torch.stack([self.encoder(view) for view in views.unbind(1)], 1)
