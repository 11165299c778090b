"""Define a generated caption: its words, its log-probability, and the attention weights of each word."""

from typing import NamedTuple

import numpy as np

from captioning.data import Box


class Caption(NamedTuple):
    """A caption of one picture.

    text: the words, joined by spaces. tokens: the words. log_prob: natural logarithm of the caption's probability,
    <end> included. attention: [T, P] weights, a row a word, P places row by row; None without attention.
    box: the region of the picture, in its pixels, that the places cover. score: what the search ranked by.
    places: [T] the one place that hard attention looked at for each word (P: the sentinel); None for other kinds.
    sentinel: [T] the share β of the weight that went to the visual sentinel; None without one. regions: [P, 4] boxes
    (left, top, right, bottom) where the places are a detector's regions, in the place of `box`; None for a grid.
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
