"""Measure whether attention is on the named objects: pointing and attention mass inside their boxes or masks.

A word of the caption names a category. The region is the union of all instances of this category in the image, as boxes
or as masks. Attention is one weight per cell of a grid, and is assumed to be uniform within a cell. The definitions are
in docs/maps.md. Coordinates are pixels of the image; (0, 0) is the outer corner of the first pixel.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import erf, isqrt, sqrt
from typing import Any, NamedTuple

import numpy as np

from captioning.metrics.mentions import Mention, Phrases, find_mentions
from captioning.metrics.regions import Rectangle, Region, area_share, box_region, cell_shares, contains, mask_region

SPREAD = 0.25  # standard deviation of the center prior, as a share of the image's side
RIVALS = ("uniform", "centre")
MEASURES = ("pointing box", "pointing mask", "mass box", "mass mask")


class AnnotatedThing(NamedTuple):
    """One annotated object.

    Attributes:
        category: name of the category.
        box: (x, y, width, height) in pixels.
        segmentation: COCO segmentation: polygons or run lengths.
    """

    category: str
    box: tuple[float, float, float, float]
    segmentation: list | dict


class Grounded(NamedTuple):
    """A mention of a category in a caption, with its measures.

    Attributes:
        mention: the words and their category.
        phrase: the words as text.
        measures: {"attention pointing box": …, "chance box": …, …}, with the measures of each map under its name; None
            if the image has no such object.
    """

    mention: Mention
    phrase: str
    measures: dict[str, float] | None


def center_prior(*, box: Rectangle, grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Return the attention weights of a model that always looks at the center of the image.

    They are a Gaussian around the image's center, integrated over each cell.

    Args:
        box: the region that the grid covers, in pixels.
        grid: (H, W) of the grid.
        size: (width, height) of the image.

    Returns:
        [L] weights with sum 1.
    """

    def masses(first: float, last: float, cells: int, side: int) -> np.ndarray:
        ends = (np.linspace(first, last, cells + 1) - side / 2) / (SPREAD * side * sqrt(2))
        return np.diff([erf(end) for end in ends])

    weights = np.outer(masses(box[1], box[3], grid[0], size[1]), masses(box[0], box[2], grid[1], size[0])).ravel()
    return weights / weights.sum()


def pointing(weights: np.ndarray, region: Region, *, box: Rectangle, grid: tuple[int, int]) -> float:
    """Score one map in the pointing game (Zhang et al. 2016), without their tolerance.

    The score is 1 if the center of the cell with the largest weight is inside the region, and 0 otherwise. If several
    cells share the largest weight (up to 1 in 10⁶), it is the mean over these cells, the expected score of a random
    choice. Without any weight on the image it is 0.

    Args:
        weights: [L] attention weights.
        region: the region of the object.
        box: the region that the grid covers, in pixels.
        grid: (H, W) of the grid.
    """
    if not weights.any():
        return 0.0
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
    name: str = "attention",
    others: Mapping[str, np.ndarray] | None = None,
) -> list[Grounded]:
    """Measure every mention of a category in one caption; a phrase of several words has the mean of their weights.

    Args:
        tokens: the T words of the caption.
        weights: [T, L] attention weights, one row per word; the L = H·W cells are in row-major order.
        places: [T] the cell that hard attention selected for each word, which then has all the weight (L: none of them,
            so that the word has no weight on the image); None for soft attention.
        box: the region that the grid covers, in pixels; it may be larger or smaller than the image.
        size: (width, height) of the image.
        things: annotated objects of the image, with the attributes of `AnnotatedThing`.
        phrases: result of `compile_phrases`.
        grid: (H, W) of the grid; None for a square.
        name: name of this map in the measures.
        others: {name: [T, L] weights} of further maps of the same words.

    Raises:
        ValueError: the weights do not fit the words or the grid.
    """
    maps = {name: np.asarray(weights)} | {key: np.asarray(each) for key, each in (others or {}).items()}
    side = isqrt(maps[name].shape[1])
    grid = grid or (side, side)
    for each in maps.values():
        if len(each) != len(tokens) or each.shape[1] != grid[0] * grid[1]:
            raise ValueError(f"weights {each.shape} do not fit {len(tokens)} words and a grid of {grid}")
    maps[name] = looked_at(maps[name], places)
    rulers: dict[str, list[Callable]] = {}
    grounded = []
    for mention in find_mentions(tokens, phrases):
        here = [thing for thing in things if thing.category == mention.category]
        if here and mention.category not in rulers:
            rulers[mention.category] = _rulers(here, box=box, grid=grid, size=size)
        phrase = " ".join(tokens[mention.start : mention.stop])
        looked = {key: np.asarray(each, float)[mention.start : mention.stop].mean(0) for key, each in maps.items()}
        measures = None
        if here:
            measures = {key: value for ruler in rulers[mention.category] for key, value in ruler(looked).items()}
        grounded.append(Grounded(mention, phrase, measures))
    return grounded


