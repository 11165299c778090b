"""Draw the figure of one caption: the image, and one attention map per word in the image's own geometry."""

from collections.abc import Sequence
from math import ceil, log, sqrt
from typing import Any, NamedTuple, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from captioning.visualise.drawing import DPI, TEXT, fit, mark, new_figure, show, text_height, text_width, wrap
from captioning.visualise.maps import Maps, light

# All lengths are in pixels.
SIDE, ALONE = 380, 760  # side of a square panel, among many panels and alone; other shapes have the same area
SHORTEST, LONGEST = 300, 1200  # limits of a panel's sides; LONGEST takes precedence
SHAPE = 1.6  # preferred width / height of all panels together
CAPTION_WIDTH, LEGEND_WIDTH = 480, 960  # smallest width of a figure with a caption, with a legend
MARGIN, GAP, FOOT = 36, 26, 76  # around the figure, between panels, for the legend
BAND, HEAD = 44, 14  # from a panel up to the caption, with a word between them and without
SHARE, TOLD = 22, 96  # height of the row with a sentinel's share, or with a tag, above a panel; width of its number
BAR = (240, 24)  # color scale of the legend
LEGEND = MARGIN + 22 + BAR[0] + 92  # from the left edge to the notes of the legend
CAPTION, WORD, NOTE = 14, 13, 9  # points


def attention_figure(
    picture: Image.Image,
    words: Sequence[str],
    weights: np.ndarray,
    *,
    title: str | None = None,
    log_prob: float | None = None,
    **where: Any,
) -> Figure:
    """Draw an image with its caption, and one panel per word with the word's attention map.

    A panel shows the image dimmed and gray, and colored where the word looked. All words share one color scale, from 0
    to the largest weight; the legend shows it with the uniform weight 1 / L. Parts of the image that the grid does not
    cover are hatched. The location that hard attention chose, or the region with the largest weight, is framed. A
    sentinel's share is a bar above each panel; the tag that a word looked at is named there. Without words, the figure
    is a `caption_figure`.

    Args:
        picture: the captioned image.
        words: T words.
        weights: [T, L] attention weights, one row per word.
        title: the title; None: the words joined by spaces.
        log_prob: natural logarithm of the caption's probability, for the legend.
        **where: what the locations are: `box`, `grid`, `regions`, `places`, `sentinel`, `smooth`, `boxes` and `tags`,
            as for `Maps`.

    Raises:
        ValueError: weights and words, or weights and grid, do not match, or the box is empty.
    """
    maps = Maps(words, weights, **where)
    caption = " ".join(words) if title is None else title
    if not len(maps):
        return caption_figure(picture, caption)
    shown = _fit_panel(picture, 1 + len(maps))
    panels, largest = maps.panels(shown, picture.size)
    share = SHARE * ((maps.sentinel is not None) + (maps.tags is not None))
    images = [np.asarray(shown), *(panel.pixels for panel in panels)]
    explanation = explain_maps(maps, picture.size, log_prob)
    figure, notes = _draw(images, [caption, *words], extent=picture.size, notes=explanation, share=share)
    for axes, panel in zip(figure.axes[1:], panels, strict=True):
        mark(axes, panel, picture.size)
    if maps.sentinel is not None:
        for axes, value in zip(figure.axes[1:], maps.sentinel, strict=True):
            _draw_share(axes, float(value))
    if maps.tags is not None:
        for axes, tag in zip(figure.axes[1:], maps.tags, strict=True):
            _draw_tag(axes, tag, above=share - SHARE)
    _draw_legend(figure, notes, largest=largest, uniform=maps.uniform)
    return figure


def caption_figure(picture: Image.Image, caption: str) -> Figure:
    """Draw an image with its caption above it."""
    return _draw([np.asarray(_fit_panel(picture, 1))], [caption], extent=picture.size)[0]


