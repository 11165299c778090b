"""Log all numbers of a run to one CSV file, one row per step."""

import csv
import io
from contextlib import nullcontext, suppress
from pathlib import Path
from time import perf_counter

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from captioning.errors import ConfigError
from captioning.io import write_whole


class RunLog(Logger):
    """All logged numbers as one CSV file, a row a step; a resumed run appends to it.

    Lightning's own CSV logger deletes the file of a run that is resumed in its folder.

    Args:
        path: of the file; written to a temporary name and renamed, so that it is whole at any time.
    """

    SECONDS = 10.0  # between two writes of the whole file
    name = version = None

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.rows, self.saved_at = path, {}, 0.0

    def resume(self, step: int) -> None:
        """Reads the rows before `step`; later ones belong to steps that will be made again."""
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    if int(row["step"]) < step:
                        self.rows[int(row["step"])] = {name: value for name, value in row.items() if value}

    @rank_zero_only
    def log_hyperparams(self, *args, **kwargs) -> None:
        """The configuration lies beside the log as config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds numbers to a step's row."""
        self.rows.setdefault(step, {"step": step}).update(metrics)

    @rank_zero_only
    def save(self) -> None:
        """Called by the trainer after every logged step; writes the file when the last time was a while ago."""
        if perf_counter() - self.saved_at > self.SECONDS:
            self.write()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """The last rows. Of a run that failed, why it did is told, and not that its log cannot be written either."""
        with suppress(ConfigError) if status == "failed" else nullcontext():
            self.write()

    @rank_zero_only
    def write(self) -> None:
        """All rows to the file, now."""
        columns = sorted({name for row in self.rows.values() for name in row} - {"step", "epoch"})
        text = io.StringIO()
        writer = csv.DictWriter(text, ["step", "epoch", *columns])
        writer.writeheader()
        writer.writerows(self.rows[step] for step in sorted(self.rows))
        write_whole(self.path, lambda file: file.write(text.getvalue().encode()))
        self.saved_at = perf_counter()
