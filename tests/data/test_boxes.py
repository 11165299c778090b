"""Which pixels an encoder's input shows: boxes by hand for every fit and corner, and inputs that need no resampling."""

import numpy as np
import pytest
from PIL import Image

from captioning.data import CORNERS, Box, Transform
from captioning.errors import ConfigError

NOISE = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)  # 64 pixels wide, 40 high


def seen(transform, pixels=NOISE):
    """[S, S, 3] of the input."""
    return transform(Image.fromarray(pixels)).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("transform", "size", "box"),
    [
        (Transform(8), (60, 20), (0, 0, 60, 20)),
        (Transform(8, fit="crop"), (60, 20), (20, 0, 40, 20)),
        (Transform(8, fit="crop"), (20, 60), (0, 20, 20, 40)),
        (Transform(8, fit="crop", resize=10), (60, 20), (22, 2, 38, 18)),
        (Transform(8, fit="crop", resize=16), (20, 60), (5, 25, 15, 35)),
        (Transform(30, fit="pad"), (60, 20), (0, -20, 60, 40)),  # 30 × 10 of 30 × 30 pixels
        (Transform(30, fit="pad"), (20, 60), (-20, 0, 40, 60)),
        (Transform(30, fit="pad"), (15, 5), (0, -5, 15, 10)),
        (Transform(31, fit="pad"), (62, 20), (0, -20, 62, 42)),  # 21 pixels are too many: 10 above, 11 below
        (Transform(10, fit="pad"), (100, 1), (0, -4, 100, 6)),  # at least one pixel high
        (Transform(10, fit="pad"), (1, 100), (-4, 0, 6, 100)),
    ],
)
def test_boxes(transform, size, box):
    assert transform.box(*size) == pytest.approx(Box(*box))


@pytest.mark.parametrize(
    ("corner", "left", "top"),
    [("top left", 0, 0), ("top right", 15, 0), ("bottom left", 0, 9), ("bottom right", 15, 9)],
)
def test_corners(corner, left, top):
    """Of 60 × 30 pixels, 0.75 and 0.7 of whose sides are 45 × 22 (22.5 to the even) and 42 × 21."""
    width, height = 60, 30
    whole = Transform(9)
    assert whole.cropped(0.7, corner).box(width, height) == pytest.approx(
        Box(left * 18 // 15, top, left * 18 // 15 + 42, top + 21)
    )
    across = 15 if left else 0
    down = 8 if top else 0
    assert whole.cropped(0.75, corner).box(width, height) == (across, down, across + 45, down + 22)
    inner = Transform(9, fit="crop").cropped(0.7, corner).box(width, height)
    x, y = left * 18 // 15 + 10.5, top
    assert inner == pytest.approx(Box(x, y, x + 21, y + 21))
    assert whole.corner is None and whole.box(width, height) == (0, 0, 60, 30)
    assert whole.cropped(0.01, corner).box(5, 4) == (
        4 if left else 0,
        3 if top else 0,
        5 if left else 1,
        4 if top else 1,
    )


def test_the_middle_of_the_right_height_is_cut_out():
    assert (seen(Transform(40, fit="crop")) == NOISE[:, 12:52]).all()
    assert (seen(Transform(40, fit="crop"), NOISE.transpose(1, 0, 2)) == NOISE.transpose(1, 0, 2)[12:52]).all()
    assert (seen(Transform(20, fit="crop", resize=40)) == NOISE[10:30, 22:42]).all()


def test_padding_is_grey_above_and_below():
    found = seen(Transform(64, fit="pad"))
    assert (found[12:52] == NOISE).all()
    assert (found[:12] == 127).all() and (found[52:] == 127).all()
    found = seen(Transform(64, fit="pad"), NOISE.transpose(1, 0, 2))
    assert (found[:, 12:52] == NOISE.transpose(1, 0, 2)).all() and (found[:, :12] == 127).all()


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("mirror", [False, True])
def test_a_corner_is_cut_out_before_it_is_mirrored(corner, mirror):
    square = NOISE[:, :40]
    found = seen(Transform(30, mirror=mirror).cropped(0.75, corner), square)
    rows = slice(10, 40) if "bottom" in corner else slice(0, 30)
    columns = slice(10, 40) if "right" in corner else slice(0, 30)
    expected = square[rows, columns]
    assert (found == (expected[:, ::-1] if mirror else expected)).all()


def test_mirrored_twice_is_the_image():
    whole = Transform(40, fit="crop")
    assert (seen(whole.mirrored()) == NOISE[:, 12:52][:, ::-1]).all() and not whole.mirror
    assert (seen(whole.mirrored().mirrored()) == NOISE[:, 12:52]).all()
    assert whole(Image.fromarray(NOISE)).is_contiguous()


def test_what_depends_on_the_settings_is_described():
    plain = {"size": 24, "fit": "crop", "resize": 32, "interpolation": "bicubic"}
    whole = Transform(24, fit="crop", resize=32)
    assert whole.describe() == plain
    assert whole.mirrored().describe() == plain | {"mirror": True}
    assert whole.cropped(0.5, "top left").describe() == plain | {"corner": [0.5, "top left"]}
    assert whole.mirrored().cropped(0.5, "top left").describe() == plain | {"mirror": True, "corner": [0.5, "top left"]}
    assert Transform(24).describe()["resize"] == 24
    assert Transform().size == 224


@pytest.mark.parametrize("right", [{"size": 1}, {"size": 4096}, {"size": 8, "fit": "crop", "resize": 8}])
def test_smallest_and_largest(right):
    Transform(**right)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"size": 0}, r"transform\.size must be at least 1 and at most 4096, not 0"),
        ({"size": 4097}, r"transform\.size must be .*, not 4097"),
        ({"size": 8, "fit": "crop", "resize": 7}, r"transform\.resize=7 must be at least 8, the short side"),
        ({"size": 8, "resize": 9}, r"resize=9 needs transform\.fit=crop: with fit=squash, set resize to null"),
        ({"size": 8, "fit": "fill"}, r"transform\.fit must be one of .*, not fill"),
    ],
)
def test_settings_that_cannot_be(wrong, told):
    with pytest.raises(ConfigError, match=told):
        Transform(**wrong)
