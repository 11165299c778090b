"""Caption your photos: `captioning-caption photo.jpg photos/ --output captions`."""

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from captioning.config import CaptionConfig, build, entry_point

if TYPE_CHECKING:
    from captioning.inference import Caption, Predictor

LEFT_OUT_LINES = 20  # most lines on stderr about files that were left out
LEFT_OUT = "left_out.txt"
LONGEST_STEM = 200  # most bytes in a figure's name
SECONDS = 10.0  # between two writes of captions.json, which is rewritten each time


def caption(config: dict[str, Any]) -> None:
    """Print the captions of each photo, best first; write captions.json and the figures.

    Raises:
        ConfigError: a setting is out of range, or a figure would replace a photo.
        DataError: there are no photos, or a photo cannot be read and `skip_unreadable` is false.
    """
    from tqdm import tqdm

    from captioning.data import find_images, open_picture
    from captioning.errors import ConfigError, DataError, must_be
    from captioning.evaluation import image_ids
    from captioning.inference import (
        check_drawable,
        choose_guide,
        endings,
        load_all,
        save_caption_figure,
        with_generator,
    )
    from captioning.io import counted, make_folder, printable, write_json

    must_be("batch_size", config["batch_size"], least=1)
    images, kinds = config["images"], endings(config["figures"], config["format"])
    found = find_images([images] if isinstance(images, str) else images, exclude=[Path(config["output"])])
    paths, left_out = found.paths, [f"{path}: {reason}" for path, reason in found.left_out]
    decoding = dict(config["decoding"])
    options = {key: config[key] for key in ("device", "hard_attention", "crops")}
    predictor = load_all(config["checkpoint"], decoding.pop("checkpoints") or [], **options)
    predictor.guide_by(choose_guide(config["tags"], build(config["guidance"]), predictor))
    check_drawable(config["figures"], predictor)
    search = with_generator(build(decoding))
    predictor.check_search(search)
    output = make_folder(Path(config["output"]))
    numbers = image_ids(paths, Path(config["annotations"]) if config["annotations"] else None)
    figures = figure_names(paths, tuple(kinds.values()))
    for path, names in zip(paths, figures, strict=True):
        for name in names:
            if (output / name).exists() and any(other.is_file() and (output / name).samefile(other) for other in paths):
                raise ConfigError(f"output={output} would replace the photo {path} by a figure: give another folder")
    regions_of = _regions(predictor, config["regions"])
    results: list[dict[str, Any]] = []
    skipped: list[str] = []
    empty, saved_at = 0, perf_counter()
    bar = tqdm(total=len(paths), desc="images", unit="image", disable=None)
    try:
        for at in range(0, len(paths), config["batch_size"]):
            opened = []
            for index, path in enumerate(paths[at : at + config["batch_size"]], start=at):
                try:
                    opened.append((index, path, open_picture(path)))
                except DataError as error:
                    if not config["skip_unreadable"]:
                        raise DataError(f"{error}. To leave out unreadable files: skip_unreadable=true") from error
                    skipped.append(str(error))
            captions: list[list[Caption]] = []
            if opened and regions_of:
                captions = predictor.caption_regions([regions_of(path) for _, path, _ in opened], search)
            elif opened:
                photos, sources = [photo for *_, photo in opened], [path for _, path, _ in opened]
                captions = predictor.all_captions(photos, search, names=sources)
            for (index, path, _), texts in zip(opened, captions, strict=True):  # first, because a figure may fail
                image_id = numbers[index] if numbers else len(results)
                results.append(_result(image_id, path, texts, guided=predictor.guide is not None))
            for (index, path, photo), texts in zip(opened, captions, strict=True):
                empty += sum(not each.text.strip() for each in texts)
                for each in texts:
                    bar.write(printable(f"{path}: {each.text.strip() or '(empty caption)'}"))  # stdout, above the bar
                for kind, name in zip(kinds, figures[index], strict=True):
                    save_caption_figure(photo, texts[0], output / name, kind)
            bar.update(min(config["batch_size"], len(paths) - at))
            if perf_counter() - saved_at > SECONDS:
                write_json(output / "captions.json", results)
                saved_at = perf_counter()
    finally:  # keep the captions so far, also after an error or Ctrl-C
        bar.close()
        if results or len(skipped) == len(paths):
            write_json(output / "captions.json", results)
    left_out += skipped
    _report_left_out(left_out, output / LEFT_OUT)
    blank = f" ({counted(empty, 'empty caption')})" if empty else ""
    count = "1 image" if len(results) == 1 else f"{len(results)} images"
    if predictor.guide:
        off = "" if config["tags"] != "auto" else " (off: tags=null)"
        print(printable(f"captions guided by tags: {predictor.guide.describe()}{off}"))
        for note in predictor.guide.notes():
            print(printable(f"warning: {note}"), file=sys.stderr)
    print(f"{count} captioned{blank}, {len(left_out)} left out. Results: {output}")


