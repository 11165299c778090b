"""Compare two runs on each group of images separately, such as the three domains of nocaps.

A group's scores are those of `groups`: CIDEr keeps the document frequencies of the whole split.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from captioning.errors import DataError
from captioning.evaluation.comparison import Tables, compared, comparison_rows
from captioning.evaluation.groups import FEWEST
from captioning.io import counted, make_folder, write_json
from captioning.metrics import bootstrap


class ComparedGroup(NamedTuple):
    """A comparison of two runs on a group of images.

    Attributes:
        tables: the tables of both sides, with only the group's images.
        scores: score -> `bootstrap.Comparison`.
    """

    tables: Tables
    scores: dict[str, bootstrap.Comparison]


def with_groups(tables: Tables, runs: Mapping[str, Sequence[str]]) -> Tables:
    """Give every table the groups that any of them has.

    Args:
        tables: `aligned` tables.
        runs: the name of each table, for error messages.

    Raises:
        DataError: two tables have different groups for an image.
    """
    known = [(run, table) for side in tables for run, table in zip(runs[side], tables[side], strict=True)]
    known = [(run, table) for run, table in known if table.groups]
    if not known:
        return tables
    (first, wanted), *others = known
    for run, table in others:
        for image_id, one, other in zip(wanted.image_ids, wanted.groups or [], table.groups or [], strict=True):
            if one != other:
                raise DataError(
                    f"image {image_id} is in the group {one!r} of '{first}', but in {other!r} of '{run}'. Score both "
                    "against the same annotations, then compare"
                )
    return {side: [table._replace(groups=wanted.groups) for table in found] for side, found in tables.items()}


def compare_groups(tables: Tables, *, resamples: int = 1000, seed: int = 0) -> dict[str, ComparedGroup]:
    """Compare both sides on the images of every group, by paired bootstrap.

    Args:
        tables: `aligned` tables, after `with_groups`.
        resamples: number of resamples of each group's images.
        seed: seed of the resamples.

    Returns:
        {group: its comparison}, sorted by name; {} if no image has a group.
    """
    own, found = np.array(tables["a"][0].groups or []), {}
    for group in sorted(set(own.tolist()) - {""}):
        rows = np.flatnonzero(own == group)
        part = {side: [table.take(rows) for table in tables[side]] for side in tables}
        found[group] = ComparedGroup(part, compared(part, resamples=resamples, seed=seed))
    return found


def describe_compared_groups(found: Mapping[str, ComparedGroup]) -> str:
    """Format the comparisons of groups as printable tables, each below the name of its group."""
    lines = []
    for group, (tables, scores) in found.items():
        images = len(tables["a"][0].image_ids)
        lines += [f"{group}: {counted(images, 'image')}", *comparison_rows(scores, tables)]
        if images < FEWEST:
            lines.append(f"  NOTE: fewer than {FEWEST} images: these scores are mostly chance")
    return "\n".join(lines)


def write_compared_groups(folder: Path, found: Mapping[str, ComparedGroup]) -> Path | None:
    """Write `groups.json`: group -> {"images": number, "scores": {score: comparison}}.

    Args:
        folder: the folder of the comparison; a file of an earlier comparison is deleted if there are no groups.
        found: the result of `compare_groups`.

    Returns:
        The file; None if there are no groups.

    Raises:
        ConfigError: the folder or the file cannot be written.
    """
    file = make_folder(folder) / "groups.json"
    file.unlink(missing_ok=True)
    content = {
        group: {
            "images": len(tables["a"][0].image_ids),
            "scores": {name: row._asdict() for name, row in scores.items()},
        }
        for group, (tables, scores) in found.items()
    }
    if content:
        write_json(file, content)
    return file if content else None
