"""Join the features of several encoders of one image, or of several layers of one encoder, location by location.

Each encoder sees the image at its own size and with its own normalization. Two small networks side by side can tell a
captioner more than one larger network (docs/results.md).
"""

import hashlib
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captioning.errors import ConfigError, two_sides

_EPSILON = 1e-5  # added to a variance, as in BatchNorm


class SideBySide(nn.Module):
    """Several encoders as one: packed images [B, P] uint8 -> features [B, L, D] for grids, [B, D] for fc vectors.

    A packed image is the inputs of all parts, flattened one after the other (`captioning.data.SeveralInputs`). The
    features of each part are standardized for each image: they are shifted and scaled to mean 0 and variance 1 over
    all locations and channels, because networks differ in the range of their features. Then grids are resampled to one
    grid by bilinear interpolation, with antialiasing if this grid is coarser, and the channels are joined, so that D is
    the sum over the parts.

    Args:
        parts: the encoders; all return a grid, or all return an fc vector.
        grid: side of the common grid, or its rows and columns; None for that of the part with most locations.

    Attributes:
        size: D.
        places: L, or None for fc vectors.
        grid_shape: rows and columns of the common grid, or None for fc vectors.

    Raises:
        ConfigError: there are fewer than two parts, they have different outputs, or `grid` is out of range.
    """

    def __init__(self, parts: Sequence[nn.Module], *, grid: int | Sequence[int] | None = None):
        super().__init__()
        if len(parts) < 2:
            raise ConfigError("encoder.parts has fewer than two encoders: list two or more files of conf/encoder")
        self.parts = nn.ModuleList(parts)
        outputs = [str(part.output) for part in parts]
        if len(set(outputs)) > 1 or outputs[0] not in ("grid", "fc"):
            found = ", ".join(f"{part.name} {output}" for part, output in zip(parts, outputs, strict=True))
            raise ConfigError(
                f"encoder.parts: the parts have the outputs {found}: set encoder.output=grid or encoder.output=fc"
            )
        self.output, self.name = outputs[0], "+".join(str(part.name) for part in parts)
        self.grids: list[tuple[int, int]] = [part.grid_shape for part in self._encoders() if self.output == "grid"]
        self.grid_shape = self._common(grid)
        self.places = prod(self.grid_shape) if self.grid_shape else None
        self.size = sum(part.size for part in self._encoders())

    def _common(self, grid: int | Sequence[int] | None) -> tuple[int, int] | None:
        """Return the rows and columns of the common grid."""
        if grid is None:
            return max(self.grids, key=prod) if self.grids else None
        if not self.grids:
            raise ConfigError("encoder.grid is for grids, and these parts return fc vectors: set encoder.grid=null")
        return two_sides("encoder.grid", grid, most=256, names="[ROWS, COLUMNS]")

    def forward(self, images: Tensor) -> Tensor:
        """Compute the joined features of packed images [B, P] uint8: float32 [B, L, D] or [B, D].

        Raises:
            ValueError: the images are not packed for these parts.
        """
        shapes = [(3, *_sides(part.image_size)) for part in self._encoders()]
        if images.dtype != torch.uint8 or images.shape[1:] != (sum(map(prod, shapes)),):
            raise ValueError(
                f"{self.name} takes packed uint8 images [B, {sum(map(prod, shapes))}] (captioning.data.SeveralInputs), "
                f"not {images.dtype} {tuple(images.shape)}"
            )
        inputs = unpack(images, shapes)
        return self.join([part(image) for part, image in zip(self.parts, inputs, strict=True)])

    def join(self, features: Sequence[Tensor]) -> Tensor:
        """Standardize the features of each part, [B, L_i, D_i] or [B, D_i]; resample grids; join the channels."""
        same = [standardize(each.float()) for each in features]
        if self.grid_shape is not None:
            grids = zip(same, self.grids, strict=True)
            same = [resample(each, shape, self.grid_shape) for each, shape in grids]
        return torch.cat(same, -1)

    def of_stored(self, encoders: Sequence[nn.Module], shapes: Sequence[Sequence[int]]) -> "JoinedParts":
        """Return the module that joins what is stored for each part; see `JoinedParts`.

        If a part is fine-tuned, the module contains the complete networks of all parts, under their names here. So a
        checkpoint has all weights, and its encoder can be used on images.
        """
        if self.trainable_parameters():
            pairs = zip(encoders, self._encoders(), strict=True)
            encoders = [each if list(each.parameters()) else _Frozen(part) for each, part in pairs]
        return JoinedParts(self.join, encoders, shapes)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that are fine-tuned; an empty list if all parts are frozen."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def fingerprint(self) -> str:
        """Return 16 hex digits of a SHA-256 over the fingerprints of the parts."""
        return hashlib.sha256(" ".join(part.fingerprint() for part in self._encoders()).encode()).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """Return the settings that define these features, as plain values: part of a feature store's key."""
        parts = [part.describe() for part in self._encoders()]
        return {"name": self.name, "parts": parts, "grid": self.grid_shape and list(self.grid_shape)}

    def _encoders(self) -> list[Any]:
        return list(self.parts)


