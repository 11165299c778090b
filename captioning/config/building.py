"""Build objects from `_target_` nodes: plain settings that name a class or function and its arguments."""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import hydra
from hydra.errors import InstantiationException

from captioning.config.allowlist import allowed_in_checkpoint, allowed_in_settings, not_allowed, targets
from captioning.errors import CaptioningError, CheckpointError, ConfigError, two_sides


def build(node: Mapping[str, Any], **late: Any) -> Any:
    """Build the object that a `_target_` node describes, including the nodes inside it.

    Args:
        node: the settings; with `_partial_: true`, a function that builds the object later is returned.
        **late: further arguments, which are known only now.

    Raises:
        ConfigError: a target is not allowed (`captioning.config.allowlist`), or an argument does not fit. The targets
            themselves may raise other errors.
    """
    for target in targets(node):
        if not allowed_in_settings(target):
            raise not_allowed(target)
    if "_target_" not in node:
        raise ConfigError(
            f"the part with {', '.join(map(str, node))} has no _target_: add _target_=captioning.FOLDER.NAME"
        )
    try:
        # The late arguments (modules, callbacks) bypass hydra, which would treat them as configuration.
        make = hydra.utils.instantiate({**node, "_partial_": True}, _convert_="all")
    except InstantiationException as error:
        if isinstance(cause := _first_cause(error), CaptioningError):
            raise cause from None
        raise
    if node.get("_partial_"):
        return partial(make, **late)
    advice = "Perhaps _partial_=true is missing: add it beside"
    try:
        inspect.signature(make).bind(**late)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{node['_target_']}: {error}. {advice} this _target_") from error
    try:
        return make(**late)
    except TypeError as error:  # a part inside is an object already, but the model expects a function that builds it
        if not str(node["_target_"]).startswith("captioning.models."):
            raise  # readers and trainers run for a long time, and a TypeError there is a bug: keep its traceback
        raise ConfigError(f"{node['_target_']}: {error}. {advice} the _target_ of one of its parts") from error


def build_encoder(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the encoder and the image transform of a configuration.

    Raises:
        ConfigError: as for `build`, or the transform makes images of another size than the encoder takes.
    """
    encoder, transform = build(config["encoder"]), build(config["transform"])
    pairs = [(encoder, transform)]
    if hasattr(encoder, "parts") and hasattr(transform, "parts"):
        pairs = list(zip(encoder.parts, transform.parts, strict=True))
    for part, its in pairs:
        takes, makes = getattr(part, "image_size", None), getattr(its, "size", None)
        if takes is None or makes is None:  # regions, or a part of your own
            continue
        if two_sides("encoder.image_size", takes) != two_sides("transform.size", makes):
            raise ConfigError(
                f"transform.size={makes} is not the size that {part.name} takes (encoder.image_size={takes}): set only "
                "encoder.image_size, which transform.size follows"
            )
    return encoder, transform


def build_trusted(node: Mapping[str, Any], **late: Any) -> Any:
    """Build a node from a file that may come from a stranger: only parts of a model and transforms are allowed.

    Raises:
        CheckpointError: the node names anything else, or hides it, or has arguments that do not fit.
    """
    try:
        named = list(targets(node))
    except ConfigError as error:
        raise CheckpointError(f"the checkpoint's configuration: {error}") from error
    for target in named:
        if not allowed_in_checkpoint(target):
            raise CheckpointError(
                f"the checkpoint names {target!r:.100}, but only this package's own parts are built. If it is a part "
                "of a module that you trust, add plugins=[MODULE]"
            )
    try:
        return build(node, **late)
    except CaptioningError:
        raise
    except Exception as error:  # wrong arguments can make the parts raise anything
        reason = str(_first_cause(error)).partition("\n")[0]
        raise CheckpointError(
            f"the checkpoint's configuration does not describe a model ({reason:.200}): use another checkpoint"
        ) from error


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
