"""Adapt encoder features for conditioning and attention: add positions, change the width, average over locations."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from captioning.errors import must_be
from captioning.models.ops import Dropout


def build_adapter(
    feature_size: int,
    *,
    positions: Callable,
    regions: bool,
    grid: bool | tuple[int, int],
    width: int | None,
    dropout: float,
) -> tuple[nn.Sequential, int]:
    """Build the module that adds a position code to every location and brings features to one width by ReLU(W a_i + b).

    Args:
        feature_size: D of the encoder's features.
        positions: Class of the position code, see `positions`.
        regions: Whether the locations are a detector's regions.
        grid: Rows and columns of the grid; a bool if they are unknown or there is none.
        width: Size of the adapted features; None leaves the features as they are.
        dropout: After the ReLU.

    Returns:
        The module and the size of its output.

    Raises:
        ConfigError: `width` is less than 1, or the position code does not support regions.
    """
    must_be("model.feature_width", width, least=1)
    code = positions(regions=regions, grid=grid if isinstance(grid, tuple) else None)
    adapter, size = nn.Sequential(code), feature_size + code.size
    if width is None:
        return adapter, size
    adapter.extend((nn.Linear(size, width), nn.ReLU(), Dropout(dropout)))
    return adapter, width


def mean_over_places(grid: Tensor, mask: Tensor | None) -> Tensor:
    """Compute the image vector as the mean over the real locations: [B, L, D] -> [B, D].

    Args:
        grid: [B, L, D].
        mask: [B, L] bool, True at real locations; None if all are real.
    """
    if mask is None:
        return grid.mean(1)
    share = mask.to(grid.dtype) / mask.sum(1, keepdim=True)
    return torch.einsum("bp,bpd->bd", share, grid)


def some_place(features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Zero the features of missing locations, and give images without any location one location of zeros.

    Otherwise the mean of an image without a location would be 0 / 0, and a NaN in a missing location would remain NaN
    when multiplied by 0.

    Args:
        features: [B, L, D].
        mask: [B, L] bool, True at real locations.

    Returns:
        The features and the mask.
    """
    empty = ~mask.any(1, keepdim=True)
    return features.masked_fill(~mask[..., None], 0.0), torch.cat((mask[:, :1] | empty, mask[:, 1:]), 1)
