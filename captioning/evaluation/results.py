"""Write the scores of a split as text, tables and files, read them again, and write files for the COCO server."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from captioning.data import field, read_json
from captioning.errors import ConfigError, DataError
from captioning.io import make_folder, write_json, write_text
from captioning.metrics import Report, name_ids, to_csv
from captioning.text import tokenize


def write_report(
    folder: Path,
    report: Report,
    about: Mapping[str, Any],
    *,
    extra: Mapping[str, float],
    names: Mapping[Any, str] | None = None,
) -> None:
    """captions.json, scores.json (flat, fractions), per_image.csv and statistics.json.

    Args:
        about: what the scores are of: data, split, decoding.
        extra: further scores of a data set's own.
        names: image id -> file name, which then identifies the image in whatever reads these files.
    """
    make_folder(folder)
    table, names = report.table, names or {}
    if names:
        table = table._replace(names=[names.get(key, "") for key in table.image_ids])
    captions = zip(table.image_ids, table.captions, strict=True)
    named = [({"file_name": names[key]} if key in names else {}, key, text) for key, text in captions]
    write_json(folder / "captions.json", [{"image_id": key, "caption": text, **name} for name, key, text in named])
    write_json(folder / "scores.json", report.scores | extra)
    write_text(folder / "per_image.csv", to_csv(table))
    statistics = {
        "about": {**about, "tokenizer": report.tokenizer, "images": len(table.image_ids)},
        "references": report.references,
        "intervals": report.intervals,
        "intervals are": f"95 %, {report.resamples} resamples of images, CIDEr's document frequencies kept",
        "captions": report.captions,
        "samples": report.samples,
        "unavailable": report.unavailable,
        "notes": report.notes,
    }
    write_json(folder / "statistics.json", statistics)


def describe_scores(report: Report, about: Mapping[str, Any], *, extra: Mapping[str, float]) -> str:
    """The scores as lines for a reader, under a title that says what they are of."""
    lines = [title({**about, "tokenizer": report.tokenizer, "images": len(report.table.image_ids)})]
    for name, value in (report.scores | extra).items():
        low, high = report.intervals.get(name, (None, None))
        interval = "" if low is None else f"   95 % {low:.4f} … {high:.4f}"
        note = f"   ({report.notes[name]})" if name in report.notes else ""
        lines.append(f"  {name:<10}{value:8.4f}{interval}{note}")
    lines += [f"  {name:<10}not available: {reason}" for name, reason in report.unavailable.items()]
    shares = ("distinct", "novel", "with unknown words", "empty")
    told = [f"{report.captions[name]:.1%} {name}" for name in shares if name in report.captions]
    length = f"{report.captions['length']:.1f} words ({report.captions['length of references']:.1f} in references)"
    lines.append(f"  captions: {', '.join(told)}; {length}, {report.captions['vocabulary']} different")
    if report.samples:
        lines.append("  samples: " + ", ".join(f"{name} {value:.4g}" for name, value in report.samples.items()))
    lines += [f"  {name:<10}{note}" for name, note in report.notes.items() if name not in report.scores]
    return "\n".join(lines)


def title(about: Mapping[str, Any]) -> str:
    """What every printed score says: data, split, decoding, tokenizer, number of images, by what they were matched."""
    subset, by = about.get("subset"), about.get("matched by")
    images = f"{about['images']} images"
    if subset:
        images = f"SUBSET: {about['images']} of {subset['annotated']} annotated images"
        if left := subset["captions without references"]:
            images += f", {left} captions without references left out"
    return (
        f"{about['data']} {about['split']}, decoding {about['decoding']}, Penn-Treebank tokens ({about['tokenizer']}), "
        f"{images}{f', matched by {by}' if by else ''}"
    )


def read_about(folder: Path) -> dict[str, Any]:
    """What the scores in a folder that `write_report` left are of."""
    file = folder / "statistics.json"
    return field(read_json(file), "about", dict, str(file))


def read_fingerprint(folder: Path) -> str | None:
    """The fingerprint of the references that the scores in a folder are of; None where it is older than those."""
    file = folder / "statistics.json"
    content = read_json(file) if file.is_file() else None
    found = content.get("references") if isinstance(content, dict) else None
    return found if isinstance(found, str) else None


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
