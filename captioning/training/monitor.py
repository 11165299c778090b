"""Choose the metric that selects best.ckpt and ends a run early, and describe when and why a run stopped early."""

from collections.abc import Mapping
from typing import Any

LOSS = ("val/loss", "min")


def choose_monitor(parts, resumed: Mapping[str, Any] | None) -> tuple[str, str]:
    """Choose the metric that selects best.ckpt: the task's score, or the validation loss if that score cannot work.

    A resumed run keeps the metric of its checkpoint.

    Args:
        parts: the parts of the run (`captioning.tasks.parts.Parts`).
        resumed: the checkpoint that the run resumes from; None for a new run.

    Returns:
        The metric's name, and "max" or "min" for the direction that is better.
    """
    score = (parts.monitor, parts.mode)
    states = (resumed or {}).get("callbacks", {}).values()
    had = {state["monitor"] for state in states if isinstance(state, dict) and isinstance(state.get("monitor"), str)}
    for each in (score, LOSS):
        if each[0] in had:
            return each
    return LOSS if parts.monitor_fault() else score


def stopped_early(trainer) -> str:
    """Return in one line when and why early stopping ended the run; "" if it did not."""
    for callback in trainer.early_stopping_callbacks:
        reason = getattr(callback.stopping_reason, "name", "NOT_STOPPED")
        if reason == "PATIENCE_EXHAUSTED" and callback.wait_count >= callback.patience:
            why = (
                f"{callback.monitor} did not improve on {float(callback.best_score):.3f}{_at_best(trainer)} in the "
                f"last {callback.wait_count} validation{'s' if callback.wait_count > 1 else ''} "
                f"(early_stopping.patience={callback.patience})"
            )
        elif reason not in ("NOT_STOPPED", "PATIENCE_EXHAUSTED"):
            why = " ".join(str(callback.stopping_reason_message).split()).removesuffix(" Signaling Trainer to stop.")
        else:
            continue
        limit = trainer.max_epochs
        of = f" of at most {limit}" if (limit or 0) > 0 else ""
        return f"early stopping ended the run after epoch {trainer.current_epoch}{of}: {why}"
    return ""


def _at_best(trainer) -> str:
    """Return the epoch of the best score, for messages; "" if the log does not contain it."""
    best, rows = trainer.checkpoint_callbacks[0], trainer.loggers[0].rows.values()
    scored = [row for row in rows if row.get(best.monitor) not in (None, "") and row.get("epoch") not in (None, "")]
    if not scored:
        return ""
    choose = min if best.mode == "min" else max
    return f" (epoch {int(float(choose(scored, key=lambda row: float(row[best.monitor]))['epoch'])) + 1})"
