"""Export a checkpoint for publication: `captioning-export checkpoint=PATH output=exports/soft push=OWNER/NAME`."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from captioning.config import ExportConfig, entry_point

if TYPE_CHECKING:
    from captioning.checkpoints import PushTarget

# Task -> function of `captioning.inference` that loads its checkpoints.
LOADERS = {"image_captioning": "load", "vqa": "load_answerer", "language_model": "load_language_model"}


def export(config: dict[str, Any]) -> None:
    """Write NAME.safetensors, NAME.json and the card NAME.md, from which the same model can be loaded, and push them;
    or write ONNX files.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or the hub refuses the files.
        ConfigError: an unknown dtype, a file exists and `overwrite` is false, or a setting of `push` is missing.
    """
    from captioning.checkpoints import DTYPES, read_push_target
    from captioning.errors import ConfigError

    if config["format"] != "safetensors":
        return _export_onnx(config)
    push = config["push"]
    if not config["output"] and not push:
        raise ConfigError("output is not set: give output=NAME, or push=OWNER/NAME, or both")
    if config["private"] and not push:
        raise ConfigError("private=true needs a repository of the hub: give push=OWNER/NAME, or remove private=true")
    if (dtype := config["dtype"] or "float16") not in DTYPES:
        raise ConfigError(f"dtype={dtype} must be one of {', '.join(DTYPES)}")
    if config["hard_attention"] is not None:
        raise ConfigError("hard_attention= is for format=onnx: whoever loads the export chooses it. Leave it out")
    target = None
    if push:
        options = {"license_name": config["license"], "private": config["private"], "overwrite": config["overwrite"]}
        target = read_push_target(push, **options)
    with nullcontext(config["output"]) if config["output"] else TemporaryDirectory() as output:
        name = target.address.model or target.address.repository.partition("/")[2] if target else ""
        _export({**config, "dtype": dtype}, config["output"] or str(Path(output, Path(name).name)), target)


def _export(config: Mapping[str, Any], output: str, target: "PushTarget | None") -> None:
    from captioning import inference
    from captioning.checkpoints import (
        METADATA,
        WEIGHTS,
        find_checkpoint,
        make_card,
        push_export,
        read_checkpoint,
        write_exported,
    )
    from captioning.errors import CheckpointError, ConfigError
    from captioning.io import make_folder, write_text

    path = find_checkpoint(config["checkpoint"])
    checkpoint = read_checkpoint(path, task=None)
    task = str(checkpoint["captioning"].get("task"))
    if task not in LOADERS:
        raise CheckpointError(f"{path} has task={task:.40}, which must be one of {', '.join(LOADERS)}")
    load = getattr(inference, LOADERS[task])
    load(path, device="cpu")  # fails before anything is written
    stem, about = _stem(output, path), _carried(checkpoint["captioning"]) | _about(config)
    files = {suffix: stem.with_name(stem.name + suffix) for suffix in (WEIGHTS, METADATA, ".md")}
    if there := [str(file) for file in files.values() if file.exists() and not config["overwrite"]]:
        raise ConfigError(f"{there[0]} already exists: give another output, or set overwrite=true")
    make_folder(stem.parent)
    document = write_exported(stem, checkpoint, dtype=config["dtype"], about=about)
    write_text(files[".md"], make_card(stem.name, document))
    load(files[WEIGHTS], device="cpu")
    size = sum(files[suffix].stat().st_size for suffix in (WEIGHTS, METADATA)) / 1e6
    counted = f"{document['weights']['numbers'] / 1e6:.1f} million weights, {size:.2f} MB"
    if config["output"]:
        print(f"{counted}: {files[WEIGHTS]}, {files[METADATA].name}, {files['.md'].name}")
    if target:
        pushed = push_export(stem, document, target)
        if not config["output"]:  # the files are nowhere else, so nothing is reported before
            print(f"{counted}: {config['push']}")
        print(f"pushed: {pushed}")
        print(f"to load it: captioning-caption photo.jpg --checkpoint {pushed}")


def _export_onnx(config: dict[str, Any]) -> None:
    """Write the folder `output` with ONNX files; see `captioning.onnx_export`."""
    from captioning.checkpoints import find_checkpoint
    from captioning.errors import ConfigError
    from captioning.inference import load
    from captioning.onnx_export import write_onnx

    if config["format"] != "onnx":
        raise ConfigError(f"format={config['format']} must be safetensors or onnx")
    for key in ("push", "private", "scores", "card", "license"):
        if config[key]:
            raise ConfigError(f"{key}={config[key]} is for format=safetensors. Leave it out")
    if not config["output"]:
        raise ConfigError("output is not set: give output=FOLDER")
    path = find_checkpoint(config["checkpoint"])
    predictor = load(path, device="cpu", hard_attention=config["hard_attention"])
    output = str(config["output"])
    folder = _stem(output, path) if output.endswith(("/", "\\")) else Path(output)
    print(write_onnx(predictor, folder, dtype=config["dtype"] or "float32", overwrite=config["overwrite"]))


def _stem(output: str, path: Path) -> Path:
    """Return the common name of the files.

    This is `output` without its ending. If `output` is a folder, the files in it are named after the run, or after the
    checkpoint if this is not in the folder of a run.
    """
    from captioning.checkpoints import METADATA, WEIGHTS
    from captioning.errors import ConfigError

    chosen = Path(output)
    if output.endswith(("/", "\\")) or chosen.is_dir():
        path = path.parent.resolve() / path.name  # a file in the cache of the hub is a link to a file without a name
        return chosen / (path.parents[1].name if path.parent.name == "checkpoints" else path.stem)
    stem = chosen.with_name(chosen.name.removesuffix(WEIGHTS).removesuffix(METADATA)) if chosen.name else chosen
    if not stem.name:
        raise ConfigError(f"output={output} has no file name: give a name such as exports/soft, or a folder exports/")
    return stem


def _carried(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the text and the license of a checkpoint that is exported again; its scores if they are well-formed."""
    kept = {key: metadata[key] for key in ("license", "card") if isinstance(metadata.get(key), str)}
    scores = metadata.get("scores")
    kinds = {"of": str, "values": dict, "intervals": dict}
    if not isinstance(scores, dict) or not all(isinstance(scores.get(key), kind) for key, kind in kinds.items()):
        return kept
    numbers = [*scores["values"].values()]
    for ends in scores["intervals"].values():
        numbers += ends if isinstance(ends, list) and len(ends) == 2 else [None]
    about = scores.get("about")
    named = isinstance(about, dict) and all(isinstance(about.get(key), str) for key in ("data", "split", "decoding"))
    fine = all(type(number) in (int, float) for number in numbers) and (named or about is None)
    return kept | ({"scores": scores} if fine else {})


def _about(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores, the license and the text for the metadata and the card."""
    from captioning.errors import DataError
    from captioning.evaluation import read_scores
    from captioning.io import unopened

    about: dict[str, Any] = {"license": config["license"]} if config["license"] else {}
    if config["scores"]:
        about["scores"] = read_scores(Path(config["scores"]))
    if config["card"]:
        try:
            about["card"] = Path(config["card"]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            if advice := unopened(config["card"], error):
                raise DataError(f"card={advice}") from error
            raise DataError(f"cannot read card={config['card']} as text ({error}): give a Markdown file") from error
    return about


main = entry_point("export", ExportConfig, export, plain=["checkpoint", "output"])

if __name__ == "__main__":
    main()
