"""What an objective returns, and what objectives share: teacher forcing, and a loop over `step` of their own."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn


class Loss(NamedTuple):
    """total: scalar to differentiate. parts: its terms by name, detached; they add up to it. words: real words in the
    batch. stats: what else is worth a curve, by name."""

    total: Tensor
    parts: dict[str, Tensor]
    words: Tensor
    stats: dict[str, Tensor]


class WordLoss(nn.CrossEntropyLoss):
    """−Σ log p(y_n) over words, from logits [N, V] and ids [N], in float32 at the least.

    Args:
        label_smoothing: probability mass spread evenly over the vocabulary (Szegedy et al. 2016).
    """

    def __init__(self, *, label_smoothing: float = 0.0):
        super().__init__(reduction="sum", label_smoothing=label_smoothing)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return super().forward(wide(logits), targets)


def make_loss(parts: dict[str, Tensor], words: Tensor, stats: dict[str, Tensor]) -> Loss:
    total = torch.stack(list(parts.values())).sum()
    return Loss(total, {name: part.detach() for name, part in parts.items()}, words, stats)


def per_caption(captions: Tensor, *, training: bool) -> Tensor:
    """What sums over a batch's captions are divided by: how many of `captions` [B, K] bool there are, at least 1.

    Of several processes that train together it is their mean count: the mean of their gradients, which they go on
    with, is then that of one process with the whole batch, however unevenly the captions are spread over them. In
    validation, where one may have a batch more than another, nobody waits, and the count is the process's own.
    """
    count = captions.sum()
    if not (training and distributed.is_available() and distributed.is_initialized()):
        return count.clamp(min=1)  # a batch of pictures without a word to learn has a loss of 0
    distributed.all_reduce(count)
    return count.clamp(min=1) / distributed.get_world_size()


def teacher_force(model, batch):
    """Logits [N, V] at the real words, their index, and the glimpses: `Captioner.forward` on a batch."""
    decoded = model(batch.images, batch.tokens, batch.mask)
    return decoded.logits, decoded.index, decoded.glimpse


def roll_out(model, batch, *, rows: int, length: int, start: int | Tensor, choose: Callable, stop=None, real=None):
    """A loop over the model's `step` in which `choose` picks each next word; gradients flow through the logits.

    Args:
        model, batch: Captioner and CaptionBatch (of which the images are used).
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
    real = tokens != model.decoder.pad if real is None else real
    fields = [None if parts[0] is None else torch.stack(parts, 2) for parts in zip(*seen, strict=True)]
    fields = [part if part is None else part * real.view(real.shape + (1,) * (part.dim() - 3)) for part in fields]
    return tokens, torch.stack(logits, 2), type(out.glimpse)(*fields)


def draw(probabilities: Tensor) -> Tensor:
    """One id a row of [B, K, V], from torch's global generator -> [B, K]. Rows need not sum to one.

    An exponential race, as in torch.multinomial, whose draws these are on a CPU; it looks at its result before it
    returns, for which a GPU must be waited for.
    """
    return (probabilities / torch.empty_like(probabilities).exponential_()).argmax(-1)


def wide(logits: Tensor) -> Tensor:
    """At least float32: sums over a vocabulary in half precision lose words."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