def explain_maps(maps: Maps, extent: tuple[int, int], log_prob: float | None = None) -> str:
    """Return the notes of the legend: what the colors, frames and bars of the panels mean."""
    locations = maps.weights.shape[1]
    what = "Attention weight" if maps.regions is None else "Sum of the attention weights of all regions at a pixel"
    notes = f"{what}, same scale for all words. Mark: uniform weight, 1/{locations} = {1 / locations:.2g}."
    if maps.places is not None:
        notes += " Frame: the location that hard attention chose."
    elif maps.regions is not None:
        notes += " Frame: the region with the largest weight."
    if maps.sentinel is not None:
        notes += " Bar, β: the weight of the sentinel, which is not in the image."
    if maps.tags is not None:
        notes += " ←: the tag of the image that has more weight than every location."
    if any(len(boxes) for boxes in maps.boxes):
        notes += " Dashed: the objects that the word names."
    if not maps.covers(extent):
        notes += " Hatched: not seen by the network."
    if log_prob is not None:
        notes += f" Log-probability: {log_prob:.2f}."
    return notes


def _fit_panel(picture: Image.Image, count: int) -> Image.Image:
    """Resize an image to the size of one of `count` panels: large enough to read, and not too long."""
    root = sqrt(picture.width / picture.height)
    slimness = max(root, 1 / root)
    side = min(max(SIDE, ALONE / sqrt(count), SHORTEST * slimness), LONGEST / slimness)
    size = (max(1, round(side * root)), max(1, round(side / root)))
    return fit(picture, size)


class _Layout(NamedTuple):
    """The arrangement of panels; sizes are in pixels.

    Attributes:
        columns: panels per row.
        panel: (width, height) of a panel.
        slot: width of the slot in which a panel is centered; it is as high as the panel and the band above it.
        band: height of the band above a panel.
        header: height from the top of the figure to the first row of slots.
        size: (width, height) of the figure.
        foot: height of the legend.
    """

    columns: int
    panel: tuple[int, int]
    slot: int
    band: int
    header: int
    size: tuple[int, int]
    foot: int

    def place(self, index: int) -> tuple[float, float, float, float]:
        """Return (left, bottom, width, height) of a panel as fractions of the figure."""
        row, column = divmod(index, self.columns)
        left = MARGIN + column * (self.slot + GAP) + (self.slot - self.panel[0]) // 2
        bottom = self.size[1] - self.header - row * (self.band + self.panel[1] + GAP) - self.band - self.panel[1]
        width, height = self.size
        return left / width, bottom / height, self.panel[0] / width, self.panel[1] / height


