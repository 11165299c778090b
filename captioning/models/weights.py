"""Load the weights of an encoder's network from a file, and report entries that do not fit."""

import difflib
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from captioning.errors import CheckpointError
from captioning.io import likeness


def load_weights_file(
    network: nn.Module, file: str | Path, *, known: dict[str, Tensor], what: str, names: Iterable[str]
) -> None:
    """Load a network's part of a state_dict file.

    Args:
        network: The part of a classifier that is kept; all its weights must be in the file, with the same shapes.
        file: A file written by `torch.save(model.state_dict(), file)`.
        known: The full classifier's state; a file with any other key belongs to another network.
        what: Name of the classifier, for messages.
        names: Names of the weights that need no file, for messages.

    Raises:
        CheckpointError: The file is missing, is not a state_dict, or does not fit.
    """
    state = _read_state(Path(file), what=what, names=names)
    own = network.state_dict()
    shapes = [key for key in own if key in state and state[key].shape != own[key].shape]
    unexpected = [key for key in state if key not in known]
    kept = {key: value for key, value in state.items() if key in own and key not in shapes}
    missing = [key for key in network.load_state_dict(kept, strict=False).missing_keys if key not in shapes]
    faults = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
    if any(keys for _, keys in faults):
        listed = "; ".join(f"{len(keys)} {fault} ({_first(keys)})" for fault, keys in faults if keys)
        raise CheckpointError(
            f"{file}: the weights do not fit {what}: {listed}. Set encoder.weights to a file of {what}"
        )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known names most similar to `name`, as the end of a message; empty if none is similar."""
    near = difflib.get_close_matches(name, list(known), n=5, cutoff=0.5)
    return f" (nearest: {', '.join(near)})" if near else ""


def fingerprint_of(state: Mapping[str, Tensor]) -> str:
    """Return 16 hex digits of a SHA-256 over names, shapes and values of weights and statistics."""
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        if not key.endswith("num_batches_tracked"):  # a counter on which no output depends
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def fixed_seed() -> Iterator[None]:
    """Make random weights reproducible inside this context, and restore the global generator afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def _read_state(file: Path, *, what: str, names: Iterable[str]) -> dict[str, Tensor]:
    if not file.is_file():
        raise CheckpointError(
            f"encoder.weights: {file} is neither a file nor one of {what}'s weights ({', '.join(names)})"
        )
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises any type of error for a damaged file
        raise CheckpointError(
            f"{file}: not a weights file that torch can load safely{likeness(file)}. "
            "Write it with torch.save(model.state_dict(), file)"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{file}: not a state_dict (names to tensors). Save only model.state_dict()")
    # torchvision's DenseNet files have older names, which torchvision itself renames at download.
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key): value for key, value in state.items()}


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
