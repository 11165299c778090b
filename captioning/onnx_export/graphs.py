"""Convert the three parts of a captioner, encoder, `begin` and `step`, into ONNX graphs."""

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError
from captioning.models import CaptionModel, SideBySide
from captioning.onnx_export.flat import BATCH, BEAMS, Axes, GraphLayout, flat_tensors

OPSET = 20  # of the files: the default of torch 2.14's exporter, which onnxruntime has known since 1.17
_EXAMPLE = {"batch": 2, "beams": 3, "words": 2}  # sizes while tracing; sizes of 0 and 1 would be fixed


class EncoderPart(nn.Module):
    """Map images to features; several encoders take one tensor of images each.

    Args:
        encoder: the encoder of a captioner.
    """

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, images: list[Tensor]) -> Tensor:
        """Compute features from a list of images [B, 3, H, W] uint8, one tensor per encoder."""
        if isinstance(self.encoder, SideBySide):
            return self.encoder.join([part(image) for part, image in zip(self.encoder.parts, images, strict=True)])
        return self.encoder(images[0])


class BeginPart(nn.Module):
    """Map features to the tensors of state and memory.

    Args:
        model: a captioner that takes features.
        layout: its inputs and outputs.
    """

    def __init__(self, model: CaptionModel, layout: GraphLayout):
        super().__init__()
        self.model, self.layout = model, layout

    def forward(self, features: Tensor) -> list[Tensor]:
        """Compute the state before `<start>`, one row per image, and the memory."""
        state, memory = self.model.begin(features)
        tensors = flat_tensors(state, "state") | flat_tensors(memory, "memory")
        return [tensors[name] for name in (*self.layout.named("state"), *self.layout.named("memory"))]


class StepPart(nn.Module):
    """Map a word per row, state and memory to log-probabilities, the new state, and the attention of the step.

    Args:
        model: a captioner.
        layout: its inputs and outputs.
    """

    def __init__(self, model: CaptionModel, layout: GraphLayout):
        super().__init__()
        self.model, self.layout = model, layout

    def forward(self, token: Tensor, tensors: list[Tensor]) -> list[Tensor]:
        """Compute the outputs of one step."""
        names = (*self.layout.named("state"), *self.layout.named("memory"))
        state, memory = self.layout.rebuilt(dict(zip(names, tensors, strict=True)), token)
        step = self.model.step(token, state, memory)
        new = flat_tensors(step.state, "state")
        found = [step.logits.log_softmax(-1), *(new[name] for name in self.layout.named("state"))]
        if self.layout.weights:
            found.append(step.glimpse.weights)
        if step.glimpse.places is not None:
            found.append(step.glimpse.places)
        return found


def encoder_graph(encoder: nn.Module, sizes: Sequence[tuple[int, int]]) -> Any:
    """Return the ONNX program of an encoder.

    Args:
        encoder: the encoder, in eval mode.
        sizes: (height, width) of the images of each of its parts.
    """
    images = [torch.zeros(2, 3, height, width, dtype=torch.uint8) for height, width in sizes]
    with torch.no_grad():
        return _converted(
            EncoderPart(encoder),
            (images,),
            dynamic=([{0: BATCH} for _ in images],),
            inputs=[(name, (BATCH, *image.shape[1:])) for name, image in zip(image_names(sizes), images, strict=True)],
            outputs=["features"],
            file="encoder.onnx",
        )


def begin_graph(model: CaptionModel, layout: GraphLayout) -> Any:
    """Return the ONNX program of a model's `begin`."""
    features = torch.rand(_shape(layout.features, places=9))
    names = [*layout.named("state"), *layout.named("memory")]
    return _traced(
        BeginPart(model, layout),
        (features,),
        dynamic=(_named_axes(layout.features),),
        inputs=[("features", layout.features)],
        outputs=names,
        file="begin.onnx",
    )


def step_graph(model: CaptionModel, layout: GraphLayout) -> Any:
    """Return the ONNX program of a model's `step`."""
    token = torch.ones(_EXAMPLE["batch"], _EXAMPLE["beams"], dtype=torch.int64)
    given = [(name, layout.axes[name]) for kind in ("state", "memory") for name in layout.named(kind)]
    examples = flat_tensors(layout.state, "state") | flat_tensors(layout.memory, "memory")
    places = layout.weights[2] if layout.weights and isinstance(layout.weights[2], int) else 9
    tensors = [torch.rand(_shape(axes, places=places)).to(examples[name].dtype) for name, axes in given]
    outputs = ["log_probs", *(f"next_{name}" for name in layout.named("state"))]
    outputs += ["weights"] * bool(layout.weights) + ["places"] * layout.places
    return _traced(
        StepPart(model, layout),
        (token, tensors),
        dynamic=({0: BATCH, 1: BEAMS}, [_named_axes(axes) for _, axes in given]),
        inputs=[("token", (BATCH, BEAMS)), *given],
        outputs=outputs,
        file="step.onnx",
    )


def image_names(sizes: Sequence[Any]) -> list[str]:
    """Return the names of the encoder's inputs: `image`, or `image_0`, `image_1`, …"""
    return ["image"] if len(sizes) == 1 else [f"image_{number}" for number in range(len(sizes))]


def _traced(module: nn.Module, *given, **arguments) -> Any:
    """Convert with gradients enabled: without them, a transformer's cache would write into a buffer."""
    with torch.enable_grad():
        return _converted(module, *given, **arguments)


def _converted(
    module: nn.Module,
    example: tuple[Any, ...],
    *,
    dynamic: tuple[Any, ...],
    inputs: list[tuple[str, Axes]],
    outputs: list[str],
    file: str,
) -> Any:
    """Return the ONNX program of a module; its axes are those that are asked for.

    Raises:
        ConfigError: torch cannot convert the module.
    """
    with _quiet():
        try:
            program = torch.onnx.export(
                module.eval().requires_grad_(False),
                example,
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=[name for name, _ in inputs],
                output_names=outputs,
                opset_version=OPSET,
                verbose=False,
            )
        except Exception as error:  # any error of the exporter, of torch.export, or of the module that is traced
            raise ConfigError(
                f"format=onnx: torch cannot write {file} of this model ({_reason(error)}). Set format=safetensors"
            ) from error
    assert program is not None
    for value, (name, axes) in zip(program.model.graph.inputs, inputs, strict=True):
        shape = tuple(size if isinstance(size, int) else str(size.value) for size in value.shape or ())
        if value.name != name or shape != axes:
            raise ConfigError(
                f"format=onnx: in {file} of this model, {name} has the shape {list(shape)}, not {list(axes)}. "
                "Set format=safetensors"
            )
    return program


def _shape(axes: Axes, *, places: int) -> list[int]:
    sizes = {**_EXAMPLE, "places": places}
    return [sizes[size] if isinstance(size, str) else size for size in axes]


def _named_axes(axes: Axes) -> dict[int, str]:
    return {axis: size for axis, size in enumerate(axes) if isinstance(size, str)}


def _reason(error: BaseException) -> str:
    """Return the first line of the error at the root of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]:.200}" if lines else type(error).__name__


@contextlib.contextmanager
def _quiet():
    """Hide what the exporter prints about its progress and its own parts."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
