"""Find a thing that ImageNet has no class for, by a logistic regression on the encoder's features."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

PERSON_PROBE = Path(__file__).with_name("person_lite0.safetensors")


class Probe(NamedTuple):
    """A logistic regression on feature vectors, and its calibration.

    Attributes:
        noun: what it finds.
        weight: [D].
        bias: [1].
        slope: confidence = σ(slope · logit(p) + offset), with p the probability averaged over the views of a photo.
        offset: see `slope`.
    """

    noun: str
    weight: Tensor
    bias: Tensor
    slope: float = 1.0
    offset: float = 0.0

    def probability(self, vectors: Tensor) -> Tensor:
        """Return the probabilities [...] of feature vectors [..., D]."""
        return torch.sigmoid(vectors @ self.weight.to(vectors) + self.bias.to(vectors))

    def confidence(self, probability: Tensor) -> Tensor:
        """Calibrate a probability that was averaged over views."""
        return torch.sigmoid(self.slope * torch.logit(probability, eps=1e-4) + self.offset)


@cache
def person_probe() -> Probe:
    """Return the probe for people on features of EfficientNet-Lite0, as docs/person_probe.py trained it."""
    stored = load_file(PERSON_PROBE)
    return Probe("person", stored["weight"], stored["bias"], stored["slope"].item(), stored["offset"].item())
