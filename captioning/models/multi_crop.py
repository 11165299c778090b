"""Let a trained model look at several crops of each image at once."""

from typing import Any

import torch
from torch import Tensor

from captioning.errors import ConfigError
from captioning.models.interface import CaptionModel, Decoded, State, Step


class MultiCrop(CaptionModel):
    """A trained model whose grid is the grids of V crops side by side: features [B, V, P, D] (or fc vectors [B, V, D])
    in, attention over V · P locations out, and the image vector is the mean over all of them.

    Each crop is encoded by itself, as in training, where a position's code is that of the location in its crop. Nothing
    is learned anew.

    Args:
        model: the trained model, which implements both halves of `begin`.
        views: V.
    """

    def __init__(self, model: CaptionModel, views: int):
        super().__init__()
        self.model, self.views, self.pad = model, views, model.pad
        self.attends, self.hard_attention, self.has_sentinel = model.attends, model.hard_attention, model.has_sentinel

    @property
    def encoder(self) -> torch.nn.Module:
        """That of the model."""
        return self.model.encoder

    def encode(self, images: Tensor, mask: None = None) -> tuple[Tensor, None]:
        """[B, V, …] -> adapted features [B, V · P, D'], crop by crop.

        Raises:
            ConfigError: not the features of V crops, or a mask beside them.
        """
        if images.shape[1] != self.views or mask is not None:
            raise ConfigError(
                f"a captioner with crops takes the features of {self.views} views of each picture, not "
                f"{tuple(images.shape)} of it alone: evaluation.sources_of gives them, or load it without crops"
            )
        return torch.cat([self.model.encode(view)[0] for view in images.unbind(1)], 1), None

    def begin_from(self, grid: Tensor, mask: Tensor | None = None) -> tuple[State, Any]:
        return self.model.begin_from(grid, mask)

    def step(self, token: Tensor, state: State, memory: Any) -> Step:
        return self.model.step(token, state, memory)

    def teacher_force(self, tokens: Tensor, state: State, memory: Any, *, carry: bool = False) -> Decoded:
        return self.model.teacher_force(tokens, state, memory, carry=carry)
