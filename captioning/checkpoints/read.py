"""Read checkpoint files without running code from them, and check that they contain a model and nothing else.

A checkpoint consists of tensors and plain containers in an uncompressed archive, or of the two files that
`captioning-export` writes (`safetensors_format`). Everything else is refused before it can do harm: pickled objects,
archives that unpack to more than their size, metadata that name anything except parts of a model
(`config.build_trusted`), and weights that are not finite.
"""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captioning import pretrained
from captioning.checkpoints.hub import local_checkpoint
from captioning.checkpoints.hub_address import names_repository
from captioning.checkpoints.safetensors_format import METADATA, WEIGHTS, read_exported
from captioning.config import missing_plugins
from captioning.data import Vocabulary
from captioning.errors import CheckpointError, DataError
from captioning.io import likeness

FORMAT = 2  # version of the metadata; format 1 named files inside the package and had other keys
IMAGE_CAPTIONING = "image_captioning"  # the name of this task in checkpoints (captioning.tasks)
_ENDINGS = (".ckpt", ".pt", ".pth", WEIGHTS, METADATA)  # of files; a repository on the hub has none of them
_PARTS = {"config": dict, "vocabulary": list, "plugins": list}  # required metadata
SEEING = {"fingerprint": str, "features": dict}  # also required if the model has an encoder


def find_checkpoint(path: str | Path) -> Path:
    """Find the checkpoint file that a user named.

    Args:
        path: a checkpoint of `captioning-train`; NAME.safetensors, NAME.json or NAME of `captioning-export`; a folder
            with exactly one such pair; a model on the Hugging Face Hub, `hf:OWNER/NAME` (`local_checkpoint`); or, if no
            such file exists, the name of a captioner that comes with the package.

    Returns:
        The path of the checkpoint; for an exported checkpoint, the path of NAME.safetensors.

    Raises:
        CheckpointError: there is no such checkpoint, or a folder has none or several.
        ConfigError: the checkpoint is on the hub, and the package huggingface_hub is not installed.
    """
    path = local_checkpoint(path)
    if path.is_dir():
        found = sorted(path.glob(f"*{WEIGHTS}"))
        if len(found) != 1:
            count = f"{len(found)} exported checkpoints" if found else f"no exported checkpoint (NAME{WEIGHTS})"
            raise CheckpointError(f"the folder {path} contains {count}: give the path of a checkpoint file")
        return found[0]
    if path.is_file():
        return path.with_suffix(WEIGHTS) if path.suffix == METADATA else path
    if (exported := path.with_name(f"{path.name}{WEIGHTS}")).is_file():
        return exported
    if str(path) in (names := pretrained.names()):
        return pretrained.FOLDER / f"{path}{WEIGHTS}"
    advice = ": check the path"
    if len(path.parts) == 1:  # it may be meant as the name of a captioner in the package
        advice = f": check the path, or use one that comes with the package ({', '.join(names)})" if names else advice
    elif names_repository(path.as_posix()) and not path.parent.exists() and path.suffix not in _ENDINGS:
        advice = f": check the path, or type hf:{path.as_posix()} for one on the Hugging Face Hub"
    raise CheckpointError(f"there is no checkpoint at '{path}'{advice}")


def read_checkpoint(path: str | Path, *, task: str | None = IMAGE_CAPTIONING) -> dict[str, Any]:
    """Read a checkpoint's tensors and plain containers to the CPU, without running code from the file.

    Args:
        path: the checkpoint, as for `find_checkpoint`.
        task: the required task of the checkpoint; None accepts any.

    Returns:
        A dictionary with at least "captioning" (the metadata) and "state_dict" (the weights). The tensors of an
        exported checkpoint keep the precision of the file.

    Raises:
        CheckpointError: there is no such file, it is damaged or malicious, it was not written by this package, or it is
            of another task.
    """
    path = find_checkpoint(path)
    exported = path.suffix == WEIGHTS
    checkpoint = read_exported(path) if exported else _read_archive(path)
    metadata, source = checkpoint["captioning"], path.with_suffix(METADATA) if exported else path
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        given = metadata.get("format") if isinstance(metadata, dict) else None
        version = "no format number" if given is None else f"format {given!s:.40}"
        raise CheckpointError(
            f"{source} has {version}, but this version of captioning reads format {FORMAT}: train it again, or load it "
            "with the version that wrote it"
        )
    if task and (found := metadata.get("task")) != task:
        kind = f"of task={found:.40}" if isinstance(found, str) else "without a task"
        raise CheckpointError(f"{source} is a checkpoint {kind}, but task={task} is needed: give another checkpoint")
    _check_metadata(metadata, source)
    _check_weights(checkpoint["state_dict"], "state_dict", path)
    if metadata.get("encoder") is not None:
        _check_weights(metadata["encoder"], "encoder", path)
    if missing := missing_plugins(metadata["plugins"]):
        raise CheckpointError(
            f"{source} needs parts of your own module {missing[0]!r:.80}. If you trust it, add to the command: "
            f"plugins=[{missing[0]:.80}] (in Python: captioning.load(path, plugins=[{missing[0]!r:.80}]))"
        )
    return checkpoint


