"""Draw figures of recurrent cells: states and gates per word, units that follow a property, reach of gradients.

The colors work for color blindness and for prints in gray: maps grow evenly lighter with the value, and lines also
differ in their dashes and markers. pyplot is not used, because it would keep every figure in memory.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from PIL import Image

from captioning.visualise.drawing import pixels_of
from captioning.visualise.fonts import ReadableFigure

_COLORS = colormaps["cividis"]
# Okabe and Ito's colors in order of lightness, each with its dashes and marker.
LINES: tuple[tuple[str, Any, str], ...] = (
    ("#0072B2", "-", "o"),
    ("#D55E00", "--", "s"),
    ("#009E73", "-.", "^"),
    ("#E69F00", ":", "D"),
    ("#000000", (0, (5, 1, 1, 1, 1, 1)), "v"),
    ("#CC79A7", (0, (1, 1)), "P"),
)
_DPI = 100
CELL = 0.19  # height of a row of a map in inches; a column is about twice as wide
GATES = ("input", "forget", "output", "reset", "update")  # drawn from 0 to 1; everything else from −m to m
_BRIGHTEST = 98  # m is this percentile of |values|, so that one large value does not make all others gray
LEAST = 1e-6  # the smallest relative gradient that is drawn
_TEXT: dict[str, Any] = {"parse_math": False}  # a caption may contain "$"


def states_figure(
    words: Sequence[str], states: Mapping[str, np.ndarray], *, units: Sequence[int] | None = None, title: str = ""
) -> Figure:
    """Draw one heat map per kind of state and gate, with one row per unit and one column per word.

    Args:
        words: the T words that were read.
        states: {name: [T, H]}, such as `captioning.analysis.Reading.states`.
        units: the units to draw, the same for all states; None: the 16 units that vary most in the first state.
        title: the title.

    Raises:
        ValueError: a state does not have one row per word.
    """
    _check(words, states)
    if units is None:
        spread = next(iter(states.values())).std(0)
        units = np.sort(np.argsort(-spread, kind="stable")[:16]).tolist()
    columns = min(3, len(states))
    rows = -(-len(states) // columns)
    size = (columns * (0.9 + 0.26 * len(words)), rows * (1.0 + CELL * len(units)) + 0.3)
    figure, axes = _figure(size, rows, columns)
    for index, (each, (name, values)) in enumerate(zip(axes.flat, states.items(), strict=False)):
        shown = values[:, units].T
        gate = name.split()[0] in GATES
        largest = 1 if gate else max(np.percentile(np.abs(shown), _BRIGHTEST), 1e-9)
        image = each.imshow(shown, cmap=_COLORS, vmin=0 if gate else -largest, vmax=largest, aspect="auto")
        each.set_title(_kind(name))
        _words(each, words)
        _units(each, units if index % columns == 0 else [""] * len(units))
        if index % columns == 0:
            each.set_ylabel("unit")
        _scale(figure, image, each, largest)
    _hide(axes, len(states))
    if title:
        figure.suptitle(title, fontsize=11, **_TEXT)
    return figure


def units_figure(readings: Sequence[Any], followers: Sequence[Any]) -> Figure:
    """Draw the values of chosen units for each word of some captions, with the property that each unit follows.

    Each unit has its own color scale, from its lowest to its highest value in these captions. A cell shows the value of
    the property: nothing for 0, a dot for 1 if the property is only 0 or 1, and otherwise the number.

    Args:
        readings: the captions: `captioning.analysis.Reading`, with words, states and labels.
        followers: the units: `captioning.analysis.UnitCorrelation`, with state, unit and label.

    Raises:
        ValueError: a state does not have one row per word.
    """
    for reading in readings:
        _check(reading.words, reading.states)
    values = [np.stack([r.states[f.state][:, f.unit] for f in followers]) for r in readings]
    labels = [np.stack([r.labels[f.label] for f in followers]) for r in readings]
    low, high = (pick(np.concatenate(values, 1), axis=1, keepdims=True) for pick in (np.min, np.max))
    binary = np.asarray(np.isin(np.concatenate(labels, 1), (0, 1)).all(1))
    names = [f"{follower.label}: {_kind(follower.state)} {follower.unit}" for follower in followers]
    longest = max(len(reading.words) for reading in readings)
    size = (3.4 + 0.42 * longest, len(readings) * (0.75 + 1.35 * CELL * len(names)) + 0.3)
    figure, axes = _figure(size, len(readings), 1)
    for each, reading, shown, marks in zip(axes.flat, readings, values, labels, strict=True):
        scaled = (shown - low) / np.maximum(high - low, 1e-9)
        each.imshow(scaled, cmap=_COLORS, vmin=0, vmax=1, aspect="auto")
        each.hlines(np.arange(len(names) - 1) + 0.5, -0.5, len(reading.words) - 0.5, color="white", lw=1.5)
        _words(each, reading.words, rotation=30)
        _units(each, names)
        each.set_xlim(-0.5, longest - 0.5)
        _write_properties(each, marks, scaled, binary)
    notes = "Each row: from the unit's lowest value here (dark) to its highest (light). Dots and numbers: the property."
    figure.supxlabel(notes, fontsize=8)
    return figure


def chance_figure(followers: Sequence[Any]) -> Figure:
    """Draw |r| of each unit on the data on which it was chosen and on held-out data, with the chance levels.

    Args:
        followers: the units: `captioning.analysis.UnitCorrelation`.
    """
    figure, axes = _figure((7.6, 1.2 + 0.34 * len(followers)), 1, 1)
    each = axes[0, 0]
    rows = np.arange(len(followers))
    for kind, gray, height in (("between", "0.82", 0.72), ("within", "0.62", 0.36)):
        label = {"between": "labels exchanged between captions", "within": "labels shuffled within captions"}[kind]
        each.barh(rows, [getattr(f, kind) for f in followers], height, color=gray, label=f"best by chance: {label}")
    for name, color, mark, label in (
        ("chosen", LINES[0][0], "|", "on the half on which it was chosen"),
        ("held_out", LINES[1][0], "o", "on held-out data"),
    ):
        style: dict[str, Any] = {"color": color, "ms": 15 if mark == "|" else 6, "mew": 2, "label": label}
        each.plot([abs(getattr(f, name)) for f in followers], rows, mark, **style)
    signs = ["+" if f.held_out > 0 else "−" for f in followers]
    names = [f"{f.label}: {_kind(f.state)}, unit {f.unit} ({sign})" for f, sign in zip(followers, signs, strict=True)]
    each.set_yticks(rows, names)
    each.invert_yaxis()
    each.set_xlim(0, 1)
    each.set_xlabel("|correlation|")
    each.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return figure


def flow_figure(panels: Mapping[str, Mapping[str, np.ndarray]], *, least: int = 20) -> Figure:
    """Draw gradients by distance in time: the median over words and the range between the quartiles.

    The axis is logarithmic and ends at 10⁻⁶.

    Args:
        panels: {title: {name of a line: [N, T]}}, with one row per word and one column per distance, NaN if a caption
            is too short; from `captioning.analysis.lines`.
        least: distances that fewer words reach are left out.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = _figure((1 + 2.9 * columns, 0.4 + 2.8 * rows), rows, columns, sharey=True, sharex=True)
    for each, (title, lines) in zip(axes.flat, panels.items(), strict=False):
        for (name, shares), (color, dash, mark) in zip(lines.items(), LINES, strict=False):
            # A logarithmic axis cannot show 0, which all words have for c_t and their own loss.
            reached = ((~np.isnan(shares)).sum(0) >= least) & (np.nan_to_num(shares).max(0) > 0)
            low, middle, high = np.nanpercentile(shares[:, reached], (25, 50, 75), axis=0)
            distances = np.flatnonzero(reached)
            each.fill_between(distances, low, high, color=color, alpha=0.15, linewidth=0)
            each.plot(distances, middle, color=color, linestyle=dash, marker=mark, ms=3.5, label=name)
        each.axhline(1, color="0.6", linewidth=0.8, zorder=0)
        each.set_yscale("log")
        each.set_title(title)
        each.legend(fontsize=7.5, framealpha=0.8, edgecolor="none", loc="best")
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelbottom=True)
    axes[0, 0].set_ylim(bottom=max(LEAST, axes[0, 0].get_ylim()[0]))  # all panels share this axis
    _hide(axes, len(panels))
    figure.supxlabel("words back", fontsize=9)
    figure.supylabel("gradient, relative to that of the word's own state", fontsize=9)
    return figure


