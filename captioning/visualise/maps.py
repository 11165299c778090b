"""Check the attention weights of one caption, and prepare them for drawing: `Maps`."""

from collections.abc import Sequence
from math import isqrt, sqrt
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from PIL import Image

from captioning.visualise.geometry import MapRegion, cell, cell_overlay, overlay, region_overlay, scale, seen

# The bright end of a map for the colour-blind too: its lightness rises evenly and starts above the dimmed picture's, so
# that more weight is lighter in grey print as well.
COLORS = colormaps["inferno"]
FAINTEST = 0.62
BRIGHTEST = 0.94


class Panel(NamedTuple):
    """One word's picture. pixels: uint8 [h, w, 3]. mark: the region that was looked at, in pixels of the picture (of
    hard attention its place, of a detector's regions the one of largest weight), or None. boxes: others to outline."""

    pixels: np.ndarray
    mark: MapRegion | None
    boxes: Sequence[MapRegion]


class Maps:
    """Attention weights [T, P] of T words over P places, and what the places are.

    Args:
        words: T words.
        weights: [T, P], a row a word; P = H·W places, row by row.
        box: (left, top, right, bottom) of the region that the grid covers, in pixels of the picture; it may reach
            beyond the picture.
        grid: (H, W); a square by default.
        regions: in the place of box and grid, [P, 4] boxes of a detector's regions.
        places: [T], of hard attention, the one place that each word looked at; P, beyond the last, is the sentinel.
        sentinel: [T] the share β of an adaptive captioner's weight that went to no place (Lu et al. 2017, eq. 12).
        smooth: bicubic between the cells; False shows the cells as they are.
        boxes: [T] lists of regions to outline in each word's panel, such as where that is which the word names.

    Raises:
        ValueError: these do not fit one another, or the box is empty.
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
    ):
        self.words, self.weights, self.smooth = list(words), np.asarray(weights, dtype=np.float32), smooth
        self.box, self.regions = box, None if regions is None else np.asarray(regions, dtype=float)
        self.grid = self._check(grid)
        self.places, self.sentinel = (self._a_word(part, name) for part, name in ((places, "places"), (sentinel, "β")))
        self.boxes = [()] * len(self) if boxes is None else list(boxes)
        self._a_word(self.boxes, "lists of boxes")

    def __len__(self) -> int:
        return len(self.words)

    @property
    def uniform(self) -> float:
        """The weight of a place if all had the same."""
        return 1 / self.weights.shape[1]

    def panels(self, shown: Image.Image, extent: tuple[int, int]) -> tuple[list[Panel], float]:
        """A panel a word, of the size of `shown`, and the weight that their brightest colour stands for.

        Args:
            shown: the picture as a panel shows it.
            extent: (width, height) of the picture itself, which box and regions are in.
        """
        across, down = shown.width / extent[0], shown.height / extent[1]
        drawn = [self._strength(row, (across, down), shown.size) for row in self.weights]
        # Of a grid the weights themselves, which the interpolation may overshoot; of regions what overlaps adds up.
        largest = float(self.weights.max() if self.regions is None else max(each.max() for each in drawn)) or 1.0
        whole = np.ones(shown.size[::-1], dtype=bool)
        inside = whole if self.box is None else seen(scale(self.box, across, down), shown.size)
        lit = [light(shown, each / largest, inside) for each in drawn]
        return [Panel(pixels, self._mark(index), self.boxes[index]) for index, pixels in enumerate(lit)], largest

    def covers(self, extent: tuple[int, int]) -> bool:
        """Whether the network saw every pixel of the picture."""
        return self.box is None or bool(seen(self.box, extent).all())

    def _strength(self, row: np.ndarray, ratio: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
        if self.regions is not None:
            return region_overlay(row, [scale(region, *ratio) for region in self.regions], size=size)
        return (overlay if self.smooth else cell_overlay)(row, self.grid, box=scale(self.box, *ratio), size=size)

    def _mark(self, index: int) -> MapRegion | None:
        place = None if self.places is None else int(self.places[index])
        if self.regions is not None:
            place = int(self.weights[index].argmax()) if place is None else place
        if place is None or place >= self.weights.shape[1]:
            return None
        return tuple(self.regions[place]) if self.regions is not None else cell(place, self.grid, self.box)

    def _check(self, grid: tuple[int, int] | None) -> tuple[int, int] | None:
        if self.weights.ndim != 2 or len(self.words) != len(self.weights):
            raise ValueError(
                f"{len(self.words)} words, but attention weights of shape {self.weights.shape}: want one row a word"
            )
        places = self.weights.shape[1]
        if self.regions is not None:
            if self.regions.shape != (places, 4):
                raise ValueError(f"{places} places, but boxes of regions of shape {self.regions.shape}: want [P, 4]")
            self.box = None
            return None
        if self.box is None:
            raise ValueError("where do the places lie? give box=(left, top, right, bottom), or regions=[P, 4]")
        rows, columns = grid or (isqrt(places), isqrt(places))
        if rows * columns != places:
            raise ValueError(f"{places} places do not fill a grid of {rows}×{columns}: give grid=(H, W)")
        return rows, columns

    def _a_word(self, part: Sequence | None, name: str) -> Sequence | None:
        if part is not None and len(part) != len(self.words):
            raise ValueError(f"{len(self.words)} words, but {len(part)} {name}: want one a word")
        return part


def light(picture: Image.Image, strength: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The picture in grey, dimmed where strength is 0, coloured towards 1, hatched where not seen: uint8 [h, w, 3]."""
    grey = (np.asarray(picture.convert("L"))[..., None] / 255) ** 0.8  # [h, w, 1]; a little lighter
    low, high = np.percentile(grey, (1, 99))
    middle = (low + high) / 2
    # Dimmed, a flat picture would be lost: its contrast is raised, at most twofold.
    grey = np.clip(middle + (grey - middle) * np.clip(0.5 / max(high - low, 0.25), 1, 2), 0, 1)
    strength = np.clip(strength, 0, 1)
    colour = COLORS(FAINTEST + (BRIGHTEST - FAINTEST) * strength)[..., :3] * (0.62 + 0.38 * grey)
    opacity = 0.92 * strength[..., None] ** 0.7
    lit = (0.05 + 0.34 * grey) * (1 - opacity) + colour * opacity
    height, width = inside.shape
    diagonal = np.abs((np.arange(height)[:, None] + np.arange(width)) % 24 - 12) / sqrt(2)  # distance from a line
    hatched = 0.66 + 0.16 * grey - 0.16 * np.clip(1.5 - diagonal, 0, 1)[..., None]
    return (255 * np.where(inside[..., None], lit, hatched) + 0.5).astype(np.uint8)
