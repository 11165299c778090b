"""Define a tag: a noun that names something in a photo."""

from typing import NamedTuple

import numpy as np

from captioning.data import Box


class Tag(NamedTuple):
    """A noun that names something in a photo.

    Attributes:
        noun: the noun in lower case and in the singular, except words such as "jeans".
        confidence: estimated probability, 0…1, that a person who sees the photo agrees.
        box: the region in which it was found, in pixels of the upright photo; None if it is unknown. A classifier's box
            is the crop or window that it was most certain of, not the outline of the thing.
        map: float32 [R, C], the evidence at each location of the grid over the whole photo, 0…1; None for a detector.
    """

    noun: str
    confidence: float
    box: Box | None = None
    map: np.ndarray | None = None
