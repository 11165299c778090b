"""Add a position code to the feature vector of every grid location."""

import math

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError


class NoPositions(nn.Module):
    """No position code: a location is described by its content only (Show, Attend and Tell).

    Args:
        regions: Not used.
    """

    size = 0

    def __init__(self, *, regions: bool = False):
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        """Return the features unchanged."""
        return features


class Coordinates(nn.Module):
    """Append sines and cosines of row and column to each location of a square grid: [B, L, D] -> [B, L, D + 4 F].

    This is the code of Vaswani et al. 2017 in two dimensions. An fc vector has no location and gets zeros. A
    convolutional feature contains little information about its position, and none about left and right if the network
    was trained on mirrored images too. A decoder that must write "left of" needs this code.

    Args:
        frequencies: F; half a turn over the image, one turn, two turns, …
        regions: Whether the locations are a detector's regions, which have no rows and columns.

    Raises:
        ConfigError: The locations are regions, or `frequencies` is less than 1.
    """

    def __init__(self, *, frequencies: int = 2, regions: bool = False):
        super().__init__()
        if regions:
            _refuse("a detector's regions")
        if frequencies < 1:
            raise ConfigError(f"model.positions.frequencies must be at least 1, not {frequencies}")
        self.frequencies, self.size = frequencies, 4 * frequencies

    def forward(self, features: Tensor) -> Tensor:
        """Append the code to features [B, L, D] or [B, D].

        Raises:
            ConfigError: L is not a square number.
        """
        if features.dim() == 2:
            return torch.cat((features, features.new_zeros(len(features), self.size)), -1)
        batch, locations, _ = features.shape
        return torch.cat((features, self._code(locations, features).expand(batch, -1, -1)), -1)

    def _code(self, locations: int, like: Tensor) -> Tensor:
        """Compute the code [L, 4 F] in row-major order."""
        side = math.isqrt(locations)
        if side**2 != locations:
            _refuse(f"{locations} locations")
        line = (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side  # center of each cell, in 0…1
        turns = math.pi * line[:, None] * 2.0 ** torch.arange(self.frequencies, device=like.device)
        code = torch.cat((turns.sin(), turns.cos()), -1)  # [side, 2 F]
        rows, columns = code[:, None].expand(-1, side, -1), code[None].expand(side, -1, -1)
        return torch.cat((rows, columns), -1).flatten(0, 1)


def _refuse(locations: str) -> None:
    raise ConfigError(
        f"model/positions=coordinates needs a CNN's square grid, not {locations}. Set model/positions=none"
    )
