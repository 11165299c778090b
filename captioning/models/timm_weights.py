"""Build a network of timm with the weights that its user names: timm's own, a file, or random ones."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captioning.errors import CheckpointError, ConfigError
from captioning.io import TimmSettings, likeness
from captioning.models.weights import fixed_seed

PRETRAINED = "pretrained"  # the value of `weights` for timm's own


def build_timm(name: str, weights: str | None, *, size: tuple[int, int], own: TimmSettings) -> Any:
    """Build a classifier of timm, in eval mode.

    Args:
        name: Its name.
        weights: "pretrained", a file, or None for random weights.
        size: Height and width of its input in pixels.
        own: Its settings.

    Raises:
        ConfigError: The network cannot be built for this size, or timm has no weights of it.
        CheckpointError: The weights cannot be downloaded, read or loaded into the network.
    """
    if weights == PRETRAINED:
        return _pretrained(name, size, own).eval()
    try:
        model = _create(name, size, own)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:  # its blocks do not fit this size
        raise ConfigError(
            f"encoder.image_size: {name} cannot be built for images of {size[0]}×{size[1]} ({_reason(error)}). "
            "Set another size"
        ) from error
    return model.eval() if weights is None else _from_file(name, Path(weights), model, size, own).eval()


def _create(name: str, size: tuple[int, int], own: TimmSettings, **options: Any) -> Any:
    """Build a classifier; options are those of `timm.create_model`. The global generator is left alone."""
    import timm

    if own.fixed_size:
        options["img_size"] = size  # timm interpolates the position embeddings in weights to it
    with fixed_seed():
        return timm.create_model(name, **options)


def _pretrained(name: str, size: tuple[int, int], own: TimmSettings) -> Any:
    if own.url is None:
        raise ConfigError(
            f"encoder.weights: timm has no weights of {name}. Set encoder.weights to a file, or to null for random ones"
        )
    cached = _cached(own)
    try:
        return _create(name, size, own, pretrained=True)
    except Exception as error:  # no network, a full disk, a damaged file: each library raises errors of its own
        if cached:
            raise CheckpointError(
                f"{cached} should contain the weights of {name}, but cannot be loaded"
                f"{likeness(cached) or f' ({_reason(error)})'}. Delete that file, then run again to download it"
            ) from error
        file = "model.safetensors" if own.hub else Path(own.url).name
        raise CheckpointError(
            f"cannot download the weights of {name} from {own.url} ({_reason(error)}). Download {file} from there "
            f"yourself, and set encoder.weights to its path"
        ) from error


def _cached(own: TimmSettings) -> Path | None:
    """Return the weights in the cache of downloads, if they are there."""
    if own.hub is None:
        file = Path(torch.hub.get_dir(), "checkpoints", Path(str(own.url)).name)
        return file if file.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(own.hub, "model.safetensors")
    return Path(found) if isinstance(found, str) else None


def _from_file(name: str, file: Path, model: Any, size: tuple[int, int], own: TimmSettings) -> Any:
    """Load a file of timm's or of the network's authors; timm renames their weights.

    The classifier may have any number of classes.
    """
    state = _read(file, name)
    patches = "patch_embed.proj.weight"  # timm would resample those of another size without a word
    wanted = model.state_dict().get(patches)
    if wanted is not None and patches in state and state[patches].shape[2:] not in (wanted.shape[2:], ()):
        raise CheckpointError(
            f"{file}: the weights do not fit {name}: its patches have other sizes than {tuple(wanted.shape[2:])} "
            f"pixels. Set encoder.weights to a file of {name}"
        )
    options: dict[str, Any] = {"pretrained_cfg_overlay": {"file": str(file)}}
    classes = _classes(model, state)
    if classes is not None:
        options["pretrained_cfg_overlay"]["num_classes"] = options["num_classes"] = classes
    try:
        return _create(name, size, own, pretrained=True, **options)
    except Exception as error:  # timm's conversions of another network's weights raise any type of error
        raise CheckpointError(
            f"{file}: the weights do not fit {name} ({_reason(error)}). Set encoder.weights to a file of {name}"
        ) from error


def _classes(model: Any, state: dict[str, Tensor]) -> int | None:
    """Return the number of classes of the classifier in a file; None if the file has no classifier of timm's name."""
    named = model.pretrained_cfg.get("classifier") or ()
    for each in [named] if isinstance(named, str) else named:
        if f"{each}.weight" in state:
            return len(state[f"{each}.weight"])
    return None


def _read(file: Path, name: str) -> dict[str, Tensor]:
    from timm.models import load_state_dict

    if not file.is_file():
        raise CheckpointError(
            f"encoder.weights: {file} is neither a file nor {PRETRAINED!r}. Give the path of a file with weights of "
            f"{name}"
        )
    try:
        state = load_state_dict(str(file), weights_only=True)
    except Exception as error:  # any type of error for a damaged file
        raise CheckpointError(
            f"{file}: not a weights file that can be loaded safely{likeness(file)}. Set encoder.weights to a "
            ".safetensors file, or to one that torch.save(model.state_dict(), FILE) wrote"
        ) from error
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{file}: not a state_dict (names to tensors). Save only model.state_dict()")
    return state


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"
