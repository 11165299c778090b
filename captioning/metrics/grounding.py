"""Measure whether attention looks at the named objects: pointing and mass inside their boxes or masks.

A caption's word names a category; the region is the union of all instances of that category in the picture, as boxes
or as masks. Attention is one weight a cell of a grid; within a cell it is taken to be even. docs/grounding.md has the
definitions. Coordinates are pixels of the picture, (0, 0) the outer corner of the first pixel.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import erf, isqrt, sqrt
from typing import Any, NamedTuple

import numpy as np

from captioning.metrics.mentions import Mention, Phrases, find_mentions
from captioning.metrics.regions import Rectangle, Region, area_share, box_region, cell_shares, contains, mask_region

SPREAD = 0.25  # standard deviation of the centre prior, in sides of the picture
LOOKERS = ("attention", "uniform", "centre")
MEASURES = ("pointing box", "pointing mask", "mass box", "mass mask")


class AnnotatedThing(NamedTuple):
    """One instance: category, box (x, y, width, height), COCO segmentation (polygons or run lengths)."""

    category: str
    box: tuple[float, float, float, float]
    segmentation: list | dict


class Grounded(NamedTuple):
    """One mention and its measures, {"attention pointing box": …, "chance box": …}; None where the category is not in
    the picture."""

    mention: Mention
    phrase: str
    measures: dict[str, float] | None


def center_prior(*, box: Rectangle, grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """[P] weights that always look at the middle: a Gaussian about the picture's centre, integrated over each cell."""

    def masses(first: float, last: float, cells: int, side: int) -> np.ndarray:
        ends = (np.linspace(first, last, cells + 1) - side / 2) / (SPREAD * side * sqrt(2))
        return np.diff([erf(end) for end in ends])

    weights = np.outer(masses(box[1], box[3], grid[0], size[1]), masses(box[0], box[2], grid[1], size[0])).ravel()
    return weights / weights.sum()


def pointing(weights: np.ndarray, region: Region, *, box: Rectangle, grid: tuple[int, int]) -> float:
    """Pointing game (Zhang et al. 2016), without their tolerance: 1 if the centre of the cell of the largest weight
    lies inside, else 0. Of cells that share the largest weight (to 1 in 10⁶), the mean: what a random choice hits."""
    peaks = np.flatnonzero(weights >= weights.max() * (1 - 1e-6))
    rows, columns = np.divmod(peaks, grid[1])
    x = box[0] + (columns + 0.5) * (box[2] - box[0]) / grid[1]
    y = box[1] + (rows + 0.5) * (box[3] - box[1]) / grid[0]
    return float(contains(region, x, y).mean())


def ground_caption(
    tokens: Sequence[str],
    weights: np.ndarray,
    *,
    places: Sequence[int] | None = None,
    box: Rectangle,
    size: tuple[int, int],
    things: Sequence[AnnotatedThing | Any],
    phrases: Phrases,
    grid: tuple[int, int] | None = None,
) -> list[Grounded]:
    """Every mention of a category in one caption, measured. A phrase of several words has the mean of their weights.

    Args:
        tokens: T words.
        weights: [T, P] attention weights, a row a word; P = H·W cells, row by row.
        places: [T] the one cell that hard attention looked at for each word, which then has all the weight.
        box: the region that the grid covers; it may reach beyond the picture or leave part of it out.
        size: (width, height) of the picture.
        things: instances in it, `Thing`s or alike.
        phrases: of `compile_phrases`.
        grid: (H, W); a square by default.

    Raises:
        ValueError: weights do not fit the words or the grid.
    """
    weights = np.asarray(weights, dtype=np.float64)
    side = isqrt(weights.shape[1])
    grid = grid or (side, side)
    if len(weights) != len(tokens) or weights.shape[1] != grid[0] * grid[1]:
        raise ValueError(f"weights {weights.shape} do not fit {len(tokens)} words and a grid of {grid}")
    if places is not None:
        weights = np.eye(weights.shape[1])[np.asarray(places)]
    rulers, grounded = {}, []
    for mention in find_mentions(tokens, phrases):
        here = [thing for thing in things if thing.category == mention.category]
        if here and mention.category not in rulers:
            rulers[mention.category] = _rulers(here, box=box, grid=grid, size=size)
        phrase = " ".join(tokens[mention.start : mention.stop])
        looked = weights[mention.start : mention.stop].mean(0)
        measures = None
        if here:
            measures = {name: value for ruler in rulers[mention.category] for name, value in ruler(looked).items()}
        grounded.append(Grounded(mention, phrase, measures))
    return grounded


