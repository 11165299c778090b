"""Attention maps number by number: the bicubic kernel, whole pixels, colours, marks; against loops over the pixels."""

import math

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from captioning.visualise.geometry import cell, cell_overlay, overlay, region_overlay, scale, seen, span
from captioning.visualise.maps import Maps, light


def kernel(x: float) -> float:
    """Keys's cubic convolution with a = −1/2, which reaches two cells to either side."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def mirrored(index: int, count: int) -> int:
    """A cell beyond the rim is the one as far inside."""
    while not 0 <= index < count:
        index = -1 - index if index < 0 else 2 * count - 1 - index
    return index


def smooth_along(at: float, count: int) -> dict[int, float]:
    """Shares of the cells in the value at a place, in cells from the box's edge; centres are at 1/2, 3/2, …"""
    shares: dict[int, float] = {}
    nearest = [math.floor(at - 0.5) + step for step in range(-2, 4)]
    total = sum(kernel(at - index - 0.5) for index in nearest)
    for index in nearest:
        place = mirrored(index, count)
        shares[place] = shares.get(place, 0.0) + kernel(at - index - 0.5) / total
    return shares


def smooth(weights, grid, box, size):
    drawn = np.zeros(size[::-1])
    for y in range(size[1]):
        for x in range(size[0]):
            if box[0] <= x + 0.5 < box[2] and box[1] <= y + 0.5 < box[3]:
                across = smooth_along((x + 0.5 - box[0]) / (box[2] - box[0]) * grid[1], grid[1])
                down = smooth_along((y + 0.5 - box[1]) / (box[3] - box[1]) * grid[0], grid[0])
                value = sum(weights[r][c] * a * b for r, a in down.items() for c, b in across.items())
                drawn[y, x] = max(value, 0.0)
    return drawn


@pytest.mark.parametrize("box", [(0, 0, 41, 29), (-6.4, 3.3, 33.7, 35.2), (4.6, -2.5, 60.2, 20.4)], ids=str)
@pytest.mark.parametrize("grid", [(3, 5), (1, 1), (2, 4)], ids=str)
def test_the_smooth_map_is_cubic_convolution(grid, box):
    weights = np.random.default_rng(0).dirichlet(np.ones(grid[0] * grid[1])).reshape(grid)
    for given in (weights, weights.flatten()):
        found = overlay(given, grid, box=box, size=(41, 29))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, smooth(weights, grid, box, (41, 29)), atol=2e-6)


def test_a_box_beside_the_picture_draws_nothing():
    for box in ((50, 0, 60, 20), (0, -30, 41, -5), (-9, 0, 0.5, 29), (0, 28.6, 41, 60)):
        for draw in (overlay, cell_overlay):
            drawn = draw(np.ones(4), (2, 2), box=box, size=(41, 29))
            assert drawn.shape == (29, 41) and not drawn.any()
        assert not seen(box, (41, 29)).any()


def test_even_weights_are_even_everywhere():
    np.testing.assert_allclose(overlay(np.full(6, 0.25), (2, 3), box=(0, 0, 30, 20), size=(30, 20)), 0.25, rtol=1e-6)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 10, (0, 10)),
        (0.5, 1.5, (0, 1)),  # a centre on the start belongs to it, one on the end does not
        (0.51, 1.51, (1, 2)),
        (-3, 4.2, (0, 4)),
        (7.5, 99, (7, 10)),
        (-5, -1, (0, 0)),
        (10, 12, (10, 10)),
        (3.6, 4.4, (4, 4)),
    ],
)
def test_the_pixels_of_a_span_are_those_whose_centres_it_holds(start, end, expected):
    found = span(start, end, 10)
    assert (found.start, found.stop) == expected
    assert list(range(10))[found] == [pixel for pixel in range(10) if start <= pixel + 0.5 < end]


def test_empty_spans_are_refused():
    for start, end in ((3, 3), (4, 3)):
        with pytest.raises(ValueError, match="an empty box"):
            span(start, end, 10)


def test_cells_in_the_coordinates_of_the_box():
    assert cell(0, (2, 4), (10, 20, 50, 30)) == (10, 20, 20, 25)
    assert cell(6, (2, 4), (10, 20, 50, 30)) == (30, 25, 40, 30)
    assert scale((1, 2, 3, 4), 10, 100) == (10, 200, 30, 400)
    assert seen((1.5, 0.6, 3.5, 9), (5, 4)).dtype == bool
    assert np.argwhere(seen((1.5, 0.6, 3.5, 9), (5, 4))).tolist() == [[y, x] for y in (1, 2, 3) for x in (1, 2)]


