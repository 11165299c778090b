"""Run a model over a batch: teacher forcing, or a loop over `step` that chooses its own words."""

from collections.abc import Callable

import torch
from torch import Tensor

from captioning.models import stack_glimpses


def teacher_force(model, batch):
    """Scores at the N real words, their index, and the glimpses: `CaptionModel.forward` on a batch."""
    decoded = model(batch.images, batch.tokens, batch.mask)
    return decoded.scores, decoded.index, decoded.glimpse


def roll_out(model, batch, *, rows: int, length: int, start: int | Tensor, choose: Callable, stop=None, real=None):
    """A loop over the model's `step` in which `choose` picks each next word; gradients flow through the logits.

    Args:
        model, batch: `CaptionModel` and CaptionBatch (of which the images are used).
        rows: K, captions an image. length: T, steps at the most.
        start: the first input, an id or [B, K].
        choose: (t, logits [B, K, V]) -> the word of step t, [B, K]: the next input.
        stop: () -> whether to end early.
        real: [B, K, T] bool; glimpses elsewhere are zero. None: where the chosen word is no padding.

    Returns:
        The chosen words [B, K, T], logits [B, K, T, V], and the glimpses [B, K, T, …] without contexts.
    """
    state, memory = model.begin(batch.images, batch.mask)
    state = state.repeat(rows)
    shape, device = (len(batch.image_ids), rows), batch.image_ids.device
    token = start.expand(shape) if isinstance(start, Tensor) else torch.full(shape, start, device=device)
    tokens, logits, seen = [], [], []
    for t in range(length):
        out = model.step(token, state, memory)
        token, state = choose(t, out.logits), out.state
        tokens.append(token)
        logits.append(out.logits)
        seen.append(out.glimpse._replace(context=out.glimpse.context[..., :0]))
        if stop is not None and stop():
            break
    tokens = torch.stack(tokens, 2)
    real = tokens != model.pad if real is None else real
    return tokens, torch.stack(logits, 2), stack_glimpses(seen, real)


def draw_ids(probabilities: Tensor) -> Tensor:
    """One id a row of [B, K, V], from torch's global generator -> [B, K]. Rows need not sum to one.

    An exponential race, as in torch.multinomial, whose draws these are on a CPU; it looks at its result before it
    returns, for which a GPU must be waited for.
    """
    return (probabilities / torch.empty_like(probabilities).exponential_()).argmax(-1)
