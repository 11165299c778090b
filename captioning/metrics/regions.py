"""Compute how much of each cell of a grid a union of boxes or masks covers.

Coordinates are pixels of the picture, (0, 0) is the outer corner of the first pixel; sizes are (width, height).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from captioning.errors import DataError

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


class Region(NamedTuple):
    """A union of rectangles: inside[i, j] says whether y[i] … y[i + 1] × x[j] … x[j + 1] belongs to it."""

    x: np.ndarray
    y: np.ndarray
    inside: np.ndarray


def box_region(boxes: Iterable[tuple[float, float, float, float]], size: tuple[int, int]) -> Region:
    """Union of boxes (x, y, width, height), within the picture of size (width, height)."""
    edges = np.array([(x, y, x + width, y + height) for x, y, width, height in boxes], dtype=np.float64).reshape(-1, 4)
    edges = edges.clip(0, [*size, *size])
    x, y = np.unique([*edges[:, 0], *edges[:, 2], 0, size[0]]), np.unique([*edges[:, 1], *edges[:, 3], 0, size[1]])
    inside = np.zeros((len(y) - 1, len(x) - 1), dtype=bool)
    for left, top, right, bottom in edges:
        inside[np.ix_((y[:-1] >= top) & (y[1:] <= bottom), (x[:-1] >= left) & (x[1:] <= right))] = True
    return Region(x, y, inside)


def mask_region(segmentations: Iterable[list | dict], size: tuple[int, int]) -> Region:
    """Union of COCO masks, as pycocotools rasterises polygons and decodes run lengths: whole pixels."""
    width, height = size
    inside = np.zeros((height, width), dtype=bool)
    for segmentation in segmentations:
        mask = _decode(segmentation, size)
        if mask.shape != inside.shape:
            raise DataError(f"a mask of {mask.shape[1]} × {mask.shape[0]} pixels for a picture of {width} × {height}")
        inside |= mask
    return Region(np.arange(width + 1.0), np.arange(height + 1.0), inside)


def _decode(segmentation: list | dict, size: tuple[int, int]) -> np.ndarray:
    from pycocotools import mask

    width, height = size
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
        if not polygons:
            return np.zeros((height, width), dtype=bool)
        return mask.decode(mask.merge(mask.frPyObjects(polygons, height, width))).astype(bool)
    if isinstance(segmentation["counts"], list):
        segmentation = mask.frPyObjects(segmentation, *segmentation["size"])
    return mask.decode(segmentation).astype(bool)


def area_share(region: Region, size: tuple[int, int]) -> float:
    """Share of the picture's area: what a point at random hits, and even attention over the picture has inside."""
    return float(np.diff(region.y) @ region.inside @ np.diff(region.x)) / (size[0] * size[1])


def contains(region: Region, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether each point lies inside; a rectangle has its left and top edge, not its right and bottom one."""
    column, row = np.searchsorted(region.x, x, side="right") - 1, np.searchsorted(region.y, y, side="right") - 1
    rows, columns = region.inside.shape
    known = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    return known & region.inside[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]


def cell_shares(region: Region, *, box: Rectangle, grid: tuple[int, int]) -> np.ndarray:
    """[P] the exact share of each cell's area that lies inside; 0 … 1. Cells part the box evenly, row by row."""
    across, down = overlaps(box[0], box[2], grid[1], region.x), overlaps(box[1], box[3], grid[0], region.y)
    cell = (box[2] - box[0]) * (box[3] - box[1]) / (grid[0] * grid[1])
    return (down @ region.inside @ across.T).ravel() / cell


def overlaps(first: float, last: float, cells: int, edges: np.ndarray) -> np.ndarray:
    """[cells, intervals] length that each of the even cells from first to last shares with each interval."""
    ends = np.linspace(first, last, cells + 1)
    lows, highs = np.maximum(ends[:-1, None], edges[:-1]), np.minimum(ends[1:, None], edges[1:])
    return (highs - lows).clip(0)
