"""Run ONNX files with onnxruntime on random images, and compare every result with torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from captioning.errors import CheckpointError
from captioning.models import CaptionModel
from captioning.onnx_export.flat import GraphLayout, flat_tensors
from captioning.onnx_export.graphs import EncoderPart, image_names

ONNX_TOLERANCE = 1e-4  # greatest difference of a log-probability or attention weight from torch's, in float32
RELATIVE = 1e-4  # greatest difference of a feature or state, as a share of the largest one
# Greatest mean difference of the log-probabilities with weights of fewer bits: more than rounding can explain.
ROUNDED = {"float16": 0.05, "int8": 0.5}
PROBED_STEPS = 4
# Numbers of images and of rows. The graphs were traced with the first ones, and may be wrong for others.
_SIZES = ((2, 3), (1, 1), (3, 11))


class Reference(NamedTuple):
    """What torch computes for one batch of random images.

    Attributes:
        images: the encoder's inputs.
        features: the encoder's features.
        begun: the tensors of state and memory before the first step.
        tokens: the words that are read, [B, K] for each step.
        parents: the rows that continue after each step, [B, K].
        given: the tensors of state and memory that each step reads, by name.
        steps: the results of each step, by the names of the graph's outputs.
    """

    images: list[Tensor]
    features: Tensor
    begun: dict[str, Tensor]
    tokens: list[Tensor]
    parents: list[Tensor]
    given: list[dict[str, Tensor]]
    steps: list[dict[str, Tensor]]


class Sessions(NamedTuple):
    """The three files of a folder in onnxruntime."""

    encoder: Any
    begin: Any
    step: Any

    @classmethod
    def of(cls, folder: Path) -> "Sessions":
        """Load the files of a folder."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        open_file = onnxruntime.InferenceSession
        return cls(*(open_file(folder / f"{part}.onnx", options, ["CPUExecutionProvider"]) for part in cls._fields))


def references(
    encoder: nn.Module, model: CaptionModel, layout: GraphLayout, sizes: Sequence[tuple[int, int]]
) -> list[Reference]:
    """Return torch's results for batches and beams of several sizes.

    Args:
        encoder: the encoder.
        model: the captioner, which takes features.
        layout: its inputs and outputs.
        sizes: (height, width) of the images of each part of the encoder.
    """
    draw = torch.Generator().manual_seed(0)
    return [_reference(encoder, model, layout, sizes, shape, draw) for shape in _SIZES]


@torch.no_grad()
def _reference(encoder, model, layout, sizes, shape: tuple[int, int], draw: torch.Generator) -> Reference:
    batch, rows = shape
    images = [torch.randint(0, 256, (batch, 3, *size), generator=draw, dtype=torch.uint8) for size in sizes]
    features = EncoderPart(encoder)(images)
    state, memory = model.begin(features)
    begun = flat_tensors(state, "state") | flat_tensors(memory, "memory")
    state, tokens, parents, given, steps = state.repeat(rows), [], [], [], []
    kept = flat_tensors(memory, "memory")
    for _ in range(PROBED_STEPS):
        tokens.append(torch.randint(1, layout.logits, shape, generator=draw))
        parents.append(torch.randint(0, rows, shape, generator=draw))
        read = flat_tensors(state, "state") | kept
        given.append({name: read[name].clone() for kind in ("state", "memory") for name in layout.named(kind)})
        step = model.step(tokens[-1], state, memory)
        found = {f"next_{name}": value for name, value in flat_tensors(step.state, "state").items()}
        found |= {"log_probs": step.logits.log_softmax(-1), "weights": step.glimpse.weights}
        steps.append(found | ({"places": step.glimpse.places} if layout.places else {}))
        state = step.state.select(parents[-1])
    return Reference(images, features, begun, tokens, parents, given, steps)


