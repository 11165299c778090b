"""Turn the probabilities of a classifier into the confidence that a noun names something in the photo.

A classifier is trained with one thing per image, and its classes compete. So the probability of "bottle" in a photo of
a kitchen is low, although most people would see one; calibration on photos with captions corrects this.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Calibration(NamedTuple):
    """Logistic calibration, confidence = σ(slope · logit(p) + offset), after Platt (1999) and Guo et al. (2017).

    p is the probability of the noun, averaged over the views of a photo.

    Attributes:
        temperature: divides the logits before the softmax.
        slope: factor of the logit of p.
        offset: for all nouns.
        offsets: further offset of each kind of noun; see `kind_of`.
    """

    temperature: float = 1.0
    slope: float = 1.0
    offset: float = 0.0
    offsets: Mapping[str, float] = {}

    def confidence(self, probabilities: Tensor, kinds: Sequence[str]) -> Tensor:
        """Return the confidences [..., N] of N nouns.

        Args:
            probabilities: [..., N], averaged over the views.
            kinds: the kind of each noun.
        """
        offsets = torch.tensor([self.offset + self.offsets.get(kind, 0.0) for kind in kinds])
        return torch.sigmoid(self.slope * torch.logit(probabilities, eps=1e-6) + offsets.to(probabilities))


LITE0_CALIBRATION = Calibration(
    temperature=0.8, slope=0.52, offset=-0.82, offsets={"category": 1.62, "scene": 1.91, "food": 1.91, "clothing": 0.84}
)
