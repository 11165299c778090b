"""Other views of a picture: in training one of them at a time, in decoding the picture and its corners together."""

from collections.abc import Callable, Sequence
from math import isqrt
from numbers import Real

import numpy as np
import torch
from torch import Tensor, nn

from captioning.data.pictures import CORNERS, Box, Transform
from captioning.errors import ConfigError, must_be
from captioning.metrics.regions import overlaps


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


def shares_of(corners: float | Sequence[float] | None) -> tuple[float, ...]:
    """One share, several or none, as a tuple.

    Raises:
        ConfigError: one is not a number between 0 and 1.
    """
    shares = () if corners is None else (corners,) if isinstance(corners, Real | str) else tuple(corners)
    for share in shares:
        if isinstance(share, bool) or not isinstance(share, Real):
            raise ConfigError(f"corners must be shares of a picture's sides, such as 0.75, not {share!r}")
        must_be("corners", share, above=0, below=1)
    return tuple(map(float, shares))


def corners_of(transform: Transform, shares: Sequence[float]) -> list[Transform]:
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


def laid_back(
    weights: np.ndarray, places: np.ndarray | None, *, boxes: Sequence[Box]
) -> tuple[np.ndarray, np.ndarray | None, Box]:
    """Attention over the places of V views, on one grid over all that they show.

    Where views overlap their weights add up, so that even attention over all places is no even map.

    Args:
        weights: [T, V·P], a row a word.
        places: [T] the place that hard attention looked at for each word (V·P: the sentinel), or None.
        boxes: V, of each view the region of the picture that its square grid covers.

    Returns:
        weights [T, P], of which each word has as much as before; places [T], the cells that cover most of them; and the
        box that the P cells part evenly.
    """
    per_view = weights.shape[1] // len(boxes)
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    box = Box(min(lefts), min(tops), max(rights), max(bottoms))
    shares = cover(boxes, box, side=isqrt(per_view))
    if places is not None:
        places = np.append(shares.argmax(1), per_view)[places]
    return (weights @ shares).astype(weights.dtype), places, box


def cover(boxes: Sequence[Box], whole: Box, *, side: int) -> np.ndarray:
    """[V·P, P]: of the area of each place of each box the share that lies in each cell of the whole; rows sum to 1."""
    columns, rows = np.linspace(whole.left, whole.right, side + 1), np.linspace(whole.top, whole.bottom, side + 1)
    shares = []
    for box in boxes:
        down, across = overlaps(box.top, box.bottom, side, rows), overlaps(box.left, box.right, side, columns)
        area = (box.bottom - box.top) * (box.right - box.left) / side**2
        shares.append(np.einsum("ij,kl->ikjl", down, across).reshape(side**2, side**2) / area)
    return np.concatenate(shares)