def _lay_out(
    panel: tuple[int, int], count: int, caption: str, *, notes: str, share: int
) -> tuple[_Layout, str, float, str]:
    """Choose the number of columns that brings the figure near its SHAPE with few empty slots, and wrap the texts.

    Returns the layout, the wrapped caption, its font size in points, and the wrapped notes.
    """
    band = (BAND if count > 1 else HEAD) + share

    def unlikeness(columns: int) -> float:
        rows = ceil(count / columns)
        shape = columns * (panel[0] + GAP) / (rows * (band + panel[1] + GAP))
        return abs(log(shape / SHAPE)) + 1.5 * (columns * rows - count) / count

    columns = min(range(1, count + 1), key=unlikeness)
    rows = ceil(count / columns)
    least = LEGEND_WIDTH if notes else CAPTION_WIDTH
    slot = max(panel[0], ceil((least - 2 * MARGIN + GAP) / columns) - GAP)
    width = columns * (slot + GAP) - GAP
    text, points = wrap(caption, CAPTION, width)
    header = MARGIN + text_height(text, points)
    notes = wrap(notes, NOTE, width + MARGIN - LEGEND)[0]
    foot = max(FOOT, text_height(notes, NOTE) + MARGIN // 2) if notes else 0
    height = header + rows * (band + panel[1] + GAP) - GAP + MARGIN + foot
    return _Layout(columns, panel, slot, band, header, (width + 2 * MARGIN, height), foot), text, points, notes


def _draw(
    images: Sequence[np.ndarray], texts: Sequence[str], *, extent: tuple[int, int], notes: str = "", share: int = 0
) -> tuple[Figure, tuple[str, int]]:
    """Draw panels in the coordinates of the image; the first text is the title, each other one is a panel's title.

    Returns the figure, the wrapped notes, and the height of the foot for them.
    """
    height, width = images[0].shape[:2]
    layout, caption, points, notes = _lay_out((width, height), len(images), texts[0], notes=notes, share=share)
    figure = new_figure(*layout.size)
    for index, image in enumerate(images):
        axes = figure.add_axes(layout.place(index))
        show(axes, image, extent)
    pad = 5 + share * 72 / DPI
    for axes, word in zip(figure.axes[1:], texts[1:], strict=True):
        axes.set_title(word, fontsize=min(WORD, WORD * layout.slot / text_width(word, WORD)), pad=pad, **TEXT)
    style: dict[str, Any] = (
        {"ha": "left", "x": (width - layout.slot) / 2 / width} if len(images) > 1 else {"ha": "center", "x": 0.5}
    )
    figure.axes[0].set_title(caption, fontsize=points, y=1 + layout.band / height, va="bottom", pad=0, **style, **TEXT)
    return figure, (notes, layout.foot)


def _draw_share(axes: Axes, value: float) -> None:
    """Draw a sentinel's share β above a panel: a bar from 0 to 1, and the number."""
    figure, panel = axes.get_figure(root=True), axes.get_position()
    assert figure is not None
    width, height = figure.canvas.get_width_height()
    room, low, high = panel.width - TOLD / width, panel.y1 + 6 / height, (SHARE - 8) / height
    for length, color in ((room, "0.85"), (room * min(max(value, 0.0), 1.0), "0.3")):
        figure.add_artist(Rectangle((panel.x0, low), length, high, color=color, linewidth=0))
    figure.text(panel.x1, low + high / 2, f"β {value:.2f}", ha="right", va="center", fontsize=NOTE, **TEXT)


def _draw_tag(axes: Axes, tag: str, *, above: int) -> None:
    """Write the tag that a word looked at above a panel, with `above` pixels between them."""
    figure, panel = axes.get_figure(root=True), axes.get_position()
    assert figure is not None
    width, height = figure.canvas.get_width_height()
    points = min(NOTE, NOTE * panel.width * width / max(1, text_width(tag, NOTE)))
    x = (panel.x0 + panel.x1) / 2
    figure.text(x, panel.y1 + (above + 4) / height, tag, ha="center", va="bottom", fontsize=points, **TEXT)


def _draw_legend(figure: Figure, notes: tuple[str, int], *, largest: float, uniform: float) -> None:
    """Draw the legend: the color scale from 0 to the largest weight (over medium gray), its uniform mark, and notes."""
    (text, foot), (width, height) = notes, figure.canvas.get_width_height()
    left, middle, right = MARGIN + 22, (MARGIN + foot) / 2, MARGIN + 22 + BAR[0]
    ramp = np.tile(np.linspace(0, 1, BAR[0]), (BAR[1], 1))
    colors = light(Image.new("L", BAR, 160), ramp, np.ones_like(ramp, dtype=bool))
    figure.figimage(colors, left, cast(int, middle - BAR[1] / 2))  # matplotlib rounds it
    at = (left + BAR[0] * min(1, uniform / largest)) / width
    ends = [(middle - BAR[1] * 0.8) / height, (middle + BAR[1] * 0.8) / height]
    figure.add_artist(Line2D([at, at], ends, color="0.1", linewidth=1.2))
    for x, label in ((MARGIN, "0"), (right + 8, f"{largest:.2g}"), (LEGEND, text)):
        figure.text(x / width, middle / height, label, ha="left", va="center", fontsize=NOTE, **TEXT)
