"""Export a checkpoint for publication: `captioning-export checkpoint=PATH output=exports/soft`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captioning.config import ExportConfig, entry_point

# By task: the function of `captioning.inference` that loads such a checkpoint.
LOADERS = {"image_captioning": "load", "vqa": "load_answerer", "language_model": "load_language_model"}


def export(config: dict[str, Any]) -> None:
    """Leaves NAME.safetensors, NAME.json and the card NAME.md, from which the same captioner is loaded."""
    from captioning import inference
    from captioning.checkpoints import (
        DTYPES,
        METADATA,
        WEIGHTS,
        find_checkpoint,
        make_card,
        read_checkpoint,
        write_exported,
    )
    from captioning.errors import CheckpointError, ConfigError
    from captioning.io import make_folder, write_text

    if config["dtype"] not in DTYPES:
        raise ConfigError(f"dtype={config['dtype']}: not one of {', '.join(DTYPES)}")
    path = find_checkpoint(config["checkpoint"])
    checkpoint = read_checkpoint(path, task=None)
    task = str(checkpoint["captioning"].get("task"))
    if task not in LOADERS:
        raise CheckpointError(f"{path} is a checkpoint of task={task:.40}: not one of {', '.join(LOADERS)}")
    load = getattr(inference, LOADERS[task])
    load(path, device="cpu")  # what cannot be loaded is not published
    stem, about = _stem(config["output"], path), _about(config)
    files = {suffix: stem.with_name(stem.name + suffix) for suffix in (WEIGHTS, METADATA, ".md")}
    if there := [str(file) for file in files.values() if file.exists() and not config["overwrite"]]:
        raise ConfigError(f"{there[0]} is there already: give another output, or set overwrite=true")
    make_folder(stem.parent)
    document = write_exported(stem, checkpoint, dtype=config["dtype"], about=about)
    write_text(files[".md"], make_card(stem.name, document))
    load(files[WEIGHTS], device="cpu")
    size = sum(files[suffix].stat().st_size for suffix in (WEIGHTS, METADATA)) / 1e6
    written = f"{files[WEIGHTS]} {files[METADATA].name}"
    print(f"{document['weights']['numbers'] / 1e6:.1f} M weights, {size:.2f} MB: {written}")
    print(f"card: {files['.md']}")


def _stem(output: str, path: Path) -> Path:
    """The files' common name: that of `output`, or in a folder that of the run, or of the checkpoint outside of one."""
    from captioning.checkpoints import METADATA, WEIGHTS
    from captioning.errors import ConfigError

    place = Path(output)
    if output.endswith(("/", "\\")) or place.is_dir():
        path = path.resolve()
        return place / (path.parents[1].name if path.parent.name == "checkpoints" else path.stem)
    stem = place.with_name(place.name.removesuffix(WEIGHTS).removesuffix(METADATA)) if place.name else place
    if not stem.name:
        raise ConfigError(f"output={output}: give a name for the files, or a folder")
    return stem


def _about(config: Mapping[str, Any]) -> dict[str, Any]:
    """Scores and prose that go into metadata and card."""
    from captioning.errors import DataError
    from captioning.evaluation import read_scores

    about: dict[str, Any] = {}
    if config["scores"]:
        about["scores"] = read_scores(Path(config["scores"]))
    if config["card"]:
        try:
            about["card"] = Path(config["card"]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read card={config['card']} as text ({error})") from error
    return about


main = entry_point("export", ExportConfig, export, plain=["checkpoint", "output"])

if __name__ == "__main__":
    main()
