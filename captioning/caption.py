"""Caption your own images: `captioning-caption checkpoint=PATH images=[a.jpg,folder/] output=DIR`."""

import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from captioning.config import CaptionConfig, build, entry_point

LEFT_OUT_LINES = 20  # lines on stderr about files that were left out
LEFT_OUT = "left_out.txt"
LONGEST_STEM = 200  # bytes of a figure's name
SECONDS = 10.0  # between two writes of captions.json, which is written whole


def caption(config: dict[str, Any]) -> None:
    """Prints each picture's captions, best first; leaves captions.json and the figures of where words looked."""
    from tqdm import tqdm

    from captioning.data import find_images, open_picture
    from captioning.errors import ConfigError, DataError, must_be
    from captioning.evaluation import image_ids
    from captioning.inference import check_drawable, endings, load_all, save_caption_figure, with_generator
    from captioning.io import make_folder, printable, write_json

    must_be("batch_size", config["batch_size"], least=1)
    images, kinds = config["images"], endings(config["figures"], config["format"])
    found = find_images([images] if isinstance(images, str) else images, exclude=[Path(config["output"])])
    paths, left_out = found.paths, [f"{path}: {reason}" for path, reason in found.left_out]
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
    results, skipped, empty, saved_at = [], [], 0, perf_counter()
    bar = tqdm(total=len(paths), desc="images", unit="image", disable=None)
    try:
        for at in range(0, len(paths), config["batch_size"]):
            opened = []
            for index, path in enumerate(paths[at : at + config["batch_size"]], start=at):
                try:
                    opened.append((index, path, open_picture(path)))
                except DataError as error:
                    if not config["skip_unreadable"]:
                        raise DataError(f"{error}. To leave out what cannot be read: skip_unreadable=true") from error
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
                empty += not found[0].text.strip()
                for made in found:
                    bar.write(printable(f"{path}: {made.text.strip() or '(empty caption)'}"))  # to stdout, past the bar
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
    left_out += skipped
    _report_left_out(left_out, output / LEFT_OUT)
    blank = f" ({empty} with an empty caption)" if empty else ""
    print(f"{len(results)} images captioned{blank}, {len(left_out)} left out; all of it: {output}")


def _report_left_out(left_out: Sequence[str], file: Path) -> None:
    """Names files that were left out, the first ones on stderr; where there are more, all of them in a file."""
    from captioning.io import printable, write_text

    shown = left_out if len(left_out) <= LEFT_OUT_LINES else left_out[: LEFT_OUT_LINES - 1]
    for reason in shown:
        print(printable(f"left out: {reason}"), file=sys.stderr)
    if len(shown) < len(left_out):
        write_text(file, "".join(f"{printable(reason)}\n" for reason in left_out))
        print(f"… and {len(left_out) - len(shown)} more: all of them are named in {file}", file=sys.stderr)
    else:
        file.unlink(missing_ok=True)  # of an earlier run into the same folder


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
    """Names of each image's figures, one per ending.

    An image's own name; with its folders where another folder has it too; numbered where that is not enough. Upper and
    lower case are one.
    """
    named = defaultdict(list)
    for path in paths:
        named[path.stem.lower()].append(path)
    depths = {stem: _depth(group) for stem, group in named.items()}
    names: list[list[str]] = []
    taken: set[str] = set()
    for index, path in enumerate(paths):
        depth = depths[path.stem.lower()]
        stem = _cut(_with_folders(path, depth) if depth is not None else f"{path.stem}_{index}")
        while taken & {f"{stem}{ending}".lower() for ending in endings}:
            stem = f"{stem}_{index}"
        names.append([f"{stem}{ending}" for ending in endings])
        taken |= {name.lower() for name in names[-1]}
    return names


def _depth(paths: Sequence[Path]) -> int | None:
    """How many folders tell files of one name apart; None where they do not."""
    for depth in range(max(len(path.parts) for path in paths)):
        if len({_with_folders(path, depth).lower() for path in paths}) == len(paths):
            return depth
    return None


def _with_folders(path: Path, depth: int) -> str:
    folders = [part for part in path.parts[:-1] if part not in ("..", path.anchor)]
    return "_".join([*folders[max(0, len(folders) - depth) :], path.stem]) if depth else path.stem


def _cut(stem: str) -> str:
    """What a file may be called: most systems take 255 bytes, and an ending follows."""
    while len(os.fsencode(stem)) > LONGEST_STEM:
        stem = stem[:-1]
    return stem


main = entry_point("caption", CaptionConfig, caption, plain=["images..."])

if __name__ == "__main__":
    main()
