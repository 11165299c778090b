"""Check the attention weights of one caption, and prepare them for drawing: `Maps`."""

from collections.abc import Sequence
from math import isqrt, sqrt
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from PIL import Image

from captioning.visualise.geometry import MapRegion, cell, cell_overlay, overlay, region_overlay, scale, seen

# The bright end of a color map that people with color blindness can read: its lightness rises evenly, starting above
# that of the dimmed image, so that more weight is lighter in gray prints, too.
COLORS = colormaps["inferno"]
FAINTEST = 0.62
BRIGHTEST = 0.94


class Panel(NamedTuple):
    """The panel of one word.

    Attributes:
        pixels: uint8 [height, width, 3].
        mark: the region to frame, in pixels of the image, or None: the location that hard attention chose, or the
            detector's region with the largest weight.
        boxes: further regions to outline.
    """

    pixels: np.ndarray
    mark: MapRegion | None
    boxes: Sequence[MapRegion]


class Maps:
    """The attention weights of T words over L locations, and what the locations are.

    Args:
        words: T words.
        weights: [T, L], one row per word; a grid has L = H · W locations in row-major order.
        box: (left, top, right, bottom) of the region that the grid covers, in pixels of the image; it may extend beyond
            the image.
        grid: (H, W); None: a square grid.
        regions: [L, 4] boxes of a detector's regions, instead of box and grid.
        places: [T], the one location that hard attention chose for each word; L, after the last location, is the
            sentinel or a tag. None for other kinds of attention.
        sentinel: [T], the share β of each word's weight that went to the visual sentinel (Lu et al. 2017, eq. 12); None
            without a sentinel.
        smooth: whether to interpolate bicubically between the cells; False draws the cells as they are.
        boxes: T lists of regions to outline in the words' panels, for example the objects that a word names.
        tags: T notes about tags that words looked at, such as "← tag dog 0.41"; "" for a word that looked at none.

    Raises:
        ValueError: these arguments do not fit each other, or the box is empty.
    """

    def __init__(
        self,
        words: Sequence[str],
        weights: np.ndarray,
        *,
        box: MapRegion | None = None,
        grid: tuple[int, int] | None = None,
        regions: np.ndarray | None = None,
        places: Sequence[int] | None = None,
        sentinel: Sequence[float] | None = None,
        smooth: bool = True,
        boxes: Sequence[Sequence[MapRegion]] | None = None,
        tags: Sequence[str] | None = None,
    ):
        self.words, self.weights, self.smooth = list(words), np.asarray(weights, dtype=np.float32), smooth
        self.box, self.regions = box, None if regions is None else np.asarray(regions, dtype=float)
        self.grid = self._check(grid)
        self.places, self.sentinel = places, sentinel
        self.boxes: list[Sequence[MapRegion]] = [()] * len(self) if boxes is None else list(boxes)
        self.tags = tags if tags and any(tags) else None
        for name, part in (("places", places), ("β", sentinel), ("boxes", self.boxes), ("tags", tags)):
            self._check_length(name, part)

    def __len__(self) -> int:
        return len(self.words)

    @property
    def uniform(self) -> float:
        """The weight of a location if all locations had the same weight."""
        return 1 / self.weights.shape[1]

    def panels(self, shown: Image.Image, extent: tuple[int, int]) -> tuple[list[Panel], float]:
        """Draw one panel per word.

        Args:
            shown: the image at the size of a panel.
            extent: (width, height) of the original image, in whose pixels box and regions are.

        Returns:
            The panels, and the weight that has the brightest color.
        """
        across, down = shown.width / extent[0], shown.height / extent[1]
        drawn = [self._strength(row, (across, down), shown.size) for row in self.weights]
        # For a grid use the largest weight, because interpolation may exceed it; regions that overlap add up.
        largest = float(self.weights.max() if self.regions is None else max(each.max() for each in drawn)) or 1.0
        whole = np.ones(shown.size[::-1], dtype=bool)
        inside = whole if self.box is None else seen(scale(self.box, across, down), shown.size)
        lit = [light(shown, each / largest, inside) for each in drawn]
        return [Panel(pixels, self._mark(index), self.boxes[index]) for index, pixels in enumerate(lit)], largest

    def covers(self, extent: tuple[int, int]) -> bool:
        """Return whether the network saw every pixel of an image of `extent` = (width, height)."""
        return self.box is None or bool(seen(self.box, extent).all())

    def _strength(self, row: np.ndarray, ratio: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
        if self.regions is not None:
            return region_overlay(row, [scale(region, *ratio) for region in self.regions], size=size)
        assert self.grid is not None and self.box is not None
        return (overlay if self.smooth else cell_overlay)(row, self.grid, box=scale(self.box, *ratio), size=size)

    def _mark(self, index: int) -> MapRegion | None:
        location = None if self.places is None else int(self.places[index])
        if self.regions is not None:
            location = int(self.weights[index].argmax()) if location is None else location
        if location is None or location >= self.weights.shape[1]:
            return None
        if self.regions is not None:
            left, top, right, bottom = self.regions[location]
            return left, top, right, bottom
        assert self.grid is not None and self.box is not None
        return cell(location, self.grid, self.box)

    def _check(self, grid: tuple[int, int] | None) -> tuple[int, int] | None:
        if self.weights.ndim != 2 or len(self.words) != len(self.weights):
            raise ValueError(
                f"{len(self.words)} words, but weights of shape {self.weights.shape}: there must be one row per word"
            )
        locations = self.weights.shape[1]
        if self.regions is not None:
            if self.regions.shape != (locations, 4):
                raise ValueError(
                    f"{locations} locations, but regions of shape {self.regions.shape}: regions must be [L, 4]"
                )
            self.box = None
            return None
        if self.box is None:
            raise ValueError("box and regions are missing: give box=(left, top, right, bottom), or regions=[L, 4]")
        rows, columns = grid or (isqrt(locations), isqrt(locations))
        if rows * columns != locations:
            raise ValueError(f"{locations} locations do not fill a grid of {rows}×{columns}: give grid=(H, W)")
        return rows, columns

    def _check_length(self, name: str, part: Sequence | None) -> None:
        if part is not None and len(part) != len(self.words):
            raise ValueError(f"{len(self.words)} words, but {len(part)} {name}: there must be one per word")


def light(picture: Image.Image, strength: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Draw an attention map over an image.

    Args:
        picture: the image.
        strength: [height, width]: 0 is drawn dimmed and gray, 1 in the brightest color.
        inside: bool [height, width]; pixels outside the grid are hatched.

    Returns:
        uint8 [height, width, 3].
    """
    gray = (np.asarray(picture.convert("L"))[..., None] / 255) ** 0.8  # [height, width, 1]; a little lighter
    low, high = np.percentile(gray, (1, 99))
    middle = (low + high) / 2
    # An image with little contrast would be invisible when dimmed, so its contrast is raised, at most twofold.
    gray = np.clip(middle + (gray - middle) * np.clip(0.5 / max(high - low, 0.25), 1, 2), 0, 1)
    strength = np.clip(strength, 0, 1)
    color = COLORS(FAINTEST + (BRIGHTEST - FAINTEST) * strength)[..., :3] * (0.62 + 0.38 * gray)
    opacity = 0.92 * strength[..., None] ** 0.7
    lit = (0.05 + 0.34 * gray) * (1 - opacity) + color * opacity
    height, width = inside.shape
    diagonal = np.abs((np.arange(height)[:, None] + np.arange(width)) % 24 - 12) / sqrt(2)  # distance from a line
    hatched = 0.66 + 0.16 * gray - 0.16 * np.clip(1.5 - diagonal, 0, 1)[..., None]
    return (255 * np.where(inside[..., None], lit, hatched) + 0.5).astype(np.uint8)
