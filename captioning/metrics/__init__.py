"""Caption scores. Takes strings by image id; needs no torch."""

from captioning.metrics.scores import score

__all__ = ["score"]
