"""Caption scores. Takes strings by image id; needs no torch."""

from captioning.metrics.scores import Report, Scorer, score

__all__ = ["Report", "Scorer", "score"]
