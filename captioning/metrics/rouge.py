"""Compute ROUGE-L (Lin 2004) as coco-caption does: β = 1.2, precision and recall maximized separately.

β = 1.2, best precision and best recall over references apart."""

from collections.abc import Sequence

BETA = 1.2


def rouge_l(caption: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """F_β of the longest common subsequence of words; an empty list of words stands for one empty word, as there."""
    caption = caption or [""]
    masks: dict[str, int] = {}
    for place, word in enumerate(caption):
        masks[word] = masks.get(word, 0) | 1 << place
    precision = recall = 0.0
    for reference in references:
        reference = reference or [""]
        common = _common(masks, len(caption), reference)
        precision, recall = max(precision, common / len(caption)), max(recall, common / len(reference))
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common(masks: dict[str, int], length: int, reference: Sequence[str]) -> int:
    """Length of the longest common subsequence, by bits of a number (Hyyrö, 2004): a step a word, not a word pair."""
    full = (1 << length) - 1
    row = full
    for word in reference:
        if mask := masks.get(word):
            hits = row & mask
            row = ((row + hits) | (row - hits)) & full
    return length - row.bit_count()
