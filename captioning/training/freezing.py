"""Freeze the parts of a model that a run does not train."""

from collections.abc import Sequence

from torch import nn

from captioning.errors import ConfigError
from captioning.models import nearest


def train_only(model: nn.Module, names: Sequence[str] | None) -> None:
    """Freeze all parameters of a model except those of some of its modules; the encoder's are not changed.

    Args:
        model: the model, before its encoder is set.
        names: names of modules, such as "decoder.readout"; None: train all.

    Raises:
        ConfigError: the model has no such module, or a module has nothing to train.
    """
    if names is None:
        return
    modules = dict(model.named_modules())
    kept = set()
    for name in names:
        if name not in modules or not name or name.split(".")[0] == "encoder":
            some = ", ".join(
                key for key in modules if key and key.count(".") < 2 and any(True for _ in modules[key].parameters())
            )
            raise ConfigError(
                f"train_only: the model has no module {name!r}{nearest(name, modules)}. Name some of: {some}"
            )
        parameters = list(modules[name].parameters())
        if not parameters:
            raise ConfigError(f"train_only: {name} has nothing to train. Name another module")
        kept |= set(parameters)
    if not kept:
        raise ConfigError("train_only is an empty list: name modules to train, or set train_only=null to train all")
    for parameter in model.parameters():
        parameter.requires_grad_(parameter in kept)
