"""Inputs of H × W pixels: what they show of an image, by a spot found again and by each fit's own rule."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from captioning.data import Augmentation, SeveralInputs, TimmTransform, Transform
from captioning.errors import ConfigError
from captioning.features.views import corner_crops, views_of

IMAGES = [(640, 427), (301, 500), (90, 90), (400, 100), (60, 240)]  # width, height
INPUTS = [[64, 96], [96, 64], [30, 90]]  # height, width
FITS = [{"fit": "squash"}, {"fit": "crop"}, {"fit": "crop", "resize": 100}, {"fit": "pad"}]


def spot(size: tuple[int, int], at: tuple[float, float], spread: tuple[float, float]) -> Image.Image:
    """A light spot on gray, its center at (x, y), its standard deviations along x and y."""
    x, y = (np.arange(length) + 0.5 for length in size)
    across, down = (np.exp(-(((c - m) / s) ** 2) / 2) for c, m, s in zip((x, y), at, spread, strict=True))
    values = 127 + 128 * down[:, None] * across
    return Image.fromarray(np.repeat(values[..., None], 3, axis=2).round().astype(np.uint8))


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("fit", FITS, ids=str)
@pytest.mark.parametrize("given", INPUTS, ids=str)
@pytest.mark.parametrize("size", IMAGES, ids=str)
def test_a_spot_is_found_again_through_the_box(size, given, fit, mirror):
    whole = Transform(given, **fit, mirror=mirror)
    for transform in (whole, *corner_crops(whole, [0.75])):
        box = transform.box(*size)
        left, top, right, bottom = max(0, box.left), max(0, box.top), min(size[0], box.right), min(size[1], box.bottom)
        at = (left + 0.4 * (right - left), top + 0.55 * (bottom - top))
        pixels = transform(spot(size, at, (max(0.8, (right - left) / 16), max(0.8, (bottom - top) / 16))))
        assert pixels.shape == (3, *given) and pixels.dtype == torch.uint8 and pixels.is_contiguous()
        light = (pixels.flip(2) if mirror else pixels)[0].double() - 127
        light[light < 8] = 0
        row = light.sum(1) @ (torch.arange(given[0], dtype=torch.float64) + 0.5) / light.sum()
        column = light.sum(0) @ (torch.arange(given[1], dtype=torch.float64) + 0.5) / light.sum()
        across, down = (box.right - box.left) / given[1], (box.bottom - box.top) / given[0]
        assert box.left + float(column) * across == pytest.approx(at[0], abs=0.2 * max(1, across))
        assert box.top + float(row) * down == pytest.approx(at[1], abs=0.2 * max(1, down))


@pytest.mark.parametrize("given", INPUTS, ids=str)
@pytest.mark.parametrize("size", IMAGES, ids=str)
def test_each_fit_keeps_its_promise(size, given):
    (width, height), (rows, columns) = size, given
    assert Transform(given).box(*size) == (0, 0, width, height)
    for resize in (None, 3 * min(given) // 2):
        box = Transform(given, fit="crop", resize=resize).box(*size)
        across, down = Fraction(box.right) - Fraction(box.left), Fraction(box.bottom) - Fraction(box.top)
        assert float(across / columns) == pytest.approx(float(down / rows))  # keeps the aspect ratio
        assert box.left + box.right == pytest.approx(width) and box.top + box.bottom == pytest.approx(height)
        reached = max(across / width, down / height)  # the share of the side that limits
        assert float(reached) == pytest.approx(1 if resize is None else min(given) / resize)
        assert box.left > -1e-9 and box.top > -1e-9
    box = Transform(given, fit="pad").box(*size)
    assert box.left < 1e-9 and box.top < 1e-9 and box.right > width - 1e-9 and box.bottom > height - 1e-9
    gaps = (box.right - box.left - width, box.bottom - box.top - height)
    assert min(gaps) == pytest.approx(0, abs=1e-9)
    across, down = (box.right - box.left) / columns, (box.bottom - box.top) / rows
    assert across == pytest.approx(down, rel=0.08)  # the image's size within the input is a whole number of pixels


def test_by_hand():
    assert Transform([20, 40], fit="crop").box(100, 100) == (0, 25, 100, 75)
    assert Transform([20, 40], fit="crop").box(200, 50) == (50, 0, 150, 50)
    assert Transform([20, 40], fit="crop", resize=40).box(100, 100) == (25, 37.5, 75, 62.5)
    assert Transform([20, 40], fit="pad").box(100, 100) == (-50, 0, 150, 100)
    assert Transform([20, 40], fit="pad").box(400, 100) == (0, -50, 400, 150)


def test_a_side_twice_is_a_side():
    one, two = Transform(32, fit="crop", resize=40), Transform([32, 32], fit="crop", resize=40)
    assert one.describe() == two.describe() and two.size == 32
    assert Transform([32, 48]).describe()["size"] == [32, 48] != Transform([48, 32]).describe()["size"]


@pytest.mark.parametrize("size", [[64], [64, 96, 3], "wide", [64, 0], [64, 5000], 0, 5000, True, [1.5, 2]])
def test_sizes_that_are_none(size):
    with pytest.raises(ConfigError, match=r"^transform\.size must be"):
        Transform(size)


def test_a_crop_is_at_least_as_large_as_the_short_side():
    assert Transform([64, 96], fit="crop", resize=64).resize == 64
    with pytest.raises(ConfigError, match=r"transform\.resize=63 must be at least 64, the short side"):
        Transform([64, 96], fit="crop", resize=63)


def test_mirrored_views_and_corners_keep_the_size():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 110, 3), np.uint8))
    transform = Transform([20, 30])
    assert torch.equal(transform.mirrored()(picture), transform(picture).flip(2))
    assert {tuple(view(picture).shape) for view, _ in views_of(transform, mirror=True, crops=0.75)} == {(3, 20, 30)}


def test_several_inputs_of_other_proportions_show_the_same_region():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 110, 3), np.uint8))
    parts = [Transform([20, 30]), Transform(16)]
    packed = SeveralInputs(parts)(picture)
    assert len(packed) == 3 * (600 + 256)
    assert torch.equal(packed[: 3 * 600].unflatten(0, (3, 20, 30)), parts[0](picture))
    with pytest.raises(ConfigError, match=r"different regions.*transform\.fit=squash"):
        SeveralInputs([Transform([20, 30], fit="crop"), Transform(16, fit="crop")])


def test_augmentation_cuts_parts_in_the_proportions_of_the_input():
    """With ratio=1 a part is as oblong as the input, so nothing is stretched: both gradients stay equally steep."""
    rows, columns = torch.meshgrid(torch.arange(60.0), torch.arange(120.0), indexing="ij")
    pixels = torch.stack((rows, columns, rows)).to(torch.uint8)
    plain = {"brightness": 0, "contrast": 0, "saturation": 0, "mirror": 0}
    change = Augmentation(scale=(0.4, 0.5), ratio=(1, 1), **plain)
    for seed in range(8):
        found = change(pixels, str(seed), True).float()
        assert found.shape == (3, 60, 120)
        down, across = found[0, -5].mean() - found[0, 5].mean(), found[1, :, -5].mean() - found[1, :, 5].mean()
        assert float(down / 50) == pytest.approx(float(across / 110), rel=0.06)
        assert 0.6 < float(across / 110) < 0.75  # about √0.45


def test_timm_knows_the_share_of_the_short_side():
    transform = TimmTransform("resnet50.a1_in1k", size=[64, 96])
    assert (transform.size, transform.fit, transform.resize) == ([64, 96], "crop", int(64 / 0.95))
    own = TimmTransform("vit_base_patch16_sapiens2")
    assert own.size == [1024, 768]  # a network of timm whose own input is not square
