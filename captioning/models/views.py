"""A captioner that looks at several views of each picture at once."""

import torch
from torch import Tensor

from captioning.models.captioner import Captioner


class ManyViews(Captioner):
    """A trained captioner whose grid is the grids of V views side by side: features [B, V, P, D] (or fc vectors
    [B, V, D]) in, attention over V·P places out, and the image vector is the mean over all of them.

    Each view goes through the adapter by itself, as in training, where a position's code is of the place in its view.
    Nothing is learnt anew. It has the weights of the captioner it is made `of`.
    """

    @classmethod
    def of(cls, captioner: Captioner) -> "ManyViews":
        """From one captioner's parts."""
        return cls(captioner.encoder, captioner.conditioning, decoder=captioner.decoder, adapter=captioner.adapter)

    def places(self, images: Tensor, mask: None = None) -> tuple[Tensor, None]:
        """[B, V, …] -> adapted features [B, V·P, D'], view by view."""
        return torch.cat([super(ManyViews, self).places(view)[0] for view in images.unbind(1)], 1), mask