def test_regions_of_no_width_or_height_add_nothing():
    regions = [(2, 1, 2, 3), (1, 2, 3, 2), (3, 1, 2, 3), (1, 3, 2, 1), (0, 0, 2, 1)]
    drawn = region_overlay([1.0, 2.0, 4.0, 8.0, 16.0], regions, size=(4, 4))
    assert drawn.dtype == np.float32 and drawn.tolist() == [[16, 16, 0, 0], *[[0] * 4] * 3]


# Colours -------------------------------------------------------------------------------------------------------------


def percentile(values, share):
    """Linear between the two nearest of the sorted values."""
    values = sorted(values)
    at = share * (len(values) - 1)
    low = math.floor(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (at - low) * (values[high] - values[low])


def lit(picture, strength, inside):
    """`light` pixel by pixel."""
    width, height = picture.size
    grey_of = picture.convert("L").load()
    greys = {(x, y): (grey_of[x, y] / 255) ** 0.8 for x in range(width) for y in range(height)}
    low, high = percentile(greys.values(), 0.01), percentile(greys.values(), 0.99)
    middle, contrast = (low + high) / 2, min(max(0.5 / max(high - low, 0.25), 1), 2)
    expected = np.zeros((height, width, 3), int)
    for (x, y), grey in greys.items():
        grey = min(max(middle + (grey - middle) * contrast, 0), 1)
        s = min(max(float(strength[y, x]), 0), 1)
        if inside[y, x]:
            colour = [part * (0.62 + 0.38 * grey) for part in colormaps["inferno"](0.62 + (0.94 - 0.62) * s)[:3]]
            opacity = 0.92 * s**0.7
            values = [(0.05 + 0.34 * grey) * (1 - opacity) + part * opacity for part in colour]
        else:
            distance = abs((x + y) % 24 - 12) / 2**0.5
            values = [0.66 + 0.16 * grey - 0.16 * min(max(1.5 - distance, 0), 1)] * 3
        expected[y, x] = [int(255 * value + 0.5) for value in values]
    return expected


def picture(kind: str, size=(31, 26)):
    random = np.random.default_rng(0)
    if kind == "flat":
        return Image.new("RGB", size, (120, 130, 110))
    least, most = {"dull": (100, 130), "whole": (0, 256), "middling": (60, 170)}[kind]
    return Image.fromarray(random.integers(least, most, (size[1], size[0], 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["flat", "dull", "middling", "whole"])
def test_light_pixel_by_pixel(kind):
    shown = picture(kind)
    strength = np.random.default_rng(1).uniform(-0.1, 1.2, (26, 31))
    strength[0, :5] = 0
    inside = np.ones((26, 31), bool)
    inside[:, 20:] = inside[22:] = False
    found = light(shown, strength, inside)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - lit(shown, strength, inside)).max() <= 1
    assert (found == lit(shown, strength, inside)).mean() > 0.99


# A caption's maps ----------------------------------------------------------------------------------------------------

WEIGHTS = np.array([[0.1, 0.2, 0.3, 0.05, 0.25, 0.1], [0.4, 0.1, 0.1, 0.1, 0.1, 0.2], [0, 0, 0, 0, 0, 0.5]])
BOX = (-2.0, 4.0, 16.0, 14.0)  # of a picture of 20 × 10, shown in 60 × 20


@pytest.mark.parametrize("even", [False, True])
def test_panels_are_of_the_picture_as_it_is_shown(even):
    maps = Maps(["a", "red", "dog"], WEIGHTS, box=BOX, grid=(2, 3), smooth=not even, places=[2, 0, 6])
    shown = picture("whole", (60, 20))
    panels, largest = maps.panels(shown, (20, 10))
    assert largest == pytest.approx(0.5) and len(maps) == 3 and maps.uniform == pytest.approx(1 / 6)
    scaled = (-6.0, 8.0, 48.0, 28.0)
    inside = np.zeros((20, 60), bool)
    inside[8:, :48] = True
    for panel, row in zip(panels, WEIGHTS, strict=True):
        drawn = np.zeros((20, 60))
        if even:
            for y in range(8, 20):
                for x in range(48):
                    drawn[y, x] = row.reshape(2, 3)[int((y + 0.5 - 8) / 10), int((x + 0.5 + 6) / 18)]
        else:
            drawn = smooth(row.reshape(2, 3), (2, 3), scaled, (60, 20))
        assert np.abs(panel.pixels.astype(int) - lit(shown, drawn / 0.5, inside)).max() <= 1
    assert [panel.mark for panel in panels] == [(10.0, 4.0, 16.0, 9.0), (-2.0, 4.0, 4.0, 9.0), None]  # 6: the sentinel
    assert [tuple(panel.boxes) for panel in panels] == [()] * 3
    assert not maps.covers((20, 10)) and maps.covers((16, 14)) is False
    assert Maps(["a"], WEIGHTS[:1], box=(0, 0, 20, 10), grid=(2, 3)).covers((20, 10)) is True
    assert Maps(["a"], WEIGHTS[:1], box=(0, 0, 19, 10), grid=(2, 3)).covers((20, 10)) is False


def test_panels_of_regions_add_up_what_overlaps():
    regions = np.array([[0, 0, 10, 10], [5, 0, 20, 5], [5, 2, 12, 8]], float)
    weights = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    boxes = [[(1, 2, 3, 4)], []]
    maps = Maps(["a", "dog"], weights, regions=regions, boxes=boxes)
    shown = picture("whole", (40, 30))  # twice and three times as large
    panels, largest = maps.panels(shown, (20, 10))
    drawn = np.zeros((2, 30, 40))
    for word, row in enumerate(weights):
        for weight, (left, top, right, bottom) in zip(row, regions, strict=True):
            for y in range(30):
                for x in range(40):
                    drawn[word, y, x] += weight * (left <= (x + 0.5) / 2 < right and top <= (y + 0.5) / 3 < bottom)
    assert largest == pytest.approx(drawn.max()) and drawn.max() == pytest.approx(1.0)
    for panel, each in zip(panels, drawn, strict=True):
        assert np.abs(panel.pixels.astype(int) - lit(shown, each / largest, np.ones((30, 40), bool))).max() <= 1
    assert [panel.mark for panel in panels] == [tuple(regions[0]), tuple(regions[2])]
    assert [panel.boxes for panel in panels] == boxes and maps.covers((20, 10))
    chosen = Maps(["a", "dog"], weights, regions=regions, places=[1, 3]).panels(shown, (20, 10))[0]
    assert [panel.mark for panel in chosen] == [tuple(regions[1]), None]


def test_a_square_grid_is_what_is_meant_without_one_and_weights_of_zero_are_drawn():
    maps = Maps(["a"], np.zeros((1, 9)), box=(0, 0, 9, 9))
    assert maps.grid == (3, 3)
    shown = picture("whole", (9, 9))
    (panel,), largest = maps.panels(shown, (9, 9))
    assert largest == 1.0 and panel.mark is None
    assert np.abs(panel.pixels.astype(int) - lit(shown, np.zeros((9, 9)), np.ones((9, 9), bool))).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": np.ones(4)}, "1 words, but weights of shape"),
        ({"weights": np.ones((2, 4))}, "1 words, but weights of shape"),
        ({"weights": np.ones((1, 5))}, "5 locations do not fill a grid of 2×2"),
        ({"weights": np.ones((1, 4)), "grid": (2, 3)}, "4 locations do not fill a grid of 2×3"),
        ({"weights": np.ones((1, 4)), "box": None}, "box and regions are missing"),
        ({"weights": np.ones((1, 4)), "regions": np.ones((3, 4))}, "4 locations, but regions of shape"),
        ({"weights": np.ones((1, 4)), "regions": np.ones((4, 3))}, "4 locations, but regions of shape"),
        ({"weights": np.ones((1, 4)), "places": [1, 2]}, "1 words, but 2 places"),
        ({"weights": np.ones((1, 4)), "sentinel": []}, "1 words, but 0 β"),
        ({"weights": np.ones((1, 4)), "boxes": [[], []]}, "1 words, but 2 boxes"),
    ],
)
def test_what_does_not_fit_is_told(arguments, message):
    weights = arguments.pop("weights")
    with pytest.raises(ValueError, match=message):
        Maps(["a"], weights, **{"box": (0, 0, 4, 4)} | arguments)
