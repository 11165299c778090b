"""Compute BLEU (Papineni et al., ACL 2002) as coco-caption does, from counts that add up over captions.

Corpus BLEU depends only on the sums of these counts. So a bootstrap resamples the counts, not the captions.
"""

import numpy as np

from captioning.metrics.ngrams import Matches, References

# The official scorer adds these constants to avoid a division by zero. With them, BLEU is tiny, not 0, if no n-gram of
# an order is correct.
SMALL, TINY = 1e-9, 1e-15


def bleu_counts(references: References, matches: Matches) -> np.ndarray:
    """Count correct n-grams, all n-grams and words of each caption.

    The correct count of an n-gram is clipped to its highest count in any single reference. If two references are
    equally close in length, the shorter one is used.

    Args:
        references: the indexed references.
        matches: C captions, matched with the references.

    Returns:
        [C, 2n + 2]: per caption, the numbers of correct n-grams of orders 1 to n, the numbers of all its n-grams of
        orders 1 to n, its length in words, and the length of the closest reference.
    """
    n, total = references.n, len(matches.lengths)
    most = np.zeros(len(matches.rows), np.int64)  # [H]
    np.maximum.at(most, matches.entries, references.counts[matches.partners])
    bins = matches.rows * n + matches.orders
    correct = np.bincount(bins, weights=np.minimum(most, matches.counts), minlength=total * n).reshape(total, n)
    own = np.maximum(matches.lengths[:, None] - np.arange(n), 0)
    return np.column_stack([correct, own, matches.lengths, _closest(references, matches)])


def bleu(counted: np.ndarray) -> np.ndarray:
    """Compute BLEU-1 to BLEU-n from counts.

    Args:
        counted: […, 2n + 2] counts (`bleu_counts`) of one caption, or sums over several captions.

    Returns:
        […, n] BLEU-1 to BLEU-n, as fractions.
    """
    n = counted.shape[-1] // 2 - 1
    correct, own = counted[..., :n], counted[..., n : 2 * n]
    length, reference = counted[..., 2 * n :][..., :1], counted[..., 2 * n + 1 :]
    precisions = np.cumprod((correct + TINY) / (own + SMALL), axis=-1)
    ratio = (length + TINY) / (reference + SMALL)
    with np.errstate(over="ignore"):  # for a caption without words, exp(-1e15) is 0
        penalty = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    return precisions ** (1 / np.arange(1, n + 1)) * penalty


def _closest(references: References, matches: Matches) -> np.ndarray:
    first, last = references.first[matches.images], references.first[matches.images + 1]
    sizes = last - first
    widest = int(sizes.max(initial=1))
    # [C, most references of an image]; an image with fewer repeats its last reference
    slots = np.minimum(first[:, None] + np.arange(widest), last[:, None] - 1)
    lengths = references.lengths[slots]
    difference = np.abs(lengths - matches.lengths[:, None])
    # Encode the pair (difference, length) as one number, to find the smallest pair.
    return (difference * (2**32) + lengths).min(axis=1) % 2**32
