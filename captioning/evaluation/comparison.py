"""Compare two runs (or sets of runs) on the same images: scores, their differences, and the images that differ most."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from captioning.errors import DataError
from captioning.evaluation.identity import ImageTexts, listed, pair
from captioning.evaluation.results import read_fingerprint, read_models, read_tokenizer
from captioning.metrics import LOWER_IS_BETTER, ScoreTable, bootstrap, from_csv

Tables = dict[str, list[ScoreTable]]  # for the sides "a" and "b", one table per run


def read_tables(a: str | Path, b: str | Path) -> Tables:
    """Read the per-image scores in two folders that `captioning-evaluate` or `captioning-score` wrote.

    Args:
        a: the first folder.
        b: the second folder.

    Returns:
        The tables of both, with their images in the same order.

    Raises:
        DataError: a table is missing, or the two have different images, different references, or scores of different
            models.
    """
    read = {side: [from_csv(Path(path) / "per_image.csv")] for side, path in (("a", a), ("b", b))}
    runs = {"a": [str(a)], "b": [str(b)]}
    tables = aligned(read, runs)
    same_tokenizers({side: [read_tokenizer(Path(path)) for path in paths] for side, paths in runs.items()}, runs)
    same_references({side: [read_fingerprint(Path(path)) for path in paths] for side, paths in runs.items()}, runs)
    same_models({side: [read_models(Path(path)) for path in paths] for side, paths in runs.items()}, runs)
    return tables


def aligned(tables: Tables, runs: Mapping[str, Sequence[str]]) -> Tables:
    """Bring all tables into the order of the first table's images.

    Images are matched by file name if both tables have file names, by image id otherwise (`evaluation.pair`).

    Args:
        tables: the tables of both sides.
        runs: the name of each table, for error messages.

    Raises:
        DataError: the tables have different images, or file names and image ids contradict each other.
    """
    first, result = _images(tables["a"][0]), Tables()
    for side, found in tables.items():
        result[side] = []
        for table, path in zip(found, runs[side], strict=True):
            files = (path, runs["a"][0])
            paired = pair(rows := _images(table), first, files=files)
            odd = [rows[row] for row in paired.extra] + [first[row] for row in paired.missing]
            if odd:
                images = listed(odd, range(len(odd)))
                raise DataError(
                    f"'{runs['a'][0]}' and '{path}' have scores of different images: {images}. Score both on the same "
                    "images"
                )
            result[side].append(table.take(np.array([paired.rows[row] for row in range(len(first))])))
    return result


def same_tokenizers(names: Mapping[str, Sequence[str | None]], runs: Mapping[str, Sequence[str]]) -> None:
    """Refuse to compare scores of different tokenizers, because they differ even for the same captions.

    Args:
        names: names of the tokenizers: for the sides "a" and "b" one per run, None for a run without one. "java" and
            "ptb" have the same tokens.
        runs: the name of each run, for error messages.

    Raises:
        DataError: two tokenizers differ.
    """
    known = [(path, name) for side in names for path, name in zip(runs[side], names[side], strict=True) if name]
    same = {"java": "ptb", "python": "ptb"}  # "python": the name of ptb in version 0.1
    if odd := [each for each in known if same.get(each[1], each[1]) != same.get(known[0][1], known[0][1])]:
        (first, name), (path, other) = known[0], odd[0]
        raise DataError(
            f"'{first}' has scores of the tokenizer {name}, but '{path}' of {other}. Score both with the same "
            "metrics.tokenizer, then compare"
        )


def same_references(marks: Mapping[str, Sequence[str | None]], runs: Mapping[str, Sequence[str]]) -> None:
    """Refuse to compare scores against different references, because they differ even for the same captions.

    Args:
        marks: fingerprints of the references: for the sides "a" and "b" one per run, None for a run without one.
        runs: the name of each run, for error messages.

    Raises:
        DataError: two fingerprints differ.
    """
    known = [(path, mark) for side in marks for path, mark in zip(runs[side], marks[side], strict=True) if mark]
    if odd := [path for path, mark in known if mark != known[0][1]]:
        raise DataError(
            f"'{known[0][0]}' and '{odd[0]}' were scored against different references. Score both against the same "
            "annotations, then compare"
        )


def same_models(models: Mapping[str, Sequence[Mapping[str, str]]], runs: Mapping[str, Sequence[str]]) -> None:
    """Refuse to compare scores that look at the image, or at annotated objects, if these or the models differ.

    Args:
        models: for the sides "a" and "b" one {score: model and weights} per run (`metrics.Report.models`).
        runs: the name of each run, for error messages.

    Raises:
        DataError: two runs have the same score from different models.
    """
    first: dict[str, tuple[str, str]] = {}
    for side, found in models.items():
        for path, used in zip(runs[side], found, strict=True):
            for score, model in used.items():
                other, its_model = first.setdefault(score, (path, model))
                if its_model != model:
                    advice = "instances=FILE" if score == "CHAIR" else "model and weights"
                    raise DataError(
                        f"'{other}' has the {score} of {its_model}, '{path}' that of {model}: they cannot be compared. "
                        f"Score both with the same {advice}"
                    )


def matched_by(tables: Tables) -> str:
    """Return what the images of `aligned` tables were matched by: "file name" or "image id"."""
    named = [[bool(name) for name in table.names or [""]] for found in tables.values() for table in found]
    if all(map(all, named)):
        return "file name"
    return "file name, or image id where a file name is missing" if all(map(any, named)) else "image id"


def _images(table: ScoreTable) -> list[ImageTexts]:
    names = table.names or [""] * len(table.image_ids)
    return [ImageTexts(key, name or None, []) for key, name in zip(table.image_ids, names, strict=True)]


def compared(tables: Tables, *, resamples: int = 1000, seed: int = 0) -> dict[str, bootstrap.Comparison]:
    """Compute each score of both sides, and the interval of their difference by paired bootstrap.

    Args:
        tables: `aligned` tables.
        resamples: number of resamples of the images.
        seed: of the resamples.
    """
    return bootstrap.paired_bootstrap(tables["a"], tables["b"], resamples=resamples, seed=seed)


def describe_comparison(scores: Mapping[str, bootstrap.Comparison], tables: Tables, *, resamples: int = 1000) -> str:
    """Format a comparison as a printable table."""
    legend = f"  better: share of {resamples} bootstrap resamples of the images in which this side scores higher"
    if lower := [name for name in scores if name in LOWER_IS_BETTER]:
        legend += f" (lower for {' and '.join(lower)})"
    return "\n".join([*comparison_rows(scores, tables), legend])


def comparison_rows(scores: Mapping[str, bootstrap.Comparison], tables: Tables) -> list[str]:
    """Return the lines of the printable table, without what its columns mean."""
    width = max([10, *(len(name) + 1 for name in scores)])
    lines = [f"  {'':<{width}}{'A':>9}{'B':>9}{'B - A':>10}   95 % interval       A better  B better"]
    for name, row in scores.items():
        lines.append(
            f"  {name:<{width}}{row.a:9.4f}{row.b:9.4f}{row.b - row.a:+10.4f}   {row.low:+.4f} … {row.high:+.4f}"
            f"{row.a_better:10.1%}{row.b_better:10.1%}"
        )
    for side, found in tables.items():
        if len(found) > 1:
            spread = {name: np.std([table.totals()[name][0] for table in found], ddof=1) for name in scores}
            deviations = ", ".join(f"{name} {value:.4f}" for name, value in spread.items())
            lines.append(
                f"  {side.upper()} is the mean of {len(found)} runs; standard deviation of the runs: {deviations}"
            )
    return lines


def differences(tables: Tables, by: str) -> list[dict[str, Any]]:
    """List the images with both scores and captions, sorted by the difference B - A.

    An image that a score is not defined for is left out.

    Args:
        tables: `aligned` tables; scores are means over the runs of a side, captions those of its first run.
        by: the score to compare, for example "CIDEr".
    """
    a, b = (np.mean([table.values[by] for table in tables[side]], axis=0) for side in ("a", "b"))
    first = {side: tables[side][0] for side in tables}
    return [
        {
            "image_id": first["a"].image_ids[row],
            **({"file_name": first["a"].names[row]} if first["a"].names else {}),
            **({"group": first["a"].groups[row]} if first["a"].groups else {}),
            "a": float(a[row]),
            "b": float(b[row]),
            "difference": float(b[row] - a[row]),
            "caption_a": first["a"].captions[row],
            "caption_b": first["b"].captions[row],
        }
        for row in np.argsort(b - a, kind="stable")
        if np.isfinite(a[row]) and np.isfinite(b[row])
    ]
