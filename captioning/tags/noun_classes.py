"""List the nouns of ImageNet's classes, and the classes that add to the probability of each noun."""

from collections.abc import Sequence

import torch
from torch import Tensor

from captioning.errors import ConfigError
from captioning.models import nearest
from captioning.tags.nouns import imagenet_nouns, summed_nouns


def all_nouns() -> list[str]:
    """Return the nouns of ImageNet's classes, in the order of the classes."""
    return list(dict.fromkeys(row.noun for row in imagenet_nouns() if row.noun))


def classes_of(nouns: Sequence[str]) -> Tensor:
    """Return a matrix [1000, N] bool: whether a class adds to the probability of a noun; see `summed_nouns`.

    Raises:
        ConfigError: a noun is unknown.
    """
    known = all_nouns()
    for noun in nouns:
        if noun not in known:
            raise ConfigError(f"model.tags.nouns: no class of ImageNet is '{noun}'{nearest(noun, known)}. Remove it")
    matrix = torch.zeros(len(imagenet_nouns()), len(nouns), dtype=torch.bool)
    for row in imagenet_nouns():
        for noun in summed_nouns(row):
            if noun in nouns:
                matrix[row.number, nouns.index(noun)] = True
    return matrix
