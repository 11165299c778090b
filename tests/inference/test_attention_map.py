"""Attention of several crops on one map: exact areas, by rectangles intersected one by one with whole numbers."""

from fractions import Fraction
from math import prod

import numpy as np
import pytest

from captioning.data import Box
from captioning.inference.attention_map import cover, merge_crops

# Overlapping, apart, one within another, of several shapes; none begins at 0.
BOXES = [Box(10, 20, 70, 50), Box(30, 20, 90, 80), Box(12, 35, 24, 47), Box(40, 60, 50, 100)]
WHOLE = (10, 20, 90, 100)


def cells(box, grid: tuple[int, int]):
    """(left, top, right, bottom) of the cells of a box, row by row, as fractions."""
    left, top, right, bottom = map(Fraction, box)
    rows, columns = grid
    for row in range(rows):
        for column in range(columns):
            yield (
                left + (right - left) * column / columns,
                top + (bottom - top) * row / rows,
                left + (right - left) * (column + 1) / columns,
                top + (bottom - top) * (row + 1) / rows,
            )


def area_in_common(one, other) -> Fraction:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, Fraction(0)) * max(height, Fraction(0))


def shares_by_rectangles(boxes, whole, grid: tuple[int, int]) -> np.ndarray:
    rows = []
    for box in boxes:
        for place in cells(box, grid):
            rows.append(
                [float(area_in_common(place, cell) / area_in_common(place, place)) for cell in cells(whole, grid)]
            )
    return np.array(rows)


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (3, 3), (5, 5), (1, 4), (2, 3), (5, 2)])
def test_shares_are_areas_in_common(grid):
    found = cover(BOXES, Box(*WHOLE), grid=grid)
    assert found.shape == (4 * prod(grid), prod(grid))
    np.testing.assert_allclose(found, shares_by_rectangles(BOXES, WHOLE, grid), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.sum(1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("grid", [(3, 3), (1, 9), (9, 1)])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_weights_and_places_of_hard_attention_move_to_the_cells_they_cover(kind, grid):
    weights = np.random.default_rng(0).dirichlet(np.ones(37), size=37)[:, :36].astype(kind)  # the rest: a sentinel's
    places = np.arange(37)  # 36: the sentinel
    shares = shares_by_rectangles(BOXES, WHOLE, grid)
    merged, moved, box = merge_crops(weights, places, boxes=BOXES, grid=grid)
    assert box == Box(*WHOLE) and merged.dtype == kind and merged.shape == (37, 9)
    np.testing.assert_allclose(merged, weights @ shares, rtol=1e-5 if kind == np.float32 else 1e-12)
    np.testing.assert_allclose(merged.sum(1), weights.sum(1), rtol=1e-5)
    clear = [row for row in range(36) if np.sort(shares[row])[-1] > np.sort(shares[row])[-2] + 1e-9]
    assert len(clear) > 20
    assert [moved[row] for row in clear] == [shares[row].argmax() for row in clear] and moved[36] == 9
    assert merge_crops(weights, None, boxes=BOXES, grid=grid)[1] is None


def test_a_single_view_keeps_its_weights_and_places():
    weights = np.random.default_rng(1).random((5, 16))
    merged, places, box = merge_crops(weights, np.array([0, 5, 15, 16, 3]), boxes=[BOXES[0]], grid=(2, 8))
    assert box == BOXES[0] and places.tolist() == [0, 5, 15, 16, 3]
    np.testing.assert_allclose(merged, weights, rtol=1e-12)
