"""Compute ROUGE-L (Lin 2004) as coco-caption does: β = 1.2, with precision and recall maximized separately."""

from collections.abc import Sequence

BETA = 1.2


def rouge_l(caption: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Compute ROUGE-L: F_β of the longest common subsequence of words.

    An empty caption or reference counts as one empty word, as in coco-caption.

    Args:
        caption: tokens of the caption.
        references: tokens of each reference.

    Returns:
        ROUGE-L, as a fraction.
    """
    caption = caption or [""]
    masks: dict[str, int] = {}
    for position, word in enumerate(caption):
        masks[word] = masks.get(word, 0) | 1 << position
    precision = recall = 0.0
    for reference in references:
        reference = reference or [""]
        common = _common(masks, len(caption), reference)
        precision, recall = max(precision, common / len(caption)), max(recall, common / len(reference))
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common(masks: dict[str, int], length: int, reference: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, with one bit operation per word (Hyyrö 2004)."""
    full = (1 << length) - 1
    row = full
    for word in reference:
        if mask := masks.get(word):
            hits = row & mask
            row = ((row + hits) | (row - hits)) & full
    return length - row.bit_count()
