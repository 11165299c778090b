"""Read and change the settings of an encoder in a checkpoint, which may have parts with settings of their own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from captioning.io import timm_settings


def encoder_names(node: Mapping[str, Any]) -> str:
    """Return the name of an encoder, or the names of its parts joined by " + "."""
    return " + ".join(str(part.get("name")) for part in _parts(node))


def named_weights(node: Mapping[str, Any]) -> list[Any]:
    """Return the setting `weights` of an encoder, or of each of its parts."""
    return [part.get("weights") for part in _parts(node)]


def loads_again(node: Mapping[str, Any]) -> bool:
    """Return whether an encoder's weights can be loaded again by name, so that a checkpoint need not hold them."""
    return all(isinstance(weights, str) and not Path(weights).is_file() for weights in named_weights(node))


def hub_names(node: Mapping[str, Any]) -> list[str]:
    """Return the repositories of the encoder's pretrained weights on the Hugging Face Hub; [] if they are elsewhere."""
    named = [part for part in _parts(node) if str(part.get("_target_")).endswith(".timm_encoder")]
    found = [timm_settings(str(part["name"])).hub for part in named if part.get("weights") == "pretrained"]
    return [hub for hub in found if hub]


def with_weights(node: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the settings of an encoder in which each setting `weights` is changed.

    Args:
        node: the settings of an encoder.
        change: old value -> new value.
    """
    if "parts" in node:
        return {**node, "parts": [with_weights(part, change) for part in node["parts"]]}
    return {**node, "weights": change(node.get("weights"))}


def input_text(transform: Mapping[str, Any]) -> str:
    """Return the size and fit of an encoder's input as text, or those of the inputs of all parts."""
    texts = [_one_input(part) for part in transform.get("parts") or [transform]]
    return "; ".join(dict.fromkeys(texts))


def _one_input(transform: Mapping[str, Any]) -> str:
    size, fit = transform.get("size"), transform.get("fit")
    height, width = (size, size) if isinstance(size, int) or size is None else size
    return f"{width} × {height} pixels, `transform.fit={fit}`"


def _parts(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return node.get("parts") or [node]
