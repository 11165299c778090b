"""Map attention weights to the pixels of an image: over a grid, smoothly or cell by cell, or over region boxes.

Coordinates are pixels of the image: x to the right, y down, with (0, 0) at the outer corner of the first pixel. A pixel
belongs to a region if its center is inside.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
from PIL import Image

MapRegion = tuple[float, float, float, float]  # left, top, right, bottom
REACH = 2  # cells that the bicubic kernel reaches to either side


def overlay(weights: np.ndarray, grid: tuple[int, int], *, box: MapRegion, size: tuple[int, int]) -> np.ndarray:
    """Interpolate the weights of a grid to the pixels of an image, bicubically between the centers of the cells.

    The result is clipped at 0, and is 0 outside the box. Its sum, divided by the number of pixels per cell, is about
    the sum of the weights of all cells inside the image.

    Args:
        weights: [L] or [H, W], for the H · W = L cells that divide the box evenly, in row-major order.
        grid: (H, W).
        box: the region that the grid covers, in pixels of the image; it may extend beyond the image.
        size: (width, height) of the image.

    Returns:
        float32 [height, width].

    Raises:
        ValueError: the box is empty.
    """
    rows, columns = grid
    left, top, right, bottom = box
    drawn = np.zeros((size[1], size[0]), dtype=np.float32)
    x, y = span(left, right, size[0]), span(top, bottom, size[1])
    if x.start == x.stop or y.start == y.stop:
        return drawn
    # Mirror the border, so that the kernel loses no weight there. The border also covers the half pixel by which pixels
    # may extend beyond the box.
    cells = np.pad(np.asarray(weights, dtype=np.float32).reshape(rows, columns), REACH, mode="symmetric")
    edges = [
        REACH + (x.start - left) / (right - left) * columns,
        REACH + (y.start - top) / (bottom - top) * rows,
        REACH + (x.stop - left) / (right - left) * columns,
        REACH + (y.stop - top) / (bottom - top) * rows,
    ]
    first_x, first_y, last_x, last_y = np.clip(edges, 0, [columns + 2 * REACH, rows + 2 * REACH] * 2).tolist()
    region = Image.fromarray(cells).resize(
        (x.stop - x.start, y.stop - y.start), Image.Resampling.BICUBIC, box=(first_x, first_y, last_x, last_y)
    )
    drawn[y, x] = np.maximum(np.asarray(region), 0)
    return drawn


def cell_overlay(weights: np.ndarray, grid: tuple[int, int], *, box: MapRegion, size: tuple[int, int]) -> np.ndarray:
    """Give each pixel the weight of the cell that its center is in, without interpolation: what the model computed.

    Args:
        weights: as for `overlay`.
        grid: as for `overlay`.
        box: as for `overlay`.
        size: as for `overlay`.

    Returns:
        float32 [height, width].
    """
    rows, columns = grid
    left, top, right, bottom = box
    drawn = np.zeros((size[1], size[0]), dtype=np.float32)
    x, y = span(left, right, size[0]), span(top, bottom, size[1])
    across = (np.arange(x.start, x.stop) + 0.5 - left) / (right - left) * columns
    down = (np.arange(y.start, y.stop) + 0.5 - top) / (bottom - top) * rows
    column, row = (np.clip(each.astype(int), 0, n - 1) for each, n in ((across, columns), (down, rows)))
    drawn[y, x] = np.asarray(weights, dtype=np.float32).reshape(rows, columns)[row[:, None], column]
    return drawn


def region_overlay(weights: np.ndarray, regions: Sequence[MapRegion], *, size: tuple[int, int]) -> np.ndarray:
    """Give each pixel the sum of the weights of all regions that contain it.

    Args:
        weights: [L].
        regions: L boxes in pixels of the image; they may overlap.
        size: (width, height) of the image.

    Returns:
        float32 [height, width].
    """
    drawn = np.zeros((size[1], size[0]), dtype=np.float32)
    for weight, (left, top, right, bottom) in zip(weights, regions, strict=True):
        if right > left and bottom > top:
            drawn[span(top, bottom, size[1]), span(left, right, size[0])] += weight
    return drawn


def cell(place: int, grid: tuple[int, int], box: MapRegion) -> MapRegion:
    """Return the region of one cell, in the coordinates of the box."""
    row, column = divmod(int(place), grid[1])
    across, down = (box[2] - box[0]) / grid[1], (box[3] - box[1]) / grid[0]
    left, top = box[0] + column * across, box[1] + row * down
    return left, top, left + across, top + down


def scale(region: MapRegion, across: float, down: float) -> MapRegion:
    """Scale a region to an image of another size."""
    return region[0] * across, region[1] * down, region[2] * across, region[3] * down


def seen(box: MapRegion, size: tuple[int, int]) -> np.ndarray:
    """Return which pixels of an image of `size` = (width, height) are inside the box: bool [height, width]."""
    inside = np.zeros((size[1], size[0]), dtype=bool)
    inside[span(box[1], box[3], size[1]), span(box[0], box[2], size[0])] = True
    return inside


def span(start: float, end: float, limit: int) -> slice:
    """Return the pixels below `limit` whose centers are between `start` and `end`.

    Raises:
        ValueError: `end` is not above `start`.
    """
    if end <= start:
        raise ValueError(f"box is an empty box: from {start} to {end}")
    first, last = (min(max(ceil(edge - 0.5), 0), limit) for edge in (start, end))
    return slice(first, last)
