"""Grounding: cells, regions, peaks and means by hand and by counting, on grids that are no squares."""

import math

import numpy as np
import pytest
import slow_scores

from captioning.metrics import MEASURES, compile_phrases, ground_caption, overlaps, summarize
from captioning.metrics.grounding import AnnotatedThing, Grounded, center_prior, pointing
from captioning.metrics.mentions import Mention, find_mentions, plural
from captioning.metrics.regions import area_share, box_region, cell_shares, contains, mask_region

SIZE = (12, 8)  # width, height
GRID = (2, 3)  # rows, columns: cells of 4 × 4 over the whole picture
WHOLE = (0, 0, 12, 8)
BOXES = {
    "one": [(1, 1, 5, 3)],
    "overlapping": [(1, 1, 5, 3), (3, 2, 6, 5)],
    "nested": [(0, 0, 12, 8), (2, 2, 2, 2)],
    "beyond": [(-3, -2, 5, 4), (9, 6, 30, 30)],
    "outside": [(20, 20, 4, 4), (-9, -9, 4, 4)],
    "flat": [(3, 3, 0, 4), (3, 3, 4, 0)],
    "none": [],
    "touching": [(0, 0, 4, 4), (4, 0, 4, 4)],
    "halves": [(0.5, 0.25, 3.5, 2.75), (7.75, 4.5, 2.25, 3.5)],
}


def covered(boxes, x, y):
    """Whether points lie in a box and in the picture. Quarters of pixels are exact in floating point."""
    inside = np.zeros(np.broadcast(x, y).shape, bool)
    for left, top, width, height in boxes:
        inside |= (left <= x) & (x < left + width) & (top <= y) & (y < top + height)
    return inside & (x >= 0) & (x < SIZE[0]) & (y >= 0) & (y < SIZE[1])


def counted(boxes, rectangle) -> float:
    """Area of the boxes within a rectangle, by the middles of quarters of pixels: exact for edges on quarters."""
    left, top, right, bottom = rectangle
    x, y = np.arange(left + 0.125, right, 0.25), np.arange(top + 0.125, bottom, 0.25)
    return covered(boxes, x, y[:, None]).sum() / 16


def cells(box, grid):
    width, height = (box[2] - box[0]) / grid[1], (box[3] - box[1]) / grid[0]  # exact for these grids
    return [
        (box[0] + c * width, box[1] + r * height, box[0] + (c + 1) * width, box[1] + (r + 1) * height)
        for r in range(grid[0])
        for c in range(grid[1])
    ]


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize(
    ("box", "grid"), [(WHOLE, GRID), ((-2, 2, 10, 6), (4, 2)), ((2, 1, 8, 7), (1, 3)), ((0, -2, 12, 10), (3, 4))]
)
def test_shares_of_cells_by_counting(name, box, grid):
    region = box_region(BOXES[name], SIZE)
    wanted = [
        float(counted(BOXES[name], each) / ((each[2] - each[0]) * (each[3] - each[1]))) for each in cells(box, grid)
    ]
    np.testing.assert_allclose(cell_shares(region, box=box, grid=grid), wanted, atol=1e-12)
    assert area_share(region, SIZE) == pytest.approx(float(counted(BOXES[name], WHOLE)) / 96, abs=1e-12)


@pytest.mark.parametrize("name", BOXES)
def test_points_lie_inside_as_by_comparing(name):
    region = box_region(BOXES[name], SIZE)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(-2, 15, 0.25), np.arange(-2, 15, 0.25)))
    assert contains(region, x, y).tolist() == covered(BOXES[name], x, y).tolist()


def test_lengths_that_cells_share_with_intervals():
    found = overlaps(-1, 5, 3, np.array([0.0, 1.5, 2.0, 9.0]))  # cells -1 … 1, 1 … 3, 3 … 5
    assert found.tolist() == [[1, 0, 0], [0.5, 0.5, 1], [0, 0, 2]]


def test_a_mask_is_whole_pixels_of_rows_and_columns():
    runs = {"counts": [8 * 2 + 1, 3, 96 - 8 * 2 - 4], "size": [8, 12]}  # column 2, rows 1 … 3
    region = mask_region([runs], SIZE)
    assert region.inside.sum() == 3 and region.inside[1:4, 2].all()
    shares = np.zeros(6)
    shares[0] = 3 / 16
    np.testing.assert_allclose(cell_shares(region, box=WHOLE, grid=GRID), shares, atol=1e-15)
    points = np.array([1.99, 2, 2.99, 3]), np.array([1.0, 1, 3.99, 2])
    assert contains(region, *points).tolist() == [False, True, True, False]
    assert not mask_region([], SIZE).inside.any()
    triangle = mask_region([[[0, 0, 8, 0, 0, 8]]], SIZE)
    assert 0.2 < area_share(triangle, SIZE) < 0.45  # half of 8 × 8 pixels, as whole pixels; of 96
    assert area_share(mask_region([[[0, 0, 8, 0, 8]]], SIZE), SIZE) == 0
    both = mask_region([[[0, 0, 4, 0, 4, 4, 0, 4], [8, 4, 12, 4, 12, 8, 8, 8], [1, 1, 2, 2]]], SIZE)
    assert both.inside.sum() == 32 and both.inside[:4, :4].all() and both.inside[4:, 8:].all()


