"""Choose the annotations of a COCO captions file that count: VizWiz marks captions that are to be left out.

The VizWiz API (Yinan-Zhao/vizwiz-caption, `VizWiz(ignore_rejected=True, ignore_precanned=True)`) drops both kinds when
it loads a file, for training and references alike: "is_rejected" captions failed quality control, "is_precanned" ones
are the sentence that annotators chose for an image that shows nothing. Its evaluator then skips images without any.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from captioning.errors import DataError

# Key of an annotation -> what to call an annotation that it is true of; the first that is true counts.
_MARKS = {"is_rejected": "rejected", "is_precanned": "precanned"}
_VALUES = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False, "none": False, "": False}


def counted_annotations(found: Iterable[tuple[str, Any]]) -> tuple[list[tuple[str, Any]], Counter]:
    """(the annotations that count, how many are left out as "rejected" and "precanned").

    Args:
        found: (where it stands, annotation), from `entries`; both are returned as they are.
    """
    kept, left_out = [], Counter()
    for where, annotation in found:
        if mark := mark_of(annotation, where):
            left_out[mark] += 1
        else:
            kept.append((where, annotation))
    return kept, left_out


def mark_of(annotation: Any, where: str) -> str | None:
    """ "rejected" or "precanned" of an annotation that does not count; None of one that does.

    Raises:
        DataError: a mark is neither true nor false.
    """
    if not isinstance(annotation, dict):
        return None  # whoever reads its keys refuses it
    for key, mark in _MARKS.items():
        value = annotation.get(key)
        truth = _VALUES.get(str(value).strip().lower())
        if truth is None:
            raise DataError(f"{where}: '{key}' must be true or false, not {value!r:.60}")
        if truth:
            return mark
    return None


def left_out_notice(left_out: Mapping[str, int], total: int, where: str) -> str | None:
    """One line that says how many annotations of a file are left out, and why; None where all count."""
    kinds = [f"{left_out[mark]} {mark} ('{key}')" for key, mark in _MARKS.items() if left_out.get(mark)]
    if not kinds:
        return None
    count = sum(left_out.values())
    return f"{where}: {count} of {total} annotations are left out, as the VizWiz API does: {' and '.join(kinds)}"
