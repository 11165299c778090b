"""Compute how much of each grid cell is covered by a union of boxes or masks.

Coordinates are pixels of the image; (0, 0) is the outer corner of the first pixel. Sizes are (width, height).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from captioning.errors import DataError

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


class Region(NamedTuple):
    """A union of rectangles.

    Attributes:
        x: [W + 1] x-coordinates of the vertical edges, ascending.
        y: [H + 1] y-coordinates of the horizontal edges, ascending.
        inside: [H, W] whether the rectangle from (x[j], y[i]) to (x[j + 1], y[i + 1]) belongs to the region.
    """

    x: np.ndarray
    y: np.ndarray
    inside: np.ndarray


def box_region(boxes: Iterable[tuple[float, float, float, float]], size: tuple[int, int]) -> Region:
    """Return the union of boxes (x, y, width, height), clipped to an image of size (width, height)."""
    edges = np.array([(x, y, x + width, y + height) for x, y, width, height in boxes], dtype=np.float64).reshape(-1, 4)
    edges = edges.clip(0, [*size, *size])
    x, y = np.unique([*edges[:, 0], *edges[:, 2], 0, size[0]]), np.unique([*edges[:, 1], *edges[:, 3], 0, size[1]])
    inside = np.zeros((len(y) - 1, len(x) - 1), dtype=bool)
    for left, top, right, bottom in edges:
        inside[np.ix_((y[:-1] >= top) & (y[1:] <= bottom), (x[:-1] >= left) & (x[1:] <= right))] = True
    return Region(x, y, inside)


def mask_region(segmentations: Iterable[list | dict], size: tuple[int, int]) -> Region:
    """Return the union of COCO masks in full pixels; pycocotools rasterizes polygons and decodes run lengths.

    Args:
        segmentations: COCO segmentations: polygons or run lengths.
        size: (width, height) of the image.

    Raises:
        DataError: a mask has another size than the image.
    """
    width, height = size
    inside = np.zeros((height, width), dtype=bool)
    for segmentation in segmentations:
        mask = _decode(segmentation, size)
        if mask.shape != inside.shape:
            raise DataError(
                f"a segmentation mask has {mask.shape[1]} × {mask.shape[0]} pixels, but its image {width} × {height}: "
                "correct its `size`, or remove the object"
            )
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
    """Return the region's share of the image area.

    It is the probability that a random point hits the region, and the mass of uniform attention inside.
    """
    return float(np.diff(region.y) @ region.inside @ np.diff(region.x)) / (size[0] * size[1])


def contains(region: Region, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return whether each point (x, y) is inside; left and top edges belong to a rectangle, right and bottom do not."""
    column, row = np.searchsorted(region.x, x, side="right") - 1, np.searchsorted(region.y, y, side="right") - 1
    rows, columns = region.inside.shape
    known = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    return known & region.inside[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]


def cell_shares(region: Region, *, box: Rectangle, grid: tuple[int, int]) -> np.ndarray:
    """Return [L]: the exact share of each cell's area that is inside the region, 0 to 1.

    Args:
        region: the region.
        box: the rectangle that the grid divides into equal cells, in row-major order.
        grid: (H, W) of the grid; L = H·W.
    """
    across, down = overlaps(box[0], box[2], grid[1], region.x), overlaps(box[1], box[3], grid[0], region.y)
    cell = (box[2] - box[0]) * (box[3] - box[1]) / (grid[0] * grid[1])
    return (down @ region.inside @ across.T).ravel() / cell


def overlaps(first: float, last: float, cells: int, edges: np.ndarray) -> np.ndarray:
    """Return [cells, intervals]: the length that each cell shares with each interval.

    Args:
        first: left end of the first cell.
        last: right end of the last cell.
        cells: number of cells of equal length.
        edges: [intervals + 1] ends of the intervals, ascending.
    """
    ends = np.linspace(first, last, cells + 1)
    lows, highs = np.maximum(ends[:-1, None], edges[:-1]), np.minimum(ends[1:, None], edges[1:])
    return (highs - lows).clip(0)
