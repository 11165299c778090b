"""Test an image and its corners together: one long grid, and attention maps drawn back onto the image."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from toys import END, START

from captioning.data import CORNERS, Box, Transform
from captioning.decoding import beam_search
from captioning.errors import ConfigError
from captioning.features import AllViews, EachView, corner_crops, crop_shares
from captioning.inference.attention_map import cover, merge_crops
from captioning.models import Coordinates, MultiCrop


def search(model, images, **arguments):
    state, memory = model.begin(images)
    step = partial(model.step, memory=memory)
    return beam_search(step, state, batch=len(images), start=START, end=END, **{"max_length": 6} | arguments)


@pytest.fixture
def captioner(toy):
    def make(**options):
        model = toy(vocabulary_size=6, **options)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=1.0)
        return model

    return make


PARTS = [
    {"attention": "soft"},
    {"attention": "soft", "conditioning": "initial_every", "recurrence": "up_down"},
    {"attention": "soft", "recurrence": "adaptive", "feature_width": 5},
    {"attention": "none", "conditioning": "first_step"},
    {"attention": "hard", "scorer": "dot_product"},
]


@pytest.mark.parametrize("parts", PARTS)
def test_several_views_are_one_long_grid(captioner, parts):
    model, views = captioner(**parts), torch.randn(3, 5, 4, 6, dtype=torch.float64)
    side_by_side = torch.cat([views[:, v] for v in range(5)], 1)
    together, long = (search(*pair, beam_size=3) for pair in ((MultiCrop(model, 5), views), (model, side_by_side)))
    for ours, theirs in zip(together, long, strict=True):
        assert [h.tokens for h in ours] == [h.tokens for h in theirs]
        assert ours[0].log_prob == pytest.approx(theirs[0].log_prob, rel=1e-12)
        torch.testing.assert_close(ours[0].weights, theirs[0].weights)  # crop by crop, in their order


@pytest.mark.parametrize("positions", [{}, {"positions": Coordinates}])
@pytest.mark.parametrize("attention", ["soft", "none"])
def test_the_same_view_five_times_tells_what_it_tells_once(captioner, attention, positions):
    """Also with coordinates: a position code refers to the location in its own view, because the long grid has none."""
    model, images = captioner(attention=attention, **positions), torch.randn(3, 4, 6, dtype=torch.float64)
    once, often = (
        search(m, seen, beam_size=3)
        for m, seen in ((model, images), (MultiCrop(model, 5), images[:, None].expand(-1, 5, -1, -1)))
    )
    for one, five in zip(once, often, strict=True):
        assert one[0].tokens == five[0].tokens and five[0].log_prob == pytest.approx(one[0].log_prob, rel=1e-12)
        if attention == "soft":
            weights, *_ = merge_crops(five[0].weights.numpy(), None, boxes=[Box(0, 0, 8, 6)] * 5, grid=(2, 2))
            np.testing.assert_allclose(weights, one[0].weights.numpy(), atol=1e-12)


def test_vectors_of_several_views_are_their_mean(captioner):
    model = captioner(attention="none", conditioning="every_step", grid=False)
    views = torch.randn(
        3, 5, 6, dtype=torch.float64
    )  # without an adapter the mean over the views is the mean of the features
    for ours, theirs in zip(search(MultiCrop(model, 5), views), search(model, views.mean(1)), strict=True):
        assert ours[0].tokens == theirs[0].tokens
        assert ours[0].log_prob == pytest.approx(theirs[0].log_prob, rel=1e-12)


@pytest.mark.parametrize("fit", [{}, {"fit": "crop"}, {"fit": "crop", "resize": 40}, {"fit": "pad"}])
def test_places_of_views_lie_where_they_do(fit):
    """Compare with points scattered over each location, counted in the cells of a grid over all views."""
    transform, size, side, points = Transform(32, **fit), (96, 60), 4, 200
    boxes = [view.box(*size) for view in (transform, *corner_crops(transform, [0.75, 0.6]))]
    marks = np.eye(9 * side**2, dtype=np.float32)  # each word attends to one location
    laid, _, whole = merge_crops(marks, None, boxes=boxes, grid=(side, side))
    assert whole.left == min(box.left for box in boxes) and whole.bottom == max(box.bottom for box in boxes)
    shares = laid.reshape(len(boxes), side, side, side, side)
    np.testing.assert_allclose(shares.sum((3, 4)), 1.0, rtol=1e-6)
    fractions = (np.arange(points) + 0.5) / points
    for box, of_view in zip(boxes, shares, strict=True):
        for row in range(side):
            for column in range(side):
                x = box.left + (column + fractions) / side * (box.right - box.left)
                y = box.top + (row + fractions) / side * (box.bottom - box.top)
                across = ((x - whole.left) / (whole.right - whole.left) * side).astype(int)
                down = ((y - whole.top) / (whole.bottom - whole.top) * side).astype(int)
                counted = np.zeros((side, side))
                np.add.at(counted, (down[:, None], across[None]), 1 / points**2)
                np.testing.assert_allclose(of_view[row, column], counted, atol=0.02)


def test_one_view_is_laid_where_it_was():
    np.testing.assert_allclose(cover([Box(3, 5, 43, 35)], Box(3, 5, 43, 35), grid=(7, 7)), np.eye(49), atol=1e-12)


def test_a_spot_in_a_corner_is_found_again():
    """A bright spot of the image is inside the box of a corner's view where that view's input shows it."""
    picture = np.zeros((80, 120, 3), np.uint8)
    picture[30:34, 50:54] = 255
    for transform in (Transform(64), Transform(64, fit="crop"), Transform(64, fit="pad")):
        for view in (transform.cropped(0.8, corner) for corner in CORNERS):
            seen = view(Image.fromarray(picture)).float().mean(0)
            seen = (seen - seen[0, 0]).clip(0) if transform.fit == "pad" else seen
            bright = (seen > 120 if transform.fit == "pad" else seen > 60).nonzero().float() + 0.5
            row, column = bright.mean(0).tolist()
            box = view.box(120, 80)
            assert box.left + column / 64 * (box.right - box.left) == pytest.approx(52, abs=1.5)
            assert box.top + row / 64 * (box.bottom - box.top) == pytest.approx(32, abs=1.5)


def test_a_hard_place_goes_to_the_cell_that_covers_most_of_it():
    boxes = [Box(0, 0, 100, 100), Box(25, 25, 100, 100)]  # 2 × 2 locations each
    weights = np.zeros((4, 8), np.float32)
    weights[np.arange(3), [2, 4, 7]] = 1
    on_picture, places, box = merge_crops(weights, np.array([2, 4, 7, 8]), boxes=boxes, grid=(2, 2))
    assert box == boxes[0] and places.tolist() == [2, 0, 3, 4]  # the last was the sentinel, and is
    share = 25 / 37.5  # of each side of the corner's first place that lies left of, or above, the middle
    np.testing.assert_allclose(
        on_picture[1], [share**2, share * (1 - share), share * (1 - share), (1 - share) ** 2], rtol=1e-6
    )
    np.testing.assert_allclose(on_picture.sum(1), [1, 1, 1, 0])


def test_features_of_one_view_are_no_features_of_five(captioner):
    """These are the features that a source with only encoder and transform returns."""
    for model, features in (
        (captioner(), torch.randn(2, 4, 6, dtype=torch.float64)),
        (captioner(attention="none", conditioning="every_step", grid=False), torch.randn(2, 6, dtype=torch.float64)),
    ):
        with pytest.raises(ConfigError, match=r"crops=5 takes features \[B, 5, .*evaluation\.sources_of"):
            MultiCrop(model, 5).begin(features)


def test_readers_and_encoders_go_view_by_view():
    assert AllViews([lambda _: torch.ones(3), lambda _: torch.zeros(3)])(None).tolist() == [[1, 1, 1], [0, 0, 0]]
    sizes = []

    class Sums(torch.nn.Module):
        def forward(self, pictures):
            sizes.append(len(pictures))
            return pictures.sum((1, 2, 3))[:, None]

    views = torch.arange(2 * 5 * 12.0).reshape(2, 5, 3, 2, 2)
    torch.testing.assert_close(EachView(Sums())(views)[..., 0], views.sum((2, 3, 4)))
    assert sizes == [2] * 5  # no batch larger than without corners


@pytest.mark.parametrize("corners", ["0.75", [0.75, "0.85"], True, [None], [0.75, 1.0], 0, -0.5, float("nan")])
def test_shares_that_are_none(corners):
    with pytest.raises(ConfigError, match="crops must be"):
        crop_shares(corners)


def test_shares():
    assert crop_shares(None) == crop_shares([]) == () and crop_shares(0.75) == (0.75,)
    assert [type(share) for share in crop_shares([np.float32(0.5), 0.85])] == [
        float,
        float,
    ]  # for a store's key in JSON
