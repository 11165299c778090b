"""Share what all figures need: measuring and wrapping text, drawing frames, writing figures atomically.

Sizes are in pixels of the figure at its own resolution, unless stated otherwise. pyplot is not used: it would keep
every figure in memory, and some commands draw thousands.
"""

import logging
from math import ceil
from pathlib import Path
from typing import Any, cast

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
_SPACING = 1.35  # line spacing, relative to the font size
TEXT: dict[str, Any] = {"color": "0.1", "parse_math": False}  # a caption may contain "$"
# Keep text as text in SVG and PDF, and write the same bytes for the same figure.
VECTOR: dict[Any, Any] = {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "captioning"}
_METADATA = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}

# fontTools reduces a PDF's fonts to the letters used, and logs every table at level INFO.
logging.getLogger("fontTools").setLevel(logging.WARNING)


def new_figure(width: float, height: float, *, dpi: int = DPI) -> Figure:
    """Return an empty white figure of this many pixels."""
    figure = ReadableFigure(figsize=(width / dpi, height / dpi), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure to a PNG, SVG or PDF file, atomically.

    Args:
        figure: the figure.
        path: the file; its suffix is the format.

    Raises:
        ValueError: the file has another suffix.
        ConfigError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise ValueError(f"{path}: a figure is saved as one of {', '.join(_SUFFIXES)}")
    options: dict[str, Any] = {"format": suffix[1:], "dpi": figure.dpi, "metadata": _METADATA[suffix]}
    with rc_context(VECTOR):
        write_whole(path, lambda file: figure.savefig(file, **options))


def thumbnail(figure: Figure, width: int = 1000, *, colors: int = 256) -> Image.Image:
    """Render a figure as a small image, for example for a notebook's outputs.

    Args:
        figure: the figure.
        width: the largest width in pixels.
        colors: the number of colors.
    """
    image = Image.fromarray(pixels_of(figure))
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    return few_colors(image, colors)


def pixels_of(figure: Figure) -> np.ndarray:
    """Render a figure as uint8 [height, width, 3]."""
    canvas = cast(FigureCanvasAgg, figure.canvas)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def few_colors(picture: Image.Image, count: int) -> Image.Image:
    """Reduce an image to `count` colors, and keep those of small objects, which Pillow's default method drops."""
    return picture.quantize(count, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)


def show(axes: Axes, image: np.ndarray, extent: tuple[float, float]) -> None:
    """Draw an image without axes, in the coordinates of an image of size `extent` = (width, height)."""
    axes.imshow(image, extent=(0, extent[0], extent[1], 0), aspect="auto")
    axes.set_axis_off()


def mark(axes: Axes, panel: Panel, extent: tuple[int, int], *, line: float = 1.6) -> None:
    """Frame a panel's mark, and its boxes with dashed lines; `extent` is the (width, height) of the image."""
    for region in panel.boxes:
        _frame(axes, region, extent, line=0.8 * line, style=(0, (3, 2)))
    if panel.mark is not None:
        _frame(axes, panel.mark, extent, line=line, style="-")


def _frame(axes: Axes, region: MapRegion, extent: tuple[int, int], *, line: float, style: Any) -> None:
    """Frame the part of a region that is inside the image, white on black, which is visible on any background."""
    left, top = max(region[0], 0), max(region[1], 0)
    right, bottom = min(region[2], extent[0]), min(region[3], extent[1])
    if right <= left or bottom <= top:
        return
    frames: list[tuple[str, float, Any]] = [("black", 2.2 * line, "-"), ("white", line, style)]
    for color, width, dashes in frames:
        frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=color, linewidth=width)
        frame.set_linestyle(dashes)
        frame.set_clip_on(False)  # at the edge of the image, half of the line is outside
        frame.set_joinstyle("miter")
        axes.add_artist(frame).set_clip_path(None)


def fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Convert an image to RGB and resize it to `size` = (width, height)."""
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def text_width(text: str, points: float, *, dpi: int = DPI, weight: str = "normal") -> float:
    """Return the width of one line of text, at least 1. It includes 2 % more, because hinting may widen the text."""
    font = FontProperties(family=families(text), size=points, weight=weight)
    with without_glyph_warnings():
        width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return max(1, 1.02 * width * dpi / 72)


def text_height(text: str, points: float, *, dpi: int = DPI) -> int:
    """Return the height of a text of one or more lines, including the line spacing."""
    return ceil((text.count("\n") + 1) * _SPACING * points * dpi / 72)


def wrap(text: str, points: float, width: float, *, dpi: int = DPI, weight: str = "normal") -> tuple[str, float]:
    """Wrap a text to lines of at most `width`, and return it with its font size, reduced if a single word is wider."""
    words = text.split()
    points *= min(1, width / max((text_width(word, points, dpi=dpi, weight=weight) for word in words), default=1))
    lines = words[:1]
    for word in words[1:]:
        longer = f"{lines[-1]} {word}"
        fits = text_width(longer, points, dpi=dpi, weight=weight) <= width
        lines[-1:] = [longer] if fits else [lines[-1], word]
    return "\n".join(lines), points