def course_figure(panels: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw the loss (above) and the gradient norm before clipping (below) of trainings, on logarithmic axes.

    Args:
        panels: {title: {name of a line: `captioning.analysis.Course`}}.
    """
    figure, axes = _figure((1 + 2.9 * len(panels), 4.2), 2, len(panels), sharex="col", sharey="row")
    for column, (title, lines) in enumerate(panels.items()):
        for (name, course), (color, dash, _) in zip(lines.items(), LINES, strict=False):
            for each, values in zip(axes[:, column], (course.loss, course.norm), strict=True):
                each.plot(np.arange(1, len(values) + 1), values, color=color, linestyle=dash, lw=1.2, label=name)
                each.set_yscale("log")
                each.spines[["top", "right"]].set_visible(False)
        axes[0, column].set_title(title)
        axes[1, column].set_xlabel("step")
    axes[0, 0].set_ylabel("loss, nats per caption")
    axes[1, 0].set_ylabel("norm of the gradient\nof all parameters")
    axes[0, 0].legend(fontsize=7.5, frameon=False)
    for each in axes[0]:
        each.minorticks_off()
    return figure


def compact(figure: Figure) -> Image.Image:
    """Render a figure in 96 colors, about a third of the file size, for a notebook's outputs."""
    drawn = Image.fromarray(pixels_of(figure).copy())
    return drawn.quantize(96, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def colored_text(tokens: Sequence[str], values: np.ndarray, *, between: str = " ") -> str:
    """Return HTML in which each token's background shows a unit's value, from the lowest (dark) to the highest (light).

    Args:
        tokens: T words or characters.
        values: [T], the unit's values.
        between: the text between tokens; "" for characters.
    """
    values = np.asarray(values, dtype=np.float64)
    low, high = values.min(), values.max()
    pieces = []
    for token, value in zip(tokens, (values - low) / max(high - low, 1e-9), strict=True):
        style = f"background:{to_hex(_COLORS(value))};color:{_ink(value)}"
        pieces.append(f'<span style="{style}">{html.escape(token)}</span>')
    return f'<pre style="line-height:1.5;white-space:pre-wrap">{html.escape(between).join(pieces)}</pre>'


def _figure(size: tuple[float, float], rows: int, columns: int, **shared: Any) -> tuple[Figure, np.ndarray]:
    figure = ReadableFigure(figsize=size, dpi=_DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    for each in axes.flat:
        each.title.set_fontsize(10)
        each.tick_params(labelsize=8)
        each.xaxis.label.set_fontsize(9)
        each.yaxis.label.set_fontsize(9)
    return figure, axes


def _kind(name: str) -> str:
    """Return the display name of a state or gate, for example "input gate 2" for "input 2"."""
    first, *layer = name.split()
    return " ".join([first, *(["gate"] if first in GATES else []), *layer])


def _hide(axes: np.ndarray, count: int) -> None:
    """Hide all axes after the first `count`."""
    for each in axes.flat[count:]:
        each.set_axis_off()


def _scale(figure: Figure, image: Any, axes: Axes, largest: float) -> None:
    bar = figure.colorbar(image, ax=axes, fraction=0.06, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_ticks([image.norm.vmin, (image.norm.vmin + largest) / 2, largest])
    bar.ax.set_yticklabels([f"{tick:.2g}" for tick in bar.get_ticks()], fontsize=7)


def _words(axes: Axes, words: Sequence[str], *, rotation: float = 60) -> None:
    style: dict[str, Any] = {"rotation": rotation, "ha": "right", "rotation_mode": "anchor", "fontsize": 8}
    axes.set_xticks(range(len(words)), words, **style, **_TEXT)
    axes.tick_params(length=0)


def _units(axes: Axes, names: Sequence[Any]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=7, **_TEXT)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.spines[:].set_visible(False)


def _write_properties(axes: Axes, properties: np.ndarray, scaled: np.ndarray, binary: np.ndarray) -> None:
    for row, values in enumerate(properties):
        for column, value in enumerate(values):
            if value:
                text = "●" if binary[row] else f"{value:g}"
                ink = _ink(scaled[row, column])
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)


def _ink(value: float) -> str:
    """Return black or white, the one that is readable on the color of a value from 0 to 1."""
    return "black" if value > 0.5 else "white"


def _check(words: Sequence[str], states: Mapping[str, np.ndarray]) -> None:
    for name, values in states.items():
        if values.ndim != 2 or len(values) != len(words):
            raise ValueError(f"{len(words)} words, but {name} has shape {values.shape}: it must have one row per word")
