"""Draw figures of recurrent cells: states and gates per word, units that follow a property, reach of gradients.

Colours are for the colour-blind and in grey print alike: maps grow evenly lighter with the value, and lines also differ
in their dashes and marks. There is no pyplot; a figure belongs to its caller.
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

from captioning.visualise.fonts import ReadableFigure

_COLORS = colormaps["cividis"]
# Okabe and Ito's, in order of lightness, each with its dashes and mark.
LINES = (
    ("#0072B2", "-", "o"),
    ("#D55E00", "--", "s"),
    ("#009E73", "-.", "^"),
    ("#E69F00", ":", "D"),
    ("#000000", (0, (5, 1, 1, 1, 1, 1)), "v"),
    ("#CC79A7", (0, (1, 1)), "P"),
)
_DPI = 100
CELL = 0.19  # inches, the height of a row of a map; a column is as wide as its word needs, about twice that
GATES = ("input", "forget", "output", "reset", "update")  # from 0 to 1; everything else is drawn from −m to m
BRIGHTEST = 98  # percentile of |values| that is m, so that one large value does not leave all others grey
LEAST = 1e-6  # of a gradient's share that is drawn
_TEXT = {"parse_math": False}  # "$" may be in a caption


def states_figure(
    words: Sequence[str], states: Mapping[str, np.ndarray], *, units: Sequence[int] | None = None, title: str = ""
) -> Figure:
    """A heat map of the same units for each kind of state and gate, a column a word that was read.

    Args:
        words: T. states: {name: [T, H]}, as `captioning.analysis.activations.Reading` has them.
        units: columns of all states; None: the 16 that vary most in the first of them, in their order.
    """
    _check(words, states)
    if units is None:
        spread = next(iter(states.values())).std(0)
        units = np.sort(np.argsort(-spread, kind="stable")[:16])
    columns = min(3, len(states))
    rows = -(-len(states) // columns)
    size = (columns * (0.9 + 0.26 * len(words)), rows * (1.0 + CELL * len(units)) + 0.3)
    figure, axes = _figure(size, rows, columns)
    for index, (each, (name, values)) in enumerate(zip(axes.flat, states.items(), strict=False)):
        shown = values[:, units].T
        gate = name.split()[0] in GATES
        largest = 1 if gate else max(np.percentile(np.abs(shown), BRIGHTEST), 1e-9)
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
    """Chosen units over the words of some captions; on each field, what the property of its row is there.

    Each unit has its own scale, from its lowest to its highest value in all these captions. A property of 0 shows
    nothing, one that is only 0 or 1 a dot, others their number.

    Args:
        readings: with words [T], states {name: [T, H]} and labels {property: [T]}: `analysis.Reading`.
        followers: with state, unit and label: `analysis.Follower`.
    """
    for reading in readings:
        _check(reading.words, reading.states)
    values = [np.stack([r.states[f.state][:, f.unit] for f in followers]) for r in readings]
    told = [np.stack([r.labels[f.label] for f in followers]) for r in readings]
    low, high = (pick(np.concatenate(values, 1), axis=1, keepdims=True) for pick in (np.min, np.max))
    binary = np.isin(np.concatenate(told, 1), (0, 1)).all(1)
    names = [f"{follower.label}: {_kind(follower.state)} {follower.unit}" for follower in followers]
    longest = max(len(reading.words) for reading in readings)
    size = (3.4 + 0.42 * longest, len(readings) * (0.75 + 1.35 * CELL * len(names)) + 0.3)
    figure, axes = _figure(size, len(readings), 1)
    for each, reading, shown, marks in zip(axes.flat, readings, values, told, strict=True):
        scaled = (shown - low) / np.maximum(high - low, 1e-9)
        each.imshow(scaled, cmap=_COLORS, vmin=0, vmax=1, aspect="auto")
        each.hlines(np.arange(len(names) - 1) + 0.5, -0.5, len(reading.words) - 0.5, color="white", lw=1.5)
        _words(each, reading.words, rotation=30)
        _units(each, names)
        each.set_xlim(-0.5, longest - 0.5)
        _tell(each, marks, scaled, binary)
    notes = "Each row from its unit's lowest value here (dark) to its highest (light). Dots and numbers: the property."
    figure.supxlabel(notes, fontsize=8)
    return figure


def chance_figure(followers: Sequence[Any]) -> Figure:
    """|r| of each follower where it was chosen and on held-out data, over what the best unit reaches by chance.

    Args:
        followers: `analysis.Follower`s.
    """
    figure, axes = _figure((7.6, 1.2 + 0.34 * len(followers)), 1, 1)
    each = axes[0, 0]
    rows = np.arange(len(followers))
    for kind, grey, height in (("between", "0.82", 0.72), ("within", "0.62", 0.36)):
        label = {"between": "labels exchanged between captions", "within": "labels shuffled within captions"}[kind]
        each.barh(rows, [getattr(f, kind) for f in followers], height, color=grey, label=f"best by chance: {label}")
    for name, (colour, _, _), mark, label in (
        ("chosen", LINES[0], "|", "on the half on which it was chosen"),
        ("held_out", LINES[1], "o", "on held-out data"),
    ):
        style = {"color": colour, "ms": 15 if mark == "|" else 6, "mew": 2, "label": label}
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
    """Gradients by distance: the median over words, and between the quartiles; logarithmic, cut off at 10⁻⁶.

    Args:
        panels: {title: {name of a line: [N, D]}}, a row a word, a column a distance, NaN where a caption is too short:
            `captioning.analysis.gradients.by_distance`.
        least: distances that fewer words reach are left out.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = _figure((1 + 2.9 * columns, 0.4 + 2.8 * rows), rows, columns, sharey=True, sharex=True)
    for each, (title, lines) in zip(axes.flat, panels.items(), strict=False):
        for (name, shares), (colour, dash, mark) in zip(lines.items(), LINES, strict=False):
            # A share of 0 for all (of c_t in its own word's loss) has no place on a logarithmic axis.
            reached = ((~np.isnan(shares)).sum(0) >= least) & (np.nan_to_num(shares).max(0) > 0)
            low, middle, high = np.nanpercentile(shares[:, reached], (25, 50, 75), axis=0)
            distances = np.flatnonzero(reached)
            each.fill_between(distances, low, high, color=colour, alpha=0.15, linewidth=0)
            each.plot(distances, middle, color=colour, linestyle=dash, marker=mark, ms=3.5, label=name)
        each.axhline(1, color="0.6", linewidth=0.8, zorder=0)
        each.set_yscale("log")
        each.set_title(title)
        each.legend(fontsize=7.5, framealpha=0.8, edgecolor="none", loc="best")
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelbottom=True)
    axes[0, 0].set_ylim(bottom=max(LEAST, axes[0, 0].get_ylim()[0]))  # of all, which share it
    _hide(axes, len(panels))
    figure.supxlabel("words back", fontsize=9)
    figure.supylabel("gradient, as a share of that to the word's own state", fontsize=9)
    return figure


