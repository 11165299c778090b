"""Look up the linear classifier that an encoder's network ends in, for a captioner that attends to tags."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError
from captioning.models import Classifier
from captioning.tags.tagger import FAMILIES

_LINEAR = (nn.Linear, nn.Dropout, nn.Identity, nn.Flatten, nn.Sequential)  # together still linear, without dropout


def linear_head_of(settings: Mapping[str, Any], encoder: Any) -> tuple[Tensor, Tensor]:
    """Return weight [1000, D] and bias [1000] of the classifier of an encoder's network.

    Args:
        settings: the settings of the encoder.
        encoder: the encoder, with the weights that it is used with.

    Raises:
        ConfigError: the network has no linear classifier of the mean over the encoder's grid, or the encoder has other
            weights than the classifier was trained with.
        CheckpointError: the weights cannot be loaded.
    """
    advice = "Choose another encoder, such as encoder=efficientnet_lite0 or resnet101, or set model/tags=none"
    builder = str(settings["_target_"]).rpartition(".")[2]
    family = builder.removesuffix("_encoder")
    if family not in FAMILIES:
        raise ConfigError(
            f"model/tags=places needs one network with a classifier, but the encoder is {builder}. {advice}"
        )
    if settings.get("unfreeze_from") is not None:
        raise ConfigError(
            f"encoder.unfreeze_from={settings['unfreeze_from']}: model/tags=places needs a frozen encoder, because its "
            "classifier is not trained. Set encoder.unfreeze_from=null or model/tags=none"
        )
    classifier = _classifier(family, settings)
    if classifier.encoder.layer != encoder.layer:
        raise ConfigError(
            f"encoder.layer={encoder.layer}: model/tags=places needs the layer that the classifier of {encoder.name} "
            f"takes. Set encoder.layer={classifier.encoder.layer} or model/tags=none"
        )
    if classifier.encoder.fingerprint() != encoder.fingerprint():
        raise ConfigError(
            f"model/tags=places needs the weights that the classifier of {encoder.name} was trained with, but this "
            "encoder was fine-tuned. Set model/tags=none"
        )
    parts = list(classifier.head.layers.modules())
    linear = [part for part in parts if isinstance(part, nn.Linear)]
    if len(linear) != 1 or not all(isinstance(part, _LINEAR) for part in parts):
        raise ConfigError(f"model/tags=places: the classifier of {encoder.name} is not one linear layer. {advice}")
    weight, bias = linear[0].weight.detach(), linear[0].bias
    return weight, torch.zeros(len(weight)) if bias is None else bias.detach()


def _classifier(family: str, settings: Mapping[str, Any]) -> Classifier:
    options = {key: settings[key] for key in ("weights", "image_size", "layer") if key in settings}
    if family != "torchvision":  # these have one such layer
        del options["layer"]
    if family == "efficientnet_lite":  # built at its own size, on which neither its layers nor its weights depend
        del options["image_size"]
    try:
        return FAMILIES[family](settings["name"], **options)
    except ConfigError as error:
        raise ConfigError(f"model/tags=places: {error}, or set model/tags=none") from error
