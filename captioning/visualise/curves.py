"""Draw losses and scores over the training steps of one or several runs, from their `metrics.csv`.

The colors are those of Okabe and Ito, which people with color blindness can distinguish. Runs also differ by line style
and marker, for prints in gray.
"""

import csv
import json
from collections.abc import Collection, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from captioning.errors import DataError
from captioning.io import unopened
from captioning.visualise.drawing import TEXT, new_figure

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES, MARKERS = ("-", "--", "-.", ":"), ("o", "s", "^", "D", "v", "P", "X")
PANEL, COLUMNS, LEGEND = (520, 380), 3, 34  # size of a panel in pixels, panels per row, height of a legend line
_LEFT_OUT = ("epoch", "words/s", "BLEU-1", "BLEU-2", "BLEU-3")  # columns whose names end so are not drawn
_STEP = "step"


class Curves(NamedTuple):
    """The numbers of a run.

    Attributes:
        lines: {column of metrics.csv: (steps, values)}.
        measured: {score: (value, low, high)} of an evaluation, with the 95 % interval or None.
    """

    lines: dict[str, tuple[list[int], list[float]]]
    measured: dict[str, tuple[float, float | None, float | None]]


def read_curves(run_dir: Path | str) -> Curves:
    """Read `metrics.csv` of a run, and the scores and intervals of an evaluation in a folder of the run, if any.

    Args:
        run_dir: the folder of the run.

    Raises:
        DataError: a file is missing or damaged, or `metrics.csv` has no numbers.
    """
    run_dir = Path(run_dir)
    file = run_dir / "metrics.csv"
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            rows = list(csv.DictReader(opened))
        lines: dict[str, tuple[list[int], list[float]]] = {}
        for row in rows:
            for name, cell in row.items():
                if name != _STEP and cell:
                    steps, values = lines.setdefault(name, ([], []))
                    steps.append(int(row[_STEP]))
                    values.append(float(cell))
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        if advice := unopened(file, error, advice="give the folder of a run (run_dir)"):
            raise DataError(advice) from error
        raise DataError(
            f"cannot read {file} as the metrics of a run ({error}). Give the folder of a run (run_dir)"
        ) from error
    if not lines:
        raise DataError(
            f"{file} has no numbers yet, because the run has logged nothing. Wait for its first logged step"
        )
    found = sorted(run_dir.glob("*/scores.json"))
    return Curves(lines, _measured(found[0].parent) if found else {})


def curves_figure(
    runs: Mapping[str, Curves | Path | str] | Curves | Path | str, names: Sequence[str] | None = None
) -> Figure:
    """Draw one panel per quantity: the training and validation loss, the parts of the loss, and each validation score.

    A score of an evaluation (`captioning-evaluate` with its output in a folder of the run) is an open marker at the
    right end, with its 95 % interval.

    Args:
        runs: one run, or {name: run}; each is a run's folder or the result of `read_curves`.
        names: columns of metrics.csv to draw, "loss" for both losses; None: the loss, its parts and the scores.

    Raises:
        DataError: a run cannot be read; see `read_curves`.
        ValueError: there are no runs, or no run has any of these columns.
    """
    named = runs if isinstance(runs, Mapping) else {"": runs}
    read = {name: run if isinstance(run, Curves) else read_curves(run) for name, run in named.items()}
    if not read:
        raise ValueError("curves_figure has no runs: give at least one")
    panels = [name for name in names or _panels(read.values()) if any(_parts(run, name) for run in read.values())]
    if not panels:
        raise ValueError(f"no run has any of the columns {', '.join(names or [])}")
    columns = min(COLUMNS, len(panels))
    rows = ceil(len(panels) / columns)
    width, height = columns * PANEL[0], rows * PANEL[1] + LEGEND
    figure = new_figure(width, height)
    for index, name in enumerate(panels):
        row, column = divmod(index, columns)
        left, bottom = column * PANEL[0] + 86, height - LEGEND - (row + 1) * PANEL[1] + 70
        axes = figure.add_axes((left / width, bottom / height, (PANEL[0] - 110) / width, (PANEL[1] - 110) / height))
        _panel(axes, name, read)
    _legend(figure, read, panels)
    return figure


