"""Figures of captions: (picture, words, attention weights) -> where each word looked, in the picture's own geometry.

Sizes are in pixels of the figure at its own resolution (DPI) unless they are said to be the picture's. There is no
pyplot: a figure belongs to nobody but its caller, so that thousands of them leave nothing behind.
"""

from collections.abc import Sequence
from math import ceil, isqrt, log, sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from PIL import Image

from captioning.files import write_whole

SUFFIXES = (".png", ".svg", ".pdf")
Region = tuple[float, float, float, float]  # left, top, right, bottom
REACH = 2  # cells that the bicubic kernel reaches to either side
# The bright end of a map for the colour-blind too: its lightness rises evenly and starts above the dimmed picture's, so
# that more weight is lighter in grey print as well.
COLOURS, FAINTEST, BRIGHTEST = colormaps["inferno"], 0.62, 0.94

DPI = 150
SIDE, ALONE = 380, 760  # of a square panel, among many and without others; another shape has its area
SHORTEST, LONGEST = 300, 1200  # limits of a panel's sides; the second one wins
SHAPE = 1.6  # width / height that the arrangement of panels aims at
CAPTION_WIDTH, LEGEND_WIDTH = 480, 960  # of a figure at least, so that these texts have room
MARGIN, GAP, FOOT = 36, 26, 76  # around the figure, between panels, for the legend
BAND, HEAD = 44, 14  # from a panel up to the caption, with a word between them, and without
BAR = (240, 24)  # colour scale of the legend
CAPTION, WORD, NOTE = 14, 13, 9  # points
SPACING = 1.35  # of lines, in sizes of the font
TEXT = {"color": "0.1", "parse_math": False}  # "$" may be in a caption


def attention_figure(
    picture: Image.Image,
    words: Sequence[str],
    weights: np.ndarray,
    *,
    box: Region,
    grid: tuple[int, int] | None = None,
    title: str | None = None,
    log_prob: float | None = None,
) -> Figure:
    """The picture under its caption, then a panel a word: the picture dimmed and grey, lit where the word looked.

    All words share one colour scale, from 0 to the largest weight; the legend shows it with the uniform weight 1 / P.
    What the grid does not cover is hatched. Without words it is the `caption_figure`.

    Args:
        words: T words.
        weights: [T, P] attention weights, a row a word; P = H·W places, row by row.
        box: (left, top, right, bottom) of the region that the grid covers, in pixels of the picture; it may reach
            beyond the picture.
        grid: (H, W); a square by default.
        title: in place of the caption, which is the words joined by spaces.
        log_prob: natural logarithm of the caption's probability, for the legend.

    Raises:
        ValueError: weights and words, or weights and grid, do not match, or the box is empty.
    """
    weights = np.asarray(weights, dtype=np.float32)
    grid = _check(words, weights, grid)
    caption = " ".join(words) if title is None else title
    if not len(words):
        return caption_figure(picture, caption)
    shown = _fit_panel(picture, 1 + len(words))
    across, down = shown.width / picture.width, shown.height / picture.height
    box = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)  # from here in pixels of a panel
    seen, largest = _seen(box, shown.size), float(weights.max()) or 1.0
    lit = [_light(shown, overlay(row, grid, box=box, size=shown.size) / largest, seen) for row in weights]
    figure = _draw([np.asarray(shown), *lit], [caption, *words], extent=picture.size, legend=True)
    places = weights.shape[1]
    notes = f"Attention weight, one scale for all words. Marked: uniform, 1/{places} = {1 / places:.2g}."
    if not seen.all():
        notes += " Hatched: not seen by the network."
    if log_prob is not None:
        notes += f" Log-probability: {log_prob:.2f}."
    _draw_legend(figure, notes, largest=largest, uniform=1 / places)
    return figure


def caption_figure(picture: Image.Image, caption: str) -> Figure:
    """The picture under its caption."""
    return _draw([np.asarray(_fit_panel(picture, 1))], [caption], extent=picture.size, legend=False)


