"""Look up networks of timm by name: whether a network exists, where its weights are, and which input it expects.

timm is https://github.com/huggingface/pytorch-image-models. Nothing here uses the internet or builds a network.
"""

import difflib
from typing import Any, NamedTuple

from captioning.errors import ConfigError
from captioning.io.optional_packages import need_package

_FITS = {"center": "crop", "squash": "squash", "border": "pad"}  # timm's crop_mode -> fit of a transform


class TimmSettings(NamedTuple):
    """What timm knows about a network and its weights.

    Attributes:
        size: height and width of its input in pixels.
        mean: mean of the three channels, for images in 0…1.
        std: standard deviation of the three channels, for images in 0…1.
        interpolation: "bicubic" or "bilinear".
        fit: how an image becomes the input: "crop", "squash" or "pad".
        crop_share: for "crop", side of the input as a share of the short side of the resized image.
        fixed_size: whether the network must be built for the size of its input.
        hub: name of its repository on huggingface.co; None if its weights are elsewhere, or there are none.
        url: address of its weights; None if there are none.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    fit: str
    crop_share: float
    fixed_size: bool
    hub: str | None
    url: str | None


def timm_settings(name: str) -> TimmSettings:
    """Return the settings of a network.

    Args:
        name: architecture, with or without the tag of its weights: "resnet50", "resnet50.a1_in1k".

    Raises:
        ConfigError: timm is not installed, or has no such network or tag.
    """
    need_package("timm", extra="timm", wanted_by=f"encoder.name={name}")
    from timm.data import resolve_data_config
    from timm.models import get_pretrained_cfg

    _check_name(name)
    known = get_pretrained_cfg(name)
    own: dict[str, Any] = known.to_dict() if known else {"input_size": (3, 224, 224)}
    data = resolve_data_config(pretrained_cfg=own)
    hub = own.get("hf_hub_id") or None
    return TimmSettings(
        size=tuple(data["input_size"][1:]),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
        fit=_FITS[data["crop_mode"]],
        crop_share=data["crop_pct"],
        fixed_size=own.get("fixed_input_size", False),
        hub=hub,
        url=f"https://huggingface.co/{hub}" if hub else own.get("url") or None,
    )


def _check_name(name: str) -> None:
    import timm
    from timm.models import get_arch_pretrained_cfgs

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        listed = "python -c 'import timm; print(timm.list_models())'"
        raise ConfigError(
            f"encoder.name: timm has no network {name!r}{_nearest(name, architecture)}. To list all, run {listed}"
        )
    tags = get_arch_pretrained_cfgs(architecture)
    if tag and name not in tags:
        near = difflib.get_close_matches(name, tags, n=4, cutoff=0)
        advice = f"Name one of its weights (nearest: {', '.join(near)})" if "." in "".join(near) else "Leave it out"
        raise ConfigError(f"encoder.name: timm has no weights {tag!r} of {architecture}. {advice}")


def _nearest(name: str, architecture: str) -> str:
    """Return the most similar names, as a part of a message: of architectures, and of weights if a tag is given."""
    import timm

    near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
    if "." in name:
        near = [*difflib.get_close_matches(name, timm.list_pretrained(), n=2, cutoff=0.5), *near]
    return f" (nearest: {', '.join(near)})" if near else ""