# Peaks


def test_a_peak_on_an_edge_is_inside_at_left_and_top_only():
    """The middle of cell (0, 1) is (6, 2)."""
    weights = np.array([0, 1.0, 0, 0, 0, 0])
    for edges, hit in (
        ((6, 0, 2, 8), 1), ((4, 0, 2, 8), 0), ((4, 0, 2.001, 8), 1), ((6.001, 0, 2, 8), 0),
        ((0, 2, 12, 2), 1), ((0, 0, 12, 2), 0), ((0, 0, 12, 2.001), 1), ((0, 2.001, 12, 2), 0),
    ):  # fmt: skip
        assert pointing(weights, box_region([edges], SIZE), box=WHOLE, grid=GRID) == hit


@pytest.mark.parametrize("box", [WHOLE, (-2, 2, 10, 6), (2, 1, 8, 7)])
@pytest.mark.parametrize("grid", [(2, 3), (3, 2), (1, 6), (6, 1)])
def test_every_cells_middle(box, grid):
    for place, (left, top, right, bottom) in enumerate(cells(box, grid)):
        x, y = float((left + right) / 2), float((top + bottom) / 2)
        weights = np.full(6, 0.1)
        weights[place] = 0.5
        if 0 <= x < 12 and 0 <= y < 8:
            small = box_region([(x - 0.01, y - 0.01, 0.02, 0.02)], SIZE)
            assert pointing(weights, small, box=box, grid=grid) == 1
            others = box_region(
                [(0, 0, 12, y - 0.01), (0, y + 0.01, 12, 8), (0, 0, x - 0.01, 8), (x + 0.01, 0, 12, 8)], SIZE
            )
            assert pointing(weights, others, box=box, grid=grid) == 0


def test_peaks_tie_within_a_millionth():
    left = box_region([(0, 0, 4, 8)], SIZE)
    for less, hit in ((0, 0.5), (0.9e-6, 0.5), (1.1e-6, 0), (1e-3, 0)):
        weights = np.array([0.3 * (1 - less), 0.3, 0, 0, 0, 0])
        assert pointing(weights, left, box=WHOLE, grid=GRID) == hit
        assert pointing(weights * 1e-3, left, box=WHOLE, grid=GRID) == hit  # relative to the largest


def test_no_weight_at_all_points_nowhere():
    """All weight of the word is on a visual sentinel or on tags."""
    assert pointing(np.zeros(6), box_region([(0, 0, 8, 8)], SIZE), box=WHOLE, grid=GRID) == 0


@pytest.mark.parametrize(("box", "grid"), [(WHOLE, GRID), ((-2, 2, 10, 6), (4, 2)), ((0, -4, 12, 12), (4, 3))])
def test_the_centre_prior_is_a_gaussian_of_a_quarter_of_each_side(box, grid):
    """Integrated over each cell, by a fine sum."""

    def mass(first, last, side):
        steps = 2000
        middles = (first + (at + 0.5) * (last - first) / steps for at in range(steps))
        return sum(math.exp(-0.5 * ((m - side / 2) / (side / 4)) ** 2) for m in middles) * (last - first) / steps / side

    wanted = np.array([mass(float(x), float(z), 12) * mass(float(y), float(w), 8) for x, y, z, w in cells(box, grid)])
    found = center_prior(box=box, grid=grid, size=SIZE)
    np.testing.assert_allclose(found, wanted / wanted.sum(), rtol=1e-6)
    assert found.sum() == pytest.approx(1, abs=1e-12)


# Words


def test_phrases_among_other_words():
    phrases = compile_phrases({"dog": ["Dog", "hot  Dog"], "cat": ["cat"], "nothing": ["cat house"]})
    assert phrases == {
        ("dog",): "dog", ("dogs",): "dog", ("hot", "dog"): "dog", ("hot", "dogs"): "dog", ("cat",): "cat",
        ("cats",): "cat", ("cat", "house"): "nothing", ("cat", "houses"): "nothing",
    }  # fmt: skip
    tokens = ["a", "hot", "dogs", "hot", "cat", "house", "dog", "cat"]
    assert find_mentions(tokens, phrases) == [Mention(1, 3, "dog"), Mention(6, 7, "dog"), Mention(7, 8, "cat")]
    assert find_mentions(["a", "hot"], phrases) == find_mentions(tokens, {}) == find_mentions([], phrases) == []


