"""Is one run better than another? `captioning-compare A B`: a paired bootstrap over the images that both captioned."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from captioning.config import build, entry_point, positional
from captioning.errors import ConfigError, DataError
from captioning.schemas import CompareConfig


def compare(config: dict[str, Any]) -> None:
    """Prints each score of both, the interval of their difference, and the images that make it."""
    from captioning.metrics import bootstrap

    scorer = build(config["metrics"] | {"bootstrap": 0})  # for results files, which have no scores yet
    resamples = config["metrics"]["bootstrap"]
    if resamples < 1:
        raise ConfigError("metrics.bootstrap must be 1 or more to compare runs")
    if config["show"] < 0:
        raise ConfigError(f"show must be 0 or more, not {config['show']}")
    runs = {side: [config[side]] if isinstance(config[side], str) else config[side] for side in ("a", "b")}
    if empty := [side for side, paths in runs.items() if not paths]:
        raise ConfigError(f"no runs to compare in {' and '.join(empty)}")
    annotations = Path(config["annotations"]) if config["annotations"] else None
    read = {side: [_read(Path(path), annotations, scorer) for path in paths] for side, paths in runs.items()}
    tables = _aligned({side: [table for table, _ in found] for side, found in read.items()}, runs)
    compared = bootstrap.compare(tables["a"], tables["b"], resamples=resamples, seed=config["metrics"]["seed"])
    if config["by"] not in compared:
        raise ConfigError(f"by={config['by']}: both have {', '.join(compared)}")
    for side, paths in runs.items():
        print(f"{side.upper()}: {', '.join(paths)}")
    print("\n".join(dict.fromkeys(title for found in read.values() for _, title in found)))
    print(_scores(compared, tables, resamples))
    rows = _differences(tables, config["by"])
    better = {
        "B": [row for row in reversed(rows) if row["difference"] > 0],
        "A": [row for row in rows if row["difference"] < 0],
    }
    for side, ordered in better.items():
        print(f"images for which {side} is better by {config['by']}:")
        print("\n".join(map(_line, ordered[: config["show"]])) or "  none")
    if config["output"]:
        _write(Path(config["output"]), compared, rows, config["by"])


def _read(path: Path, annotations: Path | None, scorer) -> tuple[Any, str]:
    """(table, title) of a folder, or of a results file, which is scored now."""
    from captioning.metrics.table import from_csv
    from captioning.results import read_references, read_results, read_title, title

    if path.is_dir():
        return from_csv(path / "per_image.csv"), read_title(path)
    if annotations is None:
        raise ConfigError(
            f"{path} is no folder of scores; where it is a results file, give annotations=FILE to score it"
        )
    report = scorer(read_references(annotations), read_results(path))
    about = {"data": path.name, "split": annotations.stem, "decoding": "not stated"}
    return report.table, title(about | {"tokenizer": report.tokenizer, "images": len(report.table.image_ids)})


def _aligned(tables: dict[str, list], runs: Mapping[str, Sequence[str]]) -> dict[str, list]:
    """All tables in the order of the first one's images."""
    from captioning.metrics.scores import name_ids

    first, result = tables["a"][0].image_ids, {}
    for side, found in tables.items():
        result[side] = []
        for table, path in zip(found, runs[side], strict=True):
            if odd := set(first) ^ set(table.image_ids):
                raise DataError(f"{runs['a'][0]} and {path} are not of the same images: image ids {name_ids(odd)}")
            place = {image_id: row for row, image_id in enumerate(table.image_ids)}
            result[side].append(table.take(np.array([place[image_id] for image_id in first])))
    return result


def _scores(compared: Mapping[str, Any], tables: Mapping[str, list], resamples: int) -> str:
    lines = [f"  {'':<10}{'A':>9}{'B':>9}{'B - A':>10}   95 % interval       A better  B better"]
    for name, row in compared.items():
        lines.append(
            f"  {name:<10}{row.a:9.4f}{row.b:9.4f}{row.b - row.a:+10.4f}   {row.low:+.4f} … {row.high:+.4f}"
            f"{row.a_better:10.1%}{row.b_better:10.1%}"
        )
    for side, found in tables.items():
        if len(found) > 1:
            spread = {name: np.std([table.totals()[name][0] for table in found], ddof=1) for name in compared}
            told = ", ".join(f"{name} {value:.4f}" for name, value in spread.items())
            lines.append(f"  {side.upper()} is the mean of {len(found)} runs; standard deviation between them: {told}")
    lines.append(f"  better: share of {resamples} resamples of the images, the same for both")
    return "\n".join(lines)


def _differences(tables: Mapping[str, list], by: str) -> list[dict[str, Any]]:
    """One row an image, those where A is better first; captions are those of each side's first run."""
    a, b = (np.mean([table.values[by] for table in tables[side]], axis=0) for side in ("a", "b"))
    first = {side: tables[side][0] for side in tables}
    return [
        {
            "image_id": first["a"].image_ids[row],
            "a": float(a[row]),
            "b": float(b[row]),
            "difference": float(b[row] - a[row]),
            "caption_a": first["a"].captions[row],
            "caption_b": first["b"].captions[row],
        }
        for row in np.argsort(b - a, kind="stable")
    ]


def _line(row: Mapping[str, Any]) -> str:
    return f"  {row['image_id']}: {row['a']:.3f} {row['caption_a']!r}  ->  {row['b']:.3f} {row['caption_b']!r}"


def _write(folder: Path, compared: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], by: str) -> None:
    import csv
    import io

    from captioning.files import make_folder, write_json, write_text

    make_folder(folder)
    write_json(folder / "compare.json", {name: row._asdict() for name, row in compared.items()})
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "differences.csv", text.getvalue())
    print(f"comparison: {folder / 'compare.json'}; image by image, by {by}: {folder / 'differences.csv'}")


main = positional(entry_point("compare", CompareConfig, compare), "a", "b")

if __name__ == "__main__":
    main()
