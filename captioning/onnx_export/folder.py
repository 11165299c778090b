"""Write the folder of an exported captioner: three ONNX files, and captioner.json with settings and vocabulary.

The files are written and checked in a temporary folder first, so that a failure leaves nothing behind.
"""

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from captioning.data import SeveralInputs, Transform
from captioning.decoding import MAX_LENGTH
from captioning.errors import CheckpointError, ConfigError
from captioning.inference import LENGTH_NORMALIZATION, Predictor
from captioning.io import make_folder, need_package, write_json
from captioning.onnx_export.flat import GraphLayout, measure
from captioning.onnx_export.graphs import OPSET, begin_graph, encoder_graph, image_names, step_graph
from captioning.onnx_export.probe import check_files, references, rounding
from captioning.onnx_export.reduced import reduce_weights

ONNX_DTYPES = ("float32", "float16", "int8")
ONNX_FILES = ("encoder.onnx", "begin.onnx", "step.onnx", "captioner.json")
FORMAT_VERSION = 1
BEAM_SIZE = 5  # of captioning-caption
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_TORCH = (2, 9)  # first version whose exporter writes OPSET and takes names of axes


def write_onnx(predictor: Predictor, folder: Path, *, dtype: str = "float32", overwrite: bool = False) -> str:
    """Write a captioner as ONNX files, run them with onnxruntime, and compare the results with torch.

    Args:
        predictor: the captioner, on the CPU.
        folder: the new folder. It gets `ONNX_FILES`.
        dtype: how the weights are stored, one of `ONNX_DTYPES`; the computation is in float32 in all cases.
        overwrite: whether to replace the files of an existing folder.

    Returns:
        One line about what was written.

    Raises:
        ConfigError: `dtype` is unknown, packages are missing, the model cannot be expressed in ONNX, or the folder
            exists and `overwrite` is False.
        CheckpointError: the model cannot be loaded, or a result differs from torch's.
    """
    if dtype not in ONNX_DTYPES:
        raise ConfigError(f"dtype={dtype} must be one of {', '.join(ONNX_DTYPES)} for format=onnx")
    need_package(*_PACKAGES, extra="onnx", wanted_by="format=onnx")
    if tuple(int(part) for part in version("torch").split(".")[:2]) < _TORCH:
        raise ConfigError(f"format=onnx needs torch 2.9, not {version('torch')}. Run: pip install --upgrade torch")
    if folder.is_file():
        raise ConfigError(f"{folder} is a file: give another output, the name of a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ConfigError(f"{folder} already exists: give another output, or set overwrite=true")
    _refuse_unknown(predictor)
    make_folder(folder.parent)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name[:100]}.", dir=folder.parent) as temporary:
        written = Path(temporary)
        difference = _write(predictor, written, dtype)
        make_folder(folder)
        (folder / ONNX_FILES[-1]).unlink(missing_ok=True)  # so that it never describes other files than its own
        for name in ONNX_FILES:
            os.replace(written / name, folder / name)
    size = sum((folder / name).stat().st_size for name in ONNX_FILES) / 1e6
    lost = "" if dtype == "float32" else f"; {dtype} changes a log-probability by {difference:.2g} on average"
    return f"{size:.2f} MB: {', '.join(ONNX_FILES)} in {folder}, checked with onnxruntime{lost}"


def _refuse_unknown(predictor: Predictor) -> None:
    """Refuse captioners that no set of ONNX files can express."""
    path = predictor.path
    if predictor.hard_attention == "sample":
        raise ConfigError(
            f"format=onnx: hard attention of {path} samples its locations, but ONNX files have no random numbers. "
            "Set hard_attention=most_likely or hard_attention=expectation"
        )
    if predictor.metadata["config"]["encoder"]["_target_"].endswith(".RegionEncoder"):
        raise CheckpointError(
            f"format=onnx: {path} looks at a detector's regions, which it cannot compute from a photo. Use a "
            "checkpoint with another encoder, or set format=safetensors"
        )
    for transform in _transforms(predictor):
        if not isinstance(transform, Transform):
            raise ConfigError(
                f"format=onnx: the transform {type(transform).__name__} of {path} is not one of captioning.data. "
                "Set format=safetensors"
            )
    tokenizer = predictor.vocabulary.tokenizer
    sample = "\u0f40"  # a letter of Tibetan, whose syllables are joined by a mark
    if any(sample in word for word in predictor.vocabulary.words) and tokenizer.join([sample] * 2) != f"{sample * 2}":
        raise ConfigError(f"format=onnx: {path} writes Tibetan, which is not supported. Set format=safetensors")


