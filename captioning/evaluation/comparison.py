"""Compare two runs on the same images: scores side by side, and the images on which they differ most."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from captioning.errors import DataError
from captioning.evaluation.identity import ImageTexts, listed, pair
from captioning.evaluation.results import read_fingerprint
from captioning.metrics import ScoreTable, bootstrap, from_csv

Tables = dict[str, list[ScoreTable]]  # of the sides "a" and "b", a table a run


def read_tables(a: str | Path, b: str | Path) -> Tables:
    """The tables of two folders that captioning-evaluate or captioning-score left, on the same images.

    Raises:
        DataError: they are not there, or of other images.
    """
    read = {side: [from_csv(Path(path) / "per_image.csv")] for side, path in (("a", a), ("b", b))}
    runs = {"a": [str(a)], "b": [str(b)]}
    tables = aligned(read, runs)
    same_references({side: [read_fingerprint(Path(path)) for path in paths] for side, paths in runs.items()}, runs)
    return tables


def aligned(tables: Tables, runs: Mapping[str, Sequence[str]]) -> Tables:
    """All tables in the order of the first one's images; `runs` names them in errors.

    Images are the same by file name where both tables have them, by image id otherwise (`evaluation.pair`).

    Raises:
        DataError: they are of other images, or file names and image ids contradict each other.
    """
    first, result = _images(tables["a"][0]), {}
    for side, found in tables.items():
        result[side] = []
        for table, path in zip(found, runs[side], strict=True):
            files = (path, runs["a"][0])
            paired = pair(rows := _images(table), first, files=files)
            odd = [rows[row] for row in paired.extra] + [first[row] for row in paired.missing]
            if odd:
                told = listed(odd, range(len(odd)))
                raise DataError(f"{runs['a'][0]} and {path} are not of the same images: {told}")
            result[side].append(table.take(np.array([paired.rows[row] for row in range(len(first))])))
    return result


def same_references(marks: Mapping[str, Sequence[str | None]], runs: Mapping[str, Sequence[str]]) -> None:
    """Refuse scores against different references, whose difference would not be the captions'.

    Args:
        marks: fingerprints of the references, of the sides "a" and "b", one per run; None where a run has none.

    Raises:
        DataError: two of them differ.
    """
    known = [(path, mark) for side in marks for path, mark in zip(runs[side], marks[side], strict=True) if mark]
    if odd := [path for path, mark in known if mark != known[0][1]]:
        raise DataError(
            f"{known[0][0]} and {odd[0]} are scored against different references: score both against the same "
            "annotations, then compare"
        )


def matched_by(tables: Tables) -> str:
    """By what `aligned` tables know that their images are the same: "file name" or "image id"."""
    named = [[bool(name) for name in table.names or [""]] for found in tables.values() for table in found]
    if all(map(all, named)):
        return "file name"
    return "file name, or image id where a file name is missing" if all(map(any, named)) else "image id"


def _images(table: ScoreTable) -> list[ImageTexts]:
    names = table.names or [""] * len(table.image_ids)
    return [ImageTexts(key, name or None, []) for key, name in zip(table.image_ids, names, strict=True)]


def compared(tables: Tables, *, resamples: int = 1000, seed: int = 0) -> dict[str, bootstrap.Comparison]:
    """Each score of both, and the interval of their difference."""
    return bootstrap.paired_bootstrap(tables["a"], tables["b"], resamples=resamples, seed=seed)


def describe_comparison(scores: Mapping[str, bootstrap.Comparison], tables: Tables, *, resamples: int = 1000) -> str:
    """The comparison as lines for a reader."""
    lines = [f"  {'':<10}{'A':>9}{'B':>9}{'B - A':>10}   95 % interval       A better  B better"]
    for name, row in scores.items():
        lines.append(
            f"  {name:<10}{row.a:9.4f}{row.b:9.4f}{row.b - row.a:+10.4f}   {row.low:+.4f} … {row.high:+.4f}"
            f"{row.a_better:10.1%}{row.b_better:10.1%}"
        )
    for side, found in tables.items():
        if len(found) > 1:
            spread = {name: np.std([table.totals()[name][0] for table in found], ddof=1) for name in scores}
            told = ", ".join(f"{name} {value:.4f}" for name, value in spread.items())
            lines.append(f"  {side.upper()} is the mean of {len(found)} runs; standard deviation between them: {told}")
    lines.append(f"  better: share of {resamples} resamples of the images, the same for both")
    return "\n".join(lines)


def differences(tables: Tables, by: str) -> list[dict[str, Any]]:
    """One row per image, those where A is better first; captions are those of each side's first run."""
    a, b = (np.mean([table.values[by] for table in tables[side]], axis=0) for side in ("a", "b"))
    first = {side: tables[side][0] for side in tables}
    return [
        {
            "image_id": first["a"].image_ids[row],
            **({"file_name": first["a"].names[row]} if first["a"].names else {}),
            "a": float(a[row]),
            "b": float(b[row]),
            "difference": float(b[row] - a[row]),
            "caption_a": first["a"].captions[row],
            "caption_b": first["b"].captions[row],
        }
        for row in np.argsort(b - a, kind="stable")
    ]
