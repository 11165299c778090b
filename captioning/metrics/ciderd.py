"""Compute CIDEr-D and CIDEr (Vedantam, Zitnick and Parikh, CVPR 2015) for many captions at once, in plain numpy.

What coco-caption prints as "CIDEr" is CIDEr-D. Let h(c) be the vector of a caption's n-gram counts, each multiplied by
log(images / images whose references have the n-gram), and l the number of bigrams of a caption. Then

    CIDEr-D(c, S) = 10 / n Σ_order 1 / |S| Σ_s exp(-(l_c - l_s)² / 2σ²) Σ_g min(h_g(c), h_g(s)) h_g(s) / (|h(c)| |h(s)|)

The references' vectors are computed once, so the time of scoring depends only on the length of the captions. The same
object scores a split and rewards samples. Results equal the official scorer's up to the order of floating-point
additions.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from captioning.errors import CheckpointError
from captioning.metrics.ngrams import HASH_BASE, Matches, References, choose_base, find


class DocumentFrequencies:
    """Document frequencies: for each n-gram, the number of images whose references contain it.

    Args:
        words: number of each word, from 1.
        keys: [G] uint64, sorted: the n-grams as numbers (`captioning.metrics.ngrams`).
        counts: [G] number of images per n-gram.
        images: number of all images.
        n: highest order of the n-grams.
        base: base of the n-grams' numbers.
    """

    def __init__(
        self, words: Mapping[str, int], keys: np.ndarray, counts: np.ndarray, *, images: int, n: int, base: int
    ):
        self.words, self.keys, self.counts, self.images, self.n = words, keys, counts, images, n
        self.base = np.uint64(base)  # base of the numbers that encode n-grams (ngrams.py)

    @classmethod
    def build(cls, references: Mapping[Any, Sequence[Sequence[str]]], *, n: int = 4) -> "DocumentFrequencies":
        """Count document frequencies; an image counts once, even if several of its references have the n-gram.

        Args:
            references: image id -> tokens of each reference.
            n: highest order of the n-grams.
        """
        return cls.of(References(references, n=n))

    @classmethod
    def of(cls, references: References) -> "DocumentFrequencies":
        """Count document frequencies of references that are already indexed."""
        counts, numbers = references.document_counts(), {"n": references.n, "base": int(references.base)}
        return cls(references.words, references.keys, counts, images=len(references.images), **numbers)

    def weights(self, keys: np.ndarray) -> np.ndarray:
        """Return log(images / images that have the n-gram) for each key; an unseen n-gram counts as seen once."""
        found, counts = find(self.keys, keys), np.ones(len(keys))
        counts[found >= 0] = self.counts[found[found >= 0]]
        return np.log(max(self.images, 1)) - np.log(counts)

    def state_dict(self) -> dict[str, Any]:
        """Return plain containers and arrays, from which `from_state_dict` builds an object with the same weights.

        N-grams of only one image are omitted, because they have the same weight as unseen ones. Most n-grams are of
        this kind.
        """
        repeated = self.counts > 1
        return {
            "words": list(self.words),  # in the order of their numbers
            "keys": self.keys[repeated],
            "counts": self.counts[repeated].astype(np.int32),
            "images": self.images,
            "n": self.n,
            "base": int(self.base),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "DocumentFrequencies":
        """Restore document frequencies from a `state_dict`, whose arrays may be CPU tensors.

        Raises:
            CheckpointError: an entry is missing or impossible.
        """
        kinds = {"words": list, "images": int, "n": int, "base": int}
        strange = [key for key, kind in kinds.items() if type(state.get(key)) is not kind]
        if not strange:
            words, images, n, base = (state[key] for key in kinds)
            keys, counts = _whole_numbers(state.get("keys")), _whole_numbers(state.get("counts"))
            numbered = {word: number for number, word in enumerate(words, start=1) if isinstance(word, str)}
            sound = {
                "words": len(numbered) == len(words),
                "n": n > 0,
                "base": n > 0 and base in (int(choose_base(len(words), n)), int(HASH_BASE)),
                "keys": keys.dtype == np.uint64 and bool((keys[1:] > keys[:-1]).all()),
                "counts": counts.shape == keys.shape and bool(((counts > 0) & (counts <= images)).all()),
            }
            strange = [key for key, fine in sound.items() if not fine]
        if strange:
            raise CheckpointError(
                f"the saved document `frequencies` are damaged ({' and '.join(strange)}): use another checkpoint"
            )
        return cls(numbered, keys, counts.astype(np.int64), images=images, n=n, base=base)


class CiderD:
    """A CIDEr-D scorer of captions against the references of their images.

    Args:
        references: image id -> tokens of each reference; or references that are already indexed.
        frequencies: document frequencies; None counts them over `references`, as coco-caption does.
        n: highest order of the n-grams.
        sigma: standard deviation σ of the Gaussian penalty on the difference in length.
        plain: whether to compute CIDEr as the paper first defines it: cosine similarities without clipping and without
            length penalty (also times 10).

    Raises:
        ValueError: the frequencies are for another `n`.
    """

    def __init__(
        self,
        references: Mapping[Any, Sequence[Sequence[str]]] | References,
        *,
        frequencies: DocumentFrequencies | None = None,
        n: int = 4,
        sigma: float = 6.0,
        plain: bool = False,
    ):
        if frequencies is not None and frequencies.n != n:
            raise ValueError(f"document frequencies of n = {frequencies.n} cannot score n = {n}")
        if not isinstance(references, References):
            words, base = (frequencies.words, frequencies.base) if frequencies else (None, None)
            references = References(references, n=n, words=words, base=base)
        self.references, self.n, self.sigma, self.plain = references, n, sigma, plain
        self.frequencies = frequencies or DocumentFrequencies.of(references)
        self._rarity = self.frequencies.weights(references.keys)  # [G]
        self._weights = references.counts * self._rarity[references.grams]  # [E]
        orders, total = references.orders[references.grams], len(references.lengths)
        self._norms = _norms(references.owners, orders, self._weights, total, n)  # [R, n]

    def __call__(self, image_ids: Sequence[Hashable], captions: Sequence[Sequence[str]]) -> np.ndarray:
        """Score captions.

        Args:
            image_ids: the image of each of the N captions.
            captions: tokens of each caption.

        Returns:
            [N] CIDEr-D of each caption, times 10 as in the official scorer.

        Raises:
            DataError: an image id has no references.
        """
        return self.score(self.references.match(image_ids, captions))

    def score(self, matches: Matches) -> np.ndarray:
        """Score captions that are already matched with these references; returns [N] as above."""
        known, total = self.references, len(matches.lengths)
        rarity, strange = np.empty(len(matches.keys)), matches.places < 0  # [D]
        rarity[~strange] = self._rarity[matches.places[~strange]]
        rarity[strange] = self.frequencies.weights(matches.keys[strange])
        weights = matches.counts * rarity[matches.grams]  # [H]
        norms = _norms(matches.rows, matches.orders, weights, total, self.n)  # [C, n]
        rows, orders = matches.rows[matches.entries], matches.orders[matches.entries]  # [P]
        owners, theirs = known.owners[matches.partners], self._weights[matches.partners]  # [P]
        ours = weights[matches.entries]
        products = (ours if self.plain else np.minimum(ours, theirs)) * theirs
        scale = norms[rows, orders] * self._norms[owners, orders]
        values = products / np.where(scale > 0, scale, 1.0)  # if a vector has length 0, all its products are 0
        if not self.plain:
            # The official scorer uses max(words - 1, 0) as the length. The difference is the same for captions that
            # share a word.
            difference = matches.lengths[rows] - known.lengths[owners]
            values *= np.exp(-(difference**2) / (2 * self.sigma**2))
        sums = np.bincount(rows, weights=values, minlength=total)
        references = known.first[matches.images + 1] - known.first[matches.images]
        return 10 * sums / (self.n * references)


def _whole_numbers(values: Any) -> np.ndarray:
    """Return values as an array of integers; an empty float array if they are not a list of integers."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):
        array = np.zeros(0)
    return array if array.ndim == 1 and array.dtype.kind in "iu" else np.zeros(0)


def _norms(rows: np.ndarray, orders: np.ndarray, weights: np.ndarray, total: int, n: int) -> np.ndarray:
    """Return [total, n]: the Euclidean length of each caption's vector for each order."""
    return np.sqrt(np.bincount(rows * n + orders, weights=weights**2, minlength=total * n)).reshape(total, n)
