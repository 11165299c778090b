"""Split attention weights into those of locations and of tags, and merge the maps of several crops into one map."""

from collections.abc import Sequence

import numpy as np

from captioning.data import Box
from captioning.inference.caption import TagWeights
from captioning.metrics import overlaps


def split_tags(
    weights: np.ndarray, places: np.ndarray | None, nouns: Sequence[str]
) -> tuple[np.ndarray, np.ndarray | None, TagWeights]:
    """Split the attention weights over L locations and the tags after them.

    Args:
        weights: [T, L + N], one row per word.
        places: [T] the location or tag that hard attention chose for each word (L + N: the sentinel), or None.
        nouns: the N tags. The weights of equal ones are added up: several crops or models may have found one noun.

    Returns:
        The weights [T, L]; the chosen locations [T], with L for a tag or the sentinel; and the weights of the tags.
    """
    locations, names = weights.shape[1] - len(nouns), list(dict.fromkeys(nouns))
    number = np.array([names.index(noun) for noun in nouns])
    of_tags = weights[:, locations:] @ np.eye(len(names), dtype=weights.dtype)[number]
    if places is None:
        return weights[:, :locations], None, TagWeights(names, of_tags)
    chosen = np.concatenate((np.full(locations, -1), number, [-1]))[places]
    return weights[:, :locations], np.minimum(places, locations), TagWeights(names, of_tags, chosen)


def merge_crops(
    weights: np.ndarray, places: np.ndarray | None, *, boxes: Sequence[Box], grid: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray | None, Box]:
    """Merge the attention weights of V views into one grid over the region that all views cover together.

    Weights add up where views overlap, so uniform attention over all locations of all views does not give a uniform
    map.

    Args:
        weights: [T, V·L], one row per word, with L locations per view in row-major order.
        places: [T] the location that hard attention chose for each word (V·L: the sentinel), or None.
        boxes: one per view, the region of the image that its grid covers.
        grid: (rows, columns) of the grid of every view, with rows · columns = L.

    Returns:
        The weights [T, L], whose sum per word is unchanged; the chosen locations [T] on the new grid, each the cell
        that covers most of the old location; and the box that the L cells divide evenly.
    """
    per_view = weights.shape[1] // len(boxes)
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    box = Box(min(lefts), min(tops), max(rights), max(bottoms))
    shares = cover(boxes, box, grid=grid)
    if places is not None:
        places = np.append(shares.argmax(1), per_view)[places]
    return (weights @ shares).astype(weights.dtype), places, box


def cover(boxes: Sequence[Box], whole: Box, *, grid: tuple[int, int]) -> np.ndarray:
    """Return [V·L, L]: the share of each location's area that falls into each cell of `whole`; rows sum to 1."""
    rows, columns = grid
    across = np.linspace(whole.left, whole.right, columns + 1)
    down = np.linspace(whole.top, whole.bottom, rows + 1)
    shares = []
    for box in boxes:
        heights, widths = overlaps(box.top, box.bottom, rows, down), overlaps(box.left, box.right, columns, across)
        area = (box.bottom - box.top) * (box.right - box.left) / (rows * columns)
        shares.append(np.einsum("ij,kl->ikjl", heights, widths).reshape(rows * columns, rows * columns) / area)
    return np.concatenate(shares)
