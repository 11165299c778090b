"""Caption your own images: `captioning-caption checkpoint=PATH images=[a.jpg,folder/] output=DIR`."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from captioning.config import CaptionConfig, build, entry_point

SECONDS = 10.0  # between two writes of captions.json, which is written whole


def caption(config: dict[str, Any]) -> None:
    """Prints each picture's captions, best first; leaves captions.json and the figures of where words looked."""
    from tqdm import tqdm

    from captioning.data import list_pictures, open_picture
    from captioning.errors import ConfigError, DataError, must_be
    from captioning.evaluation import image_ids
    from captioning.inference import check_drawable, endings, load_all, save_caption_figure, with_generator
    from captioning.io import make_folder, printable, write_json

    must_be("batch_size", config["batch_size"], least=1)
    images, kinds = config["images"], endings(config["figures"], config["format"])
    paths = list_pictures([images] if isinstance(images, str) else images)
    decoding = dict(config["decoding"])
    options = {key: config[key] for key in ("device", "hard_attention", "crops")}
    predictor = load_all(config["checkpoint"], decoding.pop("checkpoints") or [], **options)
    check_drawable(config["figures"], predictor)
    search = with_generator(build(decoding))
    output = make_folder(Path(config["output"]))
    numbers = image_ids(paths, Path(config["annotations"]) if config["annotations"] else None)
    figures = figure_names(paths, tuple(kinds.values()))
    for path, names in zip(paths, figures, strict=True):
        for name in names:
            if (output / name).exists() and any((output / name).samefile(other) for other in paths):
                raise ConfigError(f"output={output} would write a figure over the picture {path}: give another folder")
    look_up = _regions(predictor, config["regions"])
    results, skipped, saved_at = [], [], perf_counter()
    bar = tqdm(total=len(paths), desc="pictures", unit="picture", disable=None)
    try:
        for at in range(0, len(paths), config["batch_size"]):
            opened = []
            for index, path in enumerate(paths[at : at + config["batch_size"]], start=at):
                try:
                    opened.append((index, path, open_picture(path)))
                except DataError as error:
                    if not config["skip_unreadable"]:
                        raise
                    skipped.append(str(error))
            captions = []
            if opened and look_up:
                captions = predictor.caption_regions([look_up(path) for _, path, _ in opened], search)
            elif opened:
                names = [path for _, path, _ in opened]
                captions = predictor.all_captions([picture for *_, picture in opened], search, names=names)
            for (index, path, _), found in zip(opened, captions, strict=True):  # before a figure that may fail
                results.append(_result(numbers[index] if numbers else len(results), path, found))
            for (index, path, picture), found in zip(opened, captions, strict=True):
                for made in found:
                    bar.write(printable(f"{path}: {made.text}"))  # to stdout, past the bar
                for kind, name in zip(kinds, figures[index], strict=True):
                    save_caption_figure(picture, found[0], output / name, kind)
            bar.update(min(config["batch_size"], len(paths) - at))
            if perf_counter() - saved_at > SECONDS:
                write_json(output / "captions.json", results)
                saved_at = perf_counter()
    finally:  # whatever ends it: what was captioned is there
        bar.close()
        if results or len(skipped) == len(paths):
            write_json(output / "captions.json", results)
    for reason in skipped:
        print(f"left out: {reason}", file=sys.stderr)
    print(f"{len(results)} pictures captioned, {len(skipped)} left out; all of it: {output}")


def _result(image_id: int | str, path: Path, found: Sequence) -> dict[str, Any]:
    """One picture's entry of captions.json: its best caption in COCO's results format, and all that is known of it."""
    best, *others = found
    further = {"others": [_facts(made) for made in others]} if others else {}
    return {"image_id": image_id, **_facts(best), "file_name": str(path), **further}


def _facts(made) -> dict[str, Any]:
    return {"caption": made.text, "log_prob": made.log_prob, "score": made.score}


def _regions(predictor, folder: str | None):
    """picture's path -> its regions, where a folder of a detector's is given; None else."""
    from captioning.checkpoints import looks_at_regions
    from captioning.data import Record
    from captioning.errors import ConfigError
    from captioning.features import RegionFolder

    if folder is None:
        return None
    if not looks_at_regions(predictor.metadata):
        raise ConfigError(f"regions={folder}: this checkpoint looks at pictures, not at a detector's regions")
    files = RegionFolder(folder, size=predictor.metadata["features"]["size"])
    # COCO's pictures are named by their image ids, as a detector's files are.
    return lambda path: files[Record(int(path.stem) if path.stem.isdecimal() else -1, path, "", ())]


def figure_names(paths: Sequence[Path], endings: Sequence[str]) -> list[list[str]]:
    """Names of each picture's figures, one an ending: its own name, numbered where another has it (in any case)."""
    stems = Counter(path.stem.lower() for path in paths)
    names: list[list[str]] = []
    taken: set[str] = set()
    for index, path in enumerate(paths):
        stem = path.stem if stems[path.stem.lower()] == 1 else f"{path.stem}_{index}"
        while taken & {f"{stem}{ending}".lower() for ending in endings}:
            stem = f"{stem}_{index}"
        names.append([f"{stem}{ending}" for ending in endings])
        taken |= {name.lower() for name in names[-1]}
    return names


main = entry_point("caption", CaptionConfig, caption, plain=["images..."])

if __name__ == "__main__":
    main()
