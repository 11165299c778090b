"""Estimate confidence intervals by a bootstrap over images (Efron 1979), also paired (Koehn, EMNLP 2004).

Images are drawn with replacement. For each resample, BLEU and METEOR are computed from the sums of its counts. CIDEr's
document frequencies stay those of all images of the split. The intervals do not include the variation between training
seeds. A resample for which a score is not defined, such as CHAIR-i of captions that name no object, is left out.

An interval is the middle 95 % of the resampled scores (the percentile method). For few images it is too narrow. For
normally distributed scores, it contains the true mean with probability 0.90 for 10 images, 0.93 for 20, 0.94 for 50 and
0.95 for 100. For scores as skewed as an exponential distribution, the probability is 0.86 for 10 images, 0.90 for 20,
0.93 for 50 and 0.94 for 200.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from captioning.metrics.chair import LOWER_IS_BETTER
from captioning.metrics.table import ScoreTable

_CHUNK = 50  # resamples at a time; for 40 504 images, 50 of them take 16 MB


class Comparison(NamedTuple):
    """A comparison of two runs by one metric, on the same images.

    Attributes:
        a: score of run a.
        b: score of run b.
        low: lower end of the 95 % interval of b - a.
        high: upper end of this interval.
        a_better: share of the resamples in which a scores higher than b; lower, for scores of `LOWER_IS_BETTER`.
        b_better: share of the resamples in which b does.
    """

    a: float
    b: float
    low: float
    high: float
    a_better: float
    b_better: float


def intervals(
    table: ScoreTable, *, resamples: int, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Compute a confidence interval for each score of a table.

    Args:
        table: scores per image.
        resamples: number of resamples.
        seed: seed of the resamples.
        level: share of the resampled scores that the interval contains.

    Returns:
        {score: (low, high)}; without scores that are not defined for these images.
    """
    drawn = _resampled([table], resamples, seed)[0]
    edges = [50 * (1 - level), 50 * (1 + level)]
    defined = {name: values[np.isfinite(values)] for name, values in drawn.items()}
    return {name: tuple(np.percentile(values, edges).tolist()) for name, values in defined.items() if len(values)}


def paired_bootstrap(
    a: Sequence[ScoreTable], b: Sequence[ScoreTable], *, resamples: int, seed: int = 0
) -> dict[str, Comparison]:
    """Compare two systems on the same resamples of the same images.

    All tables must have the same images in the same order. Only scores that all tables have are compared, and that are
    defined for all of them.

    Args:
        a: tables of the runs (seeds) of one system; their mean score counts.
        b: tables of the runs of the other system.
        resamples: number of resamples.
        seed: seed of the resamples.

    Returns:
        {score: `Comparison`}.
    """
    names = [name for name in a[0].values if all(name in table.values for table in [*a, *b])]
    drawn = _resampled([*a, *b], resamples, seed)
    whole = [table.totals() for table in [*a, *b]]
    result = {}
    for name in names:
        ours, theirs = _mean(drawn[: len(a)], name), _mean(drawn[len(a) :], name)
        of_a, of_b = (_mean(part, name).item() for part in (whole[: len(a)], whole[len(a) :]))
        defined = np.isfinite(theirs - ours)
        if not np.isfinite([of_a, of_b]).all() or not defined.any():
            continue
        ours, theirs = ours[defined], theirs[defined]
        low, high = np.percentile(theirs - ours, [2.5, 97.5])
        shares = [float((ours > theirs).mean()), float((theirs > ours).mean())]
        a_better, b_better = reversed(shares) if name in LOWER_IS_BETTER else shares
        result[name] = Comparison(of_a, of_b, float(low), float(high), a_better, b_better)
    return result


def _mean(scores: Sequence[dict[str, np.ndarray]], name: str) -> np.ndarray:
    return np.mean([values[name] for values in scores], axis=0)


def _resampled(tables: Sequence[ScoreTable], resamples: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Return {score: [resamples]} for each table; all tables use the same resamples."""
    parts: list[list[dict[str, np.ndarray]]] = [[] for _ in tables]
    for weights in _weights(len(tables[0].image_ids), resamples, seed):
        for part, table in zip(parts, tables, strict=True):
            part.append(table.totals(weights))
    return [{name: np.concatenate([chunk[name] for chunk in part]) for name in part[0]} for part in parts]


def _weights(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield [at most _CHUNK, images]: how often each image was drawn in each resample."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        drawn = generator.integers(0, images, size=(size, images)) + np.arange(size)[:, None] * images
        yield np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images).astype(float)