def course_figure(panels: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Trainings step by step: the loss above, the norm of the gradient before clipping below (logarithmic).

    Args:
        panels: {title: {name of a line: `captioning.analysis.gradients.Course`}}.
    """
    figure, axes = _figure((1 + 2.9 * len(panels), 4.2), 2, len(panels), sharex="col", sharey="row")
    for column, (title, lines) in enumerate(panels.items()):
        for (name, course), (colour, dash, _) in zip(lines.items(), LINES, strict=False):
            for each, values in zip(axes[:, column], (course.loss, course.norm), strict=True):
                each.plot(np.arange(1, len(values) + 1), values, color=colour, linestyle=dash, lw=1.2, label=name)
                each.set_yscale("log")
                each.spines[["top", "right"]].set_visible(False)
        axes[0, column].set_title(title)
        axes[1, column].set_xlabel("step")
    axes[0, 0].set_ylabel("loss, nats a caption")
    axes[1, 0].set_ylabel("norm of the gradient\nof all parameters")
    axes[0, 0].legend(fontsize=7.5, frameon=False)
    for each in axes[0]:
        each.minorticks_off()
    return figure


def compact(figure: Figure) -> Image.Image:
    """The figure in 96 colours, about a third of the file: for a notebook's outputs, which shows it by itself."""
    figure.canvas.draw()
    drawn = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
    return drawn.quantize(96, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def colored_text(tokens: Sequence[str], values: np.ndarray, *, between: str = " ") -> str:
    """HTML of a text with each token on the colour of a unit's value, from the lowest (dark) to the highest (light).

    Args:
        between: tokens; "" for characters.
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
    """ "input 2" -> "input gate 2"."""
    first, *layer = name.split()
    return " ".join([first, *(["gate"] if first in GATES else []), *layer])


def _hide(axes: np.ndarray, count: int) -> None:
    """All axes after so many."""
    for each in axes.flat[count:]:
        each.set_axis_off()


def _scale(figure: Figure, image: Any, axes: Axes, largest: float) -> None:
    bar = figure.colorbar(image, ax=axes, fraction=0.06, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_ticks([image.norm.vmin, (image.norm.vmin + largest) / 2, largest])
    bar.ax.set_yticklabels([f"{tick:.2g}" for tick in bar.get_ticks()], fontsize=7)


def _words(axes: Axes, words: Sequence[str], *, rotation: float = 60) -> None:
    style = {"rotation": rotation, "ha": "right", "rotation_mode": "anchor", "fontsize": 8}
    axes.set_xticks(range(len(words)), words, **style, **_TEXT)
    axes.tick_params(length=0)


def _units(axes: Axes, names: Sequence[Any]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=7, **_TEXT)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.spines[:].set_visible(False)


def _tell(axes: Axes, properties: np.ndarray, scaled: np.ndarray, binary: np.ndarray) -> None:
    for row, values in enumerate(properties):
        for column, value in enumerate(values):
            if value:
                text = "●" if binary[row] else f"{value:g}"
                ink = _ink(scaled[row, column])
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)


def _ink(value: float) -> str:
    """Black or white, whichever is read on the colour of a value of 0 … 1."""
    return "black" if value > 0.5 else "white"


def _check(words: Sequence[str], states: Mapping[str, np.ndarray]) -> None:
    for name, values in states.items():
        if values.ndim != 2 or len(values) != len(words):
            raise ValueError(f"{len(words)} words, but {name} is of shape {values.shape}: want one row a word")
