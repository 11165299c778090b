"""Compute BLEU (Papineni et al., ACL 2002) as coco-caption does, from counts that add up over captions.

A caption's counts are all that corpus BLEU needs, so a bootstrap resamples them and never the captions.
"""

import numpy as np

from captioning.metrics.ngrams import Matches, References

# Added by the official scorer, so that nothing is divided by zero; a missing n-gram order gives a tiny BLEU, not 0.
SMALL, TINY = 1e-9, 1e-15


def bleu_counts(references: References, matches: Matches) -> np.ndarray:
    """[C, 2n + 2] for each caption: n correct n-grams, n of its own, its length, the closest reference's length.

    An n-gram counts as correct as often as the one reference has it that has it most often. Of two references equally
    close in length the shorter is taken.
    """
    n, total = references.n, len(matches.lengths)
    most = np.zeros(len(matches.rows), np.int64)  # [H]
    np.maximum.at(most, matches.entries, references.counts[matches.partners])
    bins = matches.rows * n + matches.orders
    correct = np.bincount(bins, weights=np.minimum(most, matches.counts), minlength=total * n).reshape(total, n)
    own = np.maximum(matches.lengths[:, None] - np.arange(n), 0)
    return np.column_stack([correct, own, matches.lengths, _closest(references, matches)])


def bleu(counted: np.ndarray) -> np.ndarray:
    """[…, n] BLEU-1 … n of counts […, 2n + 2]: of one caption, or of many when their counts were added up."""
    n = counted.shape[-1] // 2 - 1
    correct, own = counted[..., :n], counted[..., n : 2 * n]
    length, reference = counted[..., 2 * n :][..., :1], counted[..., 2 * n + 1 :]
    precisions = np.cumprod((correct + TINY) / (own + SMALL), axis=-1)
    ratio = (length + TINY) / (reference + SMALL)
    with np.errstate(over="ignore"):  # a caption without words: exp(-1e15) is 0
        penalty = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    return precisions ** (1 / np.arange(1, n + 1)) * penalty


def _closest(references: References, matches: Matches) -> np.ndarray:
    first, last = references.first[matches.images], references.first[matches.images + 1]
    sizes = last - first
    widest = int(sizes.max(initial=1))
    # [C, references of an image]; where an image has fewer than others, its last one stands again
    slots = np.minimum(first[:, None] + np.arange(widest), last[:, None] - 1)
    lengths = references.lengths[slots]
    apart = np.abs(lengths - matches.lengths[:, None])
    # the smallest (difference, length) in one number
    return (apart * (2**32) + lengths).min(axis=1) % 2**32