def save_figure(figure: Figure, path: Path | str) -> None:
    """Writes the figure as PNG, SVG or PDF, by the suffix; never half a file.

    Raises:
        ValueError: another suffix. ConfigError: it cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: a figure is saved as one of {', '.join(SUFFIXES)}")
    write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=figure.dpi))


def overlay(weights: np.ndarray, grid: tuple[int, int], *, box: Region, size: tuple[int, int]) -> np.ndarray:
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
    x, y = _span(left, right, size[0]), _span(top, bottom, size[1])
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


def _check(words: Sequence[str], weights: np.ndarray, grid: tuple[int, int] | None) -> tuple[int, int]:
    if weights.ndim != 2 or len(words) != len(weights):
        raise ValueError(f"{len(words)} words, but attention weights of shape {weights.shape}: want one row a word")
    places = weights.shape[1]
    rows, columns = grid or (isqrt(places), isqrt(places))
    if rows * columns != places:
        raise ValueError(f"{places} places do not fill a grid of {rows}×{columns}: give grid=(H, W)")
    return rows, columns


def _span(start: float, end: float, limit: int) -> slice:
    """The pixels that exist and whose centres lie in start…end."""
    if end <= start:
        raise ValueError(f"an empty box: from {start} to {end}")
    first, last = (min(max(ceil(edge - 0.5), 0), limit) for edge in (start, end))
    return slice(first, last)


def _seen(box: Region, size: tuple[int, int]) -> np.ndarray:
    """Whether a pixel lies in the box: bool [height, width]."""
    seen = np.zeros((size[1], size[0]), dtype=bool)
    seen[_span(box[1], box[3], size[1]), _span(box[0], box[2], size[0])] = True
    return seen


def _light(picture: Image.Image, strength: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The picture in grey, dimmed where strength is 0, coloured towards 1, hatched where not seen: uint8 [h, w, 3]."""
    grey = (np.asarray(picture.convert("L"))[..., None] / 255) ** 0.8  # [h, w, 1]; a little lighter
    strength = np.clip(strength, 0, 1)
    colour = COLOURS(FAINTEST + (BRIGHTEST - FAINTEST) * strength)[..., :3] * (0.62 + 0.38 * grey)
    opacity = 0.92 * strength[..., None] ** 0.7
    lit = (0.05 + 0.34 * grey) * (1 - opacity) + colour * opacity
    height, width = seen.shape
    diagonal = np.abs((np.arange(height)[:, None] + np.arange(width)) % 24 - 12) / sqrt(2)  # distance from a line
    hatched = 0.66 + 0.16 * grey - 0.16 * np.clip(1.5 - diagonal, 0, 1)[..., None]
    return (255 * np.where(seen[..., None], lit, hatched) + 0.5).astype(np.uint8)


def _fit_panel(picture: Image.Image, count: int) -> Image.Image:
    """The picture in RGB at the size of one of `count` panels: neither too slim to be read nor too long."""
    root = sqrt(picture.width / picture.height)
    slimness = max(root, 1 / root)
    side = min(max(SIDE, ALONE / sqrt(count), SHORTEST * slimness), LONGEST / slimness)
    size = (max(1, round(side * root)), max(1, round(side / root)))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


class _Layout(NamedTuple):
    """Sizes in pixels: panel, the slot that it is centred in, the figure; header: down to the first row of slots.

    A slot is as high as the panel and the band above it.
    """

    columns: int
    panel: tuple[int, int]
    slot: int
    band: int
    header: int
    size: tuple[int, int]

    def place(self, index: int) -> tuple[float, float, float, float]:
        """(left, bottom, width, height) of a panel as shares of the figure, as matplotlib counts."""
        row, column = divmod(index, self.columns)
        left = MARGIN + column * (self.slot + GAP) + (self.slot - self.panel[0]) // 2
        bottom = self.size[1] - self.header - row * (self.band + self.panel[1] + GAP) - self.band - self.panel[1]
        return tuple(length / self.size[axis % 2] for axis, length in enumerate((left, bottom, *self.panel)))


