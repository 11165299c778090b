"""Encode the n-grams of many captions as 64-bit numbers, for BLEU and CIDEr.

A word is a number from 1; an n-gram (w₁ … wₙ) is the polynomial w₁ bⁿ⁻¹ + … + wₙ modulo 2⁶⁴. With b = 2¹⁶ (n = 4) that
is packing, each word in bits of its own, and exact: so it is for up to 32 767 reference words. Larger vocabularies take
a large odd b, which makes it a hash: two of G different n-grams then agree with a chance of about G² / 2⁶⁵, 3e-6 for
ten million.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from captioning.errors import DataError

HASH_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, no small multiples near 2**64: 2**64 over the golden ratio


class Grams(NamedTuple):
    """The n-grams of C captions, orders 1 … n, with repeats; M in all."""

    rows: np.ndarray  # [M] caption, from 0
    keys: np.ndarray  # [M] uint64
    orders: np.ndarray  # [M] 0 for single words, …, n - 1


class Matches(NamedTuple):
    """Distinct n-grams of C captions (H entries), and where they stand in the references of their images (P pairs)."""

    rows: np.ndarray  # [H] caption
    grams: np.ndarray  # [H] index into keys
    orders: np.ndarray  # [H] order less one
    counts: np.ndarray  # [H] how often in its caption
    keys: np.ndarray  # [D] uint64, distinct
    places: np.ndarray  # [D] index into the references' keys, -1 where none of them has the n-gram
    lengths: np.ndarray  # [C] words
    images: np.ndarray  # [C] index of the caption's image
    entries: np.ndarray  # [P] entry of the caption's side, ascending
    partners: np.ndarray  # [P] entry of the references' side


class References:
    """The references' n-grams, E distinct ones of R captions of I images, sorted by image, n-gram and reference.

    Args:
        references: image id -> tokens of each reference, one or more.
        n: highest order.
        words: word -> number, where these were counted before; further words are numbered on from there.
    """

    def __init__(
        self,
        references: Mapping[Hashable, Sequence[Sequence[str]]],
        *,
        n: int = 4,
        words: Mapping[str, int] | None = None,
        base: np.uint64 | None = None,
    ):
        self.n = n
        self.images = {image_id: index for index, image_id in enumerate(references)}
        self.words = dict(words or {})
        captions = [caption for group in references.values() for caption in group]
        numbers = _number(captions, self.words)
        self.base = choose_base(len(self.words), n) if base is None else base
        if self.base < HASH_BASE and len(self.words) > _capacity(n) * 3 // 4:
            raise DataError(
                f"{len(self.words)} different words are too many beside document frequencies of "
                f"{len(words or {})} words: count the document frequencies over these references too"
            )
        self.lengths = np.array([len(caption) for caption in captions], np.int64)  # [R]
        sizes = np.array([len(group) for group in references.values()], np.int64)
        self.first = np.concatenate([[0], np.cumsum(sizes)])  # [I + 1] an image's references are first[i]:first[i + 1]
        grams = _grams(numbers, self.lengths, n, self.base)
        self.keys, inverse = np.unique(grams.keys, return_inverse=True)  # [G] sorted
        self.orders = np.empty(len(self.keys), np.int64)
        self.orders[inverse] = grams.orders
        self._sort(grams.rows, inverse, np.repeat(np.arange(len(sizes)), sizes), sizes)

    def _sort(self, owners: np.ndarray, grams: np.ndarray, image_of: np.ndarray, sizes: np.ndarray) -> None:
        images, widest = image_of[owners], sizes.max(initial=1)
        # One sort by (image, n-gram, reference); below 2**63 for a million images of a hundred million n-grams.
        places = (images * len(self.keys) + grams) * widest + owners - self.first[images]
        places, self.counts = np.unique(places, return_counts=True)  # [E]
        pairs, slots = np.divmod(places, widest)
        images, self.grams = np.divmod(pairs, len(self.keys))  # [E]
        self.owners = self.first[images] + slots  # [E] reference
        self.bounds = np.searchsorted(images, np.arange(len(sizes) + 1))  # [I + 1] an image's entries

    def document_counts(self) -> np.ndarray:
        """[G] in how many images' references each n-gram occurs."""
        fresh = np.ones(len(self.grams), bool)
        fresh[1:] = self.grams[1:] != self.grams[:-1]
        fresh[self.bounds[:-1][self.bounds[:-1] < len(fresh)]] = True
        return np.bincount(self.grams[fresh], minlength=len(self.keys))

    def match(self, image_ids: Sequence[Hashable], captions: Sequence[Sequence[str]]) -> Matches:
        """Counts the captions' n-grams, and finds them in the references of the image that each belongs to."""
        if unknown := [image_id for image_id in image_ids if image_id not in self.images]:
            raise DataError(f"no references for image ids {', '.join(map(str, unknown[:5]))}")
        images = np.array([self.images[image_id] for image_id in image_ids], np.int64)
        lengths = np.array([len(caption) for caption in captions], np.int64)
        grams = _grams(self._known(captions), lengths, self.n, self.base)
        distinct, inverse = np.unique(grams.keys, return_inverse=True)
        orders = np.empty(len(distinct), np.int64)
        orders[inverse] = grams.orders
        places, counts = np.unique(grams.rows * len(distinct) + inverse, return_counts=True)
        rows, which = np.divmod(places, len(distinct))
        known = find(self.keys, distinct)
        entries, partners = self._pair(images[rows], known[which])
        return Matches(rows, which, orders[which], counts, distinct, known, lengths, images, entries, partners)

    def _known(self, captions: Sequence[Sequence[str]]) -> np.ndarray:
        """Numbers of all words; one that no reference has is numbered anew in each caption, as it matches nothing."""
        numbers, words, last = [], self.words, len(self.words)
        highest = _capacity(self.n) if self.base < HASH_BASE else 2**62  # past it, strange words count as one
        for caption in captions:
            found = [words.get(word, 0) for word in caption]
            if 0 in found:
                strange: dict[str, int] = {}
                found = [
                    number or min(last + strange.setdefault(word, len(strange) + 1), highest)
                    for number, word in zip(found, caption, strict=True)
                ]
            numbers += found
        return np.array(numbers, np.uint64)

    def _pair(self, images: np.ndarray, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(caption's entry, references' entry) for each meeting; `grams` is -1 where no reference has the n-gram."""
        needed, slots = np.unique(images, return_inverse=True)
        taken = ranges(self.bounds[needed], self.bounds[needed + 1])
        sizes = self.bounds[needed + 1] - self.bounds[needed]
        width = len(self.keys)
        there = np.repeat(np.arange(len(needed)), sizes) * width + self.grams[taken]  # ascending
        hits = np.flatnonzero(grams >= 0)
        wanted = slots[hits] * width + grams[hits]
        left, right = np.searchsorted(there, wanted, "left"), np.searchsorted(there, wanted, "right")
        return np.repeat(hits, right - left), taken[ranges(left, right)]


def find(table: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Index of each key in a sorted table, -1 where it is not there."""
    if not len(table):
        return np.full(len(keys), -1)
    places = np.searchsorted(table, keys)
    return np.where(table[np.minimum(places, len(table) - 1)] == keys, places, -1)


def ranges(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """All of start … stop - 1 for each pair, one after another."""
    sizes = stops - starts
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + sizes, sizes)


def choose_base(words: int, n: int) -> np.uint64:
    """2 ** (64 // n), which packs exactly, where half of its numbers are enough; otherwise a hash's base."""
    return np.uint64(2 ** (64 // n)) if n > 1 and words <= _capacity(n) // 2 else HASH_BASE


def _capacity(n: int) -> int:
    return 2 ** (64 // n) - 1


def _number(captions: Sequence[Sequence[str]], words: dict[str, int]) -> np.ndarray:
    return np.array([words.setdefault(word, len(words) + 1) for caption in captions for word in caption], np.uint64)


def _grams(words: np.ndarray, lengths: np.ndarray, n: int, base: np.uint64) -> Grams:
    rows = np.repeat(np.arange(len(lengths)), lengths)
    left = np.cumsum(lengths)[rows] - np.arange(len(words))  # words from here to the caption's end
    keys, parts = words, [Grams(rows, words, np.zeros(len(words), np.int64))]
    for order in range(1, n):
        keys = keys[:-1] * base + words[order:]
        whole = left[: len(keys)] > order
        parts.append(Grams(rows[: len(keys)][whole], keys[whole], np.full(int(whole.sum()), order)))
    return Grams(*map(np.concatenate, zip(*parts, strict=True)))
