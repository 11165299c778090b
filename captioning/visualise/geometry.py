"""Place attention weights on an image: over the cells of a grid, smoothly or cell by cell, or over region boxes.

Coordinates are pixels of the picture, x to the right, y down, (0, 0) the outer corner of the first pixel; a picture of
another size has them scaled. Pixels count where their centres lie.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
from PIL import Image

MapRegion = tuple[float, float, float, float]  # left, top, right, bottom
REACH = 2  # cells that the bicubic kernel reaches to either side


def overlay(weights: np.ndarray, grid: tuple[int, int], *, box: MapRegion, size: tuple[int, int]) -> np.ndarray:
    """Attention over a picture, float32 [height, width]: bicubic between the weights at the centres of their cells.

    Clipped at 0, and 0 outside the box. Its sum divided by the pixels of one cell is about the sum of the weights whose
    cells lie in the picture.

    Args:
        weights: [P] or [H, W] for the H·W = P cells that part the box evenly, row by row.
        grid: (H, W).
        box: in pixels of the picture; it may reach beyond it.
        size: (width, height) of the picture.
    """
    rows, columns = grid
    left, top, right, bottom = box
    drawn = np.zeros((size[1], size[0]), dtype=np.float32)
    x, y = span(left, right, size[0]), span(top, bottom, size[1])
    if x.start == x.stop or y.start == y.stop:
        return drawn
    # Mirrored at the rim, so that the kernel leaves no mass outside; it also holds the half pixel that whole pixels may
    # reach beyond the box.
    cells = np.pad(np.asarray(weights, dtype=np.float32).reshape(rows, columns), REACH, mode="symmetric")
    source = [
        REACH + (x.start - left) / (right - left) * columns,
        REACH + (y.start - top) / (bottom - top) * rows,
        REACH + (x.stop - left) / (right - left) * columns,
        REACH + (y.stop - top) / (bottom - top) * rows,
    ]
    source = np.clip(source, 0, [columns + 2 * REACH, rows + 2 * REACH] * 2)
    region = Image.fromarray(cells).resize(
        (x.stop - x.start, y.stop - y.start), Image.Resampling.BICUBIC, box=tuple(source.tolist())
    )
    drawn[y, x] = np.maximum(region, 0)
    return drawn


def cell_overlay(weights: np.ndarray, grid: tuple[int, int], *, box: MapRegion, size: tuple[int, int]) -> np.ndarray:
    """As `overlay`, but each pixel has the weight of the cell that its centre lies in: what the model itself knew."""
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
    """Attention over boxes that may overlap, float32 [height, width]: each pixel has the sum of the weights of those
    that hold it."""
    drawn = np.zeros((size[1], size[0]), dtype=np.float32)
    for weight, (left, top, right, bottom) in zip(weights, regions, strict=True):
        if right > left and bottom > top:
            drawn[span(top, bottom, size[1]), span(left, right, size[0])] += weight
    return drawn


def cell(place: int, grid: tuple[int, int], box: MapRegion) -> MapRegion:
    """The region of one cell, in the coordinates of the box."""
    row, column = divmod(int(place), grid[1])
    across, down = (box[2] - box[0]) / grid[1], (box[3] - box[1]) / grid[0]
    left, top = box[0] + column * across, box[1] + row * down
    return left, top, left + across, top + down


def scale(region: MapRegion, across: float, down: float) -> MapRegion:
    """The region in a picture of another size."""
    return region[0] * across, region[1] * down, region[2] * across, region[3] * down


def seen(box: MapRegion, size: tuple[int, int]) -> np.ndarray:
    """Whether a pixel lies in the box: bool [height, width]."""
    inside = np.zeros((size[1], size[0]), dtype=bool)
    inside[span(box[1], box[3], size[1]), span(box[0], box[2], size[0])] = True
    return inside


def span(start: float, end: float, limit: int) -> slice:
    """The pixels that exist and whose centres lie in start…end."""
    if end <= start:
        raise ValueError(f"an empty box: from {start} to {end}")
    first, last = (min(max(ceil(edge - 0.5), 0), limit) for edge in (start, end))
    return slice(first, last)
