"""Build encoders from torchvision's classifiers, cut off after a given layer.

This is a file of its own because importing torchvision takes a second.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor, fx, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from captioning.errors import CheckpointError, ConfigError, two_sides
from captioning.io import likeness
from captioning.models.encoder import IMAGENET_MEAN, IMAGENET_STD, Encoder
from captioning.models.weights import fixed_seed, load_weights_file, nearest


def torchvision_encoder(
    name: str,
    *,
    weights: str | None,
    output: str,
    layer: str | None = None,
    image_size: int | list[int] = 224,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    unfreeze_from: str | None = None,
) -> Encoder:
    """Build an encoder from any torchvision classifier, cut off after one of its layers.

    Args:
        name: As in `torchvision.models.list_models`.
        weights: torchvision's name of the weights ("IMAGENET1K_V1", "DEFAULT"; downloaded at first use), a state_dict
            file, or None for random weights, which are the same every time.
        output: "fc" or "grid".
        layer: A module path such as "features.35" (relu5_4 of VGG-19), "classifier.4" (fc7 of VGG-16) or "layer4". For
            "grid", None means the last module that returns a map or tokens, except adaptive pooling, which would
            enlarge a small map by copying neighbors. For "fc", None means the input of the last linear layer.
            Operations that are not modules have names too: the last map of DenseNet is "features", and "relu" after its
            ReLU.
        image_size: Side of a square image, or [H, W], in pixels.
        mean: See `Encoder`.
        std: See `Encoder`.
        unfreeze_from: See `Encoder`.

    Raises:
        ConfigError: The name or layer is unknown.
        CheckpointError: The weights cannot be downloaded, read or loaded into the network.
    """
    network, layer = _network(name, weights=weights, output=output, layer=layer, image_size=image_size)
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


def _network(
    name: str, *, weights: str | None, output: str, layer: str | None, image_size: int | list[int]
) -> tuple[nn.Module, str]:
    """Build a torchvision classifier up to `layer`; return the network and the layer's name."""
    classifier, is_file = _classifier(name, weights)
    sides = two_sides("encoder.image_size", image_size)
    layer = layer or (_last_map(classifier, sides) if output == "grid" else _before_last_linear(classifier))
    network = _cut(classifier, layer)
    if is_file:
        _load_file(network, str(weights), classifier, name)
    return network, layer


def torchvision_network(name: str, *, weights: str | None) -> nn.Module:
    """Build a torchvision classifier, in eval mode; see `torchvision_encoder`."""
    classifier, is_file = _classifier(name, weights)
    if is_file:
        _load_file(classifier, str(weights), classifier, name)
    return classifier


def _load_file(network: nn.Module, file: str, classifier: nn.Module, name: str) -> None:
    names = models.get_model_weights(name).__members__
    load_weights_file(network, file, known=classifier.state_dict(), what=name, names=names)


def _classifier(name: str, weights: str | None) -> tuple[nn.Module, bool]:
    """Build a torchvision classifier; return it, and whether its weights must still be loaded from a file."""
    known = models.list_models(module=models)
    if name not in known:
        raise ConfigError(
            f"encoder.name: torchvision has no classifier {name!r}{nearest(name, known)}. Name one of its classifiers"
        )
    offered = models.get_model_weights(name).__members__
    if weights is None or weights not in offered:
        with fixed_seed():
            classifier = models.get_model(name, weights=None)
    else:
        classifier = _fetch(name, offered[weights])
    return classifier.eval(), weights is not None and weights not in offered


def _fetch(name: str, weights: models.WeightsEnum) -> nn.Module:
    """Load a classifier with torchvision's own weights, which are downloaded at first use."""
    cached = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(weights.url).path).name)
    was_there = cached.exists()
    try:
        network = models.get_model(name, weights=weights)
    except Exception as error:  # torch.load raises any type of error for a damaged file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if was_there and not cached.is_file():
            raise CheckpointError(
                f"{cached} is not a file, but should contain the weights {weights.name} of {name}. "
                "Delete it, then run again"
            ) from error
        if was_there:
            raise CheckpointError(
                f"{cached} should contain the weights {weights.name} of {name}, but cannot be loaded"
                f"{likeness(cached) or f' ({reason})'}. Delete that file, then run again to download it"
            ) from error
        if not isinstance(error, (OSError, RuntimeError)):
            raise
        # no network, unknown address, full disk, or a broken download
        raise CheckpointError(
            f"cannot download the weights {weights.name} of {name} from {weights.url} ({reason}). Put that file into "
            f"{cached.parent}, or set encoder.weights to its path"
        ) from error
    _check_hash(cached, f"the weights {weights.name} of {name}")
    return network


def _check_hash(file: Path, what: str) -> None:
    """Refuse a file in torch's cache whose SHA-256 does not begin as its name says; torch checks only downloads."""
    named = re.search(r"-([0-9a-f]{8,})\.", file.name)  # the naming rule of torch.hub.load_state_dict_from_url
    if named and file.is_file() and not _sha256(file).startswith(named[1]):
        raise CheckpointError(
            f"{file} should contain {what}, but is another file: its SHA-256 does not begin with {named[1]}, as its "
            "name says. Delete that file, then run again to download it"
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _cut(classifier: nn.Module, layer: str) -> nn.Module:
    """Cut the classifier after `layer`: a graph with only the weights it needs, in the order in which they run."""
    nodes = get_graph_node_names(classifier, suppress_diff_warning=True)[1]
    if not any(node == layer or node.startswith(f"{layer}.") for node in nodes):
        known = [*nodes, *(name for name, _ in classifier.named_modules())]
        raise ConfigError(
            f"encoder.layer: the network has no layer {layer!r}{nearest(layer, known)}. Name one of its layers"
        )
    extractor = create_feature_extractor(classifier, [layer], suppress_diff_warning=True).eval()
    graph = extractor.graph  # of eval mode, the only mode in which an encoder runs
    end = graph.output_node()
    end.args = (end.args[0][layer],)  # return the tensor itself, not a dictionary with one entry
    return fx.GraphModule(extractor, graph)


def _before_last_linear(classifier: nn.Module) -> str:
    """Return the name of the graph's node that feeds the last linear layer."""
    nodes = get_graph_node_names(classifier, suppress_diff_warning=True)[1]
    linear = [name for name, module in classifier.named_modules() if isinstance(module, nn.Linear) and name in nodes]
    if not linear:
        raise ConfigError("encoder.layer: this network has no linear layer. Set encoder.layer to the layer to use")
    return nodes[nodes.index(linear[-1]) - 1]


def _last_map(classifier: nn.Module, sides: tuple[int, int]) -> str:
    """Return the name of the last module that outputs tokens [B, N, D] or a map [B, D, H, W] larger than 1×1."""
    found = []

    def look(name: str, module: nn.Module, result: object) -> None:
        # Adaptive pooling enlarges a small map by copying neighboring locations.
        if isinstance(result, Tensor) and not isinstance(module, nn.AdaptiveAvgPool2d):
            shape = result.shape
            if (len(shape) == 4 and shape[2] * shape[3] > 1) or (len(shape) == 3 and shape[1] > 1):
                found.append(name)

    hooks = [
        module.register_forward_hook(lambda module, _, result, name=name: look(name, module, result))
        for name, module in classifier.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            classifier(torch.zeros(1, 3, *sides))
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"encoder.image_size: this network cannot take images of {sides[0]}×{sides[1]}: {error}. Set another size"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return found[-1]