def _legend(figure: Figure, runs: Mapping[str, Curves], panels: Sequence[str]) -> None:
    """Draw the legend: the runs by name, then the meaning of thin lines and open markers."""
    handles = [
        Line2D([], [], color=color, linestyle=line, marker=marker, markersize=3.5, linewidth=1.6, label=run or "val")
        for run, (color, line, marker) in zip(runs, map(_style, range(len(runs))), strict=True)
    ]
    if any(name.startswith("train/") for run in runs.values() for panel in panels for name in _parts(run, panel)):
        handles.append(Line2D([], [], color="0.35", linewidth=0.7, label="train"))
    if any(_measured_here(run, panel) for run in runs.values() for panel in panels):
        marks: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 6, "markerfacecolor": "white"}
        handles.append(Line2D([], [], color="0.35", label="evaluated, 95 % interval", **marks))
    figure.legend(handles=handles, loc="upper center", ncols=len(handles), fontsize=9, frameon=False)


def _style(index: int) -> tuple[str, Any, str]:
    """Return (color, line style, marker) of a run."""
    return _COLORS[index % len(_COLORS)], LINES[index % len(LINES)], MARKERS[index % len(MARKERS)]


def _measured_here(run: Curves, panel: str) -> bool:
    return panel.startswith("val/") and panel.rpartition("/")[2] in run.measured


def _panels(runs: Collection[Curves]) -> list[str]:
    columns = list(dict.fromkeys(name for run in runs for name in run.lines))
    scores = [name for name in columns if name.startswith("val/") and name != "val/loss"]
    parts = [name for name in columns if name.startswith("train/") and name != "train/loss"]
    if len(parts) == 1:  # the only part is the loss itself
        parts = []
    order = {"CIDEr": 0, "truth": 1, "BLEU-4": 2}
    scores.sort(key=lambda name: order.get(name.rpartition("/")[2], 3))
    return ["loss", *(name for name in scores + parts if not name.endswith(_LEFT_OUT))]


def _parts(run: Curves, panel: str) -> list[str]:
    wanted = ("train/loss", "val/loss") if panel == "loss" else (panel,)
    return [name for name in wanted if name in run.lines]


def _panel(axes: Axes, panel: str, runs: Mapping[str, Curves]) -> None:
    for index, curves in enumerate(runs.values()):
        color, line, marker = _style(index)
        for name in _parts(curves, panel):
            style: dict[str, Any] = {"color": color, "linestyle": line}
            if name.startswith("val/"):
                axes.plot(*curves.lines[name], marker=marker, markersize=3.5, linewidth=1.6, **style)
            else:
                axes.plot(*curves.lines[name], linewidth=0.7, alpha=0.75, **style)
        if _measured_here(curves, panel):
            _measurement(axes, curves, panel, color=color, marker=marker)
    axes.set_title("loss" if panel == "loss" else panel.removeprefix("val/"), fontsize=10, loc="left", **TEXT)
    axes.set_xlabel("steps", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if panel == "loss":  # cut off the large losses of the first steps, which would flatten the rest
        values = sorted(value for run in runs.values() for name in _parts(run, panel) for value in run.lines[name][1])
        low, high = values[0], values[int(0.97 * (len(values) - 1))]
        if high > low:
            axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def _measurement(axes: Axes, curves: Curves, panel: str, *, color: str, marker: str) -> None:
    """Draw the score of the evaluation a little to the right of the last step."""
    value, low, high = curves.measured[panel.rpartition("/")[2]]
    last = max(steps[-1] for steps, _ in curves.lines.values())
    error = None if low is None or high is None else [[max(0.0, value - low)], [max(0.0, high - value)]]
    style: dict[str, Any] = {
        "color": color,
        "marker": marker,
        "markersize": 6,
        "markerfacecolor": "white",
        "capsize": 3,
    }
    axes.errorbar([1.04 * last], [value], yerr=error, linestyle="none", **style)


def _measured(folder: Path) -> dict[str, tuple[float, float | None, float | None]]:
    try:
        scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        statistics = folder / "statistics.json"
        intervals = json.loads(statistics.read_text(encoding="utf-8"))["intervals"] if statistics.is_file() else {}
        return {name: (float(value), *intervals.get(name, (None, None))) for name, value in scores.items()}
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"cannot read the scores in {folder} ({error}). Evaluate the run again") from error
