"""Merge the attention maps of several crops of an image into one map over the image."""

from collections.abc import Sequence
from math import isqrt

import numpy as np

from captioning.data import Box
from captioning.metrics import overlaps


def merge_crops(
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
