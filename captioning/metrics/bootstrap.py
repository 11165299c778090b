"""Estimate confidence intervals by a bootstrap over images (Efron 1979), also paired (Koehn, EMNLP 2004).

Images are drawn with replacement; BLEU and METEOR are computed anew from the added counts of each resample. CIDEr's
document frequencies stay those of the whole split, and a run's training seed is not part of what is drawn.

An interval is the middle 95 % of the resampled scores (the percentile method). For few images it is too narrow. It
contains the true mean of normally distributed scores with probability 0.90 for 10 images, 0.93 for 20, 0.94 for 50 and
0.95 for 100; of scores as skewed as an exponential distribution with 0.86 for 10, 0.90 for 20, 0.93 for 50 and 0.94 for
200.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from captioning.metrics.table import ScoreTable

_CHUNK = 50  # resamples at a time: 50 × 40 504 images are 16 MB


class Comparison(NamedTuple):
    """One metric of two runs on the same images."""

    a: float
    b: float
    low: float  # 95 % interval of b - a
    high: float
    a_better: float  # share of resamples in which a is above b
    b_better: float


def intervals(
    table: ScoreTable, *, resamples: int, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """(low, high) of each score: the middle `level` of the resampled scores."""
    drawn = _resampled([table], resamples, seed)[0]
    edges = [50 * (1 - level), 50 * (1 + level)]
    return {name: tuple(np.percentile(values, edges).tolist()) for name, values in drawn.items()}


def paired_bootstrap(
    a: Sequence[ScoreTable], b: Sequence[ScoreTable], *, resamples: int, seed: int = 0
) -> dict[str, Comparison]:
    """Two systems on the same resamples of the same images; of several runs (seeds) of a system, the mean counts.

    All tables must have the same images in the same order. Scores that not all of them have are left out.
    """
    names = [name for name in a[0].values if all(name in table.values for table in [*a, *b])]
    drawn = _resampled([*a, *b], resamples, seed)
    whole = [table.totals() for table in [*a, *b]]
    result = {}
    for name in names:
        ours, theirs = _mean(drawn[: len(a)], name), _mean(drawn[len(a) :], name)
        low, high = np.percentile(theirs - ours, [2.5, 97.5])
        totals = [_mean(part, name).item() for part in (whole[: len(a)], whole[len(a) :])]
        result[name] = Comparison(
            *totals, float(low), float(high), float((ours > theirs).mean()), float((theirs > ours).mean())
        )
    return result


def _mean(scores: Sequence[dict[str, np.ndarray]], name: str) -> np.ndarray:
    return np.mean([values[name] for values in scores], axis=0)


def _resampled(tables: Sequence[ScoreTable], resamples: int, seed: int) -> list[dict[str, np.ndarray]]:
    """For each table {score: [resamples]}, all on the same resamples."""
    parts: list[list[dict[str, np.ndarray]]] = [[] for _ in tables]
    for weights in _weights(len(tables[0].image_ids), resamples, seed):
        for part, table in zip(parts, tables, strict=True):
            part.append(table.totals(weights))
    return [{name: np.concatenate([chunk[name] for chunk in part]) for name in part[0]} for part in parts]


def _weights(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """[at most CHUNK, images] how often each image was drawn."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        drawn = generator.integers(0, images, size=(size, images)) + np.arange(size)[:, None] * images
        yield np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images).astype(float)
