"""Collect finished runs in results.json, and write the tables of results.md from it.

    python docs/results.py [RUN ...]

RUN is a folder RECIPE/SEED/ that `make results` wrote, with the scores of the validation split in RUN/val/. A run that
is already in results.json replaces its old entry. Without RUN, only the tables are written again.
"""

import csv
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

FOLDER = Path(__file__).parent
RECORDS, PAGE = FOLDER / "results.json", FOLDER / "results.md"
BEGIN, END = "<!-- from results.json: begin -->", "<!-- end -->"
SCORES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr")
RUNS = "runs/results"  # `make results` writes RECIPE/SEED/checkpoints/best.ckpt there
# Student's t, two-sided 95 %, by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}


def record(run: Path) -> dict[str, Any]:
    """Return the entry of one run: its settings, time, versions and scores."""
    provenance = json.loads((run / "provenance.json").read_text())
    statistics = json.loads((run / "val" / "statistics.json").read_text())
    scores = json.loads((run / "val" / "scores.json").read_text())
    return {
        "recipe": run.resolve().parent.name,
        "seed": provenance[-1]["seed"],
        "command": _command(provenance[0]["command"]),
        "minutes": round(_minutes(run, provenance), 1),
        "threads": provenance[-1]["threads"],
        "machine": provenance[-1]["machine"],
        "versions": provenance[-1]["versions"],
        "commit": provenance[-1]["commit"],
        "epochs": 1 + max(int(row["epoch"]) for row in csv.DictReader((run / "metrics.csv").open())),
        "decoding": statistics["about"]["decoding"],
        "scores": {name.rpartition("/")[2]: value for name, value in scores.items() if name.endswith(SCORES)},
    }


def _command(line: str) -> str:
    """Return the command as a user types it, with the folders of `make results` instead of this machine's."""
    words = [word for word in line.split() if "=" in word]
    words = [word for word in words if not word.startswith(("data.root=", "features.root=", "run_dir=", "resume="))]
    words = [f"start_from={Path(RUNS, *Path(word).parts[-4:])}" if "start_from=" in word else word for word in words]
    return " ".join(["captioning-train", *words, "data.root=DIR"])


def _minutes(run: Path, provenance: Sequence[Mapping[str, Any]]) -> float:
    """Return the minutes from the command to the last line of the run's log."""
    if len(provenance) > 1:
        raise SystemExit(f"{run} was resumed, so its time is unknown. Train it again without interruption.")
    started = datetime.fromisoformat(provenance[0]["started_at"]).timestamp()
    return ((run / "metrics.csv").stat().st_mtime - started) / 60


def interval(values: Sequence[float]) -> float:
    """Return half of the 95 % interval of the mean over seeds, by Student's t; nan for one seed."""
    if len(values) < 2:
        return float("nan")
    return STUDENT[len(values) - 1] * stdev(values) / len(values) ** 0.5


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return two tables: one row per recipe, with mean ± half interval over seeds, and one row per run."""
    groups = defaultdict(list)
    for one in records:
        groups[one["recipe"]].append(one)
    lines = ["| Recipe | Seeds | " + " | ".join(SCORES) + " | Minutes |", "|---|---|" + "---|" * (len(SCORES) + 1)]
    for recipe, runs in groups.items():
        cells = [_mean([run["scores"].get(name) for run in runs]) for name in SCORES]
        minutes = f"{mean(run['minutes'] for run in runs):.0f}"
        lines.append(f"| `{recipe}` | {len(runs)} | " + " | ".join(cells) + f" | {minutes} |")
    lines += [
        "",
        "Each run:",
        "",
        "| Recipe | Seed | BLEU-4 | CIDEr | Minutes | Threads | Commit |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in records:
        scores = " | ".join(f"{one['scores'][name]:.4f}" for name in ("BLEU-4", "CIDEr"))
        commit = (one["commit"] or "unknown")[:10]
        lines.append(
            f"| `{one['recipe']}` | {one['seed']} | {scores} | {one['minutes']:.0f} | {one['threads']} | {commit} |"
        )
    return "\n".join(lines)


def _mean(values: Sequence[float | None]) -> str:
    if None in values:
        return "–"
    half = interval(values)
    return f"{mean(values):.3f}" + (f"\u00a0±\u00a0{half:.3f}" if half == half else "")


def main(runs: Sequence[str]) -> None:
    """Add the runs to results.json, and write the tables of the page."""
    records = json.loads(RECORDS.read_text()) if RECORDS.exists() else []
    for run in runs:
        new = record(Path(run))
        same = [(one["recipe"], one["seed"]) == (new["recipe"], new["seed"]) for one in records]
        records = [one for one, old in zip(records, same, strict=True) if not old] + [new]
    records.sort(key=lambda one: (one["recipe"], one["seed"]))
    RECORDS.write_text(json.dumps(records, indent=1) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(records)}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main(sys.argv[1:])
