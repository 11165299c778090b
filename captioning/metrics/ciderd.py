"""Compute CIDEr-D and CIDEr (Vedantam, Zitnick and Parikh, CVPR 2015) for many captions at once, in plain numpy.

What coco-caption prints as "CIDEr" is CIDEr-D: with h(c) the n-grams' counts times log(images / images that have the
n-gram), and l a caption's number of bigrams,

    CIDEr-D(c, S) = 10 / n Σ_order 1 / |S| Σ_s exp(-(l_c - l_s)² / 2σ²) Σ_g min(h_g(c), h_g(s)) h_g(s) / (|h(c)| |h(s)|)

The references' vectors are kept, so that scoring costs what the captions are long: the same object scores a split and
rewards samples. Agrees with the official scorer but for the order of its additions.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from captioning.errors import CheckpointError
from captioning.metrics.ngrams import HASH_BASE, Matches, References, choose_base, find


class DocumentFrequencies:
    """In how many images' references each n-gram occurs. Owns the numbering of words."""

    def __init__(
        self, words: Mapping[str, int], keys: np.ndarray, counts: np.ndarray, *, images: int, n: int, base: int
    ):
        self.words, self.keys, self.counts, self.images, self.n = words, keys, counts, images, n
        self.base = np.uint64(base)  # of the n-grams' numbers (ngrams.py)

    @classmethod
    def build(cls, references: Mapping[Hashable, Sequence[Sequence[str]]], *, n: int = 4) -> "DocumentFrequencies":
        """Counts over image id -> tokens of each reference; an image counts once, however many of its references."""
        return cls.of(References(references, n=n))

    @classmethod
    def of(cls, references: References) -> "DocumentFrequencies":
        """As `build`, of references that are indexed already."""
        counts, numbers = references.document_counts(), {"n": references.n, "base": int(references.base)}
        return cls(references.words, references.keys, counts, images=len(references.images), **numbers)

    def weights(self, keys: np.ndarray) -> np.ndarray:
        """log(images / images that have the n-gram) of each key; an n-gram never seen counts as seen once."""
        places, counts = find(self.keys, keys), np.ones(len(keys))
        counts[places >= 0] = self.counts[places[places >= 0]]
        return np.log(max(self.images, 1)) - np.log(counts)

    def state_dict(self) -> dict[str, Any]:
        """Plain containers and arrays, from which `from_state_dict` makes an object that gives the same weights.

        Most n-grams are of one image only, and weigh as those of none: they are left out.
        """
        repeated = self.counts > 1
        return {
            "words": list(self.words),  # in the order of their numbers, from 1
            "keys": self.keys[repeated],
            "counts": self.counts[repeated].astype(np.int32),
            "images": self.images,
            "n": self.n,
            "base": int(self.base),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "DocumentFrequencies":
        """What `state_dict` gave, whose arrays may have become tensors on the CPU meanwhile.

        Raises:
            CheckpointError: it is not that.
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
            raise CheckpointError(f"no document frequencies: {' and '.join(strange)} cannot be so")
        return cls(numbered, keys, counts.astype(np.int64), images=images, n=n, base=base)


class CiderD:
    """Scores captions against the references of their images.

    Args:
        references: image id -> tokens of each reference; or these as indexed for another scorer.
        frequencies: None counts them over `references`, as coco-caption does.
        n: highest order.
        sigma: of the Gaussian penalty on the difference in length.
        plain: CIDEr as the paper first defines it, cosines with neither clipping nor penalty (also times 10).
    """

    def __init__(
        self,
        references: Mapping[Hashable, Sequence[Sequence[str]]] | References,
        *,
        frequencies: DocumentFrequencies | None = None,
        n: int = 4,
        sigma: float = 6.0,
        plain: bool = False,
    ):
        if frequencies is not None and frequencies.n != n:
            raise ValueError(f"document frequencies of n = {frequencies.n} cannot score n = {n}")
        if not isinstance(references, References):
            shared = {"words": frequencies.words, "base": frequencies.base} if frequencies else {}
            references = References(references, n=n, **shared)
        self.references, self.n, self.sigma, self.plain = references, n, sigma, plain
        self.frequencies = frequencies or DocumentFrequencies.of(references)
        self._rarity = self.frequencies.weights(references.keys)  # [G]
        self._weights = references.counts * self._rarity[references.grams]  # [E]
        orders, total = references.orders[references.grams], len(references.lengths)
        self._norms = _norms(references.owners, orders, self._weights, total, n)  # [R, n]

    def __call__(self, image_ids: Sequence[Hashable], captions: Sequence[Sequence[str]]) -> np.ndarray:
        """One score a caption [N], times 10 as the official scorer gives it.

        Raises:
            DataError: an image id without references.
        """
        return self.score(self.references.match(image_ids, captions))

    def score(self, matches: Matches) -> np.ndarray:
        """As calling, for captions that are matched with these references already."""
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
        values = products / np.where(scale > 0, scale, 1.0)  # without a length all products are 0
        if not self.plain:
            # The official scorer's length is max(words - 1, 0): the same difference where captions share a word.
            apart = matches.lengths[rows] - known.lengths[owners]
            values *= np.exp(-(apart**2) / (2 * self.sigma**2))
        sums = np.bincount(rows, weights=values, minlength=total)
        references = known.first[matches.images + 1] - known.first[matches.images]
        return 10 * sums / (self.n * references)


def _whole_numbers(values: Any) -> np.ndarray:
    """A line of them; an empty line of another kind for what is none."""
    try:
        line = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):
        line = np.zeros(0)
    return line if line.ndim == 1 and line.dtype.kind in "iu" else np.zeros(0)


def _norms(rows: np.ndarray, orders: np.ndarray, weights: np.ndarray, total: int, n: int) -> np.ndarray:
    """[total, n] Euclidean length of each caption's vector, for each order."""
    return np.sqrt(np.bincount(rows * n + orders, weights=weights**2, minlength=total * n)).reshape(total, n)
