"""Run a model over a batch: teacher forcing, or a loop over `step` that chooses its own words."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captioning.models import CaptionModel, Glimpse, LazyLogits, stack_glimpses


def teacher_force(model: CaptionModel, batch: Any) -> tuple[LazyLogits | Tensor, Tensor, Glimpse]:
    """Return the scores at the N real words, their index, and the glimpses: `CaptionModel.forward` on a batch."""
    decoded = model(batch.images, batch.tokens, batch.mask)
    return decoded.scores, decoded.index, decoded.glimpse


def roll_out(
    model: CaptionModel,
    batch: Any,
    *,
    rows: int,
    length: int,
    start: int | Tensor,
    choose: Callable[[int, Tensor], Tensor],
    stop: Callable[[], bool] | None = None,
    real: Tensor | None = None,
) -> tuple[Tensor, Tensor, Glimpse]:
    """Loop over the model's `step`; `choose` selects each next word, and gradients flow through the logits.

    Args:
        model: A `CaptionModel`.
        batch: A `CaptionBatch`, of which only the images are used.
        rows: K, the number of captions per image.
        length: T, the greatest number of steps.
        start: First input, an id or [B, K].
        choose: (t, logits [B, K, V]) -> the word of step t, [B, K], which is the next input.
        stop: () -> whether to end early; None: never.
        real: [B, K, T] bool; the glimpses elsewhere are zero. None: True if the chosen word is not padding.

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
    words = torch.stack(tokens, 2)
    real = words != model.pad if real is None else real
    return words, torch.stack(logits, 2), stack_glimpses(seen, real)


def draw_ids(probabilities: Tensor) -> Tensor:
    """Sample one id per row of [B, K, V], with torch's global generator: -> [B, K]. Rows need not sum to one.

    This is an exponential race, like torch.multinomial, and gives the same samples on a CPU. torch.multinomial checks
    its result before it returns, so a GPU would have to be waited for.
    """
    return (probabilities / torch.empty_like(probabilities).exponential_()).argmax(-1)
