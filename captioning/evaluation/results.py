"""Read COCO results and annotations, and write scores, tables and files for the COCO server.

COCO results and annotations in; scores, tables and server files out."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from captioning.data import entries, field, id_of, read_json
from captioning.errors import ConfigError, DataError
from captioning.io import make_folder, write_json, write_text
from captioning.metrics import Report, name_ids, to_csv
from captioning.text import tokenize


def read_results(file: Path) -> dict[int, str]:
    """COCO results, [{"image_id": 1, "caption": "…"}, …]: one caption an image.

    Raises:
        DataError: it is not that; ids of images with two captions, or with one that is no text, are named.
    """
    samples = read_samples(file)
    repeated = [image_id for image_id, texts in samples.items() if len(texts) > 1]
    if repeated:
        raise DataError(
            f"{file}: more than one caption for {len(repeated)} images: image ids {name_ids(repeated)}; "
            "keep one each (several an image are scored by captioning-score … samples=FILE)"
        )
    return {image_id: texts[0] for image_id, texts in samples.items()}


def read_samples(file: Path) -> dict[int, list[str]]:
    """As `read_results`, with one or more captions an image."""
    content = read_json(file)
    if not isinstance(content, list):
        raise DataError(f"{file}: COCO results are a list of image_id and caption, not {type(content).__name__}")
    return _by_image(file, [(f"{file}[{index}]", entry) for index, entry in enumerate(content)])


def read_references(file: Path) -> dict[int, list[str]]:
    """COCO captions: image id -> its reference captions. Images without any are not there."""
    return _by_image(file, list(entries(read_json(file), "annotations", file)))


def read_for_server(file: Path, images: Path) -> tuple[dict[int, str], list[int]]:
    """(captions, ids of all images that a COCO file lists, with captions or without).

    Results that name files, as captioning-caption leaves them, get the ids that `images` gives these files.
    """
    content, listed = read_json(file), list(entries(read_json(images), "images", images))
    wanted = [id_of(image, "id", where) for where, image in listed]
    if not isinstance(content, list) or not all(isinstance(entry, dict) and "file_name" in entry for entry in content):
        return read_results(file), wanted
    ids = {field(image, "file_name", str, where): number for (where, image), number in zip(listed, wanted, strict=True)}
    captions: dict[int, str] = {}
    for index, entry in enumerate(content):
        name = Path(field(entry, "file_name", str, where := f"{file}[{index}]")).name
        if name not in ids or ids[name] in captions:
            raise DataError(
                f"{where}: {name} is {'here twice' if name in ids else f'not among the images of {images}'}"
            )
        captions[ids[name]] = field(entry, "caption", str, where)
    return captions, wanted


def _by_image(file: Path, listed: Sequence[tuple[str, Any]]) -> dict[int, list[str]]:
    result: dict[int, list[str]] = {}
    wrong = []
    for where, entry in listed:
        image_id = id_of(entry, "image_id", where)
        if not isinstance(entry.get("caption"), str):  # null, NaN, a number, or not there
            wrong.append(image_id)
        result.setdefault(image_id, []).append(entry.get("caption"))
    if wrong:
        raise DataError(f'{file}: captions that are no text: image ids {name_ids(wrong)}; write one, or ""')
    return result


def write_report(folder: Path, report: Report, about: Mapping[str, Any], *, extra: Mapping[str, float]) -> None:
    """captions.json, scores.json (flat, fractions), per_image.csv and statistics.json.

    Args:
        about: what the scores are of: data, split, decoding.
        extra: further scores of a data set's own.
    """
    make_folder(folder)
    table = report.table
    captions = zip(table.image_ids, table.captions, strict=True)
    write_json(folder / "captions.json", [{"image_id": key, "caption": text} for key, text in captions])
    write_json(folder / "scores.json", report.scores | extra)
    write_text(folder / "per_image.csv", to_csv(table))
    statistics = {
        "about": {**about, "tokenizer": report.tokenizer, "images": len(table.image_ids)},
        "intervals": report.intervals,
        "intervals are": f"95 %, {report.resamples} resamples of images, CIDEr's document frequencies kept",
        "captions": report.captions,
        "samples": report.samples,
        "unavailable": report.unavailable,
    }
    write_json(folder / "statistics.json", statistics)


def describe_scores(report: Report, about: Mapping[str, Any], *, extra: Mapping[str, float]) -> str:
    """The scores as lines for a reader, under a title that says what they are of."""
    lines = [title({**about, "tokenizer": report.tokenizer, "images": len(report.table.image_ids)})]
    for name, value in (report.scores | extra).items():
        low, high = report.intervals.get(name, (None, None))
        lines.append(f"  {name:<10}{value:8.4f}" + ("" if low is None else f"   95 % {low:.4f} … {high:.4f}"))
    lines += [f"  {name:<10}not available: {reason}" for name, reason in report.unavailable.items()]
    shares = ("distinct", "novel", "with unknown words", "empty")
    told = [f"{report.captions[name]:.1%} {name}" for name in shares if name in report.captions]
    length = f"{report.captions['length']:.1f} words ({report.captions['length of references']:.1f} in references)"
    lines.append(f"  captions: {', '.join(told)}; {length}, {report.captions['vocabulary']} different")
    if report.samples:
        lines.append("  samples: " + ", ".join(f"{name} {value:.4g}" for name, value in report.samples.items()))
    return "\n".join(lines)


def title(about: Mapping[str, Any]) -> str:
    """What every printed score says: data, split, decoding, tokenizer, number of images."""
    return (
        f"{about['data']} {about['split']}, decoding {about['decoding']}, Penn-Treebank tokens ({about['tokenizer']}), "
        f"{about['images']} images"
    )


def read_about(folder: Path) -> dict[str, Any]:
    """What the scores in a folder that `write_report` left are of."""
    file = folder / "statistics.json"
    return field(read_json(file), "about", dict, str(file))


def read_title(folder: Path) -> str:
    """The title of the scores in a folder that `write_report` left."""
    about = read_about(folder)
    try:
        return title(about)
    except KeyError as error:
        file = folder / "statistics.json"
        raise DataError(f"{file}: the key {error} is missing in 'about'; score the captions anew") from error


def read_scores(folder: Path) -> dict[str, Any]:
    """The scores in a folder that `write_report` left: {"of": their title, "values": …, "intervals": 95 %, by name}."""
    file = folder / "scores.json"
    values = read_json(file)
    if not isinstance(values, dict) or not all(type(value) in (int, float) for value in values.values()):
        raise DataError(f"{file}: not the scores that captioning-evaluate leaves; evaluate anew")
    statistics = folder / "statistics.json"
    intervals = field(read_json(statistics), "intervals", dict, str(statistics))
    return {"of": read_title(folder), "values": values, "intervals": intervals}


def write_server_file(
    folder: Path, captions: Mapping[int, str], *, name: str, split: str, wanted: Collection[int]
) -> Path:
    """captions_{split}_{name}_results.json, under which name the COCO caption server takes results.

    Args:
        split: "val2014" or "test2014".
        wanted: ids of all images of the split: each must have a caption, and no other may.

    Raises:
        ConfigError: a name or split that the server would not take.
        DataError: images missing or too many, none at all, or a caption without words.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise ConfigError(f"server={name}: the COCO server takes letters, digits and hyphens only")
    if split not in ("val2014", "test2014"):
        raise ConfigError(f"the COCO server takes results of val2014 and test2014, not of {split}")
    if not (wanted := set(wanted)):
        raise DataError("the COCO server would refuse this: no image is listed that results could be of")
    blank = [image_id for image_id, text in captions.items() if not tokenize(text)]
    faults = {"missing": wanted - captions.keys(), "not of the split": captions.keys() - wanted, "without words": blank}
    found = [f"{len(ids)} captions {fault}: image ids {name_ids(ids)}" for fault, ids in faults.items() if ids]
    if found:
        raise DataError(f"the COCO server would refuse this: {'; '.join(found)}")
    path = make_folder(folder) / f"captions_{split}_{name}_results.json"
    # The server's tokenizer reads a caption a line: a line end of any kind would shift all captions that follow.
    write_json(path, [{"image_id": key, "caption": " ".join(text.split())} for key, text in captions.items()])
    return path
