"""Encode the n-grams of many captions as 64-bit numbers, for BLEU and CIDEr.

A word is a number from 1. An n-gram (w₁ … wₙ) is the polynomial w₁ bⁿ⁻¹ + … + wₙ modulo 2⁶⁴. With b = 2¹⁶ (n = 4), each
word has its own 16 bits, and the encoding is exact. This base is used for up to 32 767 different reference words.
Larger vocabularies use a large odd b, and the number is a hash: among G different n-grams, the probability that any two
have the same number is about G² / 2⁶⁵, which is 3e-6 for ten million.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from captioning.errors import DataError

HASH_BASE = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: odd, without small multiples near 2**64


class Grams(NamedTuple):
    """The M n-grams of C captions, of orders 1 to n, with repetitions.

    Attributes:
        rows: [M] index of the caption.
        keys: [M] uint64: the n-grams as numbers.
        orders: [M] 0 for single words, …, n - 1 for n-grams of order n.
    """

    rows: np.ndarray
    keys: np.ndarray
    orders: np.ndarray


class Matches(NamedTuple):
    """The n-grams of C captions, matched with the references of their images.

    There are H entries (distinct n-grams per caption), D distinct n-grams over all captions, and P pairs of an entry
    and an entry of the references with the same n-gram.

    Attributes:
        rows: [H] index of the caption.
        grams: [H] index into `keys`.
        orders: [H] order of the n-gram, minus 1.
        counts: [H] count of the n-gram in its caption.
        keys: [D] uint64: the distinct n-grams as numbers.
        places: [D] index into the references' keys; -1 if no reference has the n-gram.
        lengths: [C] number of words.
        images: [C] index of the caption's image.
        entries: [P] entry of the caption, in ascending order.
        partners: [P] entry of the references.
    """

    rows: np.ndarray
    grams: np.ndarray
    orders: np.ndarray
    counts: np.ndarray
    keys: np.ndarray
    places: np.ndarray
    lengths: np.ndarray
    images: np.ndarray
    entries: np.ndarray
    partners: np.ndarray


class References:
    """An index of the n-grams of the references.

    There are R references of I images, G distinct n-grams, and E entries (distinct n-grams per reference), sorted by
    image, n-gram and reference.

    Args:
        references: image id -> tokens of each of its references, at least one.
        n: highest order of the n-grams.
        words: word -> number, if words are already numbered; new words get the next numbers.
        base: base of the n-grams' numbers; None chooses it.

    Raises:
        DataError: there are too many new words for the given base.
    """

    def __init__(
        self,
        references: Mapping[Any, Sequence[Sequence[str]]],
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
                f"the `references` have {len(self.words)} different words, too many for document frequencies of "
                f"{len(words or {})} words: build the document frequencies from these references, too"
            )
        self.lengths = np.array([len(caption) for caption in captions], np.int64)  # [R]
        sizes = np.array([len(group) for group in references.values()], np.int64)
        self.first = np.concatenate([[0], np.cumsum(sizes)])  # [I + 1] image i has the references first[i]:first[i + 1]
        grams = _grams(numbers, self.lengths, n, self.base)
        self.keys, inverse = np.unique(grams.keys, return_inverse=True)  # [G] sorted
        self.orders = np.empty(len(self.keys), np.int64)
        self.orders[inverse] = grams.orders
        self._sort(grams.rows, inverse, np.repeat(np.arange(len(sizes)), sizes), sizes)

    def _sort(self, owners: np.ndarray, grams: np.ndarray, image_of: np.ndarray, sizes: np.ndarray) -> None:
        images, widest = image_of[owners], sizes.max(initial=1)
        # Sort once by (image, n-gram, reference), encoded as one number. It is below 2**63 even for a million images
        # with a hundred million n-grams.
        places = (images * len(self.keys) + grams) * widest + owners - self.first[images]
        places, self.counts = np.unique(places, return_counts=True)  # [E]
        pairs, slots = np.divmod(places, widest)
        images, self.grams = np.divmod(pairs, len(self.keys))  # [E]
        self.owners = self.first[images] + slots  # [E] reference
        # [I + 1] image i has the entries bounds[i]:bounds[i + 1]
        self.bounds = np.searchsorted(images, np.arange(len(sizes) + 1))

    def document_counts(self) -> np.ndarray:
        """Return [G]: for each n-gram, the number of images whose references contain it."""
        fresh = np.ones(len(self.grams), bool)
        fresh[1:] = self.grams[1:] != self.grams[:-1]
        fresh[self.bounds[:-1][self.bounds[:-1] < len(fresh)]] = True
        return np.bincount(self.grams[fresh], minlength=len(self.keys))

    def match(self, image_ids: Sequence[Hashable], captions: Sequence[Sequence[str]]) -> Matches:
        """Count the n-grams of captions, and find them in the references of each caption's image.

        Args:
            image_ids: the image of each caption.
            captions: tokens of each caption.

        Raises:
            DataError: an image has no references.
        """
        if unknown := [image_id for image_id in image_ids if image_id not in self.images]:
            ids = ", ".join(map(str, unknown[:5]))
            raise DataError(f"{len(unknown)} captions have no references (image ids {ids}): give `references` for them")
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
        """Return the numbers of all words.

        A word that no reference contains matches nothing. So its number is unique only within its caption.
        """
        numbers, words, last = [], self.words, len(self.words)
        highest = _capacity(self.n) if self.base < HASH_BASE else 2**62  # further unknown words share this number
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
        """Return all pairs (caption's entry, references' entry) with the same image and n-gram; grams -1 have none."""
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
    """Return the index of each key in a sorted table; -1 if the table does not contain it."""
    if not len(table):
        return np.full(len(keys), -1)
    found = np.searchsorted(table, keys)
    return np.where(table[np.minimum(found, len(table) - 1)] == keys, found, -1)


def ranges(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Return the numbers start, …, stop - 1 of each pair, concatenated."""
    sizes = stops - starts
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + sizes, sizes)


def choose_base(words: int, n: int) -> np.uint64:
    """Return the base of the n-grams' numbers.

    It is 2 ** (64 // n), which is exact, if at most half of its numbers are used; otherwise the base of a hash.

    Args:
        words: number of different words.
        n: highest order of the n-grams.
    """
    return np.uint64(2 ** (64 // n)) if n > 1 and words <= _capacity(n) // 2 else HASH_BASE


def _capacity(n: int) -> int:
    return 2 ** (64 // n) - 1


def _number(captions: Sequence[Sequence[str]], words: dict[str, int]) -> np.ndarray:
    return np.array([words.setdefault(word, len(words) + 1) for caption in captions for word in caption], np.uint64)


def _grams(words: np.ndarray, lengths: np.ndarray, n: int, base: np.uint64) -> Grams:
    rows = np.repeat(np.arange(len(lengths)), lengths)
    left = np.cumsum(lengths)[rows] - np.arange(len(words))  # number of words from here to the end of the caption
    keys, parts = words, [Grams(rows, words, np.zeros(len(words), np.int64))]
    for order in range(1, n):
        keys = keys[:-1] * base + words[order:]
        whole = left[: len(keys)] > order
        parts.append(Grams(rows[: len(keys)][whole], keys[whole], np.full(int(whole.sum()), order)))
    return Grams(*map(np.concatenate, zip(*parts, strict=True)))
