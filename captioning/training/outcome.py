"""Keep what became of a run beside it, so that a later start with resume=auto knows: finished, or failed and why."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from captioning.io import write_text

FILE = "outcome.json"
_HOW = ("resume", "overwrite", "run_dir")  # how a process came to the run, and not what the run is


def keep_outcome(run_dir: Path, outcome: str, config: Mapping[str, Any], *, step: int, why: str) -> None:
    """Write outcome.json, whole: "finished" or "failed", after how many steps, why, and by which settings."""
    about = {"outcome": outcome, "at": datetime.now(UTC).isoformat(timespec="seconds"), "step": step, "why": why}
    write_text(run_dir / FILE, json.dumps(about | {"settings": _plain(config)}, indent=1) + "\n")


def read_outcome(run_dir: Path) -> dict[str, Any]:
    """Return what `keep_outcome` wrote; {} where there is no such file, or another one."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("settings"), dict):
            return found
    return {}


def has_finished(run_dir: Path, config: Mapping[str, Any], *, step: int) -> bool:
    """Whether the run of this folder came to its end, at this step and by these very settings: with more epochs or a
    longer patience there may be more to do."""
    found = read_outcome(run_dir)
    same = found.get("settings") == _plain(config)
    return same and found.get("outcome") == "finished" and found.get("step") == step


def starts_again(run_dir: Path, config: Mapping[str, Any]) -> str:
    """Why resume=auto starts this folder's run again: it failed by itself, and nothing that a resumed run may change
    has been changed since. "" where it goes on."""
    from captioning.checkpoints import resume

    found = read_outcome(run_dir)
    if found.get("outcome") != "failed":
        return ""
    was, now = found["settings"], _plain(config)
    mended = was != now and resume.settings(was) == resume.settings(now)
    return "" if mended else str(found.get("why", ""))


def forget_outcome(run_dir: Path) -> None:
    """Remove outcome.json: the run goes on."""
    (run_dir / FILE).unlink(missing_ok=True)


def _plain(config: Mapping[str, Any]) -> Any:
    """The settings as they are after JSON."""
    return json.loads(json.dumps({key: value for key, value in config.items() if key not in _HOW}, default=str))