def looked_at(weights: np.ndarray, places: Sequence[int] | None) -> np.ndarray:
    """Return weights [T, L] in which the locations that hard attention chose have all the weight."""
    return weights if places is None else np.eye(weights.shape[1] + 1)[np.asarray(places), :-1]


def _rulers(things: Sequence[Any], *, box: Rectangle, grid: tuple[int, int], size: tuple[int, int]) -> list[Callable]:
    """Return two functions from {name: weights} to measures, for boxes and for masks.

    Constant measures are computed once.
    """
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

        def measure_all(maps: Mapping[str, np.ndarray]) -> dict[str, float]:
            found = [measure(name, weights) for name, weights in maps.items()]
            return {key: value for measures in found for key, value in measures.items()} | fixed

        return measure_all

    return [ruler(kind, region) for kind, region in regions.items()]


# Over a split


def summarize(grounded: Mapping[int, Sequence[Grounded]], *, samples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Average the measures over all mentions of present objects, with 95 % intervals by a bootstrap over images.

    Args:
        grounded: image id -> mentions of its caption.
        samples: number of bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        A dictionary of plain values with the keys "images", "images with scored words", "words", "hallucinated",
        "means", "differences" and "categories". "means" and "differences" are {row: {measure: {"mean", "low",
        "high"}}}, or None if no mention has measures. Each map is compared with the first one and with each rival.
    """
    every = [each for mentions in grounded.values() for each in mentions]
    scored = {image_id: [e.measures for e in own if e.measures] for image_id, own in grounded.items()}
    scored = {image_id: measures for image_id, measures in scored.items() if measures}
    summary: dict[str, Any] = {
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


def _means(images: Sequence[Sequence[Mapping[str, float]]], *, samples: int, seed: int) -> dict[str, Any]:
    names = list(images[0][0])
    ending = f" {MEASURES[0]}"
    maps = [looker for name in names if (looker := name.removesuffix(ending)) not in (name, *RIVALS)]
    rivals = (*RIVALS, "chance")
    pairs = [(name, maps[0]) for name in maps[1:]] + [(name, rival) for name in maps for rival in rivals]
    # One row per image: the sum of each measure over its mentions, and the number of mentions.
    totals = np.array([[*np.sum([[m[name] for name in names] for m in own], axis=0), len(own)] for own in images])

    def means(totals: np.ndarray) -> np.ndarray:
        sums = totals.sum(axis=0)
        values = dict(zip(names, sums[:-1] / sums[-1], strict=True))
        rows = {
            looker: np.array([values[f"{looker} {measure}"] for measure in MEASURES]) for looker in (*maps, *RIVALS)
        }
        # The region's share of the image area is both the chance that a random point hits, and the mass of uniform
        # attention inside.
        rows["chance"] = np.array([values[f"chance {measure.split()[1]}"] for measure in MEASURES])
        return np.array([*rows.values(), *(rows[one] - rows[other] for one, other in pairs)])

    means_, (low, high) = means(totals), interval(totals, means, samples=samples, seed=seed)
    rows = [*maps, *rivals, *(f"{one} - {other}" for one, other in pairs)]
    table = {
        row: {
            measure: {"mean": float(m), "low": float(a), "high": float(b)}
            for measure, m, a, b in zip(MEASURES, *values, strict=True)
        }
        for row, *values in zip(rows, means_, low, high, strict=True)
    }
    return {
        "means": {row: table[row] for row in (*maps, *rivals)},
        "differences": {row: table[row] for row in rows[len(maps) + len(rivals) :]},
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
    """Compute the 95 % percentile bootstrap interval of a statistic; rows are drawn with replacement.

    Args:
        values: [N, …]; rows must be independent (images, not words).
        statistic: function from rows to a number or array.
        samples: number of resamples.
        seed: seed of the resamples.

    Returns:
        The lower and the upper end of the interval.
    """
    random = np.random.default_rng(seed)
    drawn = [statistic(values[random.integers(0, len(values), len(values))]) for _ in range(samples)]
    low, high = np.percentile(np.array(drawn), [2.5, 97.5], axis=0)
    return low, high
