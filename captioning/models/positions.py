"""Add a code of its location to every feature vector of the grid."""

import math

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError


class NoPositions(nn.Module):
    """Features as they are: a place is known by its content alone (Show, Attend and Tell)."""

    size = 0

    def __init__(self, *, regions: bool = False):
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        return features


class Coordinates(nn.Module):
    """Appends to each place of a square grid the sines and cosines of its row and column (Vaswani et al. 2017, in two
    dimensions): [B, P, D] -> [B, P, D + 4 F]. An fc vector has no places, and gets zeros.

    A convolutional feature hardly says where it lies, and not at all whether it lies left or right where a network
    was trained on mirrored pictures too; a decoder that has to say "left of" needs to be told.

    Args:
        frequencies: F; half a turn over the picture, one turn, two, …
        regions: whether the places are a detector's regions, which stand in no rows and columns.

    Raises:
        ConfigError: for regions.
    """

    def __init__(self, *, frequencies: int = 2, regions: bool = False):
        super().__init__()
        if regions:
            _refuse("a detector's regions")
        if frequencies < 1:
            raise ConfigError(f"model.positions.frequencies must be at least 1, not {frequencies}")
        self.frequencies, self.size = frequencies, 4 * frequencies

    def forward(self, features: Tensor) -> Tensor:
        if features.dim() == 2:
            return torch.cat((features, features.new_zeros(len(features), self.size)), -1)
        batch, places, _ = features.shape
        return torch.cat((features, self._code(places, features).expand(batch, -1, -1)), -1)

    def _code(self, places: int, like: Tensor) -> Tensor:
        """[P, 4 F], row by row."""
        side = math.isqrt(places)
        if side**2 != places:
            _refuse(f"{places} places")
        line = (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side  # middle of each cell, in 0 … 1
        turns = math.pi * line[:, None] * 2.0 ** torch.arange(self.frequencies, device=like.device)
        code = torch.cat((turns.sin(), turns.cos()), -1)  # [side, 2 F]
        rows, columns = code[:, None].expand(-1, side, -1), code[None].expand(side, -1, -1)
        return torch.cat((rows, columns), -1).flatten(0, 1)


def _refuse(places: str) -> None:
    raise ConfigError(f"model/positions=coordinates needs a CNN's square grid, not {places}: set model/positions=none")
