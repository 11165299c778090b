"""Encode uint8 images with a network, as one fc vector [B, D] or as a grid of L locations [B, L, D].

`Encoder` takes a built network; `torchvision_encoder` and `efficientnet_lite_encoder` build the provided ones.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError, two_sides
from captioning.models.frozen_part import FrozenPart, TrainablePart, split_encoder
from captioning.models.weights import fingerprint_of, nearest

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Encoder(nn.Module):
    """An image encoder: images [B, 3, H, W] uint8 -> float32 features, [B, D] for output "fc", [B, L, D] for "grid".

    The L = R·C locations of a grid of R rows and C columns are in row-major order, from the top left; a class token is
    left out. If the network returns a grid and `output` is "fc", the vector is the mean over the locations.

    The network always stays in eval mode, also after `train()` and also when it is fine-tuned: BatchNorm statistics
    never change, and dropout and stochastic depth are off. A frozen network (the default) runs without gradients. When
    it is fine-tuned, gradients reach the module `unfreeze_from` and all modules after it, except BatchNorm layers: with
    fixed statistics they are part of the convolutions before them, and a batch of captions is too small to estimate the
    statistics.

    Args:
        network: Module from normalized images [B, 3, H, W] to [B, D], [B, D, R, C], [B, L, D] or [B, 1 + L, D]. Tokens
            are a grid in the proportions of the image.
        name: Name of the network; with `layer` it identifies the features in a feature store.
        output: "fc" or "grid".
        mean: Mean of the three channels, for images in 0…1.
        std: Standard deviation of the three channels, for images in 0…1.
        image_size: Side of a square image, or (H, W), in pixels.
        layer: Name of the layer that returns the features.
        unfreeze_from: A module of the network; None freezes the network.

    Attributes:
        size: D.
        grid_shape: (R, C), or None for "fc".
        places: L, or None for "fc".
        image_size: Side of a square image, or (H, W).

    Raises:
        ConfigError: The network cannot process images of this size, cannot return this output, or has no such module.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        output: str,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        image_size: int | Sequence[int] = 224,
        layer: str | None = None,
        unfreeze_from: str | None = None,
    ):
        super().__init__()
        if output not in ("fc", "grid"):
            raise ConfigError(f'encoder.output must be "fc" or "grid", not {output!r}')
        self.name, self.layer, self.output = name, layer, output
        self._sides = height, width = two_sides("encoder.image_size", image_size)
        self.image_size: int | tuple[int, int] = height if height == width else self._sides
        self.mean, self.std, self.unfreeze_from = tuple(mean), tuple(std), unfreeze_from
        # channels_last: twice as fast for depthwise convolutions on a CPU, and the fast format of GPU tensor cores.
        self.network = network.to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self.register_buffer("shift", torch.tensor([[[255.0 * value]] for value in mean]), persistent=False)
        self.register_buffer("scale", torch.tensor([[[255.0 * value]] for value in std]), persistent=False)
        self.class_tokens, shape, self.size = self._measure()
        self.grid_shape = shape if output == "grid" else None
        self.places = None if self.grid_shape is None else math.prod(self.grid_shape)
        if unfreeze_from is not None:
            _unfreeze(self.network, unfreeze_from)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features of images [B, 3, H, W] uint8: float32 [B, D], or [B, L, D] for a grid.

        Raises:
            ValueError: The images are not uint8 (float images would be normalized twice) or have another size.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.unfreeze_from is not None):
            return self.as_features(self.network(self.as_input(images)))

    def as_input(self, images: Tensor) -> Tensor:
        """Return the network's input for images [B, 3, H, W] uint8.

        Raises:
            ValueError: As for `forward`.
        """
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != (3, *self._sides):
            size = "[B, 3, {}, {}]".format(*self._sides)
            raise ValueError(f"{self.name} takes uint8 images {size}, not {images.dtype} {tuple(images.shape)}")
        return self._normalize(images)

    def as_features(self, output: Tensor) -> Tensor:
        """Return the features for the network's output."""
        features = _as_places(output)
        if features.dim() == 3:
            features = features[:, self.class_tokens :]
            features = features.mean(1) if self.output == "fc" else features
        return features.float()

    def split(self) -> tuple[FrozenPart, TrainablePart]:
        """Split a fine-tuned encoder into its frozen part and the part that is trained; see `frozen_part`."""
        return split_encoder(self)

    def train(self, mode: bool = True) -> "Encoder":
        """Set the training flag of the encoder itself; its network stays in eval mode."""
        super().train(mode)
        self.network.eval()
        return self

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that are fine-tuned, for a learning rate of their own; an empty list if frozen."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def fingerprint(self) -> str:
        """Return 16 hex digits of a SHA-256 over names, shapes and values of the network's weights and statistics."""
        return fingerprint_of(self.network.state_dict())

    def describe(self) -> dict[str, Any]:
        """Return the settings that define these features, as plain values: part of a feature store's key."""
        return {
            "name": self.name,
            "layer": self.layer,
            "output": self.output,
            "mean": list(self.mean),
            "std": list(self.std),
            "fingerprint": self.fingerprint(),
        }

    def _normalize(self, images: Tensor) -> Tensor:
        """Compute (x − 255 mean) / (255 std), in channels_last format."""
        return images.to(self.shift.dtype, memory_format=torch.channels_last).sub(self.shift).div_(self.scale)

    def black(self, count: int = 1) -> Tensor:
        """Return the network's input for `count` black images."""
        size = (count, 3, *self._sides)
        return self._normalize(torch.zeros(size, dtype=torch.uint8, device=self.shift.device))

    @torch.no_grad()
    def _measure(self) -> tuple[int, tuple[int, int] | None, int]:
        """Return the number of class tokens (0 or 1), rows and columns, and D, measured on a black image."""
        try:
            features = self.network(self.black())
        except (RuntimeError, AssertionError) as error:  # a map too small, or a transformer built for another size
            side = "×".join(map(str, self._sides))
            raise ConfigError(
                f"encoder.image_size: {self.name} cannot take images of {side}: {error}. Set another size"
            ) from error
        layer = self.layer or self.name
        if features.dim() not in (2, 3, 4) or (features.dim() == 4 and _channels_last(features, self._sides)):
            raise ConfigError(
                f"encoder.layer: {layer} returns {list(features.shape[1:])}, which is neither a vector nor a map "
                "[D, ROWS, COLUMNS] nor tokens. Name another layer"
            )
        if features.dim() == 4:
            return 0, (features.shape[2], features.shape[3]), features.shape[1]
        if features.dim() == 3:
            return *_token_grid(features.shape[1], self._sides, layer=layer), features.shape[2]
        if self.output == "grid":
            raise ConfigError(f"encoder.layer: {layer} returns a vector, not a grid. Set encoder.output=fc")
        return 0, None, features.shape[1]


