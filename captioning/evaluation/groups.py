"""Score the groups of a split's images separately, such as the three domains of nocaps.

A group's score is what the split's score would be for its images alone, with one exception: CIDEr keeps the document
frequencies of the whole split, so a group's CIDEr is the mean of its images' values. The code of nocaps' evaluation
server is not public, but it must do the same: in the results that its authors print
(https://github.com/nocaps-org/updown-baseline), the mean of the three domains' CIDEr, weighted by their images, agrees
with that of "entire" within rounding. With frequencies counted per domain it would not: docs/evaluate.md has numbers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from captioning.io import make_folder, write_json
from captioning.metrics import Report, bootstrap

FEWEST = 20  # images of a group: with fewer, its scores are mostly chance


class GroupScores(NamedTuple):
    """The scores of a group of images.

    Attributes:
        images: number of images.
        scores: name -> score of the group, as a fraction; without scores that are not defined for its images.
        intervals: name -> (low, high), the 95 % bootstrap interval.
    """

    images: int
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def score_groups(report: Report, groups: Mapping[Any, str | None], *, seed: int = 0) -> dict[str, GroupScores]:
    """Compute the scores of every group from the scores of its images.

    Args:
        report: the scores of the split.
        groups: image id -> its group; None for an image without one. Images that were not scored do not matter.
        seed: seed of the resamples for the intervals.

    Returns:
        {group: its scores}, sorted by name; {} if no image has a group.
    """
    own = np.array([groups.get(key) or "" for key in report.table.image_ids])
    found = {}
    for group in sorted(set(own.tolist()) - {""}):
        table = report.table.take(np.flatnonzero(own == group))
        drawn = bootstrap.intervals(table, resamples=report.resamples, seed=seed) if report.resamples else {}
        known = {name: interval for name, interval in drawn.items() if name in report.intervals}
        totals = {name: float(total[0]) for name, total in table.totals().items() if np.isfinite(total[0])}
        found[group] = GroupScores(len(table.image_ids), totals, known)
    return found


def describe_groups(found: Mapping[str, GroupScores], report: Report) -> str:
    """Format the scores of groups as a printable table with one column per group, and one for the whole split.

    Args:
        found: the result of `score_groups`, not empty.
        report: the scores of the split.
    """
    whole = GroupScores(len(report.table.image_ids), report.scores, {})
    columns = {**found, "entire": whole}
    widths = {name: max(len(name), 8) + 2 for name in columns}
    first = max([8, *map(len, report.scores)]) + 2
    lines = [f"  {'':<{first}}" + "".join(f"{name:>{widths[name]}}" for name in columns)]
    lines.append(f"  {'images':<{first}}" + "".join(f"{each.images:>{widths[name]}}" for name, each in columns.items()))
    for score in report.scores:
        texts = {name: f"{each.scores[score]:.4f}" if score in each.scores else "–" for name, each in columns.items()}
        cells = [f"{text:>{widths[name]}}" for name, text in texts.items()]
        lines.append(f"  {score:<{first}}" + "".join(cells))
    if few := [name for name, each in found.items() if each.images < FEWEST]:
        lines.append(f"  NOTE: fewer than {FEWEST} images in {', '.join(few)}: their scores are mostly chance")
    return "\n".join(lines)


def report_groups(folder: Path | None, report: Report, groups: Mapping[Any, str | None], *, seed: int = 0) -> str:
    """Score the groups, and write `groups.json` with the images, scores and intervals of every group.

    Args:
        folder: the folder of the split's scores; a file of an earlier run is deleted if there are no groups. None:
            write nothing.
        report: the scores of the split.
        groups: image id -> its group; None for an image without one.
        seed: seed of the resamples for the intervals.

    Returns:
        A printable table; "" if no image has a group.

    Raises:
        ConfigError: the folder or the file cannot be written.
    """
    found = score_groups(report, groups, seed=seed)
    if folder:
        file = make_folder(folder) / "groups.json"
        file.unlink(missing_ok=True)
        if found:
            write_json(file, {name: each._asdict() for name, each in found.items()})
    return describe_groups(found, report) if found else ""
