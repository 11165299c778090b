"""Summarize a split's captions for the report: examples, repeated captions, lengths, unknown words."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from captioning.metrics import ScoreTable


class Repeated(NamedTuple):
    """A caption that was generated for several images.

    Attributes:
        caption: the caption.
        images: the number of images.
        in_training: the number of identical training captions.
    """

    caption: str
    images: int
    in_training: int


class Unknown(NamedTuple):
    """Words of the references that are not in the vocabulary, so that no generated caption can contain them.

    Attributes:
        share: share of all words of the references.
        captions: share of the references that have at least one such word.
        words: the most frequent such words with their counts.
        distinct: the number of different such words.
    """

    share: float
    captions: float
    words: list[tuple[str, int]]
    distinct: int


def choose(table: ScoreTable, by: str, count: int) -> dict[str, list[int]]:
    """Choose the best, typical (nearest to the median) and worst captions by a score; no image is chosen twice.

    Args:
        table: the scores per image.
        by: the score.
        count: the number of captions of each kind; fewer if there are not enough images. Captions with equal scores are
            chosen in the table's order.

    Returns:
        {"best": image ids, "typical": image ids, "worst": image ids}.
    """
    values = table.values[by]
    count = min(count, len(values) // 3 or 1)
    order = np.argsort(-values, kind="stable").tolist()
    best, worst = order[:count], order[count:][::-1][:count]
    rest = order[count : len(order) - len(worst)]
    typical = sorted(rest, key=lambda row: (abs(values[row] - np.median(values)), row))[:count]
    rows = {"best": best, "typical": sorted(typical, key=lambda row: -values[row]), "worst": worst}
    return {kind: [table.image_ids[row] for row in chosen] for kind, chosen in rows.items()}


def repeated(
    captions: Iterable[Sequence[str]],
    training: Iterable[Sequence[str]],
    *,
    join: Callable[[Sequence[str]], str],
    most: int,
) -> tuple[list[Repeated], int, float]:
    """Find captions that were generated for two or more images.

    Args:
        captions: the generated captions, as words.
        training: the training captions, as words.
        join: words -> text, as the language writes it.
        most: how many repeated captions to return.

    Returns:
        The repeated captions, the most frequent first; the number of all repeated captions; and the share of images
        with a repeated caption.
    """
    written = Counter(map(join, captions))
    several = {text: images for text, images in written.items() if images > 1}
    seen = Counter(text for words in training if (text := join(words)) in several)
    ordered = sorted(several, key=lambda text: (-several[text], text))
    share = sum(several.values()) / max(1, sum(written.values()))
    return [Repeated(text, several[text], seen[text]) for text in ordered[:most]], len(several), share


def unknown_words(references: Iterable[Sequence[str]], vocabulary: Collection[str], *, most: int) -> Unknown:
    """Count the words of tokenized references that are not in the vocabulary; return the `most` frequent ones."""
    counts: Counter[str] = Counter()
    words = captions = hit = 0
    for reference in references:
        strange = [word for word in reference if word not in vocabulary]
        counts.update(strange)
        words, captions, hit = words + len(reference), captions + 1, hit + bool(strange)
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return Unknown(counts.total() / max(1, words), hit / max(1, captions), ordered[:most], len(counts))


def lengths(
    captions: Iterable[Sequence[str]], references: Iterable[Sequence[str]], *, most: int
) -> list[tuple[int, float, float]]:
    """Return (length in words, share of captions, share of references) by length; longer ones count as `most`."""
    own, theirs = (Counter(min(len(words), most) for words in group) for group in (captions, references))
    there = own.keys() | theirs.keys()
    total = [max(1, each.total()) for each in (own, theirs)]
    span = range(min(there), max(there) + 1) if there else range(0)
    return [(length, own[length] / total[0], theirs[length] / total[1]) for length in span]


def flatten(node: object, prefix: str = "") -> list[tuple[str, str]]:
    """List settings as (dotted name, value); a part's `_target_` is under the part's name, without its module."""
    if isinstance(node, list) and any(isinstance(each, dict | list) for each in node):
        node = {str(index): each for index, each in enumerate(node)}
    if not isinstance(node, Mapping):
        return [(prefix, "–" if node is None else str(node))]
    rows = []
    if "_target_" in node:
        rows.append((prefix, str(node["_target_"]).rpartition(".")[2]))
    for key, value in node.items():
        if key not in ("_target_", "_partial_", "_convert_"):
            rows += flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return rows or [(prefix, "–")]