def check_files(folder: Path, layout: GraphLayout, expected: Sequence[Reference], *, path: Path) -> None:
    """Compare the float32 files of a folder with torch, each file alone.

    A file reads what torch computed before it: differences by rounding would add up from file to file and step to step.

    Args:
        folder: the files.
        layout: the model's inputs and outputs.
        expected: torch's results.
        path: the checkpoint, for error messages.

    Raises:
        CheckpointError: a result differs.
    """
    sessions = Sessions.of(folder)
    for reference in expected:
        features = _run(sessions.encoder, _images(reference))
        _compare(features, {"features": reference.features}, "encoder.onnx", path)
        begun = _run(sessions.begin, {"features": reference.features.numpy()})
        _compare(begun, reference.begun, "begin.onnx", path)
        for token, given, torchs in zip(reference.tokens, reference.given, reference.steps, strict=True):
            inputs = {name: tensor.numpy() for name, tensor in {"token": token, **given}.items()}
            _compare(_run(sessions.step, inputs), torchs, "step.onnx", path)


def rounding(folder: Path, layout: GraphLayout, expected: Sequence[Reference], *, dtype: str, path: Path) -> float:
    """Return the mean difference of the log-probabilities that weights of fewer bits cause.

    Args:
        folder: the files.
        layout: the model's inputs and outputs.
        expected: torch's results in float32.
        dtype: "float16" or "int8".
        path: the checkpoint, for error messages.

    Raises:
        CheckpointError: it is larger than rounding can explain.
    """
    sessions = Sessions.of(folder)
    differences = []
    for reference in expected:
        steps = _chained_steps(sessions, layout, reference)
        differences += [
            np.abs(found["log_probs"] - torchs["log_probs"].numpy())
            for found, torchs in zip(steps, reference.steps, strict=True)
        ]
    mean = float(np.mean([each.mean() for each in differences]))
    if not mean <= ROUNDED[dtype]:  # nan is refused too
        raise CheckpointError(
            f"{path}: with dtype={dtype} the log-probabilities differ by {mean:.3g} from torch's. Set dtype=float32"
        )
    return mean


def _images(reference: Reference) -> dict[str, np.ndarray]:
    names = image_names(reference.images)
    return {name: image.numpy() for name, image in zip(names, reference.images, strict=True)}


def _chained_steps(sessions: Sessions, layout: GraphLayout, reference: Reference) -> list[dict[str, np.ndarray]]:
    """Return the results of each step; every file reads what the files before it computed."""
    begun = _run(sessions.begin, _run(sessions.encoder, _images(reference)))
    rows = reference.tokens[0].shape[1]
    state = {name: np.repeat(begun[name], rows, _rows_axis(layout, name)) for name in layout.named("state")}
    memory = {name: begun[name] for name in layout.named("memory")}
    steps = []
    for token, parents in zip(reference.tokens, reference.parents, strict=True):
        steps.append(_run(sessions.step, {"token": token.numpy(), **state, **memory}))
        state = {name: _selected(steps[-1][f"next_{name}"], parents.numpy(), layout, name) for name in state}
    return steps


def _run(session: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _rows_axis(layout: GraphLayout, name: str) -> int:
    return layout.axes[name].index("beams")


def _selected(values: np.ndarray, parents: np.ndarray, layout: GraphLayout, name: str) -> np.ndarray:
    """Select rows: row parents[b, j] of image b becomes its row j."""
    axes = layout.axes[name]
    shape = [
        {"batch": parents.shape[0], "beams": parents.shape[1]}.get(axis, 1) if isinstance(axis, str) else 1
        for axis in axes
    ]
    index = parents if axes.index("batch") < axes.index("beams") else parents.T
    return np.take_along_axis(values, index.reshape(shape), axes.index("beams"))


def _compare(found: Mapping[str, np.ndarray], expected: Mapping[str, Tensor], file: str, path: Path) -> None:
    for name, values in found.items():
        torchs = expected[name].numpy()
        exact = name in ("log_probs", "weights")
        most = ONNX_TOLERANCE if exact else RELATIVE * max(1.0, float(np.abs(torchs).max(initial=0)))
        difference = float(np.abs(values - torchs).max(initial=0)) if values.shape == torchs.shape else np.inf
        if not difference <= most:  # nan is refused too
            raise CheckpointError(
                f"{path}: {name} of {file} differs by {difference:.3g} from torch's in onnxruntime, more than "
                f"{most:.1g}. Caption with PyTorch (captioning-caption), and report this error"
            )
