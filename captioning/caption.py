"""Captions your own pictures: `captioning-caption checkpoint=PATH images=[a.jpg,folder/] output=DIR`."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from captioning.config import build, entry_point
from captioning.schemas import CaptionConfig

SECONDS = 10.0  # between two writes of captions.json, which is written whole


def caption(config: dict[str, Any]) -> None:
    """Prints each picture's captions, best first; leaves captions.json and, with `figures`, a PNG a picture."""
    from captioning.data.pictures import list_pictures, open_picture
    from captioning.ensemble import load_all
    from captioning.errors import DataError, must_be
    from captioning.files import make_folder, printable, write_json
    from captioning.searches import seeded

    must_be("batch_size", config["batch_size"], least=1)
    images = config["images"]
    paths = list_pictures([images] if isinstance(images, str) else images)
    decoding = dict(config["decoding"])
    predictor = load_all(
        config["checkpoint"], decoding.pop("checkpoints") or [], device=config["device"], places=config["places"]
    )
    search = seeded(build(decoding))
    output = make_folder(Path(config["output"]))
    figures = figure_names(paths)
    if config["figures"]:
        _spare_pictures(paths, output, figures)
    results, skipped, saved_at = [], [], perf_counter()
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
            pictures, names = [picture for *_, picture in opened], [path for _, path, _ in opened]
            captions = predictor.all_captions(pictures, search, names=names) if opened else []
            for (index, path, picture), found in zip(opened, captions, strict=True):
                for made in found:
                    print(printable(f"{path}: {made.text}"))
                if config["figures"]:
                    _draw(picture, found[0], output / figures[index])
                results.append(_result(len(results), path, found))
            if perf_counter() - saved_at > SECONDS:
                write_json(output / "captions.json", results)
                saved_at = perf_counter()
    finally:  # whatever ends it: what was captioned is there
        if results or len(skipped) == len(paths):
            write_json(output / "captions.json", results)
    for reason in skipped:
        print(f"left out: {reason}", file=sys.stderr)
    print(f"{len(results)} pictures captioned, {len(skipped)} left out; all of it: {output}")


def _result(image_id: int, path: Path, found: Sequence) -> dict[str, Any]:
    """One picture's entry of captions.json: its best caption in COCO's results format, and all that is known of it."""
    best, *others = found
    further = {"others": [_facts(made) for made in others]} if others else {}
    return {"image_id": image_id, **_facts(best), "file_name": str(path), **further}


def _facts(made) -> dict[str, Any]:
    return {"caption": made.text, "log_prob": made.log_prob, "score": made.score}


def figure_names(paths: Sequence[Path]) -> list[str]:
    """A file name for each picture's figure: its own, numbered where another has it (in any case of letters)."""
    stems = Counter(path.stem.lower() for path in paths)
    names: list[str] = []
    taken: set[str] = set()
    for index, path in enumerate(paths):
        name = f"{path.stem}.png" if stems[path.stem.lower()] == 1 else f"{path.stem}_{index}.png"
        while name.lower() in taken:
            name = f"{Path(name).stem}_{index}.png"
        taken.add(name.lower())
        names.append(name)
    return names


def _spare_pictures(paths: Sequence[Path], output: Path, figures: Sequence[str]) -> None:
    """No figure is written over a picture."""
    from captioning.errors import ConfigError

    for path, name in zip(paths, figures, strict=True):
        if (output / name).exists() and any((output / name).samefile(other) for other in paths):
            raise ConfigError(f"output={output} would write a figure over the picture {path}: give another folder")


def _draw(picture, made, path: Path) -> None:
    from captioning.visualise import attention_figure, caption_figure, save_figure

    if made.attention is None:
        save_figure(caption_figure(picture, made.text), path)
    else:
        figure = attention_figure(picture, made.tokens, made.attention, box=made.box, log_prob=made.log_prob)
        save_figure(figure, path)


main = entry_point("caption", CaptionConfig, caption)

if __name__ == "__main__":
    main()