class JoinedParts(nn.Module):
    """Join features that were read from the stores of the parts: packed [B, P] float16 -> float32 [B, L, D] or [B, D].

    Args:
        join: `SideBySide.join` of the encoder whose parts computed the features.
        encoders: one module per part, which maps what was stored to the part's features: the identity, or the part of a
            network that is trained.
        shapes: the shape of what is stored for one image, for each part.
    """

    def __init__(
        self,
        join: Callable[[Sequence[Tensor]], Tensor],
        encoders: Sequence[nn.Module],
        shapes: Sequence[Sequence[int]],
    ):
        super().__init__()
        self.parts, self.shapes = nn.ModuleList(encoders), [tuple(shape) for shape in shapes]
        self._join = join

    def forward(self, packed: Tensor) -> Tensor:
        """Compute the joined features of a batch."""
        stored = unpack(packed, self.shapes)
        return self._join([encoder(each) for encoder, each in zip(self.parts, stored, strict=True)])


class _Frozen(nn.Module):
    """The modules of a frozen encoder, for a checkpoint, as the identity: its features are what is stored."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        for name, module in encoder.named_children():
            self.add_module(name, module)

    def forward(self, stored: Tensor) -> Tensor:
        return stored

    def train(self, mode: bool = True) -> "_Frozen":
        """Set the training flag of this module alone; its networks stay in eval mode."""
        self.training = mode
        return self


def standardize(features: Tensor) -> Tensor:
    """Shift and scale the features of each image, [B, …], to mean 0 and variance 1 over all their values."""
    rest = tuple(range(1, features.dim()))
    variance, mean = torch.var_mean(features, rest, correction=0, keepdim=True)
    return (features - mean) * torch.rsqrt(variance + _EPSILON)


def resample(features: Tensor, shape: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Resample a grid of `shape` (rows, columns), [B, L, D], to another shape over the same region of the image.

    A location is the center of its cell, so the corners of both grids coincide, not the centers of their corner cells.
    """
    if shape == wanted:
        return features
    maps = features.transpose(1, 2).unflatten(2, shape)
    coarser = wanted[0] < shape[0] or wanted[1] < shape[1]
    resized = F.interpolate(maps, wanted, mode="bilinear", align_corners=False, antialias=coarser)
    return resized.flatten(2).transpose(1, 2)


def unpack(packed: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Split packed values [B, P] into one tensor [B, *shape] for each shape."""
    pieces = packed.split([prod(shape) for shape in shapes], 1)
    return [piece.unflatten(1, tuple(shape)) for piece, shape in zip(pieces, shapes, strict=True)]


def _sides(image_size: Any) -> tuple[int, int]:
    """Return height and width of an encoder's input."""
    return (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
