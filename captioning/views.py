"""Other views of a picture: in training one of them at a time, in decoding the picture and its corners together."""

from collections.abc import Callable, Sequence
from math import isqrt

import numpy as np
import torch
from torch import Tensor, nn

from captioning.data.pictures import CORNERS, Box, Transform
from captioning.errors import must_be


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


class Together:
    """Reads all views of a picture: record -> what each of them gives, [V, …]."""

    def __init__(self, reads: Sequence[Callable[..., Tensor]]):
        self.reads = reads

    def __call__(self, record) -> Tensor:
        return torch.stack([read(record) for read in self.reads])


class OfEachView(nn.Module):
    """What an encoder makes of each view: [B, V, …] -> [B, V, …]."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, views: Tensor) -> Tensor:
        return self.encoder(views.flatten(0, 1)).unflatten(0, views.shape[:2])


def gathered(
    weights: np.ndarray, places: np.ndarray | None, *, boxes: Sequence[Box]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Attention over the places of V views, laid on the first view's grid.

    Args:
        weights: [T, V·P], a row a word.
        places: [T] the place that hard attention looked at for each word (V·P: the sentinel), or None.
        boxes: V, as for `onto_picture`.

    Returns:
        weights [T, P], of which each word has as much as before, and places [T], the cells that cover most of them.
    """
    per_view = weights.shape[1] // len(boxes)
    shares = onto_picture(boxes, per_view)
    if places is not None:
        cells = np.append(shares.argmax(1), per_view)
        places = cells[places]
    return (weights @ shares).astype(weights.dtype), places


def onto_picture(boxes: Sequence[Box], places: int) -> np.ndarray:
    """Where the places of several views lie on the first view's grid, [V·P, P]: the share of each place's area that
    each cell covers. Rows sum to 1; what a view shows beyond the first one's edge is its outermost cells'.

    Args:
        boxes: V, of each view the region of the picture that its square grid covers.
        places: P of each view.
    """
    side = isqrt(places)
    rows = []
    for box in boxes:
        down = _shares(box.top, box.bottom, boxes[0].top, boxes[0].bottom, side=side)
        across = _shares(box.left, box.right, boxes[0].left, boxes[0].right, side=side)
        rows.append(np.einsum("ij,kl->ikjl", down, across).reshape(places, places))
    return np.concatenate(rows)


def _shares(start: float, end: float, first: float, last: float, *, side: int) -> np.ndarray:
    """[side, side]: of each part of start…end the share that lies in each part of first…last."""
    parts = np.linspace(start, end, side + 1)
    edges = np.concatenate([[-np.inf], np.linspace(first, last, side + 1)[1:-1], [np.inf]])
    low, high = np.maximum(parts[:-1, None], edges[None, :-1]), np.minimum(parts[1:, None], edges[None, 1:])
    return (high - low).clip(0) / (end - start) * side
