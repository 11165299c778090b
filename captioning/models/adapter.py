"""Adapt encoder features for conditioning and attention: add positions, change the width, average over locations."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from captioning.errors import must_be
from captioning.models.ops import Dropout


def build_adapter(
    feature_size: int, *, positions: Callable, regions: bool, width: int | None, dropout: float
) -> tuple[nn.Sequential, int]:
    """What adds each place's code and brings features to one width by ReLU(W a_i + b), and the size of its output.

    Args:
        feature_size: D of the encoder's features.
        positions: class of the places' code, see `positions`.
        regions: whether the places are a detector's regions.
        width: None leaves the features as they are.
        dropout: behind the ReLU.
    """
    must_be("model.feature_width", width, least=1)
    place = positions(regions=regions)
    adapter, size = nn.Sequential(place), feature_size + place.size
    if width is None:
        return adapter, size
    adapter.extend((nn.Linear(size, width), nn.ReLU(), Dropout(dropout)))
    return adapter, width


def mean_over_places(grid: Tensor, mask: Tensor | None) -> Tensor:
    """The image vector, a mean over the real places: [B, P, D] -> [B, D]."""
    if mask is None:
        return grid.mean(1)
    share = mask.to(grid.dtype) / mask.sum(1, keepdim=True)
    return torch.einsum("bp,bpd->bd", share, grid)


def some_place(features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Zero the features of missing locations, and give images without any a location of zeros.

    Otherwise the mean of an image without a location would be 0 / 0, and a missing location's NaN times 0 would be NaN.
    """
    empty = ~mask.any(1, keepdim=True)
    return features.masked_fill(~mask[..., None], 0.0), torch.cat((mask[:, :1] | empty, mask[:, 1:]), 1)
