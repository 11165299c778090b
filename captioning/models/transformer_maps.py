"""Compute how much of a transformer's result comes from each location: attention rollout, gradient-weighted attention.

Abnar and Zuidema 2020 multiply the attention matrices of all layers. A block adds its attention to its input, so half
of the result comes from the input itself: Ã = ½ A + ½ I, with A averaged over the heads.

Chefer, Gur and Wolf 2021 (*Generic attention-model explainability*) weight each matrix by the gradient of one output,
here of a word's log-probability, before they follow the layers: Ā = E_heads[(∇A ⊙ A)⁺].
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class AttentionMaps(NamedTuple):
    """The attention weights of every layer and head along B · K captions; rows at padding have no meaning.

    Attributes:
        words: Self-attention [layers, B, K, heads, T, T]: row t are the words that step t attends to.
        image: Cross-attention [layers, B, K, heads, T, L].
        grid: Self-attention of the blocks over the locations, [encoder layers, B, heads, L, L]; None without them.
        rollout: [B, K, T, L + T]: how much of the last layer's result at step t comes from each of the L locations of
            the encoder, and from each of the T words. Each row sums to 1.
    """

    words: Tensor
    image: Tensor
    grid: Tensor | None
    rollout: Tensor


def mix_layer(seen: Tensor, past: Tensor, words: Tensor, image: Tensor) -> Tensor:
    """Follow one block: R ← ½ R + ½ A_words R for self-attention, then R ← ½ R + ½ A_image for cross-attention.

    Args:
        seen: R of the steps, [B, K, T, L].
        past: R of all steps that they may attend to, [B, K, M, L].
        words: A_words of each head, [B, K, heads, T, M].
        image: A_image of each head, [B, K, heads, T, L].
    """
    seen = (seen + words.mean(2) @ past) / 2
    return (seen + image.mean(2)) / 2


def attention_rollout(words: Iterable[Tensor], image: Iterable[Tensor], start: Tensor) -> Tensor:
    """Follow all blocks of the decoder.

    Args:
        words: For each layer, weights of self-attention [B, K, heads, T, T].
        image: For each layer, weights of cross-attention [B, K, heads, T, L].
        start: R before the first layer, [B, K, T, L]: zeros for the share of the locations alone.

    Returns:
        R after the last layer, [B, K, T, L].
    """
    for layer in zip(words, image, strict=True):
        start = mix_layer(start, start, *layer)
    return start


def mix_locations(grid: Sequence[Tensor], image: Tensor) -> Tensor:
    """Follow the blocks over the locations from the last one to the first: rows of weights [..., B, K, T, L].

    Args:
        grid: For each block, weights of self-attention [B, heads, L, L].
        image: Weights of the grid's locations after these blocks, [layers, B, K, T, L].

    Returns:
        Weights of the locations before these blocks.
    """
    for weights in reversed(grid):
        image = (image + torch.einsum("lbkti,bij->lbktj", image, weights.mean(1))) / 2
    return image


def weight_by_gradient(score: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Compute Ā = E_heads[(∇A ⊙ A)⁺] (Chefer et al. 2021, eq. 5).

    Args:
        score: One number, a sum over the N captions, which do not depend on one another.
        weights: Attention weights A from which it was computed, each [N, heads, Q, M].

    Returns:
        One Ā [N, Q, M] for each A.
    """
    gradients = torch.autograd.grad(score, weights, retain_graph=True, materialize_grads=True)
    return [(gradient * each).clamp_min(0).mean(1).detach() for gradient, each in zip(gradients, weights, strict=True)]


def relevance(words: Iterable[Tensor], image: Sequence[Tensor], grid: Iterable[Tensor]) -> Tensor:
    """Follow the gradient-weighted attention of all blocks to the locations (Chefer et al. 2021, section 3.2).

    Args:
        words: For each block of the decoder, Ā of self-attention [N, T, T].
        image: For each block of the decoder, Ā of cross-attention [N, T, L].
        grid: For each block over the locations, Ā of self-attention [N, L, L].

    Returns:
        The relevance of each location to each row's result, [N, T, L].
    """
    _, length, locations = image[0].shape
    of_grid = torch.eye(locations, dtype=image[0].dtype, device=image[0].device)
    own = torch.eye(length, dtype=image[0].dtype, device=image[0].device)
    for weights in grid:
        of_grid = of_grid + weights @ of_grid  # eq. 6
    of_grid, shown = _normalize_rest(of_grid), torch.zeros_like(image[0])
    for reads, looks in zip(words, image, strict=True):
        own, shown = own + reads @ own, shown + reads @ shown  # eqs. 6 and 7
        shown = shown + _normalize_rest(own).transpose(-1, -2) @ looks @ of_grid  # eq. 10
    return shown


def _normalize_rest(relevances: Tensor) -> Tensor:
    """Scale the rows of R − I to sum 1, and add I again (eqs. 8 and 9); rows of zeros stay zeros."""
    eye = torch.eye(relevances.shape[-1], dtype=relevances.dtype, device=relevances.device)
    rest = relevances - eye
    total = rest.sum(-1, keepdim=True)
    return torch.where(total > 0, rest / total.clamp_min(torch.finfo(total.dtype).tiny), 0.0) + eye