@pytest.mark.parametrize(
    ("noun", "more"),
    [
        ("dog", "dogs"), ("bus", "buses"), ("box", "boxes"), ("quiz", "quizes"), ("bench", "benches"), ("y", "ies"),
        ("brush", "brushes"), ("lady", "ladies"), ("toy", "toys"), ("key", "keys"), ("guy", "guys"), ("ski", "skis"),
        ("berry", "berries"), ("eye", "eyes"), ("ayb", "aybs"), ("city", "cities"), ("bay", "bays"), ("boa", "boas"),
    ],
)  # fmt: skip
def test_regular_plurals(noun, more):
    assert plural(noun) == more


# Captions


PHRASES = compile_phrases({"dog": ["dog"], "hot dog": ["hot dog"], "cat": ["cat"]})


def test_every_measure_of_a_caption():
    """Two words of a phrase, the same category twice, one that is not there; boxes and masks apart."""
    random = np.random.default_rng(0)
    weights = random.dirichlet(np.ones(6), 5)
    square = [[0, 0, 4, 0, 4, 4, 0, 4]]  # the first cell
    things = [
        AnnotatedThing("hot dog", (4, 0, 4, 4), square),
        AnnotatedThing("dog", (8, 4, 4, 4), []),
        AnnotatedThing("dog", (0, 4, 6, 4), square),
    ]
    tokens = ["hot", "dogs", "dog", "cat", "dog"]
    found = ground_caption(tokens, weights, box=WHOLE, size=SIZE, things=things, phrases=PHRASES, grid=GRID)
    assert [(each.phrase, each.mention) for each in found] == [
        ("hot dogs", Mention(0, 2, "hot dog")),
        ("dog", Mention(2, 3, "dog")),
        ("cat", Mention(3, 4, "cat")),
        ("dog", Mention(4, 5, "dog")),
    ]
    assert found[2].measures is None
    shares = {"hot dog": [0, 1, 0, 0, 0, 0], "dog": [0, 0, 0, 1, 0.5, 1]}
    middles = {"hot dog": [0, 1, 0, 0, 0, 0], "dog": [0, 0, 0, 1, 0, 1]}  # the middle of cell 4 is the box's edge
    first = [1, 0, 0, 0, 0, 0]
    prior = center_prior(box=WHOLE, grid=GRID, size=SIZE)
    for each, looked in zip(
        (*found[:2], found[3]), ((weights[0] + weights[1]) / 2, weights[2], weights[4]), strict=True
    ):
        name = each.mention.category
        for looker, given in (("attention", looked), ("uniform", np.full(6, 1 / 6)), ("centre", prior)):
            peaks = [at for at in range(6) if given[at] >= max(given) * (1 - 1e-6)]
            for kind, inside, mass in (("box", middles[name], shares[name]), ("mask", first, first)):
                hit = sum(inside[at] for at in peaks) / len(peaks)
                assert each.measures[f"{looker} pointing {kind}"] == pytest.approx(hit, abs=1e-12)
                assert each.measures[f"{looker} mass {kind}"] == pytest.approx(given @ mass, abs=1e-12)
        assert each.measures["chance box"] == pytest.approx(sum(shares[name]) / 6, abs=1e-12)
        assert each.measures["chance mask"] == pytest.approx(1 / 6, abs=1e-12)
    places = [5, 5, 3, 0, 4]
    hard = ground_caption(
        tokens, weights, places=places, box=WHOLE, size=SIZE, things=things, phrases=PHRASES, grid=GRID
    )
    assert [e.measures and e.measures["attention mass box"] for e in hard] == [0, 1, None, 0.5]
    for wrong in ((3, 3), (6, 2), (1, 5)):
        with pytest.raises(ValueError, match="do not fit"):
            ground_caption(tokens, weights, box=WHOLE, size=SIZE, things=things, phrases=PHRASES, grid=wrong)


def test_a_square_grid_needs_not_be_told_and_weights_may_be_of_few_bits():
    things = [AnnotatedThing("hot dog", (0, 0, 6, 8), [])]
    settings = {"box": WHOLE, "size": SIZE, "things": things, "phrases": PHRASES}
    weights = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]], np.float32)
    (only,) = ground_caption(["hot", "dog"], weights, **settings)
    wide = weights.astype(float)
    assert only.measures["attention mass box"] == pytest.approx(wide[:, [0, 2]].sum() / 2, rel=1e-15)
    assert only.measures["uniform mass box"] == 0.5 and only.measures["attention pointing box"] == 1
    for tokens in (["hot"], ["hot", "dog", "dog"]):
        with pytest.raises(ValueError, match="do not fit"):
            ground_caption(tokens, weights, **settings)
    with pytest.raises(ValueError, match="do not fit"):
        ground_caption(["hot", "dog"], np.ones((2, 6)), **settings)


