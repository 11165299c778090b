"""Prepare the report's content about the run: heading, scores, curves, settings and versions."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from math import ceil
from pathlib import Path
from platform import platform, python_version
from typing import Any

import captioning
from captioning.data import read_json
from captioning.errors import DataError
from captioning.evaluation import GroupScores
from captioning.metrics import Report
from captioning.visualise import read_curves
from captioning.web.report.caption_statistics import flatten
from captioning.web.report.charts import Chart, curves

_SHOWN = ("CIDEr", "truth")  # scores with their own charts; all other scores share one
_PACKAGES = ("torch", "torchvision", "lightning", "numpy", "pillow")


def lead(settings: Mapping[str, Any], *, parameters: int, kind: str) -> str:
    """Describe the run in one line."""
    model, encoder = _group(settings, "model"), _group(settings, "encoder").get("name")
    cell = str(_group(model, "cell").get("_target_", "?")).rpartition(".")[2]
    parts = [
        f"{kind} attention",
        f"{cell} of width {model.get('width', '?')}",
        f"{parameters / 1e6:.2f} million parameters",
    ]
    return " · ".join(
        parts + ([str(encoder)] if encoder else []) + [f"trained on {_group(settings, 'data').get('name', '?')}"]
    )


def score_rows(scored: Report, extra: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the rows of the table of scores; `top` is the end of a row's scale: 1, or more for larger scores."""
    rows = []
    for name, value in {**scored.scores, **extra}.items():
        low, high = scored.intervals.get(name, (None, None))
        top = max(1, ceil(max(value, high or 0)))
        rows.append({"name": name, "value": value, "low": low, "high": high, "top": top})
    return rows


def group_rows(found: Mapping[str, GroupScores], scored: Report) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the rows of the table of groups: (score, (value, interval) of every group); "" without an interval."""
    rows = []
    for name in scored.scores:
        cells = []
        for group in found.values():
            low, high = group.intervals.get(name, (None, None))
            cells.append((f"{group.scores[name]:.4f}", "" if low is None else f"{low:.4f} … {high:.4f}"))
        rows.append((name, cells))
    return rows


def panels(run_dir: Path) -> tuple[list[Chart], str]:
    """Return the charts of losses, scores and learning rates, and the reason if there are none."""
    try:
        lines = read_curves(run_dir).lines
    except DataError as error:
        return [], str(error)
    scores = {
        name.rpartition("/")[2]: own for name, own in lines.items() if name.startswith("val/") and name != "val/loss"
    }
    losses = {name.partition("/")[0]: lines[name] for name in ("train/loss", "val/loss") if name in lines}
    rates = {name.removeprefix("lr-"): own for name, own in lines.items() if name.startswith("lr-")}
    others = {name: own for name, own in scores.items() if name not in _SHOWN}
    found = [curves("Loss", losses, robust=True)]
    found += [curves(name, {"": scores[name]}) for name in _SHOWN if name in scores]
    found += [curves("Other validation scores", others), curves("Learning rate", rates)]
    return [chart for chart in found if chart], ""


def variety(facts: Mapping[str, float]) -> list[tuple[str, str]]:
    """Format the numbers of `metrics.diversity.describe_diversity`."""
    shares = ("distinct", "novel", "with unknown words", "unknown words", "empty", "div-1", "div-2")
    return [(name, f"{value:.1%}" if name in shares else f"{value:.4g}") for name, value in facts.items()]


def settings_groups(settings: Mapping[str, Any]) -> list[tuple[str, Sequence[tuple[str, str]]]]:
    """Return groups of settings, (name, rows); settings outside any group come first, under "run"."""
    alone = {key: value for key, value in settings.items() if not isinstance(value, dict) or not value}
    groups: list[tuple[str, Sequence[tuple[str, str]]]] = [("run", flatten(alone))]
    for key, value in settings.items():
        if key not in alone:
            rows = flatten(value)
            groups.append((key, [("is", text) if name == "" else (name, text) for name, text in rows]))
    return groups


def versions(run_dir: Path, *, fingerprint: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the versions used in training (of the last start, if the run was resumed) and for this page."""
    trained = [("checkpoint", str(run_dir / "checkpoints" / "best.ckpt"))]
    trained.append(("weights of the encoder", fingerprint))
    file = run_dir / "provenance.json"
    try:
        starts = read_json(file) if file.is_file() else []
    except DataError as error:
        trained.append((file.name, str(error)))
        starts = []
    if isinstance(starts, list) and starts:
        trained += [("starts", str(len(starts)))] if len(starts) > 1 else []
        trained += flatten(starts[-1])
    else:
        trained.append(("versions", "not recorded in the run's folder"))
    now = [("captioning", captioning.__version__), ("python", python_version())]
    now += [(name, version(name)) for name in _PACKAGES] + [("machine", platform())]
    return [("Training", trained), ("This page", now)]


def _group(settings: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a group of settings, or an empty one if the configuration does not have it."""
    found = settings.get(key)
    return found if isinstance(found, Mapping) else {}