def _transforms(predictor: Predictor) -> Sequence[Any]:
    transform: Any = predictor.transform
    return transform.parts if isinstance(transform, SeveralInputs) else [transform]


def _write(predictor: Predictor, folder: Path, dtype: str) -> float:
    """Write all files, check them, and return the mean difference of log-probabilities because of `dtype`."""
    import onnx

    encoder, model = predictor.encoder, predictor.captioner
    sizes = [(each.height, each.width) for each in _transforms(predictor)]
    features, places = _features(encoder)
    layout = measure(model, features, places)
    programs = {"encoder": encoder_graph(encoder, sizes), "begin": begin_graph(model, layout)}
    programs["step"] = step_graph(model, layout)
    for name, program in programs.items():
        onnx.save_model(_without_notes(program.model_proto), folder / f"{name}.onnx")
    expected = references(encoder, model, layout, sizes)
    check_files(folder, layout, expected, path=predictor.path)
    difference = 0.0
    if dtype != "float32":
        for name in programs:
            proto = onnx.load_model(folder / f"{name}.onnx")
            reduce_weights(proto, dtype)
            onnx.save_model(proto, folder / f"{name}.onnx")
        difference = rounding(folder, layout, expected, dtype=dtype, path=predictor.path)
    write_json(folder / ONNX_FILES[-1], _description(predictor, layout, dtype, _files(folder)))
    return difference


def _without_notes(proto: Any) -> Any:
    """Remove the exporter's notes on every node, which contain lines of source code and paths of this machine."""
    graph = proto.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    del proto.metadata_props[:]
    return proto


def _features(encoder: nn.Module) -> tuple[int, int | None]:
    """Return D and L of an encoder's features; L is None for a vector."""
    return encoder.size, encoder.places  # type: ignore[return-value]  # every encoder has both


def _files(folder: Path) -> dict[str, Any]:
    files = {}
    for name in ONNX_FILES[:-1]:
        content = (folder / name).read_bytes()
        files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return files


def _description(predictor: Predictor, layout: GraphLayout, dtype: str, files: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of captioner.json."""
    vocabulary = predictor.vocabulary
    transforms = [each.describe() for each in _transforms(predictor)]
    names, limit = image_names(transforms), predictor.captioner.longest
    return {
        "format": FORMAT_VERSION,
        "opset": OPSET,
        "torch": version("torch"),
        "weights": dtype,
        "files": files,
        "images": [{"name": name, **each} for name, each in zip(names, transforms, strict=True)],
        "state": [_tensor(layout, name) | {"next": f"next_{name}"} for name in layout.named("state")],
        "memory": [_tensor(layout, name) for name in layout.named("memory")],
        "attention": _attention(predictor, layout),
        "tokens": {name: getattr(vocabulary, name) for name in ("pad", "start", "end", "unknown")},
        "decoding": {
            "beam_size": BEAM_SIZE,
            "length_normalization": LENGTH_NORMALIZATION,
            "max_length": predictor.max_length or (MAX_LENGTH if limit is None else min(MAX_LENGTH, limit.tokens)),
        },
        "longest": None if limit is None else limit.tokens,  # that the model can read; null: any number
        "text": _text(predictor),
        "vocabulary": list(vocabulary.words),
    }


def _tensor(layout: GraphLayout, name: str) -> dict[str, Any]:
    return {"name": name, "axes": list(layout.axes[name])}


def _attention(predictor: Predictor, layout: GraphLayout) -> dict[str, Any]:
    shape = getattr(predictor.encoder, "grid_shape", None)
    return {
        "kind": predictor.attention_kind,
        "grid": list(shape) if shape and layout.weights else None,
        "tags": predictor.captioner.tag_places,
        "sentinel": predictor.has_sentinel,
    }


def _text(predictor: Predictor) -> dict[str, Any]:
    """Return how words become text.

    `continued` is the ending of a piece that the next piece continues; `space` is between words, except between two
    words that have one of the `unspaced` characters; `replaced` are characters of the text that stand for others.
    """
    tokenizer, words = predictor.vocabulary.tokenizer, predictor.vocabulary.words
    characters = sorted({character for word in words for character in word})
    space = tokenizer.join(["a", "b"])[1:-1]
    unspaced = "".join(each for each in characters if space and tokenizer.join([each, each]) == each * 2)
    return {
        "tokenizer": tokenizer.name,
        "continued": "@@" if tokenizer.learned_pieces() is not None else None,
        "space": space,
        "unspaced": unspaced,
        "replaced": {"▁": " "} if tokenizer.kind == "characters" else {},
    }
