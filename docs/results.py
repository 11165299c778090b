"""The results page: `python docs/results.py [RUN …]` takes finished runs into results.json, and writes results.md anew.

RUN is a run's folder, RECIPE/SEED/, that `make results` left, with the scores of its validation split in RUN/val/.
What is told of a recipe is the mean over its seeds; a run taken in again takes its old place.
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
RUNS = "runs/results"  # where `make results` leaves them: RECIPE/SEED/checkpoints/best.ckpt
# Student's t, two-sided 95 %, by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}


def record(run: Path) -> dict[str, Any]:
    """What is kept of a run."""
    made = json.loads((run / "provenance.json").read_text())
    statistics = json.loads((run / "val" / "statistics.json").read_text())
    scores = json.loads((run / "val" / "scores.json").read_text())
    return {
        "recipe": run.resolve().parent.name,
        "seed": made[-1]["seed"],
        "command": _command(made[0]["command"]),
        "minutes": round(_minutes(run, made), 1),
        "threads": made[-1]["threads"],
        "machine": made[-1]["machine"],
        "versions": made[-1]["versions"],
        "commit": made[-1]["commit"],
        "epochs": 1 + max(int(row["epoch"]) for row in csv.DictReader((run / "metrics.csv").open())),
        "decoding": statistics["about"]["decoding"],
        "scores": {name.rpartition("/")[2]: value for name, value in scores.items() if name.endswith(SCORES)},
    }


def _command(line: str) -> str:
    """As one would type it, with the folders of `make results` in place of those of the machine that it ran on."""
    words = [word for word in line.split() if "=" in word]
    words = [word for word in words if not word.startswith(("data.root=", "features.root=", "run_dir=", "resume="))]
    words = [f"start_from={Path(RUNS, *Path(word).parts[-4:])}" if "start_from=" in word else word for word in words]
    return " ".join(["captioning-train", *words, "data.root=DIR"])


def _minutes(run: Path, made: Sequence[Mapping[str, Any]]) -> float:
    """From the command to the last line of its log, for a run in one go."""
    if len(made) > 1:
        raise SystemExit(f"{run} was resumed: its time is not known")
    return ((run / "metrics.csv").stat().st_mtime - datetime.fromisoformat(made[0]["started_at"]).timestamp()) / 60


def interval(values: Sequence[float]) -> float:
    """Half of the 95 % interval of the mean over seeds, by Student's t; nan for one seed."""
    if len(values) < 2:
        return float("nan")
    return STUDENT[len(values) - 1] * stdev(values) / len(values) ** 0.5


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """A row a recipe, means ± half intervals in hundredths; below it, a row a run."""
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
        scores = " | ".join(f"{100 * one['scores'][name]:.2f}" for name in ("BLEU-4", "CIDEr"))
        commit = (one["commit"] or "unknown")[:10]
        lines.append(
            f"| `{one['recipe']}` | {one['seed']} | {scores} | {one['minutes']:.0f} | {one['threads']} | {commit} |"
        )
    return "\n".join(lines)


def _mean(values: Sequence[float | None]) -> str:
    if None in values:
        return "–"
    half = interval(values)
    return f"{100 * mean(values):.1f}" + (f" ± {100 * half:.1f}" if half == half else "")


def main(runs: Sequence[str]) -> None:
    records = json.loads(RECORDS.read_text()) if RECORDS.exists() else []
    for run in runs:
        made = record(Path(run))
        same = [(one["recipe"], one["seed"]) == (made["recipe"], made["seed"]) for one in records]
        records = [one for one, old in zip(records, same, strict=True) if not old] + [made]
    records.sort(key=lambda one: (one["recipe"], one["seed"]))
    RECORDS.write_text(json.dumps(records, indent=1) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(records)}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main(sys.argv[1:])
