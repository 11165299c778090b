"""Collect the metadata of a checkpoint during training, and rebuild encoder and model from it."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from captioning.checkpoints.encoder_settings import encoder_names, loads_again, named_weights, with_weights
from captioning.checkpoints.read import FORMAT, IMAGE_CAPTIONING, check_shapes, load_state, without_memory
from captioning.config import build_trusted, plugins_in
from captioning.data import Vocabulary
from captioning.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from captioning.models import Encoder, RegionEncoder


def make_metadata(
    config: Mapping[str, Any],
    vocabulary: Vocabulary,
    encoder: "Encoder | RegionEncoder",
    *,
    tuned: bool = False,
    frequencies: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return everything except the weights that a checkpoint needs to caption images, as plain containers.

    Args:
        config: the settings of the run.
        vocabulary: the vocabulary of the run.
        encoder: the encoder of the run.
        tuned: whether the encoder has weights that another run fine-tuned.
        frequencies: the reward's document frequencies (`Reward.state_dict`), if any, for a run that resumes.
    """
    return {
        "format": FORMAT,
        "task": IMAGE_CAPTIONING,
        "plugins": plugins_in(config[key] for key in ("encoder", "transform", "model")),
        "config": {key: config[key] for key in ("encoder", "transform", "model", "data", "decoding", "seed")},
        "vocabulary": vocabulary.state_dict(),
        "tokenizer": vocabulary.tokenizer.state_dict(),
        "frequencies": frequencies and {key: _tensor(value) for key, value in frequencies.items()},
        **encoder_metadata(config, encoder, tuned=tuned),
    }


def encoder_metadata(config: Mapping[str, Any], encoder: "Encoder | RegionEncoder", *, tuned: bool) -> dict[str, Any]:
    """Return the encoder's part of the metadata.

    The weights of a frozen encoder are included only if they cannot be loaded again by name: weights from a file, or
    weights that another run fine-tuned (`tuned`).
    """
    again = loads_again(config["encoder"]) and not tuned
    frozen = not any(parameter.requires_grad for parameter in encoder.parameters())
    return {
        "fingerprint": encoder.fingerprint(),
        "features": {
            "size": encoder.size,
            "grid": encoder.output != "fc",
            "shape": encoder.grid_shape and list(encoder.grid_shape),
        },
        "encoder": encoder.state_dict() if frozen and not again else None,
    }


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def grid_of(metadata: Mapping[str, Any], locations: int, path: Path) -> tuple[int, int] | None:
    """Return rows and columns of the grid that the model of a checkpoint attends to.

    Args:
        metadata: the metadata of the checkpoint. Older checkpoints have no shape: their grids are square.
        locations: L, the number of the grid's locations.
        path: the checkpoint's file, for error messages.

    Returns:
        (rows, columns), with rows · columns = L. None if the metadata have no shape and L is not a square number.

    Raises:
        CheckpointError: the metadata have the shape of another grid.
    """
    side = math.isqrt(locations)
    rows, columns = metadata["features"].get("shape") or (side, side)
    if rows * columns == locations:
        return rows, columns
    if metadata["features"].get("shape") is None:
        return None
    raise CheckpointError(
        f"{path}: its metadata describe a grid of {rows}×{columns}, but the model attends to {locations} locations: "
        "use a checkpoint that captioning-train wrote"
    )


def looks_at_regions(metadata: Mapping[str, Any]) -> bool:
    """Return whether the model of a checkpoint uses a detector's region features from files, instead of images."""
    return metadata["config"]["encoder"]["_target_"].rpartition(".")[2] == "RegionEncoder"


def rebuild_encoder(metadata: Mapping[str, Any], weights: Mapping[str, Tensor] | None, path: Path) -> nn.Module:
    """Rebuild the encoder of a checkpoint.

    Args:
        metadata: the metadata of the checkpoint.
        weights: the encoder's weights from the checkpoint; None loads the weights that the metadata name.
        path: the checkpoint's file, for error messages.

    Raises:
        CheckpointError: the weights do not fit, or are not those that the model was trained with.
    """
    node = metadata["config"]["encoder"]
    if weights is not None:
        with named_file(path):
            encoder = build_trusted(with_weights(node, lambda weights: None))
        load_state(encoder, weights, path)
        return encoder
    with named_file(path):
        encoder = build_trusted(node)
    if encoder.fingerprint() != metadata["fingerprint"]:
        named = ", ".join(map(str, named_weights(node)))
        now = f"{encoder_names(node)} with weights={named} now has {encoder.fingerprint()}"
        raise CheckpointError(
            f"{path} was trained with other encoder weights (fingerprint {metadata['fingerprint']}; {now}): "
            "install the version of the weights that it was trained with"
        )
    return encoder


def rebuild_model(
    checkpoint: Mapping[str, Any], path: Path, *, hard_attention: str | None = None, **sizes: int
) -> tuple[nn.Module, dict[str, Tensor] | None]:
    """Rebuild the model of a checkpoint.

    Args:
        checkpoint: the content of the checkpoint (`read_checkpoint`).
        path: the checkpoint's file, for error messages.
        hard_attention: how hard attention selects locations, as for `captioning.load`; None keeps the trained setting.
        sizes: further sizes that the model needs, besides those of a captioner.

    Returns:
        The model with its weights, and the encoder's weights if the checkpoint has them.

    Raises:
        CheckpointError: the weights do not fit the model, or a part cannot be built.
        ConfigError: `hard_attention` is set for a model without hard attention.
    """
    metadata, features = checkpoint["captioning"], checkpoint["captioning"]["features"]
    own = _strip(checkpoint["state_dict"], "captioner.")
    encoder_weights = _strip(own, "encoder.") or metadata["encoder"]
    own = {name: value for name, value in own.items() if not name.startswith("encoder.")}
    make = partial(
        build_trusted,
        with_hard_attention(metadata["config"]["model"], hard_attention),
        feature_size=features["size"],
        grid=tuple(features.get("shape") or ()) or features["grid"],
        vocabulary_size=len(metadata["vocabulary"]),
        pad=Vocabulary.pad,
        **sizes,
    )
    with named_file(path) if hard_attention is None else nullcontext():
        with without_memory():
            check_shapes(make(), own, path)
        model = make()
        load_state(model, own, path)
    return model, encoder_weights


def _strip(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def with_hard_attention(model: Mapping[str, Any], mode: str | None) -> Mapping[str, Any]:
    """Return the model's configuration with another `decode` setting of hard attention; None changes nothing.

    Raises:
        ConfigError: the model has no hard attention.
    """
    if mode is None:
        return model
    attention = model.get("attention")
    if not isinstance(attention, dict) or "decode" not in attention:
        kind = attention.get("_target_") if isinstance(attention, dict) else "none"
        raise ConfigError(
            f"hard_attention={mode}: this checkpoint has no hard attention (its attention is {kind}). "
            "Remove hard_attention from the command"
        )
    return {**model, "attention": {**model["attention"], "decode": mode}}


@contextmanager
def named_file(path: Path) -> Iterator[None]:
    """Prefix errors raised inside this context with the checkpoint's path."""
    try:
        yield
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def pick_device(device: str) -> str:
    """Return the device; for "auto", return "cuda" if there is a GPU and "cpu" otherwise.

    Raises:
        ConfigError: torch has no such device, or the device is a GPU and there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ConfigError(f"device={device}: there is no such device. Use auto, cpu, cuda or cuda:1") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={device}: torch finds no GPU. Use device=cpu, or remove the setting")
    return device
