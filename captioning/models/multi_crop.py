"""Let a trained model attend to several crops of each image at once (test-time augmentation)."""

from typing import Any

import torch
from torch import Tensor

from captioning.errors import ConfigError
from captioning.models.interface import CaptionModel, Decoded, LongestCaption, State, Step


class MultiCrop(CaptionModel):
    """A trained model that attends to V crops of each image at once.

    The input is features [B, V, L, D] (or fc vectors [B, V, D]). Attention covers all V · L locations, and the image
    vector is the mean over them. Each crop is encoded separately, as in training: a position code refers to the
    location in its crop. If the model attends to tags, it attends to those of each crop, after all grids. Nothing is
    trained.

    Args:
        model: The trained model, which implements both halves of `begin`.
        views: V.
    """

    def __init__(self, model: CaptionModel, views: int):
        super().__init__()
        self.model, self.views, self.pad = model, views, model.pad
        self.attends, self.hard_attention, self.has_sentinel = model.attends, model.hard_attention, model.has_sentinel
        self.tag_places = views * model.tag_places

    @property
    def encoder(self) -> torch.nn.Module:  # type: ignore[override]  # read-only: the model owns it
        """The encoder of the model."""
        return self.model.encoder

    @property
    def longest(self) -> LongestCaption | None:
        """The longest caption that the model can read; see `CaptionModel.longest`."""
        return self.model.longest

    def encode(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, None]:
        """Compute the adapted features [B, V · L, D'] crop by crop.

        Args:
            images: Features [B, V, L, D] or [B, V, D].
            mask: Must be None.

        Returns:
            The features and None for the mask.

        Raises:
            ConfigError: The input does not have V crops, or there is a mask.
        """
        if images.shape[1] != self.views or mask is not None:
            raise ConfigError(
                f"a captioner with crops={self.views} takes features [B, {self.views}, …], not {tuple(images.shape)}. "
                "Read them with evaluation.sources_of, or load the captioner without crops"
            )
        return torch.cat([self.model.encode(view)[0] for view in images.unbind(1)], 1), None

    def name_tags(self, images: Tensor) -> list[list[str]]:
        """Return the nouns of all crops of each image, crop by crop; see `CaptionModel.name_tags`."""
        of_views = [self.model.name_tags(view) for view in images.unbind(1)]
        return [[noun for nouns in same for noun in nouns] for same in zip(*of_views, strict=True)]

    def begin_from(self, grid: Tensor, mask: Tensor | None = None) -> tuple[State, Any]:
        """Compute state and memory from the results of `encode`."""
        return self.model.begin_from(grid, mask)

    def step(self, token: Tensor, state: State, memory: Any) -> Step:
        """Read one word per row and score the next one, as `CaptionModel.step`."""
        return self.model.step(token, state, memory)

    def teacher_force(self, tokens: Tensor, state: State, memory: Any, *, carry: bool = False) -> Decoded:
        """Score all words of given captions, as `CaptionModel.teacher_force`."""
        return self.model.teacher_force(tokens, state, memory, carry=carry)
