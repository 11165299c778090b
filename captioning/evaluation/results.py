"""Print, write and read the scores of a split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captioning.data import field, read_json
from captioning.errors import DataError
from captioning.io import counted, make_folder, write_json, write_text
from captioning.metrics import Report, to_csv

NOT_STATED = "not stated"  # decoding of results whose decoding is unknown
FEW = 20  # images: with fewer, scores are mostly chance, and their intervals are too narrow (docs/evaluate.md)


def write_report(
    folder: Path,
    report: Report,
    about: Mapping[str, Any],
    *,
    extra: Mapping[str, float],
    names: Mapping[Any, str] | None = None,
    groups: Mapping[Any, str | None] | None = None,
) -> None:
    """Write `captions.json`, `scores.json` (fractions, by name), `per_image.csv` and `statistics.json` into a folder.

    Args:
        folder: the folder; it is created.
        report: the scores.
        about: what was scored: "data", "split" and "decoding".
        extra: further scores that are specific to the data set.
        names: {image id: file name}. Readers of these files then identify images by file name.
        groups: {image id: group}, for comparisons per group; None for an image without one.

    Raises:
        ConfigError: the folder or a file cannot be written.
    """
    make_folder(folder)
    table, names = report.table, names or {}
    if names:
        table = table._replace(names=[names.get(key, "") for key in table.image_ids])
    own = [(groups or {}).get(key) or "" for key in table.image_ids]
    table = table._replace(groups=own if any(own) else None)
    captions = zip(table.image_ids, table.captions, strict=True)
    named = [({"file_name": names[key]} if key in names else {}, key, text) for key, text in captions]
    write_json(folder / "captions.json", [{"image_id": key, "caption": text, **name} for name, key, text in named])
    write_json(folder / "scores.json", {**report.scores, **extra})
    write_text(folder / "per_image.csv", to_csv(table))
    statistics = {
        "about": {**about, **_of_report(report)},
        "references": report.references,
        "intervals": report.intervals,
        "intervals are": f"95 %, {report.resamples} bootstrap resamples of images, CIDEr's document frequencies fixed",
        "captions": report.captions,
        "samples": report.samples,
        "unavailable": report.unavailable,
        "notes": report.notes,
    }
    write_json(folder / "statistics.json", statistics)


def describe_scores(report: Report, about: Mapping[str, Any], *, extra: Mapping[str, float]) -> str:
    """Format scores as printable lines under a title.

    Args:
        report: the scores.
        about: what was scored: "data", "split" and "decoding".
        extra: further scores that are specific to the data set.
    """
    lines = [title({**about, **_of_report(report)})]
    width = max([10, *(len(name) + 2 for name in report.scores)])
    for name, value in {**report.scores, **extra}.items():
        low, high = report.intervals.get(name, (None, None))
        interval = "" if low is None else f"   95 % {low:.4f} … {high:.4f}"
        note = f"   ({report.notes[name]})" if name in report.notes else ""
        lines.append(f"  {name:<{width}}{value:8.4f}{interval}{note}")
    lines += [f"  {name:<{width}}not available: {reason}" for name, reason in report.unavailable.items()]
    shares = ("distinct", "novel", "with unknown words", "empty")
    parts = [f"{report.captions[name]:.1%} {name}" for name in shares if name in report.captions]
    length = (
        f"{report.captions['length']:.1f} words per caption (references: {report.captions['length of references']:.1f})"
    )
    lines.append(f"  captions: {', '.join(parts)}; {length}; {report.captions['vocabulary']} different words")
    if report.samples:
        lines.append("  samples: " + ", ".join(f"{name} {value:.4g}" for name, value in report.samples.items()))
    notes = [(name, note) for name, note in report.notes.items() if name not in report.scores]
    if (count := len(report.table.image_ids)) < FEW:
        few = f"only {counted(count, 'image')}: scores of so few are mostly chance; score {FEW} or more"
        notes.append(("NOTE", few))
    lines += [f"  {name:<{width}}{note}" for name, note in notes]
    return "\n".join(lines)


def _of_report(report: Report) -> dict[str, Any]:
    """Return what a title says about how the captions were scored."""
    models = {"models": report.models} if report.models else {}
    return {"tokenizer": report.tokenizer, "images": len(report.table.image_ids), **models}


def title(about: Mapping[str, Any]) -> str:
    """Return the title of printed scores: data, split, decoding, tokenizer, images, how images were matched, models.

    Args:
        about: as for `describe_scores`, with "tokenizer" and "images". For results that were scored with a file of
            references, "annotations" is that file's name. "models" names the models of scores that look at the image.
    """
    subset, by, file = about.get("subset"), about.get("matched by"), about.get("annotations")
    images = counted(about["images"], "image")
    what = f"{about['data']} {about['split']}"
    if file:
        own = "" if about["split"] == Path(file).stem else f" (split {about['split']})"
        what = f"{about['data']}, references of {file}{own}"
    decoding = "" if about["decoding"] == NOT_STATED else f", decoding {about['decoding']}"
    if subset:
        images = f"SUBSET: {about['images']} of {subset['annotated']} annotated images"
        if left := subset["captions without references"]:
            images += f", {counted(left, 'caption')} without references skipped"
    matched = f", captions and references matched by {by}" if by else ""
    models = "".join(f", {score} of {model}" for score, model in about.get("models", {}).items())
    return f"{what}{decoding}, {describe_tokens(about['tokenizer'])}, {images}{matched}{models}"


def describe_tokens(tokenizer: str) -> str:
    """Return what scores were computed on, from the name of the tokenizer."""
    known = {"ptb": "Penn-Treebank tokens", "java": "Penn-Treebank tokens (Java)"}
    return known.get(tokenizer, f"tokens of {tokenizer}")


def read_about(folder: Path) -> dict[str, Any]:
    """Read what was scored (data, split, decoding, …) from a folder that `write_report` wrote.

    Raises:
        DataError: `statistics.json` is missing or damaged.
    """
    file = folder / "statistics.json"
    return field(read_json(file), "about", dict, str(file))


def read_models(folder: Path) -> dict[str, str]:
    """Read which models computed the scores in a folder, {score: model and weights}; {} for scores without a model."""
    file = folder / "statistics.json"
    content = read_json(file) if file.is_file() else None
    about = content.get("about") if isinstance(content, dict) else None
    found = about.get("models") if isinstance(about, dict) else None
    return found if isinstance(found, dict) else {}


def read_tokenizer(folder: Path) -> str | None:
    """Read the name of the tokenizer from a folder of scores; None if it is not stated."""
    file = folder / "statistics.json"
    about = read_json(file).get("about") if file.is_file() else None
    found = about.get("tokenizer") if isinstance(about, dict) else None
    return found if isinstance(found, str) else None


def read_fingerprint(folder: Path) -> str | None:
    """Read the fingerprint of the references from a folder of scores; None for folders of older versions."""
    file = folder / "statistics.json"
    content = read_json(file) if file.is_file() else None
    found = content.get("references") if isinstance(content, dict) else None
    return found if isinstance(found, str) else None


def read_title(folder: Path, **others: Any) -> str:
    """Read the title of the scores in a folder that `write_report` wrote.

    Args:
        folder: the folder.
        **others: values that replace those of the folder, for example the models of scores that are computed again.

    Raises:
        DataError: `statistics.json` is missing or damaged.
    """
    about, file = read_about(folder), folder / "statistics.json"
    try:
        return title(about | others)
    except KeyError as error:
        raise DataError(f"{file}: the key {error} is missing in 'about'. Score the captions again") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{file}: a value in 'about' has a wrong type. Score the captions again") from error


def read_scores(folder: Path) -> dict[str, Any]:
    """Read the scores in a folder that `write_report` wrote.

    Returns:
        {"of": the title, "about": what was scored ("data", "split", "decoding"), "values": {name: score},
        "intervals": {name: 95 % interval}}.

    Raises:
        DataError: a file is missing or damaged.
    """
    file = folder / "scores.json"
    values = read_json(file)
    if not isinstance(values, dict) or not all(type(value) in (int, float) for value in values.values()):
        raise DataError(f"{file} does not have the scores that captioning-evaluate writes. Evaluate again")
    statistics = folder / "statistics.json"
    intervals = field(read_json(statistics), "intervals", dict, str(statistics))
    title_of_scores, about = read_title(folder), read_about(folder)
    scored = {key: str(about[key]) for key in ("data", "split", "decoding")}
    return {"of": title_of_scores, "about": scored, "values": values, "intervals": intervals}
