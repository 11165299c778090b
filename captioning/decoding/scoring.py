"""The probability of given captions, by the same `step` that searches take."""

from collections.abc import Callable

import torch
from torch import Tensor

from captioning.decoding.hypothesis import normalized


@torch.inference_mode()
def score_tokens(step: Callable, state, tokens: Tensor, *, pad: int) -> Tensor:
    """log p of every word of given captions, each after the true words before it.

    Args:
        step, state: see the package; `state` holds one row an image.
        tokens: [B, K, 1 + T] int64, <start> words <end> <pad>…, K captions an image.
        pad: id of the padding token.

    Returns:
        [B, K, T], the <end> included; 0 at padding.
    """
    state = state.select(torch.zeros_like(tokens[..., 0]))
    columns = []
    for t in range(tokens.shape[-1] - 1):
        logits, state, _ = step(tokens[..., t], state)
        columns.append(normalized(logits).gather(-1, tokens[..., t + 1, None]).squeeze(-1))
    return torch.stack(columns, -1).masked_fill(tokens[..., 1:] == pad, 0.0)
