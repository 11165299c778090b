"""Store the scores of every image, and compute scores of a split, of some of its images, or of a bootstrap resample."""

import csv
import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from captioning.errors import DataError
from captioning.io import unopened
from captioning.metrics.bleu import bleu
from captioning.metrics.chair import SHARES, shares_of
from captioning.metrics.java import meteor

NAME, GROUP = "file_name", "group"  # columns of text, in this order, each only if it is known
# Scores that are not means over images: how to compute them from sums of counts over images.
FROM_COUNTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "BLEU": bleu,
    "METEOR": lambda counts: meteor(counts)[..., None],
    **{family: partial(shares_of, family) for family in SHARES},
}


class ScoreTable(NamedTuple):
    """A table of scores with one row per image, for I images.

    Attributes:
        image_ids: ids of the images.
        captions: the scored captions.
        values: name of a score ("BLEU-1", …, "CIDEr") -> [I] scores of the single images; nan for an image that a
            score of `chair` is not defined for.
        counts: "BLEU", "METEOR" or a family of `chair` -> [I, K] counts that add up over images.
        names: file names of the images, "" for an image without one; None if no file name is known.
        groups: groups of the images, such as the domains of nocaps, "" for an image without one; None if there are
            none.
    """

    image_ids: list[int | str]
    captions: list[str]
    values: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]
    names: list[str] | None = None
    groups: list[str] | None = None

    def totals(self, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Compute the scores of all images together.

        Args:
            weights: [B, I] how often each image counts in each of B resamples; None counts each image once.

        Returns:
            {score: [B]}; B is 1 without weights. A score that is not defined for these images is nan.
        """
        weights = np.ones((1, len(self.image_ids))) if weights is None else weights
        images = weights.sum(axis=1)
        means = {name: weights @ values / images for name, values in self.values.items()}
        for family, counts in self.counts.items():
            combined = FROM_COUNTS[family](weights @ counts)
            for order, name in enumerate(name for name in self.values if name.partition("-")[0] == family):
                means[name] = combined[..., order]
        return means

    def take(self, rows: np.ndarray) -> "ScoreTable":
        """Return the table of some images.

        Args:
            rows: indices of the images, in the order of the new table.
        """
        return ScoreTable(
            [self.image_ids[row] for row in rows],
            [self.captions[row] for row in rows],
            {name: values[rows] for name, values in self.values.items()},
            {family: counts[rows] for family, counts in self.counts.items()},
            None if self.names is None else [self.names[row] for row in rows],
            None if self.groups is None else [self.groups[row] for row in rows],
        )


def to_csv(table: ScoreTable) -> str:
    """Write a table as CSV; the result has everything that a comparison of two runs needs.

    The columns are image_id, caption, file_name and group (if known), one column per score, and the counts as BLEU:0,
    BLEU:1, …. The cell of a score that is not defined for an image is blank.
    """
    columns = dict(table.values)
    for family, counts in table.counts.items():
        columns |= {f"{family}:{column}": counts[:, column] for column in range(counts.shape[1])}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    texts = {"image_id": table.image_ids, "caption": table.captions, NAME: table.names, GROUP: table.groups}
    known = {name: column for name, column in texts.items() if column is not None}
    writer.writerow([*known, *columns])
    for row, numbers in zip(zip(*known.values(), strict=True), zip(*columns.values(), strict=True), strict=True):
        writer.writerow([*row, *("" if np.isnan(number) else f"{number:.10g}" for number in numbers)])
    return text.getvalue()


def from_csv(path: Path) -> ScoreTable:
    """Read a table that `to_csv` wrote.

    Raises:
        DataError: the file cannot be read, or is not such a table.
    """
    try:
        header, *rows = csv.reader(io.StringIO(path.read_bytes().decode("utf-8"), newline=""))
        if header[:2] != ["image_id", "caption"]:
            raise ValueError("the first columns must be image_id and caption")
        texts = {name: header.index(name) for name in (NAME, GROUP) if name in header[2:4]}
        first = 2 + len(texts)  # first column of numbers
        numbers = np.array([[float(cell) if cell else np.nan for cell in row[first:]] for row in rows])
        numbers = numbers.reshape(len(rows), len(header) - first)
        ids = [_image_id(row[0]) for row in rows]
        if not rows or len(set(ids)) < len(rows):
            raise ValueError("each image must have exactly one row, and there must be at least one image")
        blank = [name.partition("-")[0] in SHARES for name in header[first:]]  # columns that may have blank cells
        if len(set(header)) < len(header) or not (np.isfinite(numbers) | np.isnan(numbers) & blank).all():
            raise ValueError("a column is duplicated, or a number is not finite")
        names, groups = ([row[texts[name]] for row in rows] if name in texts else None for name in (NAME, GROUP))
        table = _table(ids, [row[1] for row in rows], dict(zip(header[first:], numbers.T, strict=True)))
        return table._replace(names=names, groups=groups)
    except (OSError, ValueError, IndexError, KeyError, csv.Error) as error:
        if advice := unopened(path, error):
            raise DataError(advice) from error
        raise DataError(f"cannot read {path} as a table of scores ({error}): score the captions again") from error


def _image_id(cell: str) -> int | str:
    if not cell.strip():
        raise ValueError("an image id is empty")
    return int(cell) if cell.isascii() and cell.isdecimal() else cell


def _table(image_ids: list[int | str], captions: list[str], columns: Mapping[str, np.ndarray]) -> ScoreTable:
    values = {name: column for name, column in columns.items() if ":" not in name}
    families = dict.fromkeys(name.partition(":")[0] for name in columns if ":" in name)
    counts = {
        family: np.column_stack([column for name, column in columns.items() if name.startswith(f"{family}:")])
        for family in families
    }
    if unknown := counts.keys() - FROM_COUNTS.keys():
        raise ValueError(f"unknown counts {', '.join(sorted(unknown))}")
    for family, counted in counts.items():
        orders = sum(name.partition("-")[0] == family for name in values)
        wanted = {"METEOR": 23} | {each: max(map(max, pairs)) + 1 for each, pairs in SHARES.items()}
        if counted.shape[1] != wanted.get(family, 2 * orders + 2) or orders != len(SHARES.get(family, range(orders))):
            raise ValueError(f"{counted.shape[1]} columns of counts for {orders} scores of {family}")
    return ScoreTable(image_ids, captions, values, counts)