def _as_places(features: Tensor) -> Tensor:
    """Reshape maps [B, D, R, C] to [B, R·C, D], in row-major order; keep tokens [B, N, D] and vectors [B, D]."""
    return features.flatten(2).transpose(1, 2) if features.dim() == 4 else features


def _channels_last(features: Tensor, sides: tuple[int, int]) -> bool:
    """Return whether a map is [B, R, C, D]: only its first two sides have the proportions of the image."""
    height, width = sides

    def fits(rows: int, columns: int) -> bool:
        return abs(rows * width - columns * height) < max(sides)  # up to the rounding of one row or column

    _, first, second, third = features.shape
    return fits(first, second) and not fits(second, third)


def proportional_grid(locations: int, sides: tuple[int, int]) -> tuple[int, int] | None:
    """Return rows and columns of a grid with the proportions of an image (height, width); None if there is none."""
    rows = math.isqrt(max(0, locations) * sides[0] // sides[1])
    columns = locations // max(1, rows)
    fits = rows > 0 and rows * columns == locations and rows * sides[1] == columns * sides[0]
    return (rows, columns) if fits else None


def _token_grid(tokens: int, sides: tuple[int, int], *, layer: str) -> tuple[int, tuple[int, int]]:
    """Return how many tokens (0 or 1) come before a grid of locations, and the grid's rows and columns."""
    for extra in (0, 1):
        if grid := proportional_grid(tokens - extra, sides):
            return extra, grid
    kind = "a square grid" if sides[0] == sides[1] else "a grid in the proportions of the image"
    raise ConfigError(
        f"encoder.layer: {layer} returns {tokens} tokens, which are not {kind}, with or without a class token. "
        "Name another layer, or let the network return a map [B, D, ROWS, COLUMNS]"
    )


def _unfreeze(network: nn.Module, name: str) -> None:
    """Enable gradients in the module `name` and all modules registered after it, except BatchNorm."""
    modules = dict(network.named_modules())
    if name not in modules or not name:
        top = ", ".join(child for child, _ in network.named_children())
        raise ConfigError(
            f"encoder.unfreeze_from: the network has no module {name!r}{nearest(name, modules)}. "
            f"Name one of its modules, for example one of: {top}"
        )
    for module in list(modules.values())[list(modules).index(name) :]:
        if not isinstance(module, _BATCH_NORM):
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(True)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError(
            f"encoder.unfreeze_from: {name!r} and the modules after it have nothing to train. Name an earlier one"
        )
