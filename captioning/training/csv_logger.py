"""Log all numbers of a run to one CSV file, one row per step."""

import csv
import io
from contextlib import nullcontext, suppress
from pathlib import Path
from time import perf_counter
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from captioning.errors import ConfigError
from captioning.io import write_whole


class RunLog(Logger):
    """A logger that writes all numbers of a run to one CSV file, one row per step; a resumed run appends to it.

    Lightning's own CSV logger deletes the file of a run that is resumed in the same folder.

    Args:
        path: path of the CSV file. It is written under a temporary name and renamed, so it is complete at any time.
    """

    SECONDS = 10.0  # between two writes of the file
    name = version = None

    def __init__(self, path: Path):
        super().__init__()
        self.rows: dict[int, dict[str, Any]] = {}
        self.path, self.saved_at = path, 0.0

    def resume(self, step: int) -> None:
        """Read the rows before `step`; the resumed run repeats the later steps."""
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    if int(row["step"]) < step:
                        self.rows[int(row["step"])] = {name: value for name, value in row.items() if value}

    @rank_zero_only
    def log_hyperparams(self, *args, **kwargs) -> None:
        """Do nothing: the configuration is in config.yaml, next to the log."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add numbers to the row of a step."""
        assert step is not None  # Lightning always passes it
        self.rows.setdefault(step, {"step": step}).update(metrics)

    @rank_zero_only
    def save(self) -> None:
        """Write the file if the last write was more than `SECONDS` ago; the trainer calls this after logged steps."""
        if perf_counter() - self.saved_at > self.SECONDS:
            self.write()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the last rows.

        If the run failed, an error of this write is suppressed, so that it does not hide the run's own error.
        """
        with suppress(ConfigError) if status == "failed" else nullcontext():
            self.write()

    @rank_zero_only
    def write(self) -> None:
        """Write all rows to the file now."""
        columns = sorted({name for row in self.rows.values() for name in row} - {"step", "epoch"})
        text = io.StringIO()
        writer = csv.DictWriter(text, ["step", "epoch", *columns])
        writer.writeheader()
        writer.writerows(self.rows[step] for step in sorted(self.rows))
        write_whole(self.path, lambda file: file.write(text.getvalue().encode()))
        self.saved_at = perf_counter()
