"""Draw one word's attention maps of all layers and heads of a transformer. Sizes are in inches."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from captioning.visualise.drawing import TEXT, fit, new_figure, show
from captioning.visualise.maps import Maps

_DPI = 200
_GAP, _LINE, _LEFT = 0.05, 0.2, 0.62  # between panels; height of a line of text; width of the rows' names
_POINTS = 8


def heads_figure(picture: Image.Image, weights: np.ndarray, *, title: str, width: float = 9.0, **where: Any) -> Figure:
    """Draw the maps of one word: a row of panels per layer, first the mean of its heads, then each head.

    All panels have one color scale, from 0 to the largest weight.

    Args:
        picture: the captioned image.
        weights: [layers, 1 + heads, L] attention weights, for each layer the mean of its heads first.
        title: the caption, in which the word is marked.
        width: width of the figure in inches.
        **where: `box`, `grid` and `smooth`, as for `attention_figure`.
    """
    layers, columns, locations = weights.shape
    maps = Maps([""] * (layers * columns), weights.reshape(-1, locations), **where)
    side = (width - _LEFT + _GAP) / columns - _GAP
    panel = side, side * picture.height / picture.width
    height = 3 * _LINE + layers * (panel[1] + _GAP)
    shown = fit(picture, (max(1, round(panel[0] * _DPI)), max(1, round(panel[1] * _DPI))))
    panels, largest = maps.panels(shown, picture.size)
    figure = new_figure(width * _DPI, height * _DPI, dpi=_DPI)

    def write(text: str, x: float, y: float, align: str) -> None:
        figure.text(x / width, y / height, text, ha=align, va="center", fontsize=_POINTS, **TEXT)

    write(title, _LEFT, height - _LINE / 2, "left")
    write(f"All panels have one scale: 0 to {largest:.2g}. Uniform: {maps.uniform:.2g}.", _LEFT, _LINE / 2, "left")
    names = ["mean", *(f"head {head}" for head in range(1, columns))]
    for at, each in enumerate(panels):
        layer, column = divmod(at, columns)
        left = _LEFT + column * (panel[0] + _GAP)
        bottom = height - 2 * _LINE - (layer + 1) * (panel[1] + _GAP) + _GAP
        axes = figure.add_axes((left / width, bottom / height, panel[0] / width, panel[1] / height))
        show(axes, each.pixels, picture.size)
        if not layer:
            write(names[column], left + panel[0] / 2, height - 1.5 * _LINE, "center")
        if not column:
            write(f"layer {layer + 1}", 0.05, bottom + panel[1] / 2, "left")
    return figure
