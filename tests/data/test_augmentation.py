"""Random changes of training images: reproducible, in their ranges, and never a mirror image that captions forbid."""

import pytest
import torch

from captioning.data import Augmentation, make_augmentation
from captioning.errors import ConfigError


@pytest.fixture
def image():
    return torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)


@pytest.mark.parametrize("name", ["light", "strong"])
def test_the_seed_alone_decides(image, name):
    augment = make_augmentation(name)
    before = torch.get_rng_state()
    first = augment(image, "a", True)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    assert torch.equal(make_augmentation(name)(image, "a", True), first)
    assert not torch.equal(augment(image, "b", True), first)
    assert first.dtype == torch.uint8 and first.shape == image.shape


def test_only_what_captions_allow_is_mirrored(image):
    still = {"scale": (1, 1), "ratio": (1, 1), "brightness": 0, "contrast": 0, "saturation": 0}
    flipped = [torch.equal(Augmentation(**still)(image, str(seed), True), image.flip(2)) for seed in range(40)]
    assert 10 < sum(flipped) < 30
    assert all(torch.equal(Augmentation(**still)(image, str(seed), False), image) for seed in range(40))
    assert torch.equal(Augmentation(**still, mirror=1)(image, "a", True), image.flip(2))


def test_a_part_is_cut_out_and_colors_change():
    ramp = torch.arange(32, dtype=torch.uint8).mul(4).expand(3, 32, 32)
    still = {"brightness": 0, "contrast": 0, "saturation": 0, "mirror": 0}
    ranges = [Augmentation(scale=(0.25, 0.25), ratio=(1, 1), **still)(ramp, str(seed), False) for seed in range(20)]
    spans = [int(each.max()) - int(each.min()) for each in ranges]
    assert all(52 <= span <= 64 for span in spans) and len({int(each.min()) for each in ranges}) > 3
    gray = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    only = {"scale": (1, 1), "ratio": (1, 1), "contrast": 0, "saturation": 0, "mirror": 0}
    bright = {int(Augmentation(brightness=0.2, **only)(gray, str(seed), False)[0, 0, 0]) for seed in range(30)}
    assert len(bright) > 10 and min(bright) >= 79 and max(bright) <= 120


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"scale": (0.5, 2)}, r"features\.augment\.scale must be above 0 and at most 1, not 2"),
        ({"ratio": (2, 1)}, r"features\.augment\.ratio must be \[LEAST, LARGEST\], not \[2, 1\]"),
        ({"scale": 0.5}, r"features\.augment\.scale must be \[LEAST, LARGEST\], not 0\.5"),
        ({"hue": 0.6}, r"features\.augment\.hue must be at least 0 and at most 0\.5, not 0\.6"),
        ({"mirror": -1}, r"features\.augment\.mirror must be at least 0"),
    ],
)
def test_what_is_out_of_range(given, told):
    with pytest.raises(ConfigError, match=told):
        Augmentation(**given)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"features\.augment must be null or one of light, strong, not 'lihgt'"):
        make_augmentation("lihgt")
    assert make_augmentation(None) is None
