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


# Fitted by docs/calibrate_tags.py to EfficientNet-Lite0 with four corner crops of 0.65, on 80 photos of COCO train2017
# and the 1000 of Flickr8k val. Cross-validated share of tags that references or annotations confirm:
#
#   confidence       0.3–0.4  0.4–0.5  0.5–0.6  0.6–0.7  0.7–0.8  0.8–0.9  0.9–1.0
#   COCO train2017      0.55     0.43     0.59     0.93     0.75     0.89     1.00
#   Flickr8k val        0.18     0.26     0.35     0.40     0.77     0.88     0.98
#
# Flickr8k has no annotated objects, and captions leave out many things that can be seen: below 0.7, its shares are too
# low. COCO's bins have 8 to 42 tags each.
LITE0_CALIBRATION = Calibration(
    temperature=0.8,
    slope=0.65,
    offset=-0.69,
    offsets={"category": 2.01, "scene": 0.69, "food": 1.20, "clothing": 0.26},
)
