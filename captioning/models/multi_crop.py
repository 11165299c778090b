"""A captioner that looks at several views of each picture at once."""

import torch
from torch import Tensor

from captioning.errors import ConfigError
from captioning.models.captioner import Captioner


class MultiCrop(Captioner):
    """A trained captioner whose grid is the grids of V views side by side: features [B, V, P, D] (or fc vectors
    [B, V, D]) in, attention over V·P places out, and the image vector is the mean over all of them.

    Each view goes through the adapter by itself, as in training, where a position's code is of the place in its view.
    Nothing is learnt anew.

    Args:
        captioner: whose parts it has.
        views: V.
    """

    def __init__(self, captioner: Captioner, views: int):
        parts = {name: getattr(captioner, name) for name in ("decoder", "adapter", "vector")}
        super().__init__(captioner.encoder, captioner.conditioning, **parts)
        self.views = views

    def grid_of(self, images: Tensor, mask: None = None) -> tuple[Tensor, None]:
        """[B, V, …] -> adapted features [B, V·P, D'], view by view.

        Raises:
            ConfigError: not the features of V views, without a mask.
        """
        if images.shape[1] != self.views or mask is not None:
            raise ConfigError(
                f"a captioner with crops takes the features of {self.views} views of each picture, not "
                f"{tuple(images.shape)} of it alone: splits.sources_of gives them, or load it without crops"
            )
        return torch.cat([super(MultiCrop, self).grid_of(view)[0] for view in images.unbind(1)], 1), None