def _lay_out(panel: tuple[int, int], count: int, caption: str, *, legend: bool) -> tuple[_Layout, str, float]:
    """Panels in as many columns as bring the figure near its SHAPE with few empty slots; the caption wrapped above."""
    band = BAND if count > 1 else HEAD

    def unlikeness(columns: int) -> float:
        rows = ceil(count / columns)
        shape = columns * (panel[0] + GAP) / (rows * (band + panel[1] + GAP))
        return abs(log(shape / SHAPE)) + 1.5 * (columns * rows - count) / count

    columns = min(range(1, count + 1), key=unlikeness)
    rows = ceil(count / columns)
    least = LEGEND_WIDTH if legend else CAPTION_WIDTH
    slot = max(panel[0], ceil((least - 2 * MARGIN + GAP) / columns) - GAP)
    width = columns * (slot + GAP) - GAP
    text, points = _wrap(caption, CAPTION, width)
    header = MARGIN + _height(text, points)
    height = header + rows * (band + panel[1] + GAP) - GAP + MARGIN + legend * FOOT
    return _Layout(columns, panel, slot, band, header, (width + 2 * MARGIN, height)), text, points


def _draw(images: Sequence[np.ndarray], texts: Sequence[str], *, extent: tuple[int, int], legend: bool) -> Figure:
    """Panels in the coordinates of the picture; the first text heads the figure, each other one its panel."""
    height, width = images[0].shape[:2]
    layout, caption, points = _lay_out((width, height), len(images), texts[0], legend=legend)
    figure = Figure(figsize=(layout.size[0] / DPI, layout.size[1] / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for index, image in enumerate(images):
        axes = figure.add_axes(layout.place(index))
        axes.imshow(image, extent=(0, extent[0], extent[1], 0), aspect="auto")
        axes.set_axis_off()
    for axes, word in zip(figure.axes[1:], texts[1:], strict=True):
        axes.set_title(word, fontsize=min(WORD, WORD * layout.slot / _width(word, WORD)), pad=5, **TEXT)
    style = {"ha": "left", "x": (width - layout.slot) / 2 / width} if len(images) > 1 else {"ha": "center", "x": 0.5}
    figure.axes[0].set_title(caption, fontsize=points, y=1 + layout.band / height, va="bottom", pad=0, **style, **TEXT)
    return figure


def _draw_legend(figure: Figure, notes: str, *, largest: float, uniform: float) -> None:
    """At the foot: the colours, over mid grey, of 0 to the largest weight; a mark at the uniform one; notes."""
    width, height = figure.canvas.get_width_height()
    left, middle, right = MARGIN + 22, MARGIN / 2 + FOOT / 2, MARGIN + 22 + BAR[0]
    ramp = np.tile(np.linspace(0, 1, BAR[0]), (BAR[1], 1))
    colours = _light(Image.new("L", BAR, 160), ramp, np.ones_like(ramp, dtype=bool))
    figure.figimage(colours, left, middle - BAR[1] / 2)
    mark = (left + BAR[0] * min(1, uniform / largest)) / width
    ends = [(middle - BAR[1] * 0.8) / height, (middle + BAR[1] * 0.8) / height]
    figure.add_artist(Line2D([mark, mark], ends, color="0.1", linewidth=1.2))
    notes = _wrap(notes, NOTE, width - MARGIN - right - 92)[0]
    for x, text in ((MARGIN, "0"), (right + 8, f"{largest:.2g}"), (right + 92, notes)):
        figure.text(x / width, middle / height, text, ha="left", va="center", fontsize=NOTE, **TEXT)


def _width(text: str, points: float) -> float:
    """Of one line of text, at least 1; two per cent more, as hinting may widen it."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=points), ismath=False)
    return max(1, 1.02 * width * DPI / 72)


def _height(text: str, points: float) -> int:
    return ceil((text.count("\n") + 1) * SPACING * points * DPI / 72)


def _wrap(text: str, points: float, width: float) -> tuple[str, float]:
    """The text in lines of at most `width`, and the size of its font: lowered where a single word is wider."""
    words = text.split()
    points *= min(1, width / max((_width(word, points) for word in words), default=1))
    lines = words[:1]
    for word in words[1:]:
        longer = f"{lines[-1]} {word}"
        lines[-1:] = [longer] if _width(longer, points) <= width else [lines[-1], word]
    return "\n".join(lines), points