def _report_left_out(left_out: Sequence[str], file: Path) -> None:
    """Print the first files that were left out on stderr, and write all of them to a file if there are more."""
    from captioning.io import printable, write_text

    shown = left_out if len(left_out) <= LEFT_OUT_LINES else left_out[: LEFT_OUT_LINES - 1]
    for reason in shown:
        print(printable(f"left out: {reason}"), file=sys.stderr)
    if len(shown) < len(left_out):
        write_text(file, "".join(f"{printable(reason)}\n" for reason in left_out))
        print(f"… and {len(left_out) - len(shown)} more. All of them: {file}", file=sys.stderr)
    else:
        file.unlink(missing_ok=True)  # from an earlier run with the same output


def _result(image_id: int | str, path: Path, captions: "Sequence[Caption]", *, guided: bool) -> dict[str, Any]:
    """Return a photo's entry of captions.json: its best caption in COCO's results format, and further facts."""
    best, *others = captions
    further: dict[str, Any] = {"others": [_facts(each) for each in others]} if others else {}
    if guided:
        further["tags"] = [{"noun": tag.noun, "confidence": round(tag.confidence, 3)} for tag in best.tags]
    return {"image_id": image_id, **_facts(best), "file_name": str(path), **further}


def _facts(caption: "Caption") -> dict[str, Any]:
    facts: dict[str, Any] = {"caption": caption.text, "log_prob": caption.log_prob, "score": caption.score}
    if caption.stand_in_log_prob is not None:
        facts["stand_in_log_prob"] = caption.stand_in_log_prob
    return facts


def _regions(predictor: "Predictor", folder: str | None) -> Callable[[Path], Any] | None:
    """Return a function from a photo's path to its region features; None without a folder of region features."""
    from captioning.checkpoints import looks_at_regions
    from captioning.data import Record
    from captioning.errors import ConfigError
    from captioning.features import RegionFolder

    if folder is None:
        return None
    if not looks_at_regions(predictor.metadata):
        raise ConfigError(f"regions={folder}: the checkpoint was not trained on region features: leave regions= out")
    files = RegionFolder(folder, size=predictor.metadata["features"]["size"])
    # COCO names images by their ids, and the files with region features have the same ids.
    return lambda path: files[Record(int(path.stem) if path.stem.isdecimal() else -1, path, "", ())]


def figure_names(paths: Sequence[Path], endings: Sequence[str]) -> list[list[str]]:
    """Return the names of each image's figures, one per ending.

    A figure is named after its image. If several folders contain the same name, the folders are added; if this is not
    enough, a number. Names that differ only in case count as equal.
    """
    named: defaultdict[str, list[Path]] = defaultdict(list)
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
    """Return how many folders are needed to distinguish files with one name; None if folders are not enough."""
    for depth in range(max(len(path.parts) for path in paths)):
        if len({_with_folders(path, depth).lower() for path in paths}) == len(paths):
            return depth
    return None


def _with_folders(path: Path, depth: int) -> str:
    folders = [part for part in path.parts[:-1] if part not in ("..", path.anchor)]
    return "_".join([*folders[max(0, len(folders) - depth) :], path.stem]) if depth else path.stem


def _cut(stem: str) -> str:
    """Shorten a name: most systems allow 255 bytes, including the ending."""
    while len(os.fsencode(stem)) > LONGEST_STEM:
        stem = stem[:-1]
    return stem


main = entry_point("caption", CaptionConfig, caption, plain=["images..."])

if __name__ == "__main__":
    main()
