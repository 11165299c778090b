"""Summarize a split's captions for the report: examples, repeated captions, lengths, unknown words."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from captioning.metrics import ScoreTable


class Repeated(NamedTuple):
    """A caption of several images, and how many training captions are the same."""

    caption: str
    images: int
    in_training: int


class Unknown(NamedTuple):
    """Words of the references that the vocabulary lacks, so that no caption can hold them.

    share: of the running words of all references. captions: share of references with one or more. words: the most
    frequent, with their counts. distinct: how many different ones.
    """

    share: float
    captions: float
    words: list[tuple[str, int]]
    distinct: int


def choose(table: ScoreTable, by: str, count: int) -> dict[str, list[int]]:
    """Image ids of the best, the typical (nearest to the median) and the worst captions by a score, none twice.

    Args:
        count: of each, at most; fewer where there are not enough images. Equal scores are taken in the table's order.
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
    captions: Iterable[Sequence[str]], training: Iterable[Sequence[str]], *, most: int
) -> tuple[list[Repeated], int, float]:
    """The captions that two or more images have, the most frequent first; how many; and the share of such images."""
    written = Counter(" ".join(words) for words in captions)
    several = {text: images for text, images in written.items() if images > 1}
    seen = Counter(text for words in training if (text := " ".join(words)) in several)
    ordered = sorted(several, key=lambda text: (-several[text], text))
    share = sum(several.values()) / max(1, sum(written.values()))
    return [Repeated(text, several[text], seen[text]) for text in ordered[:most]], len(several), share


def unknown_words(references: Iterable[Sequence[str]], vocabulary: Collection[str], *, most: int) -> Unknown:
    """Of tokenized references; see `Unknown`."""
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
    """(length in words, share of captions, share of references), from the shortest to the longest; beyond `most` in
    its bin."""
    own, theirs = (Counter(min(len(words), most) for words in group) for group in (captions, references))
    there = own.keys() | theirs.keys()
    total = [max(1, each.total()) for each in (own, theirs)]
    span = range(min(there), max(there) + 1) if there else range(0)
    return [(length, own[length] / total[0], theirs[length] / total[1]) for length in span]


def flatten(node: object, prefix: str = "") -> list[tuple[str, str]]:
    """Settings as (dotted name, value); a part's `_target_` stands under the part's own name, without its module."""
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
