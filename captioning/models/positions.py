"""Add a position code to the feature vector of every grid location."""

import math

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError


class NoPositions(nn.Module):
    """No position code: a location is described by its content only (Show, Attend and Tell).

    Args:
        regions: Not used.
        grid: Not used.
    """

    size = 0

    def __init__(self, *, regions: bool = False, grid: tuple[int, int] | None = None):
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        """Return the features unchanged."""
        return features


class Coordinates(nn.Module):
    """Append sines and cosines of row and column to each location of a grid: [B, L, D] -> [B, L, D + 4 F].

    This is the code of Vaswani et al. 2017 in two dimensions. An fc vector has no location and gets zeros. A
    convolutional feature contains little information about its position, and none about left and right if the network
    was trained on mirrored images too. A decoder that must write "left of" needs this code.

    Args:
        frequencies: F; half a turn over the image, one turn, two turns, …
        regions: Whether the locations are a detector's regions, which have no rows and columns.
        grid: Rows and columns, R and C, with L = R · C in row-major order; None for a square grid.

    Raises:
        ConfigError: The locations are regions, or `frequencies` is less than 1.
    """

    def __init__(self, *, frequencies: int = 2, regions: bool = False, grid: tuple[int, int] | None = None):
        super().__init__()
        if regions:
            _refuse("a detector's regions")
        if frequencies < 1:
            raise ConfigError(f"model.positions.frequencies must be at least 1, not {frequencies}")
        self.frequencies, self.size, self.grid = frequencies, 4 * frequencies, grid

    def forward(self, features: Tensor) -> Tensor:
        """Append the code to features [B, L, D] or [B, D].

        Raises:
            ConfigError: L is not the number of locations of `grid`, or not a square number without it.
        """
        if features.dim() == 2:
            return torch.cat((features, features.new_zeros(len(features), self.size)), -1)
        batch, locations, _ = features.shape
        return torch.cat((features, self._code(locations, features).expand(batch, -1, -1)), -1)

    def _code(self, locations: int, like: Tensor) -> Tensor:
        """Compute the code [L, 4 F] in row-major order."""
        rows, columns = self.grid or (math.isqrt(locations), math.isqrt(locations))
        if rows * columns != locations:
            _refuse(f"{locations} locations")
        down, across = self._turns(rows, like), self._turns(columns, like)
        down, across = down[:, None].expand(-1, columns, -1), across[None].expand(rows, -1, -1)  # [R, C, 2 F]
        return torch.cat((down, across), -1).flatten(0, 1)

    def _turns(self, cells: int, like: Tensor) -> Tensor:
        """Compute sines and cosines of the position in one direction, [cells, 2 F]."""
        line = (torch.arange(cells, device=like.device, dtype=like.dtype) + 0.5) / cells  # center of each cell, in 0…1
        turns = math.pi * line[:, None] * 2.0 ** torch.arange(self.frequencies, device=like.device)
        return torch.cat((turns.sin(), turns.cos()), -1)


def _refuse(locations: str) -> None:
    raise ConfigError(
        f"model/positions=coordinates needs a grid of known rows and columns, not {locations}. Set model/positions=none"
    )
