"""Write and read exported checkpoints: NAME.safetensors with the weights, NAME.json with the metadata.

NAME.safetensors has the weights, with the same names as in the checkpoint. NAME.json has the metadata and the SHA-256
of NAME.safetensors, so that files of two different exports cannot be mixed.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as pack_tensors
from torch import Tensor

from captioning.checkpoints.encoder_settings import with_weights
from captioning.checkpoints.hub_address import hub_address_of
from captioning.data import field, read_json
from captioning.errors import CheckpointError, DataError
from captioning.io import looks_like, unopened, write_json, write_whole

WEIGHTS = ".safetensors"
METADATA = ".json"
DTYPES = {"float16": torch.float16, "float32": torch.float32}
_MODEL = "captioner."  # prefix of the model's weights; a checkpoint also has weights of the objective
_ENCODER = "encoder."  # prefix of the weights of an encoder that is part of the metadata
# Metadata that loading needs or that inform a reader. Not exported: optimizer, document frequencies, and the paths of
# data and weights on the machine that trained.
_LONG = ("tokenizer", "vocabulary")  # the longest entries, written last
_PARTS = ("format", "task", "plugins", "features", "fingerprint", "images", "config", "tags", "answers", *_LONG)
DATA = ("name", "unit", "tokenizer", "min_count", "max_length", "captions_per_image", "window", "answers")


def write_exported(
    stem: Path, checkpoint: Mapping[str, Any], *, dtype: str, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a checkpoint as STEM.safetensors and STEM.json.

    Args:
        stem: path of the files without their endings.
        checkpoint: the content of a checkpoint (`read_checkpoint`).
        dtype: a key of `DTYPES`: the type of all floating-point weights. A tensor with values beyond the range of
            float16 stays float32.
        about: further entries of the JSON file.

    Returns:
        The content of STEM.json.
    """
    metadata = checkpoint["captioning"]
    weights = {name: value for name, value in checkpoint["state_dict"].items() if name.startswith(_MODEL)}
    weights |= {_ENCODER + name: value for name, value in (metadata.get("encoder") or {}).items()}
    content = pack_tensors({name: _stored(value, DTYPES[dtype]) for name, value in weights.items()})
    parts = {key: metadata[key] for key in _PARTS if key in metadata}
    parts["config"] = _without_paths(metadata["config"])
    if "encoder" in metadata:
        parts["encoder"] = None  # its weights, if any, are in the safetensors file
    parts["weights"] = {
        "sha256": _sha256(content),
        "dtype": dtype,
        "numbers": sum(value.numel() for value in weights.values()),
        "bytes": len(content),
        "with encoder": any(name.startswith((_ENCODER, _MODEL + _ENCODER)) for name in weights),
    }
    longest = {key: parts.pop(key) for key in _LONG if key in parts}
    document: dict[str, Any] = {**parts, **about, **longest}
    write_whole(stem.with_name(stem.name + WEIGHTS), lambda file: file.write(content))
    write_json(stem.with_name(stem.name + METADATA), document)
    return document


def read_exported(path: Path) -> dict[str, Any]:
    """Read an exported checkpoint; its content is checked later (`read_checkpoint`).

    Args:
        path: path of NAME.safetensors; NAME.json must be in the same folder.

    Returns:
        A dictionary with "captioning" (the metadata) and "state_dict" (the weights).

    Raises:
        CheckpointError: a file is missing or damaged, or the two files are of different exports.
    """
    file = path.with_suffix(METADATA)
    for each in (path, file):
        found = looks_like(each)
        if found and (each == path or found not in ("JSON text", "plain text")):
            raise CheckpointError(
                f"{each} is not a file of an exported checkpoint (it looks like {found}): give a .safetensors file"
            )
    try:
        metadata = read_json(file)
        sha256 = field(field(metadata, "weights", dict, str(file)), "sha256", str, f"{file}: weights")
        content = path.read_bytes()
    except (DataError, OSError) as error:
        reason = unopened(path, error) or error
        raise CheckpointError(
            f"{path}: an exported checkpoint needs both {path.name} and {file.name} in one folder. {reason}. "
            "Copy both files from one export"
        ) from error
    if _sha256(content) != sha256:
        advice = "copy both files from one export"
        if hub_address_of(path):
            advice = (
                f"delete {path.resolve()}, then run the command again to download it. If this does not help, tell the "
                "owner that the repository has files of different exports"
            )
        raise CheckpointError(f"{path} is damaged, or of another export than {file.name}: {advice}")
    try:
        weights = read_tensors(content)
    except Exception as error:  # safetensors can raise anything for damaged bytes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is not a safetensors file ({reason:.200}): copy it again") from error
    dtypes = {str(value.dtype) for value in weights.values() if value.is_floating_point() or value.is_complex()}
    if others := sorted(dtypes - {str(dtype) for dtype in DTYPES.values()}):
        raise CheckpointError(
            f"{path}: the weights are {others[0]}, but must be {' or '.join(DTYPES)}, as captioning-export writes them"
        )
    encoder = {name.removeprefix(_ENCODER): value for name, value in weights.items() if name.startswith(_ENCODER)}
    if encoder:
        metadata["encoder"] = encoder
    return {
        "captioning": metadata,
        "state_dict": {name: value for name, value in weights.items() if not name.startswith(_ENCODER)},
    }


def _stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a contiguous copy of a tensor, as safetensors requires it; tied weights are stored several times."""
    if value.is_floating_point():
        rounded = value.to(dtype)
        value = rounded if rounded.isfinite().all() else value.float()
    return value.detach().clone(memory_format=torch.contiguous_format)


def _without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration without folders; of the data settings, keep only `DATA`."""
    data, encoder = (config[key] if isinstance(config.get(key), dict) else {} for key in ("data", "encoder"))
    kept = {**config, "data": {key: data[key] for key in DATA if key in data}}
    if encoder:
        kept["encoder"] = with_weights(encoder, _file_name)
    return kept


def _file_name(weights: Any) -> Any:
    return Path(weights).name if isinstance(weights, str) else weights


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
