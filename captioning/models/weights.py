"""Load the weights of an encoder's network from a file, and report what does not fit."""

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from captioning.errors import CheckpointError
from captioning.io import likeness


def load_weights_file(
    network: nn.Module, file: str | Path, *, known: dict[str, Tensor], what: str, names: Iterable[str]
) -> None:
    """Loads the network's part of a state_dict file.

    Args:
        network: what is kept of a classifier; all its weights must be in the file, in the same shapes.
        file: what `torch.save(model.state_dict(), file)` wrote.
        known: the whole classifier's state; a file with any other key belongs to another network.
        what, names: of the classifier and of the weights that need no file, for the messages.

    Raises:
        CheckpointError: the file is absent, is no state_dict, or does not fit.
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
        raise CheckpointError(f"{file}: the weights do not fit {what}: {listed}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The known names most like `name`, as the tail of a message; empty when none is like it."""
    near = difflib.get_close_matches(name, list(known), n=5, cutoff=0.5)
    return f" (nearest: {', '.join(near)})" if near else ""


@contextmanager
def fixed_seed() -> Iterator[None]:
    """Weights drawn inside are always the same ones; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def _read_state(file: Path, *, what: str, names: Iterable[str]) -> dict[str, Tensor]:
    if not file.is_file():
        raise CheckpointError(f"encoder.weights: {file} is neither a file nor one of {what}'s ({', '.join(names)})")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes lead torch.load to
        raise CheckpointError(f"{file}: not a weights file that torch can load safely{likeness(file)}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{file}: not a state_dict (names to tensors); save model.state_dict() alone")
    # torchvision's own DenseNet files predate its present names, and are renamed as they are downloaded.
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key): value for key, value in state.items()}


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
