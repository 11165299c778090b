"""Draw one caption as a row of small panels with the words below, for a paper. Sizes are in inches."""

from collections.abc import Sequence
from math import ceil, sqrt
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from captioning.visualise.drawing import TEXT, fit, mark, new_figure, show, text_width
from captioning.visualise.maps import Maps

_DPI = 300
GAP, WORD, SHARE = (
    0.05,
    0.17,
    0.11,
)  # between panels; heights of the word, and of the sentinel's share or a tag, below a panel
LEAST, TALLEST = 0.62, 1.6  # smallest side of a square panel; largest height of any panel
POINTS, NOTE = 8, 6  # font sizes


def strip_figure(
    picture: Image.Image,
    words: Sequence[str],
    weights: np.ndarray,
    *,
    width: float = 6.75,
    only: Sequence[int] | None = None,
    **where: Any,
) -> Figure:
    """Draw an image and one panel per word side by side, with one color scale; in several rows if one is too narrow.

    Args:
        picture: the captioned image.
        words: as for `attention_figure`.
        weights: as for `attention_figure`.
        width: the largest width of the figure in inches: 6.75 spans two columns of most proceedings, 3.25 one.
        only: positions of the words to show, in order; None: all. The color scale is that of all words.
        **where: as for `attention_figure`.

    Raises:
        ValueError: an argument is invalid (see `Maps`), or no word has one of these positions.
    """
    maps = Maps(words, weights, **where)
    chosen = list(range(len(maps)) if only is None else only)
    if odd := [index for index in chosen if not 0 <= index < len(maps)]:
        raise ValueError(f"only={odd}: the caption has words 0 … {len(maps) - 1}")
    ratio, count = picture.width / picture.height, 1 + len(chosen)
    columns, panel, slot = _arrange(ratio, count, width)
    beneath = WORD + SHARE * ((maps.sentinel is not None) + (maps.tags is not None))
    rows = ceil(count / columns)
    size = columns * (slot + GAP) - GAP, rows * (panel[1] + beneath + GAP) - GAP
    shown = fit(picture, (max(1, round(panel[0] * _DPI)), max(1, round(panel[1] * _DPI))))
    panels = maps.panels(shown, picture.size)[0] if len(maps) else []
    figure = new_figure(size[0] * _DPI, size[1] * _DPI, dpi=_DPI)
    for position, index in enumerate([None, *chosen]):
        row, column = divmod(position, columns)
        left = column * (slot + GAP) + (slot - panel[0]) / 2
        bottom = size[1] - row * (panel[1] + beneath + GAP) - panel[1]
        axes = figure.add_axes((left / size[0], bottom / size[1], panel[0] / size[0], panel[1] / size[1]))
        show(axes, np.asarray(shown) if index is None else panels[index].pixels, picture.size)
        if index is None:
            continue
        mark(axes, panels[index], picture.size, line=0.7)
        x, points = (
            (left + panel[0] / 2) / size[0],
            POINTS * min(1, slot * _DPI / text_width(words[index], POINTS, dpi=_DPI)),
        )
        line = (bottom - 0.7 * WORD) / size[1]
        figure.text(x, line, words[index], ha="center", va="baseline", fontsize=points, **TEXT)
        lines = [] if maps.sentinel is None else [f"β {maps.sentinel[index]:.2f}"]
        lines += [] if maps.tags is None else [maps.tags[index]]
        for number, text in enumerate(lines, start=1):
            points = NOTE * min(1, slot * _DPI / max(1, text_width(text, NOTE, dpi=_DPI)))
            figure.text(x, line - number * SHARE / size[1], text, ha="center", va="baseline", fontsize=points, **TEXT)
    return figure


def _arrange(ratio: float, count: int, width: float) -> tuple[int, tuple[float, float], float]:
    """Return (columns, (width, height) of a panel, width of its slot), with evenly filled rows."""
    least = max(LEAST * sqrt(ratio), 0.8 * LEAST)
    most = max(1, int((width + GAP) / (least + GAP)))
    columns = ceil(count / ceil(count / most))
    slot = (width + GAP) / columns - GAP
    height = min(slot / ratio, TALLEST)
    return columns, (height * ratio, height), min(slot, max(height * ratio, 0.8 * LEAST))
