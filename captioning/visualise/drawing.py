"""Share what all figures need: measuring and wrapping text, drawing marks, writing figures whole.

Sizes are in pixels of the figure at its own resolution unless they are said to be the picture's. There is no pyplot: a
figure belongs to nobody but its caller, so that thousands of them leave nothing behind.
"""

import logging
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from PIL import Image

from captioning.io import write_whole
from captioning.visualise.fonts import ReadableFigure, families, without_glyph_warnings
from captioning.visualise.geometry import MapRegion
from captioning.visualise.maps import Panel

_SUFFIXES = (".png", ".svg", ".pdf")
DPI = 150
_SPACING = 1.35  # of lines, in sizes of the font
TEXT = {"color": "0.1", "parse_math": False}  # "$" may be in a caption
# Text stays text, and the same figure is the same file.
VECTOR = {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "captioning"}
METADATA = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}

# What fontTools, which cuts a PDF's font down to its letters, tells of each table is not news to who draws a figure.
logging.getLogger("fontTools").setLevel(logging.WARNING)


def new_figure(width: float, height: float, *, dpi: int = DPI) -> Figure:
    """White, of so many pixels."""
    figure = ReadableFigure(figsize=(width / dpi, height / dpi), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path | str) -> None:
    """Writes the figure as PNG, SVG or PDF, by the suffix; never half a file.

    Raises:
        ValueError: another suffix. ConfigError: it cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise ValueError(f"{path}: a figure is saved as one of {', '.join(_SUFFIXES)}")
    options = {"format": suffix[1:], "dpi": figure.dpi, "metadata": METADATA[suffix]}
    with rc_context(VECTOR):
        write_whole(path, lambda file: figure.savefig(file, **options))


def thumbnail(figure: Figure, width: int = 1000, *, colors: int = 256) -> Image.Image:
    """The figure as a picture of at most that width and so many colours: small, for a notebook to keep."""
    figure.canvas.draw()
    whole = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
    if whole.width > width:
        whole = whole.resize((width, round(whole.height * width / whole.width)), Image.Resampling.LANCZOS)
    return few_colors(whole, colors)


def few_colors(picture: Image.Image, count: int) -> Image.Image:
    """In a palette that spans all of its colours; Pillow's usual one drops those of small things, however bright."""
    return picture.quantize(count, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)


def show(axes: Axes, image, extent: tuple[float, float]) -> None:
    """An image without frame, in the coordinates of a picture of that (width, height)."""
    axes.imshow(image, extent=(0, extent[0], extent[1], 0), aspect="auto")
    axes.set_axis_off()


def mark(axes: Axes, panel: Panel, extent: tuple[int, int], *, line: float = 1.6) -> None:
    """A frame around a panel's mark, and dashed ones around its boxes, in a picture of that (width, height)."""
    for region in panel.boxes:
        _frame(axes, region, extent, line=0.8 * line, style=(0, (3, 2)))
    if panel.mark is not None:
        _frame(axes, panel.mark, extent, line=line, style="-")


def _frame(axes: Axes, region: MapRegion, extent: tuple[int, int], *, line: float, style) -> None:
    """Around what of a region lies in the picture: white on black, to be seen on anything."""
    left, top = max(region[0], 0), max(region[1], 0)
    right, bottom = min(region[2], extent[0]), min(region[3], extent[1])
    if right <= left or bottom <= top:
        return
    for colour, width, dashes in (("black", 2.2 * line, "-"), ("white", line, style)):
        frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=width)
        frame.set_linestyle(dashes)
        frame.set_clip_on(False)  # at the picture's edge half of the line lies beyond it
        frame.set_joinstyle("miter")
        axes.add_artist(frame).set_clip_path(None)


def fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture in RGB, of that (width, height)."""
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def text_width(text: str, points: float, *, dpi: int = DPI, weight: str = "normal") -> float:
    """Of one line of text, at least 1; two per cent more, as hinting may widen it."""
    font = FontProperties(family=families(text), size=points, weight=weight)
    with without_glyph_warnings():
        width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return max(1, 1.02 * width * dpi / 72)


def text_height(text: str, points: float, *, dpi: int = DPI) -> int:
    """Of the lines of a text, with the space between them."""
    return ceil((text.count("\n") + 1) * _SPACING * points * dpi / 72)


def wrap(text: str, points: float, width: float, *, dpi: int = DPI, weight: str = "normal") -> tuple[str, float]:
    """The text in lines of at most `width`, and the size of its font: lowered where a single word is wider."""
    words = text.split()
    points *= min(1, width / max((text_width(word, points, dpi=dpi, weight=weight) for word in words), default=1))
    lines = words[:1]
    for word in words[1:]:
        longer = f"{lines[-1]} {word}"
        fits = text_width(longer, points, dpi=dpi, weight=weight) <= width
        lines[-1:] = [longer] if fits else [lines[-1], word]
    return "\n".join(lines), points
