"""Define a generated caption: its words, its log-probability, and the attention weights of each word."""

from typing import NamedTuple

import numpy as np

from captioning.data import Box
from captioning.tags import Tag


class TagWeights(NamedTuple):
    """The attention weights that a caption's T words gave to the N tags of the image, beside its locations.

    Attributes:
        nouns: the tags; each noun is listed once.
        weights: [T, N] attention weights, one row per word.
        chosen: [T] the tag that hard attention chose for each word, −1 for none; None for other kinds of attention.
    """

    nouns: list[str]
    weights: np.ndarray
    chosen: np.ndarray | None = None


class Caption(NamedTuple):
    """A generated caption of one image, with T words and attention over L locations.

    Attributes:
        text: the words, joined as the language writes them.
        tokens: the words; a word that the model generated in several pieces has the mean of their weights.
        log_prob: natural logarithm of the caption's probability, <end> included.
        attention: [T, L] attention weights, one row per word, locations in row-major order; None without attention. A
            row sums to 1, less the weights of tags (`tag_places`) and of a visual sentinel (`sentinel`).
        box: the region of the image, in its pixels, that the grid covers; None if the locations are regions.
        score: the number that the search ranked captions by.
        places: [T] the one location that hard attention chose for each word (L: the sentinel, or a tag); None for other
            kinds.
        sentinel: [T] the share β of each word's weight that went to the visual sentinel; None without a sentinel.
        regions: [L, 4] boxes (left, top, right, bottom) in pixels if the locations are a detector's regions; None for
            a grid.
        grid: (rows, columns) of the grid, with rows · columns = L; None for regions, or without attention.
        tags: the tags of the image that guided the caption; see `captioning.inference.TagGuide`.
        stand_in_log_prob: `log_prob` of the caption with the stand-ins of its borrowed words, without borrowed words in
            the vocabulary; None for a caption without borrowed words.
        tag_places: the weights of the tags that attention could look at; None for a model without `TagPlaces`.
    """

    text: str
    tokens: list[str]
    log_prob: float
    attention: np.ndarray | None
    box: Box | None
    score: float
    places: np.ndarray | None
    sentinel: np.ndarray | None = None
    regions: np.ndarray | None = None
    grid: tuple[int, int] | None = None
    tags: tuple[Tag, ...] = ()
    stand_in_log_prob: float | None = None
    tag_places: TagWeights | None = None


def tag_notes(caption: Caption) -> list[str]:
    """Return a note for each word that looked at a tag, such as "← tag dog 0.41", and "" for each other word.

    A word looked at the tag with the largest weight if this is larger than the weight of every location; with hard
    attention, it looked at the tag that was chosen.
    """
    tags = caption.tag_places
    if tags is None or caption.attention is None:
        return [""] * len(caption.tokens)
    notes = []
    for index, (row, weights) in enumerate(zip(tags.weights, caption.attention, strict=True)):
        best = int(row.argmax()) if tags.chosen is None else int(tags.chosen[index])
        looked = row[best] > weights.max() if tags.chosen is None else best >= 0
        notes.append(f"← tag {tags.nouns[best]} {row[best]:.2f}" if looked else "")
    return notes
