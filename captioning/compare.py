"""Compare two runs with a paired bootstrap over the images that both captioned: `captioning-compare A B`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captioning.config import CompareConfig, build, entry_point
from captioning.errors import ConfigError


def compare(config: dict[str, Any]) -> None:
    """Print every score of both runs, the interval of the difference, and the images where they differ most.

    If the images have groups, such as the domains of nocaps, the scores are printed per group too.

    Raises:
        ConfigError: a setting is out of range, or annotations are missing for a results file.
        DataError: the runs have other images or references.
    """
    from captioning.evaluation import (
        aligned,
        compare_groups,
        compared,
        describe_compared_groups,
        describe_comparison,
        differences,
        matched_by,
        same_models,
        same_references,
        same_tokenizers,
        with_groups,
    )
    from captioning.io import counted
    from captioning.metrics import LOWER_IS_BETTER

    scorer = build(config["metrics"] | {"bootstrap": 0})  # scores the results files
    resamples = config["metrics"]["bootstrap"]
    if resamples < 1:
        raise ConfigError("metrics.bootstrap must be 1 or more to compare runs")
    if config["show"] < 0:
        raise ConfigError(f"show must be 0 or more, not {config['show']}")
    runs = {side: [config[side]] if isinstance(config[side], str) else config[side] for side in ("a", "b")}
    if empty := [side for side, paths in runs.items() if not paths]:
        raise ConfigError(f"{empty[0]}=[] names no run to compare: give one or more folders or results files")
    options = {key: config[key] for key in ("split", "subset", "images")}
    annotations = Path(config["annotations"]) if config["annotations"] else None
    read = {side: [_read(Path(path), annotations, scorer, **options) for path in paths] for side, paths in runs.items()}
    tables = aligned({side: [run.table for run in found] for side, found in read.items()}, runs)
    same_tokenizers({side: [run.tokenizer for run in found] for side, found in read.items()}, runs)
    same_references({side: [run.references for run in found] for side, found in read.items()}, runs)
    same_models({side: [run.models for run in found] for side, found in read.items()}, runs)
    tables = with_groups(tables, runs)
    drawn = {"resamples": resamples, "seed": config["metrics"]["seed"]}
    scores = compared(tables, **drawn)
    if config["by"] not in scores:
        raise ConfigError(f"by={config['by']} is not a score of both runs: choose one of {', '.join(scores)}")
    for side, paths in runs.items():
        print(f"{side.upper()}: {', '.join(paths)}")
    print("\n".join(dict.fromkeys(run.title for found in read.values() for run in found)))
    print(f"{counted(len(tables['a'][0].image_ids), 'image')}, matched by {matched_by(tables)}")
    print(describe_comparison(scores, tables, resamples=resamples))
    if groups := compare_groups(tables, **drawn):
        print(describe_compared_groups(groups))
    rows = differences(tables, config["by"])
    higher = [row for row in reversed(rows) if row["difference"] > 0]
    lower = [row for row in rows if row["difference"] < 0]
    better = {"B": lower, "A": higher} if config["by"] in LOWER_IS_BETTER else {"B": higher, "A": lower}
    for side, ordered in better.items():
        print(f"images for which {side} is better by {config['by']}:")
        print("\n".join(map(_line, ordered[: config["show"]])) or "  none")
    if config["output"]:
        _write(Path(config["output"]), scores, rows, config["by"], groups=groups)


class _Run(NamedTuple):
    """The scores of one run: table, title, fingerprint of the references, tokenizer, and models of the scores."""

    table: Any
    title: str
    references: str | None
    tokenizer: str | None
    models: dict[str, str]


def _read(
    path: Path, annotations: Path | None, scorer: Any, *, split: str | None, subset: bool, images: str | None
) -> _Run:
    """Read the scores of a folder, or score a results file."""
    from captioning.evaluation import (
        find_scored_images,
        match,
        read_fingerprint,
        read_models,
        read_references,
        read_results,
        read_title,
        read_tokenizer,
        title,
    )
    from captioning.metrics import from_csv

    if path.is_dir():
        table, of_references = from_csv(path / "per_image.csv"), read_fingerprint(path)
        return _Run(table, read_title(path), of_references, read_tokenizer(path), read_models(path))
    if annotations is None:
        raise ConfigError(
            f"{path} is not a folder with scores: if it is a results file, give annotations=FILE to score it"
        )
    references = read_references(annotations, split)
    found = match(
        read_results(path),
        references.images,
        files=(path, annotations),
        unscored=references.unscored,
        subset=subset,
    )
    files = find_scored_images(found, images, needed=scorer.looks_at_images, files=(path, annotations))
    captions = {image_id: texts[0] for image_id, texts in found.captions.items()}
    report = scorer(found.references, captions, images=files)
    about: dict[str, Any] = {
        "data": path.name,
        "annotations": annotations.name,
        "split": references.split,
        "decoding": "not stated",
    }
    names = [found.names.get(image_id, "") for image_id in report.table.image_ids]
    about |= {**found.about, "tokenizer": report.tokenizer, "images": len(names), "models": report.models}
    heading = title(about) + (f"; {references.notice}" if references.notice else "")
    groups = [references.groups.get(image_id, "") for image_id in report.table.image_ids]
    table = report.table._replace(names=names if any(names) else None, groups=groups if any(groups) else None)
    return _Run(table, heading, report.references, report.tokenizer, report.models)


def _line(row: Mapping[str, Any]) -> str:
    return f"  {row['image_id']}: {row['a']:.3f} {row['caption_a']!r}  ->  {row['b']:.3f} {row['caption_b']!r}"


def _write(
    folder: Path,
    compared: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    by: str,
    *,
    groups: Mapping[str, Any],
) -> None:
    import csv
    import io

    from captioning.evaluation import write_compared_groups
    from captioning.io import make_folder, write_json, write_text

    make_folder(folder)
    write_json(folder / "compare.json", {name: row._asdict() for name, row in compared.items()})
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys() if rows else ["image_id"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "differences.csv", text.getvalue())
    print(f"comparison: {folder / 'compare.json'}; {by} per image: {folder / 'differences.csv'}")
    if file := write_compared_groups(folder, groups):
        print(f"comparison per group: {file}")


main = entry_point("compare", CompareConfig, compare, plain=["a", "b"])

if __name__ == "__main__":
    main()