# Over a split


def measured(category, **numbers) -> Grounded:
    """A mention whose measures are these, all others 0."""
    names = [f"{looker} {measure}" for looker in ("attention", "uniform", "centre") for measure in MEASURES]
    return Grounded(
        Mention(0, 1, category),
        category,
        dict.fromkeys([*names, "chance box", "chance mask"], 0.0)
        | {k.replace("_", " "): v for k, v in numbers.items()},
    )


def test_means_differences_and_intervals_of_every_row():
    random = np.random.default_rng(4)
    names = list(measured("x").measures)
    grounded = {
        image: [
            measured("dog", **{name.replace(" ", "_"): float(random.random()) for name in names})
            for _ in range(image % 3 + 1)
        ]
        for image in range(8)
    } | {8: [], 9: [Grounded(Mention(0, 1, "cat"), "cat", None)]}
    found = summarize(grounded, samples=60, seed=3)
    pictures = [[each.measures for each in own] for image, own in grounded.items() if image < 8]
    draws = np.random.default_rng(3)
    resampled = [[pictures[at] for at in draws.integers(0, 8, 8)] for _ in range(60)]

    def value(pictures, looker, measure):
        name = f"chance {measure.split()[1]}" if looker == "chance" else f"{looker} {measure}"
        every = [each[name] for own in pictures for each in own]
        return sum(every) / len(every)

    for measure in MEASURES:
        for row, (one, other) in {
            "attention": ("attention", None), "uniform": ("uniform", None), "centre": ("centre", None),
            "chance": ("chance", None), "attention - uniform": ("attention", "uniform"),
            "attention - centre": ("attention", "centre"), "attention - chance": ("attention", "chance"),
        }.items():  # fmt: skip

            def of(pictures, one=one, other=other, measure=measure):
                return value(pictures, one, measure) - (value(pictures, other, measure) if other else 0)

            cell = found["differences" if other else "means"][row][measure]
            drawn = [of(pictures) for pictures in resampled]
            assert cell["mean"] == pytest.approx(of(pictures), rel=1e-9, abs=1e-12)
            assert cell["low"] == pytest.approx(slow_scores.quantile(drawn, 0.025), rel=1e-9, abs=1e-12)
            assert cell["high"] == pytest.approx(slow_scores.quantile(drawn, 0.975), rel=1e-9, abs=1e-12)
    assert list(found["means"]) == ["attention", "uniform", "centre", "chance"]
    assert list(found["differences"]) == ["attention - uniform", "attention - centre", "attention - chance"]
    counts = {key: found[key] for key in ("images", "images with scored words", "words", "hallucinated")}
    assert counts == {"images": 10, "images with scored words": 8, "words": 15, "hallucinated": 1}


def test_categories_from_the_most_named_on():
    absent = Grounded(Mention(0, 1, "cat"), "cat", None)
    grounded = {
        1: [measured("dog", attention_mass_box=0.25), absent, measured("bus", chance_box=0.5)],
        2: [measured("dog", attention_mass_box=0.75), absent],
        3: [absent, measured("cat", attention_mass_box=0.125), Grounded(Mention(5, 6, "ant"), "ant", None)],
    }
    found = summarize(grounded, samples=5)["categories"]
    assert list(found) == ["cat", "dog", "ant", "bus"]  # by mentions, then by name
    assert found["ant"] == {"words": 0, "hallucinated": 1}
    assert (found["cat"]["words"], found["cat"]["hallucinated"]) == (1, 3)
    assert found["dog"]["attention mass box"] == 0.5 and found["cat"]["attention mass box"] == 0.125
    assert found["bus"]["chance box"] == 0.5 and found["dog"]["hallucinated"] == 0


def test_one_image_has_no_spread_and_resamples_are_1000_of_seed_0():
    words = [measured("dog", attention_mass_box=0.25), measured("dog", attention_mass_box=0.5)]
    assert summarize({1: words})["means"]["attention"]["mass box"] == {"mean": 0.375, "low": 0.375, "high": 0.375}
    several = {at: [measured("dog", attention_mass_box=at / 7, chance_box=at % 3)] for at in range(7)}
    assert summarize(several) == summarize(several, samples=1000, seed=0)


def test_no_word_to_score():
    found = summarize({1: [Grounded(Mention(0, 1, "cat"), "cat", None)], 2: []})
    assert (found["words"], found["hallucinated"], found["images"], found["images with scored words"]) == (0, 1, 2, 0)
    assert found["means"] is found["differences"] is None
