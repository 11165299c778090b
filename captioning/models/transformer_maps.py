"""Compute how much of a transformer's result comes from each location and word: attention rollout.

Abnar and Zuidema 2020 multiply the attention matrices of all layers. A block adds its attention to its input, so half
of the result comes from the input itself: Ã = ½ A + ½ I, with A averaged over the heads.
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
