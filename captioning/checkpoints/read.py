"""Read checkpoint files without running code from them, and check that they hold a model and nothing else.

A checkpoint is tensors and plain containers in an uncompressed archive, or the two files that captioning-export writes
(`safetensors_format`). Everything else is refused before it can do harm: pickled objects, archives that unfold to more
than their size, metadata that name anything but a model's parts (`config.build_trusted`), weights that are not finite.
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
from captioning.checkpoints.safetensors_format import METADATA, WEIGHTS, read_exported
from captioning.config import missing_plugins
from captioning.data import Vocabulary
from captioning.errors import CheckpointError, DataError
from captioning.io import likeness

FORMAT = 2  # of metadata; 1 named files inside the package and had other keys
IMAGE_CAPTIONING = "image_captioning"  # the task of a checkpoint; see captioning.tasks
_PARTS = {"config": dict, "vocabulary": list, "plugins": list}  # of the metadata
SEEING = {"fingerprint": str, "features": dict}  # besides, of one with an encoder


def find_checkpoint(path: str | Path) -> Path:
    """The file of a checkpoint as its user names it.

    Args:
        path: a checkpoint of captioning-train; NAME.safetensors or NAME.json of captioning-export; the folder that
            holds one such pair; or, where nothing of that name lies, a captioner that comes with the package.

    Returns:
        The checkpoint, or of an exported one its weights, NAME.safetensors.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(path.glob(f"*{WEIGHTS}"))
        if len(found) != 1:
            held = f"{len(found)} exported checkpoints" if found else f"no exported checkpoint (NAME{WEIGHTS})"
            raise CheckpointError(f"the folder {path} holds {held}: give the file of a checkpoint")
        return found[0]
    if path.is_file():
        return path.with_suffix(WEIGHTS) if path.suffix == METADATA else path
    if str(path) in (names := pretrained.names()):
        return pretrained.FOLDER / f"{path}{WEIGHTS}"
    told = ""
    if len(path.parts) == 1:  # it may be meant as such a name
        told = f"; the package brings {', '.join(names)}" if names else ", and the package brings none: train one"
    raise CheckpointError(f"there is no checkpoint at {path}{told}")


def read_checkpoint(path: str | Path, *, task: str | None = IMAGE_CAPTIONING) -> dict[str, Any]:
    """The checkpoint's tensors and plain containers, on the CPU; no code of the file is run.

    Args:
        path: as for `find_checkpoint`. task: the task that it must be of; None: any.

    Returns:
        At least "captioning", its metadata, and "state_dict". The tensors of an exported checkpoint keep the precision
        of the file.

    Raises:
        CheckpointError: there is no such file, it is damaged or hostile, or not one of captioning-train's.
    """
    path = find_checkpoint(path)
    exported = path.suffix == WEIGHTS
    checkpoint = read_exported(path) if exported else _read_archive(path)
    metadata, told = checkpoint["captioning"], path.with_suffix(METADATA) if exported else path
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        given = metadata.get("format") if isinstance(metadata, dict) else None
        raise CheckpointError(
            f"{told} has format {given!s:.40}, but this version reads format {FORMAT}: train it again, or load it "
            "with the version of captioning that wrote it"
        )
    if task and (found := metadata.get("task")) != task:
        raise CheckpointError(f"{told} is a checkpoint of task={found!s:.40}, but one of task={task} is needed here")
    _check_metadata(metadata, told)
    _check_weights(checkpoint["state_dict"], "state_dict", path)
    if metadata.get("encoder") is not None:
        _check_weights(metadata["encoder"], "encoder", path)
    if missing := missing_plugins(metadata["plugins"]):
        raise CheckpointError(
            f"{told} needs parts of your own module {missing[0]!r:.80}. If you trust it, name it: "
            f"captioning.load(path, plugins=[{missing[0]!r:.80}]), or plugins=[{missing[0]:.80}] on the command line"
        )
    return checkpoint


def _read_archive(path: Path) -> dict[str, Any]:
    _check_archive(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes lead torch.load to
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is not a checkpoint, or is damaged ({reason}){likeness(path)}") from error
    if not isinstance(checkpoint, dict) or not {"captioning", "state_dict"} <= checkpoint.keys():
        raise CheckpointError(f"{path} is not a checkpoint of captioning-train")
    return checkpoint


@contextmanager
def without_memory() -> Iterator[None]:
    """Models made inside take no memory, whatever sizes a stranger's metadata asks for: all shapes and no numbers."""
    with torch.device("meta"), _NoDraws():
        yield


class _NoDraws(TorchFunctionMode):
    """Draws no normal numbers: of the meta device, torch imports its compiler for them, which takes seconds."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is nn.init.normal_:
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return function(*args, **(kwargs or {}))


def load_state(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """`load_state_dict`, with one readable error."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(_misfit(path, " ".join(str(error).split()))) from error


def check_shapes(shell: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Holds weights against a model made `without_memory`, before one is built that takes any."""
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
    return f"{path}: weights do not fit the model: {faults[:400]}"


def _check_archive(path: Path) -> None:
    """What torch.save writes: a zip archive, none of it compressed. torch.load would also unfold a thousandfold one."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # zipfile meets damaged bytes with anything
        reason = str(error) or type(error).__name__
        raise CheckpointError(f"{path} is not a checkpoint, or is damaged ({reason}){likeness(path)}") from error
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > path.stat().st_size:
        raise CheckpointError(f"{path} is compressed, as no checkpoint of captioning-train is: it is not unfolded")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:
        damaged = str(error) or type(error).__name__
    if damaged:  # torch.load compares no checksum, and would take other weights for those that were written
        raise CheckpointError(f"{path} is damaged: {damaged:.100} has not the checksum that was written; copy it anew")


def _check_metadata(metadata: Mapping[str, Any], path: Path) -> None:
    config = metadata.get("config")
    sees = not isinstance(config, dict) or "encoder" in config or "encoder" in metadata  # all but a language model
    wrong = [
        key for key, kind in (_PARTS | SEEING if sees else _PARTS).items() if not isinstance(metadata.get(key), kind)
    ]
    wrong += ["encoder"] if sees and "encoder" not in metadata else []
    if not wrong:
        settings = ("encoder", "transform", "model") if sees else ("model",)
        wrong += [f"config.{key}" for key in settings if not isinstance(config.get(key), dict)]
        features = metadata.get("features", {})
        wrong += (
            ["features"] if sees and not (_counts(features.get("size")) and type(features.get("grid")) is bool) else []
        )
        for key in ("vocabulary", "plugins"):
            wrong += [] if all(isinstance(word, str) for word in metadata[key]) else [key]
    if wrong:
        raise CheckpointError(f"{path}: its metadata has no {', no '.join(wrong)} as captioning-train writes it")
    try:
        Vocabulary.from_state_dict(metadata["vocabulary"])
    except (CheckpointError, DataError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _counts(value: Any) -> bool:
    return type(value) is int and value > 0


def _check_weights(weights: Any, name: str, path: Path) -> None:
    """A dictionary of dense, finite tensors that are no larger together than the file they came from."""
    plain = isinstance(weights, dict) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()
    )
    if not plain or any(value.layout != torch.strided or value.is_meta for value in weights.values()):
        raise CheckpointError(f"{path}: its {name} is not a dictionary of names and dense tensors")
    if sum(value.numel() * value.element_size() for value in weights.values()) > path.stat().st_size:
        raise CheckpointError(f"{path}: its {name} unfolds to more than the file holds")
    wrong = [key for key, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise CheckpointError(f"{path}: weights are not finite: {', '.join(wrong[:3])}; take an earlier checkpoint")
