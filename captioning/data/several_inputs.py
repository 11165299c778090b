"""Transform an image into the inputs of several encoders at once (`captioning.models.SideBySide`)."""

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from captioning.data.pictures import Box, Transform
from captioning.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

_SIZES = ((1000, 700), (700, 1000))  # of the images whose regions are compared
_CLOSE = 0.01  # of the longer side: "pad" rounds to whole pixels of its input


class SeveralInputs:
    """Transform from an image to the inputs of several encoders, flattened and packed one after the other.

    All parts must show the same region of the image, so that one attention map stands for all of them.

    Args:
        parts: the transforms of the encoders, in their order.

    Raises:
        ConfigError: the parts show different regions of an image.
    """

    def __init__(self, parts: Sequence[Transform]):
        self.parts = list(parts)
        first = self.parts[0]
        for part in self.parts[1:]:
            for size in _SIZES:
                pairs = zip(first.box(*size), part.box(*size), strict=True)
                if any(abs(a - b) > _CLOSE * max(size) for a, b in pairs):
                    raise ConfigError(
                        f"encoder.parts: their transforms show different regions of an image (fit={first.fit} and "
                        f"fit={part.fit}): set transform.fit=squash for all of them"
                    )

    def __call__(self, picture: "Image.Image") -> "Tensor":
        """Return the packed inputs for an image, uint8 [P]."""
        import torch  # not at the top, so that opening and checking images needs no torch

        return torch.cat([part(picture).flatten() for part in self.parts])

    def mirrored(self) -> "SeveralInputs":
        """Return a copy that mirrors left to right, as `Transform.mirrored`."""
        return self._with([part.mirrored() for part in self.parts])

    def cropped(self, share: float, corner: str) -> "SeveralInputs":
        """Return a copy that takes one corner of an image, as `Transform.cropped`."""
        return self._with([part.cropped(share, corner) for part in self.parts])

    def box(self, width: int, height: int) -> Box:
        """Return the region that the inputs show of an image of this size, as `Transform.box`."""
        return self.parts[0].box(width, height)

    def describe(self) -> dict[str, Any]:
        """Return everything that the inputs depend on, except the image, as plain values."""
        return {"parts": [part.describe() for part in self.parts]}

    def _with(self, parts: Sequence[Transform]) -> "SeveralInputs":
        turned = copy(self)
        turned.parts = list(parts)
        return turned