def _read_archive(path: Path) -> dict[str, Any]:
    _check_archive(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load can raise anything for damaged bytes
        reason = (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]
        raise CheckpointError(_no_checkpoint(path, reason)) from error
    if not isinstance(checkpoint, dict) or not {"captioning", "state_dict"} <= checkpoint.keys():
        raise CheckpointError(f"{path} is not a checkpoint of captioning-train: give another file")
    return checkpoint


def _no_checkpoint(path: Path, reason: str) -> str:
    return f"{path} is not a checkpoint, or is damaged ({reason}){likeness(path)}: give another file, or copy it again"


@contextmanager
def without_memory() -> Iterator[None]:
    """Build models inside this context with shapes but without numbers.

    They take no memory, however large the sizes in untrusted metadata are.
    """
    with torch.device("meta"), _NoDraws():
        yield


class _NoDraws(TorchFunctionMode):
    """Skips normal initialization: on the meta device, torch would import its compiler for it, which takes seconds."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is nn.init.normal_:
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return function(*args, **(kwargs or {}))


def load_state(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load weights into a module.

    Args:
        module: the module.
        weights: weights by name.
        path: the file of the weights, for error messages.

    Raises:
        CheckpointError: the weights do not fit the module.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(_misfit(path, " ".join(str(error).split()))) from error


def check_shapes(shell: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Compare the shapes of weights with a model built `without_memory`, before a real one is built.

    Args:
        shell: the model without memory.
        weights: weights by name.
        path: the file of the weights, for error messages.

    Raises:
        CheckpointError: the names or shapes differ.
    """
    wanted = shell.state_dict()
    faults = [f"{name} is missing" for name in wanted.keys() - weights.keys()]
    faults += [f"{name} is unknown" for name in weights.keys() - wanted.keys()]
    faults += [
        f"{name} is {list(weights[name].shape)}, not {list(value.shape)}"
        for name, value in wanted.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if faults:
        raise CheckpointError(_misfit(path, "; ".join(sorted(faults))))


def _misfit(path: Path, faults: str) -> str:
    return f"{path}: weights do not fit the model: {faults[:400]}. Use a checkpoint of this model"


def _check_archive(path: Path) -> None:
    """Check that a file is an uncompressed zip archive, as torch.save writes it.

    torch.load would also unpack a compressed archive, which can be a thousand times larger than its file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # zipfile can raise anything for damaged bytes
        reason = str(error) or type(error).__name__
        raise CheckpointError(_no_checkpoint(path, reason)) from error
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > path.stat().st_size:
        raise CheckpointError(
            f"{path} is compressed, but checkpoints of captioning-train never are: use the original file"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:
        damaged = str(error) or type(error).__name__
    if damaged:  # torch.load does not compare checksums and would load wrong weights
        raise CheckpointError(f"{path} is damaged: the checksum of {damaged:.100} is wrong. Copy the file again")


def _check_metadata(metadata: Mapping[str, Any], path: Path) -> None:
    config = metadata.get("config")
    # All models except language models have an encoder.
    sees = not isinstance(config, dict) or "encoder" in config or "encoder" in metadata
    wrong = [
        key for key, kind in (_PARTS | SEEING if sees else _PARTS).items() if not isinstance(metadata.get(key), kind)
    ]
    wrong += ["encoder"] if sees and "encoder" not in metadata else []
    if not wrong:
        assert isinstance(config, dict)
        settings = ("encoder", "transform", "model") if sees else ("model",)
        wrong += [f"config.{key}" for key in settings if not isinstance(config.get(key), dict)]
        features = metadata.get("features", {})
        wrong += ["features"] if sees and not _is_of_features(features) else []
        for key in ("vocabulary", "plugins"):
            wrong += [] if all(isinstance(word, str) for word in metadata[key]) else [key]
    if wrong:
        raise CheckpointError(
            f"{path}: its metadata has no valid {', '.join(wrong)}: use a checkpoint that captioning-train wrote"
        )
    try:
        Vocabulary.from_state_dict(metadata["vocabulary"], metadata.get("tokenizer"))
    except (CheckpointError, DataError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _is_of_features(features: Mapping[str, Any]) -> bool:
    """Return whether metadata describe features: their size, whether they are a grid, and its rows and columns."""
    shape = features.get("shape")  # older checkpoints have none
    fits = shape is None or (
        features.get("grid") is True and isinstance(shape, list) and len(shape) == 2 and all(map(_counts, shape))
    )
    return fits and _counts(features.get("size")) and type(features.get("grid")) is bool


def _counts(value: Any) -> bool:
    return type(value) is int and value > 0


def _check_weights(weights: Any, name: str, path: Path) -> None:
    """Check that weights are a dictionary of dense, finite tensors, and together no larger than their file."""
    plain = isinstance(weights, dict) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()
    )
    if not plain or any(value.layout != torch.strided or value.is_meta for value in weights.values()):
        raise CheckpointError(
            f"{path}: its {name} is not a dictionary of dense tensors: use a checkpoint that captioning-train wrote"
        )
    if sum(value.numel() * value.element_size() for value in weights.values()) > path.stat().st_size:
        raise CheckpointError(
            f"{path}: its {name} unpacks to more bytes than the file has: use a checkpoint that captioning-train wrote"
        )
    wrong = [key for key, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise CheckpointError(f"{path}: weights are not finite: {', '.join(wrong[:3])}; use an earlier checkpoint")
