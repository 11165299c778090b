"""Stand in for a detector, whose region features are read from files and not computed here."""

from typing import Any

from torch import Tensor, nn

from captioning.errors import ConfigError, must_be


class RegionEncoder(nn.Module):
    """Placeholder for a detector whose region features are read from files. It has a size, but cannot encode images.

    Args:
        name: Name of the features.
        size: D.
        weights: Not used.

    Raises:
        ConfigError: `size` is less than 1.
    """

    output, grid_shape, places, image_size, unfreeze_from = "regions", None, None, None, None

    def __init__(self, name: str = "regions", *, size: int = 2048, weights: str | None = "files"):
        super().__init__()
        must_be("encoder.size", size, least=1)
        self.size, self.name = size, name

    def forward(self, images: Tensor) -> Tensor:
        """Refuse to encode images, because the detector is not part of this package.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "this captioner was trained on a detector's region features, which this package cannot compute from an "
            "image. Evaluate it with features=regions features.root=DIR, or caption with regions=DIR"
        )

    def fingerprint(self) -> str:
        """Return a constant, because there are no weights."""
        return "regions"

    def describe(self) -> dict[str, Any]:
        """Return the settings that define these features, as for `Encoder`."""
        return {"name": self.name, "size": self.size}
