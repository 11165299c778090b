"""Leave out annotations of a COCO captions file that VizWiz marks as rejected or precanned.

The VizWiz API (Yinan-Zhao/vizwiz-caption, `VizWiz(ignore_rejected=True, ignore_precanned=True)`) drops both kinds when
it loads a file, for training and for references. Captions with "is_rejected" failed quality control. "is_precanned"
marks the fixed sentence that annotators chose for images that show nothing. The API's evaluator then skips images
without captions.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from captioning.errors import DataError

# Key of an annotation -> name of the mark. If several keys are true, the first one counts.
_MARKS = {"is_rejected": "rejected", "is_precanned": "precanned"}
_VALUES = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False, "none": False, "": False}


def counted_annotations(found: Iterable[tuple[str, Any]]) -> tuple[list[tuple[str, Any]], Counter[str]]:
    """Split annotations into those that count and those that VizWiz marks.

    Args:
        found: (location for error messages, annotation), from `entries`.

    Returns:
        The unmarked annotations with their locations, and the numbers of "rejected" and "precanned" ones.

    Raises:
        DataError: a mark is neither true nor false.
    """
    kept: list[tuple[str, Any]] = []
    left_out: Counter[str] = Counter()
    for where, annotation in found:
        if mark := mark_of(annotation, where):
            left_out[mark] += 1
        else:
            kept.append((where, annotation))
    return kept, left_out


def mark_of(annotation: Any, where: str, keep: Collection[str] = ()) -> str | None:
    """Return "rejected" or "precanned" for a marked annotation, and None for one that counts.

    Args:
        annotation: an entry of the list "annotations".
        where: its location, for error messages.
        keep: marks that do not matter: annotations that have no other mark count.

    Raises:
        DataError: a mark is neither true nor false.
    """
    if not isinstance(annotation, dict):
        return None  # readers of its keys raise the error
    for key, mark in _MARKS.items():
        value = annotation.get(key)
        truth = _VALUES.get(str(value).strip().lower())
        if truth is None:
            raise DataError(f"{where}: '{key}' must be true or false, not {value!r:.60}")
        if truth and mark not in keep:
            return mark
    return None


def left_out_notice(left_out: Mapping[str, int], total: int, where: str) -> str | None:
    """Return a one-line notice of how many annotations of a file are left out and why; None if all count."""
    kinds = [f"{left_out[mark]} {mark} ('{key}')" for key, mark in _MARKS.items() if left_out.get(mark)]
    if not kinds:
        return None
    count = sum(left_out.values())
    return f"{where}: {count} of {total} annotations are left out, as the VizWiz API does: {' and '.join(kinds)}"
