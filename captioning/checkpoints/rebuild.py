"""Collect the metadata of a checkpoint in training, and rebuild encoder and model from it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captioning.checkpoints.read import FORMAT, IMAGE_CAPTIONING, check_shapes, load_state, without_memory
from captioning.config import build_trusted, plugins_in
from captioning.data import Vocabulary
from captioning.errors import CheckpointError, ConfigError


def make_metadata(
    config: Mapping[str, Any],
    vocabulary: Vocabulary,
    encoder: nn.Module,
    *,
    tuned: bool = False,
    frequencies: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything but weights that a checkpoint needs to caption pictures, as plain containers.

    Document frequencies go along only where a reward has them (`Reward.state_dict`), for the run that goes on from
    this one.
    """
    return {
        "format": FORMAT,
        "task": IMAGE_CAPTIONING,
        "plugins": plugins_in(config[key] for key in ("encoder", "transform", "model")),
        "config": {key: config[key] for key in ("encoder", "transform", "model", "data", "decoding", "seed")},
        "vocabulary": vocabulary.state_dict(),
        "frequencies": frequencies and {key: _tensor(value) for key, value in frequencies.items()},
        **encoder_metadata(config, encoder, tuned=tuned),
    }


def encoder_metadata(config: Mapping[str, Any], encoder: nn.Module, *, tuned: bool) -> dict[str, Any]:
    """The encoder's part of the metadata.

    A frozen encoder's weights go along only where they cannot be had again by name, as those that another run `tuned`.
    """
    weights = config["encoder"]["weights"]
    again = isinstance(weights, str) and not Path(weights).is_file() and not tuned
    frozen = not any(parameter.requires_grad for parameter in encoder.parameters())
    return {
        "fingerprint": encoder.fingerprint(),
        "features": {"size": encoder.size, "grid": encoder.output != "fc"},
        "encoder": encoder.state_dict() if frozen and not again else None,
    }


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def looks_at_regions(metadata: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's features are a detector's, from files, and not of pictures."""
    return metadata["config"]["encoder"]["_target_"].rpartition(".")[2] == "RegionEncoder"


def rebuild_encoder(metadata: Mapping[str, Any], weights: Mapping[str, Tensor] | None, path: Path) -> nn.Module:
    """The encoder of a checkpoint's metadata, with weights out of the checkpoint, or (None) those it names.

    Raises:
        CheckpointError: its weights are not those of the training.
    """
    node = metadata["config"]["encoder"]
    if weights is not None:
        with named_file(path):
            encoder = build_trusted({**node, "weights": None})
        load_state(encoder, weights, path)
        return encoder
    with named_file(path):
        encoder = build_trusted(node)
    if encoder.fingerprint() != metadata["fingerprint"]:
        now = f"{node.get('name')} with weights={node.get('weights')} now has {encoder.fingerprint()}"
        raise CheckpointError(
            f"{path}: was trained on features of other encoder weights (fingerprint {metadata['fingerprint']}; {now}): "
            "install the version of the weights it was trained with"
        )
    return encoder


def rebuild_model(
    checkpoint: Mapping[str, Any], path: Path, *, hard_attention: str | None = None, **sizes: int
) -> tuple[nn.Module, dict[str, Tensor] | None]:
    """The model of a checkpoint with its weights, and the encoder's weights, if the checkpoint has them.

    Args:
        hard_attention: as for `load`. sizes: that the model takes beside those of a captioner.
    """
    metadata = checkpoint["captioning"]
    own = _strip(checkpoint["state_dict"], "captioner.")
    encoder_weights = _strip(own, "encoder.") or metadata["encoder"]
    own = {name: value for name, value in own.items() if not name.startswith("encoder.")}
    make = partial(
        build_trusted,
        with_hard_attention(metadata["config"]["model"], hard_attention),
        feature_size=metadata["features"]["size"],
        grid=metadata["features"]["grid"],
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
    """The model's configuration with what hard attention looks at in evaluation; None: as it was trained to."""
    if mode is None:
        return model
    attention = model.get("attention")
    if not isinstance(attention, dict) or "decode" not in attention:
        kind = attention.get("_target_") if isinstance(attention, dict) else "none"
        raise ConfigError(f"hard_attention={mode}: this checkpoint has no hard attention, but {kind}")
    return {**model, "attention": {**model["attention"], "decode": mode}}


@contextmanager
def named_file(path: Path) -> Iterator[None]:
    """What a metadata leads to is told with the name of its file."""
    try:
        yield
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def pick_device(device: str) -> str:
    """Return the device itself; for "auto" a GPU where there is one.

    Raises:
        ConfigError: torch knows no such device, or it is a GPU and there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ConfigError(f"device={device}: there is no such device: give auto, cpu, cuda, or cuda:1") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={device}: torch finds no GPU: give device=cpu, or leave it out")
    return device
