"""Run a model along given captions (forced decoding), for their log-probabilities and attention weights."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from captioning.decoding.hypothesis import Backpointers, Hypothesis, device_of, looks, normalized


@torch.inference_mode()
def forced_decoding(
    step: Callable,
    state,
    *,
    batch: int,
    start: int,
    end: int,
    forbidden: tuple[int, ...] = (),
    tokens: Sequence[Sequence[int]],
) -> list[list[Hypothesis]]:
    """The given caption of each image as the one hypothesis of a search, with its log-probability and its looks.

    Args:
        step, state, batch, start, end: as in `beam_search`. forbidden: not looked at; a given caption is as it is.
        tokens: for each image the ids of its caption, without <start>, with <end> where it is to be part of it.
    """
    if len(tokens) != batch:
        raise ValueError(f"{batch} images need as many captions to follow, not {len(tokens)}")
    device = device_of(state)
    width = max(1, *map(len, tokens))
    table = torch.tensor([[*line, *[end] * (width - len(line))] for line in tokens], device=device)
    lengths = torch.tensor([[len(line)] for line in tokens], device=device)
    trail, rows, total = Backpointers(), torch.zeros_like(lengths), 0.0
    token = torch.full((batch, 1), start, device=device)
    for t in range(width):
        logits, state, glimpse = step(token, state)
        token = table[:, t : t + 1]
        log_prob = normalized(logits).gather(-1, token[..., None]).squeeze(-1)
        total = total + log_prob.masked_fill(t >= lengths, 0.0)
        trail.add(token, rows, *looks(glimpse))
    return trail.hypotheses(rows, lengths, log_prob=total, score=total)


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