def _rulers(things: Sequence[Any], *, box: Rectangle, grid: tuple[int, int], size: tuple[int, int]) -> list[Callable]:
    """For the boxes and for the masks: weights -> measures. What depends on the things alone is computed once."""
    regions = {
        "box": box_region((thing.box for thing in things), size),
        "mask": mask_region((thing.segmentation for thing in things), size),
    }
    places = grid[0] * grid[1]
    rivals = {"uniform": np.full(places, 1 / places), "centre": center_prior(box=box, grid=grid, size=size)}

    def ruler(kind: str, region: Region) -> Callable:
        shares = cell_shares(region, box=box, grid=grid)

        def measure(looker: str, weights: np.ndarray) -> dict[str, float]:
            hit = pointing(weights, region, box=box, grid=grid)
            return {f"{looker} pointing {kind}": hit, f"{looker} mass {kind}": float(weights @ shares)}

        fixed = {f"chance {kind}": area_share(region, size)}
        for looker, weights in rivals.items():
            fixed |= measure(looker, weights)
        return lambda weights: measure("attention", weights) | fixed

    return [ruler(kind, region) for kind, region in regions.items()]


# Over a split


def summarize(grounded: Mapping[int, Sequence[Grounded]], *, samples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Means over all mentions that are in their picture, with 95 % intervals by bootstrap over pictures.

    Args:
        grounded: image id -> its caption's mentions.
        samples, seed: of the bootstrap.

    Returns:
        {"images", "images with scored words", "words", "hallucinated", "means", "differences", "categories"}, plain
        values; means and differences are {looker: {measure: {"mean", "low", "high"}}}, None with no word to score.
    """
    every = [each for mentions in grounded.values() for each in mentions]
    scored = {image_id: [e.measures for e in own if e.measures] for image_id, own in grounded.items()}
    scored = {image_id: measures for image_id, measures in scored.items() if measures}
    summary = {
        "images": len(grounded),
        "images with scored words": len(scored),
        "words": sum(map(len, scored.values())),
        "hallucinated": sum(each.measures is None for each in every),
        "means": None,
        "differences": None,
        "categories": _by_category(every),
    }
    if scored:
        summary |= _means(list(scored.values()), samples=samples, seed=seed)
    return summary


def _means(pictures: Sequence[Sequence[Mapping[str, float]]], *, samples: int, seed: int) -> dict[str, Any]:
    names = list(pictures[0][0])
    # A row a picture: the sum of each measure over its mentions, and their number.
    totals = np.array([[*np.sum([[m[name] for name in names] for m in own], axis=0), len(own)] for own in pictures])

    def means(totals: np.ndarray) -> np.ndarray:
        sums = totals.sum(axis=0)
        values = dict(zip(names, sums[:-1] / sums[-1], strict=True))
        table = [[values[f"{looker} {measure}"] for measure in MEASURES] for looker in LOOKERS]
        # A point at random hits by its region's share of the area, and so much even attention has inside.
        table.append([values[f"chance {measure.split()[1]}"] for measure in MEASURES])
        return np.array([*table, *(np.array(table[0]) - row for row in table[1:])])

    means_, (low, high) = means(totals), interval(totals, means, samples=samples, seed=seed)
    rows = [*LOOKERS, "chance", *(f"attention - {rival}" for rival in (*LOOKERS[1:], "chance"))]
    table = {
        row: {
            measure: {"mean": float(m), "low": float(a), "high": float(b)}
            for measure, m, a, b in zip(MEASURES, *values, strict=True)
        }
        for row, *values in zip(rows, means_, low, high, strict=True)
    }
    return {
        "means": {row: table[row] for row in rows[:4]},
        "differences": {row: table[row] for row in rows[4:]},
    }


def _by_category(every: Iterable[Grounded]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Grounded]] = {}
    for each in every:
        groups.setdefault(each.mention.category, []).append(each)
    result = {}
    for category, mentions in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        scored = [each.measures for each in mentions if each.measures]
        means = {name: float(np.mean([m[name] for m in scored])) for name in (scored[0] if scored else ())}
        result[category] = {"words": len(scored), "hallucinated": len(mentions) - len(scored), **means}
    return result


def interval(
    values: np.ndarray, statistic: Callable[[np.ndarray], Any], *, samples: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile bootstrap interval (low, high) of a statistic over rows that are drawn with replacement.

    Args:
        values: [N, …]; rows are independent (pictures, not words).
        statistic: rows -> number or array.
    """
    random = np.random.default_rng(seed)
    drawn = [statistic(values[random.integers(0, len(values), len(values))]) for _ in range(samples)]
    low, high = np.percentile(np.array(drawn), [2.5, 97.5], axis=0)
    return low, high
