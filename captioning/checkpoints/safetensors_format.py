"""Write and read exported checkpoints: NAME.safetensors with the weights, NAME.json with the metadata.

NAME.safetensors holds the weights, by the names that a checkpoint has for them; NAME.json the rest of the checkpoint's
metadata, and the SHA-256 of the weights, so that files of two exports are not taken for one.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as pack_tensors
from torch import Tensor

from captioning.data import field, read_json
from captioning.errors import CheckpointError, DataError
from captioning.io import looks_like, write_json, write_whole

WEIGHTS, METADATA = ".safetensors", ".json"
DTYPES = {"float16": torch.float16, "float32": torch.float32}
_MODEL = "captioner."  # before the names of the model's weights; a checkpoint has the objective's beside them
_ENCODER = "encoder."  # before those of an encoder that the metadata itself holds
# What loading asks for, and what tells whoever reads the file. Left out: optimizer, document frequencies, and where
# the data and weights lay on the machine that trained.
_PARTS = ("format", "task", "plugins", "features", "fingerprint", "images", "config", "answers", "vocabulary")
DATA = ("name", "unit", "min_count", "max_length", "captions_per_image", "window", "answers")


def write_exported(
    stem: Path, checkpoint: Mapping[str, Any], *, dtype: str, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes STEM.safetensors and STEM.json of what `read_checkpoint` gave; returns the content of the latter.

    Args:
        dtype: one of DTYPES, of all that is no whole number; a tensor with numbers beyond its range stays float32.
        about: what else the JSON file is to tell.
    """
    metadata = checkpoint["captioning"]
    weights = {name: value for name, value in checkpoint["state_dict"].items() if name.startswith(_MODEL)}
    weights |= {_ENCODER + name: value for name, value in (metadata.get("encoder") or {}).items()}
    content = pack_tensors({name: _stored(value, DTYPES[dtype]) for name, value in weights.items()})
    told = {key: metadata[key] for key in _PARTS if key in metadata}
    told["config"] = _without_places(metadata["config"])
    if "encoder" in metadata:
        told["encoder"] = None  # or among the weights
    told["weights"] = {
        "sha256": _sha256(content),
        "dtype": dtype,
        "numbers": sum(value.numel() for value in weights.values()),
        "bytes": len(content),
        "with encoder": any(name.startswith((_ENCODER, _MODEL + _ENCODER)) for name in weights),
    }
    vocabulary = told.pop("vocabulary")
    document = {**told, **about, "vocabulary": vocabulary}  # the long one last
    write_whole(stem.with_name(stem.name + WEIGHTS), lambda file: file.write(content))
    write_json(stem.with_name(stem.name + METADATA), document)
    return document


def read_exported(path: Path) -> dict[str, Any]:
    """A checkpoint of the weights at NAME.safetensors and the metadata beside them; not held against what it must be.

    Raises:
        CheckpointError: one of the files is missing or damaged, or they are of two exports.
    """
    file = path.with_suffix(METADATA)
    for each in (path, file):
        found = looks_like(each)
        if found and (each == path or found not in ("JSON text", "plain text")):
            raise CheckpointError(f"{each} is not a part of an exported checkpoint: it looks like {found}")
    try:
        metadata = read_json(file)
        sha256 = field(field(metadata, "weights", dict, str(file)), "sha256", str, f"{file}: weights")
        content = path.read_bytes()
    except (DataError, OSError) as error:
        raise CheckpointError(f"an exported checkpoint is {path.name} and {file.name} together: {error}") from error
    if _sha256(content) != sha256:
        raise CheckpointError(f"{path} is damaged, or not what {file.name} was written with: take both from one export")
    try:
        weights = read_tensors(content)
    except Exception as error:  # whatever the bytes lead it to
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is no file of safetensors ({reason:.200})") from error
    others = {str(value.dtype) for value in weights.values() if value.is_floating_point() or value.is_complex()}
    if others := sorted(others - {str(dtype) for dtype in DTYPES.values()}):
        raise CheckpointError(f"{path}: weights of {others[0]}: captioning-export writes {' and '.join(DTYPES)}")
    encoder = {name.removeprefix(_ENCODER): value for name, value in weights.items() if name.startswith(_ENCODER)}
    if encoder:
        metadata["encoder"] = encoder
    return {
        "captioning": metadata,
        "state_dict": {name: value for name, value in weights.items() if not name.startswith(_ENCODER)},
    }


def _stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor of its own in one piece, as safetensors wants it: tied weights are stored once each."""
    if value.is_floating_point():
        rounded = value.to(dtype)
        value = rounded if rounded.isfinite().all() else value.float()
    return value.detach().clone(memory_format=torch.contiguous_format)


def _without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with what is to be known of the data, and without folders."""
    data, encoder = (config[key] if isinstance(config.get(key), dict) else {} for key in ("data", "encoder"))
    kept = {**config, "data": {key: data[key] for key in DATA if key in data}}
    if isinstance(encoder.get("weights"), str):
        kept["encoder"] = {**encoder, "weights": Path(encoder["weights"]).name}
    return kept


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
