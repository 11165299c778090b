"""Change training images at random: a crop, its colors, and a mirror image."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from captioning.errors import ConfigError, must_be

if TYPE_CHECKING:
    from torch import Tensor


class Augmentation:
    """Random change of an encoder's input, by torchvision's transforms (`torchvision.transforms.v2`).

    Steps: cut out a part and resize it to the input's size (`RandomResizedCrop`), change brightness, contrast,
    saturation and hue in random order (`ColorJitter`), and mirror left to right.

    Args:
        scale: least and largest area of the part, as shares of the input.
        ratio: least and largest ratio of the part's width to its height, relative to that of the input.
        brightness: the factor of the brightness is between 1 − brightness and 1 + brightness; 0 for no change.
        contrast: as `brightness`, for the contrast.
        saturation: as `brightness`, for the saturation.
        hue: largest shift of the hue, as a share of the color circle, at most 0.5; 0 for no change.
        mirror: probability of the mirror image.

    Raises:
        ConfigError: a value is out of range.
    """

    def __init__(
        self,
        *,
        scale: Sequence[float] = (0.7, 1.0),
        ratio: Sequence[float] = (0.9, 1.1),
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        hue: float = 0.0,
        mirror: float = 0.5,
    ):
        self.scale, self.ratio = _range("scale", scale, most=1), _range("ratio", ratio)
        colors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        for name, value, most in (*((name, value, 1) for name, value in colors.items()), ("hue", hue, 0.5)):
            must_be(f"features.augment.{name}", value, least=0, most=most)
        must_be("features.augment.mirror", mirror, least=0, most=1)
        self.colors, self.mirror = colors | {"hue": hue}, mirror

    def __call__(self, pixels: "Tensor", seed: str, may_be_mirrored: bool) -> "Tensor":
        """Return a changed copy of an image, uint8 [3, H, W].

        The same seed gives the same image. torch's own generator is left as it was.

        Args:
            pixels: the encoder's input, uint8 [3, H, W].
            seed: any text.
            may_be_mirrored: whether the captions also describe the mirror image.
        """
        import torch
        from torchvision.transforms import v2

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=7).digest()))
            height, width = pixels.shape[1:]
            ratio = [each * (width / height) for each in self.ratio]
            crop = v2.RandomResizedCrop([height, width], scale=self.scale, ratio=ratio, antialias=True)
            changed = self._jitter(crop(pixels))
            mirrored = float(torch.rand(())) < self.mirror  # drawn for every image
        return changed.flip(2) if mirrored and may_be_mirrored else changed

    @cached_property
    def _jitter(self) -> Callable[["Tensor"], "Tensor"]:
        from torchvision.transforms import v2

        return v2.ColorJitter(**self.colors)


AUGMENTATIONS: Mapping[str, Mapping[str, Any]] = {
    "light": {},
    "strong": {"scale": (0.5, 1), "ratio": (0.75, 4 / 3), "brightness": 0.4, "contrast": 0.4, "saturation": 0.4}
    | {"hue": 0.05},
}


def make_augmentation(augment: str | Callable[..., "Tensor"] | None) -> Callable[..., "Tensor"] | None:
    """Return the augmentation of a name in AUGMENTATIONS; return a function or None as it is.

    Raises:
        ConfigError: there is no such augmentation.
    """
    if augment is None or callable(augment):
        return augment
    if not isinstance(augment, str) or augment not in AUGMENTATIONS:
        known = ", ".join(AUGMENTATIONS)
        raise ConfigError(f"features.augment must be null or one of {known}, not {augment!r}")
    return Augmentation(**AUGMENTATIONS[augment])


def _range(name: str, values: Sequence[float], *, most: float | None = None) -> tuple[float, float]:
    """Check and return the least and the largest value of a range."""
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != 2:
        raise ConfigError(f"features.augment.{name} must be [LEAST, LARGEST], not {values!r}")
    for value in values:
        must_be(f"features.augment.{name}", value, above=0, most=most)
    if values[0] > values[1]:
        raise ConfigError(f"features.augment.{name} must be [LEAST, LARGEST], not {list(values)}")
    return float(values[0]), float(values[1])
