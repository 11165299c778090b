"""Define the parts of a transformer: attention with several heads, a block, and the two ways to run its attention.

A block does not know whether it reads one word or all words of a caption: `OneStep` and `AllSteps` run its attention.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captioning.models.key_value_cache import KeyValueCache, Past
from captioning.models.ops import Dropout, Prefixes


class ImageMemory(NamedTuple):
    """What all steps read of B images, computed once and shared by all rows of an image.

    Attributes:
        keys: For each layer, keys and values of cross-attention, [B, L, 2 W].
        mask: [B, 1, 1, L] bool, True at real locations, or None.
    """

    keys: tuple[Tensor, ...]
    mask: Tensor | None


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, heads: int, weighs: bool, mask: Tensor | None = None, causal=False
) -> tuple[Tensor, Tensor | None]:
    """Attend with several heads: softmax(Q Kᵀ / √d) V with d = W / heads (Vaswani et al. 2017, section 3.2).

    Args:
        query: [N, Q, W].
        key: [N, M, W].
        value: [N, M, W].
        heads: Number of heads.
        weighs: Whether to return the weights.
        mask: Bool, True where attention is allowed; it must broadcast to [N, heads, Q, M].
        causal: Whether query i may attend only to the keys 0 … i.

    Returns:
        The result [N, Q, W], and the weights [N, heads, Q, M] or None.
    """
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    if not weighs:
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        return found.transpose(1, 2).flatten(2), None
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    weights = (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)
    return (weights.to(value.dtype) @ value).transpose(1, 2).flatten(2), weights


class Block(nn.Module):
    """Self-attention and feed-forward network, and between them cross-attention in a decoder.

    Dropout is on the result of each part and inside the feed-forward network, not on attention weights.

    Args:
        width: W.
        feed_forward: Width of the hidden layer of the feed-forward network.
        dropout: Probability.
        looks: Whether the block has cross-attention.
    """

    def __init__(self, width: int, *, feed_forward: int, dropout: float, looks: bool):
        super().__init__()
        self.self_norm, self.self_input = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.self_output = nn.Linear(width, width)
        if looks:
            self.image_norm, self.query = nn.LayerNorm(width), nn.Linear(width, width)
            self.key_value, self.image_output = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, feed_forward), nn.ReLU(), Dropout(dropout), nn.Linear(feed_forward, width)
        )
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, read: Callable, look: Callable | None = None) -> Tensor:
        """Compute the block for x [..., W].

        Args:
            x: [..., W].
            read: Self-attention: query, key and value of every row, [..., 3 W] -> [..., W].
            look: Cross-attention: queries [..., W] -> [..., W]; None without an image.
        """
        x = x + self.dropout(self.self_output(read(self.self_input(self.self_norm(x)))))
        if look is not None:
            x = x + self.dropout(self.image_output(look(self.query(self.image_norm(x)))))
        return x + self.dropout(self.feed_forward(self.feed_norm(x)))


class _Attention:
    """Attention of one pass through the blocks, with the weights that were asked for.

    Args:
        memory: Of the images.
        heads: Number of heads.
        weighs: Whether the weights of self-attention are needed, and whether those of cross-attention are needed, for
            each layer.

    Attributes:
        of_words: For each layer, weights of self-attention as they were computed, [B · K, heads, T, T], or None.
        of_image: For each layer, weights of cross-attention as they were computed, [B, heads, K · T, L], or None.
    """

    rows: int  # K

    def __init__(self, memory: ImageMemory, *, heads: int, weighs: tuple[bool, Sequence[bool]]):
        self.memory, self.heads, (self.weighs_words, self.weighs_image) = memory, heads, weighs
        self.of_words: list[Any] = []
        self.of_image: list[Any] = []

    @property
    def words(self) -> list[Any]:
        """For each layer, weights of self-attention [B, K, heads, T, T], or None."""
        return [
            None if each is None else each.unflatten(0, (len(each) // self.rows, self.rows)) for each in self.of_words
        ]

    @property
    def image(self) -> list[Any]:
        """For each layer, weights of cross-attention [B, K, heads, T, L], or None."""
        return [None if each is None else each.unflatten(2, (self.rows, -1)).transpose(1, 2) for each in self.of_image]

    def read(self, inputs: Tensor) -> Tensor:
        """Run self-attention: queries, keys and values [..., 3 W] -> [..., W]."""
        raise NotImplementedError

    def look(self, query: Tensor) -> Tensor:
        """Run cross-attention: queries [..., W] -> [..., W]."""
        raise NotImplementedError

    def _look(self, query: Tensor) -> Tensor:
        """Attend to the image with all rows and times at once: [B, K · T, W] -> [B, K · T, W]."""
        layer = len(self.of_image)
        key, value = self.memory.keys[layer].chunk(2, -1)
        found, weights = attend(
            query, key, value, heads=self.heads, weighs=self.weighs_image[layer], mask=self.memory.mask
        )
        self.of_image.append(weights)
        return found


class OneStep(_Attention):
    """Attention of one step, with x [B, K, W].

    Args:
        state: Keys and values of the words before the step.
        memory: Of the images.
        heads: As in `AllSteps`.
        weighs: As in `AllSteps`.

    Attributes:
        pasts: For each layer, the keys and values with those of the step.
    """

    def __init__(self, state: KeyValueCache, memory: ImageMemory, **arguments):
        super().__init__(memory, **arguments)
        self.state = state
        self.pasts: list[Past] = []

    def read(self, inputs: Tensor) -> Tensor:
        """Run self-attention over the past and the step: [B, K, 3 W] -> [B, K, W]."""
        self.rows = inputs.shape[1]
        query, key_value = inputs.tensor_split((inputs.shape[-1] // 3,), -1)
        self.pasts.append(self.state.layers[len(self.pasts)].append(key_value))
        key, value = self.pasts[-1].known.flatten(1, 2).transpose(0, 1).chunk(2, -1)  # [B · K, T, W]
        query = query.flatten(0, 1)[:, None]
        found, weights = attend(query, key, value, heads=self.heads, weighs=self.weighs_words)
        self.of_words.append(weights)
        return found.view(*inputs.shape[:2], -1)

    def look(self, query: Tensor) -> Tensor:
        """Run cross-attention: [B, K, W] -> [B, K, W]."""
        return self._look(query)


class AllSteps(_Attention):
    """Attention of all steps, with x [M, W] of the M different beginnings: only attention needs them by caption.

    Args:
        prefixes: The beginnings of the captions.
        shape: B, K and T.
        memory: Of the images.
        heads: Number of heads.
        weighs: Whether the weights of self-attention are needed, and whether those of cross-attention are needed, for
            each layer.
    """

    def __init__(self, prefixes: Prefixes, shape: torch.Size, memory: ImageMemory, **arguments):
        super().__init__(memory, **arguments)
        self.prefixes, self.shape, self.rows = prefixes, shape, shape[1]

    def read(self, inputs: Tensor) -> Tensor:
        """Run causal self-attention: [M, 3 W] -> [M, W]. Padding has any values: it follows all words."""
        query, key, value = self._spread(inputs).unflatten(0, (-1, self.shape[-1])).chunk(3, -1)
        found, weights = attend(query, key, value, heads=self.heads, weighs=self.weighs_words, causal=True)
        self.of_words.append(weights)
        return found.flatten(0, 1).index_select(0, self.prefixes.first)

    def look(self, query: Tensor) -> Tensor:
        """Run cross-attention: [M, W] -> [M, W]."""
        query = self._spread(query).unflatten(0, (self.shape[0], -1))
        return self._look(query).flatten(0, 1).index_select(0, self.prefixes.first)

    def _spread(self, part: Tensor) -> Tensor:
        """Copy the row of each beginning to all of its B · K · T positions."""
        return part.index_select(0, self.prefixes.row)
