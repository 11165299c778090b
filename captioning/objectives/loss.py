"""What an objective returns, and what objectives share: teacher forcing, and a loop over `step` of their own."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from captioning.models.ops.products import mixed

CACHED = 2**22  # scores that a CPU makes at once: more no longer fit its caches, with fewer the products are small
HELD = 2**26  # scores that a GPU makes at once


class Loss(NamedTuple):
    """total: scalar to differentiate. parts: its terms by name, detached; they add up to it. words: real words in the
    batch. stats: what else is worth a curve, by name."""

    total: Tensor
    parts: dict[str, Tensor]
    words: Tensor
    stats: dict[str, Tensor]


class Lessons(NamedTuple):
    """What a teacher says of N words: ids [N, W] int64 of the words that it thinks likely, and what share of the target
    each has, [N, W]; the shares of a word of which it says nothing are 0."""

    ids: Tensor
    shares: Tensor


class WordLoss(nn.Module):
    """−Σ log p(y_n) over words, in float32 at the least.

    From scores that are not made yet it makes a few words' at a time, and their gradient at once: no more of [N, V] is
    ever held. What is kept for the backward pass is as large as what the output layer takes, and its matrix.

    Args:
        label_smoothing: probability mass spread evenly over the vocabulary (Szegedy et al. 2016).
    """

    def __init__(self, *, label_smoothing: float = 0.0):
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, scores, targets: Tensor, lessons: Lessons | None = None) -> tuple[Tensor, Tensor]:
        """The loss, and each word's log p(y_n) without smoothing, lessons and gradient, [N].

        Args:
            scores: logits [N, V], or models.readout.Scores of them.
            targets: y [N], ids.
            lessons: take their shares from the target's distribution, and give them to the words that they name; what
                is left goes to y and to smoothing.
        """
        if isinstance(scores, Tensor):
            log_probs = wide(scores).log_softmax(-1)
            of_words = log_probs.gather(-1, targets[:, None]).squeeze(-1)
            wanted = (
                torch.lerp(of_words, log_probs.mean(-1), self.label_smoothing) if self.label_smoothing else of_words
            )
            if lessons is not None:
                shares = lessons.shares.to(log_probs.dtype)
                wanted = (1 - shares.sum(-1)) * wanted + (log_probs.gather(-1, lessons.ids) * shares).sum(-1)
            return -wanted.sum(), of_words.detach()
        parts = (scores.features, scores.output.weight, scores.output.bias)
        device = scores.features.device.type
        parts = [part if part is None else part.to(mixed(device, part.dtype)) for part in parts]
        return _Words.apply(*parts, targets, lessons, self.label_smoothing, torch.is_grad_enabled())


class _Words(torch.autograd.Function):
    """Of logits W f + b; the gradient of the loss by them is softmax − the target's distribution."""

    @staticmethod
    def forward(
        context,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        lessons: Lessons | None,
        smoothing: float,
        learning: bool,
    ):
        vocabulary, wanted = len(weight), learning and any(context.needs_input_grad)
        of_features, of_weight, of_bias = (
            torch.zeros_like(part) if wanted and part is not None else None for part in (features, weight, bias)
        )
        at_once = max(1, (CACHED if features.device.type == "cpu" else HELD) // vocabulary)
        total, log_probs = [], []
        for rows in range(0, len(targets), at_once):
            part, ids = features[rows : rows + at_once], targets[rows : rows + at_once, None]
            scores = wide(F.linear(part, weight, bias))
            scores -= scores.amax(-1, keepdim=True)
            own, even = scores.gather(-1, ids), scores.mean(-1, keepdim=True) if smoothing else 0.0
            lesson, left, taught = None, 1.0, 0.0
            if lessons is not None:
                lesson = Lessons(*(values[rows : rows + at_once] for values in lessons))
                lesson = lesson._replace(shares=lesson.shares.to(scores.dtype))
                left = 1 - lesson.shares.sum(-1, keepdim=True)
                taught = (scores.gather(-1, lesson.ids) * lesson.shares).sum(-1, keepdim=True)
            normalizer = scores.exp_().sum(-1, keepdim=True)
            log_probs.append(own - normalizer.log())
            total.append((normalizer.log() - left * ((1 - smoothing) * own + smoothing * even) - taught).sum())
            if wanted:
                outer = scores.div_(normalizer).scatter_add_(-1, ids, torch.full_like(own, smoothing - 1) * left)
                outer = outer.sub_(left * (smoothing / vocabulary)) if smoothing else outer
                outer = (outer.scatter_add_(-1, lesson.ids, -lesson.shares) if lesson else outer).to(part.dtype)
                torch.mm(outer, weight, out=of_features[rows : rows + at_once])
                torch.addmm(of_weight, outer.T, part, out=of_weight)
                if of_bias is not None:
                    of_bias += outer.sum(0)
            del scores  # before the next are made
        if wanted:
            context.save_for_backward(of_features, of_weight, of_bias)
        log_probs = torch.cat(log_probs).squeeze(-1) if log_probs else wide(features.new_zeros(0))
        context.mark_non_differentiable(log_probs)
        return (torch.stack(total).sum() if total else log_probs.sum()), log_probs

    @staticmethod
    @once_differentiable
    def backward(context, outer: Tensor, _):
        parts = (None if part is None else (part * outer).to(part.dtype) for part in context.saved_tensors)
        return *parts, None, None, None, None


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
    """Scores at the N real words, their index, and the glimpses: `Captioner.forward` on a batch."""
    decoded = model(batch.images, batch.tokens, batch.mask)
    return decoded.scores, decoded.index, decoded.glimpse


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
