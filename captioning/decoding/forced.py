"""Run a model along given captions (forced decoding), for their log-probabilities and attention weights."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from captioning.decoding.hypothesis import Backpointers, Hypothesis, device_of, looks, normalized


@torch.inference_mode()
def forced_decoding(
    step: Callable,
    state: Any,
    *,
    batch: int,
    start: int,
    end: int,
    forbidden: tuple[int, ...] = (),
    tokens: Sequence[Sequence[int]],
) -> list[list[Hypothesis]]:
    """Score each image's given caption: one hypothesis per image, with its log-probability and attention weights.

    Args:
        step: (token [B, K], state) -> (logits [B, K, V], state, glimpse), see `captioning.decoding`.
        state: State before `<start>`, one row per image.
        batch: B.
        start: Id of `<start>`.
        end: Id of `<end>`.
        forbidden: Not used; a given caption may contain any ids.
        tokens: For each image the ids of its caption, without `<start>`, and with `<end>` if it is part of the caption.

    Returns:
        One list with one hypothesis per image.

    Raises:
        ValueError: The number of captions is not B.
    """
    if len(tokens) != batch:
        raise ValueError(f"{batch} images need one caption per image, not {len(tokens)} captions")
    device = device_of(state)
    width = max(1, *map(len, tokens))
    table = torch.tensor([[*line, *[end] * (width - len(line))] for line in tokens], device=device)
    lengths = torch.tensor([[len(line)] for line in tokens], device=device)
    trail, rows, total = Backpointers(), torch.zeros_like(lengths), torch.zeros_like(lengths, dtype=torch.float32)
    token = torch.full((batch, 1), start, device=device)
    for t in range(width):
        logits, state, glimpse = step(token, state)
        token = table[:, t : t + 1]
        log_prob = normalized(logits).gather(-1, token[..., None]).squeeze(-1)
        total = total + log_prob.masked_fill(t >= lengths, 0.0)
        trail.add(token, rows, *looks(glimpse))
    return trail.hypotheses(rows, lengths, log_prob=total, score=total)


@torch.inference_mode()
def score_tokens(step: Callable, state: Any, tokens: Tensor, *, pad: int) -> Tensor:
    """Compute the log-probability of every word of given captions, each after the true words before it.

    Args:
        step: (token [B, K], state) -> (logits [B, K, V], state, glimpse), see `captioning.decoding`.
        state: State before `<start>`, one row per image.
        tokens: [B, K, 1 + T] int64: `<start>` words `<end>` `<pad>`…, K captions per image.
        pad: Id of the padding token.

    Returns:
        Log-probabilities [B, K, T], `<end>` included; 0 at padding.
    """
    state = state.select(torch.zeros_like(tokens[..., 0]))
    columns = []
    for t in range(tokens.shape[-1] - 1):
        logits, state, _ = step(tokens[..., t], state)
        columns.append(normalized(logits).gather(-1, tokens[..., t + 1, None]).squeeze(-1))
    return torch.stack(columns, -1).masked_fill(tokens[..., 1:] == pad, 0.0)
