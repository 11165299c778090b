"""Transform images as a network of timm expects it: its own size, crop and interpolation."""

import math

from captioning.data.pictures import Transform
from captioning.errors import two_sides
from captioning.io import timm_settings


class TimmTransform(Transform):
    """The transform with which timm evaluates a network, from the network's name alone.

    It differs from timm's own in three points. An image is resized and cropped in one step, so that a crop need not
    begin at a whole pixel. Padding is mid gray. For the few networks for which timm squashes an image and then cuts off
    its border, the border stays.

    Args:
        name: as for `captioning.models.timm_encoder`.
        size: as for `Transform`; None is the network's own size.
        fit: as for `Transform`; None is the network's own.
        resize: for "crop" only, in pixels; None is the network's own share: 256 for a size of 224 and a share of 0.875.
        mirror: as for `Transform`.
        interpolation: as for `Transform`; None is the network's own.

    Raises:
        ConfigError: timm is not installed or has no such network, or as for `Transform`.
    """

    def __init__(
        self,
        name: str,
        *,
        size: int | list[int] | None = None,
        fit: str | None = None,
        resize: int | None = None,
        mirror: bool = False,
        interpolation: str | None = None,
    ):
        own = timm_settings(name)
        size, fit = list(own.size) if size is None else size, fit or own.fit
        if fit == "crop" and resize is None:
            resize = math.floor(min(two_sides("transform.size", size)) / own.crop_share)
        interpolation = interpolation or own.interpolation
        super().__init__(size, fit=fit, resize=resize, mirror=mirror, interpolation=interpolation)
