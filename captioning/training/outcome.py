"""Record how a run ended in its outcome.json, so that `resume=auto` can distinguish finished from failed runs."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from captioning.io import write_text

FILE = "outcome.json"
_HOW = ("resume", "overwrite", "run_dir")  # how a process was started; these settings do not define the run


def keep_outcome(run_dir: Path, outcome: str, config: Mapping[str, Any], *, step: int, why: str) -> None:
    """Write outcome.json atomically.

    Args:
        run_dir: the run folder.
        outcome: "finished" or "failed".
        config: the settings of the run.
        step: number of finished optimizer steps.
        why: the reason, in one line.
    """
    about = {"outcome": outcome, "at": datetime.now(UTC).isoformat(timespec="seconds"), "step": step, "why": why}
    write_text(run_dir / FILE, json.dumps(about | {"settings": _plain(config)}, indent=1) + "\n")


def read_outcome(run_dir: Path) -> dict[str, Any]:
    """Return the content of outcome.json; {} if the file is missing, or was not written by `keep_outcome`."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("settings"), dict):
            return found
    return {}


def has_finished(run_dir: Path, config: Mapping[str, Any], *, step: int) -> bool:
    """Return whether the run in this folder has finished, at this step and with exactly these settings.

    With other settings, such as more epochs or a longer patience, there may be more to do.
    """
    found = read_outcome(run_dir)
    same = found.get("settings") == _plain(config)
    return same and found.get("outcome") == "finished" and found.get("step") == step


def starts_again(run_dir: Path, config: Mapping[str, Any]) -> str:
    """Return why `resume=auto` must start this run again from the beginning; "" if it can resume.

    A run starts again if it failed by itself and none of the settings that a resumed run may change was changed since.
    """
    from captioning.checkpoints import resume

    found = read_outcome(run_dir)
    if found.get("outcome") != "failed":
        return ""
    was, now = found["settings"], _plain(config)
    changed = was != now and resume.settings(was) == resume.settings(now)
    return "" if changed else str(found.get("why", ""))


def forget_outcome(run_dir: Path) -> None:
    """Remove outcome.json, because the run resumes."""
    (run_dir / FILE).unlink(missing_ok=True)


def _plain(config: Mapping[str, Any]) -> Any:
    """Return the settings as JSON would restore them."""
    return json.loads(json.dumps({key: value for key, value in config.items() if key not in _HOW}, default=str))
