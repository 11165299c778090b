"""Compute cross-entropy over a large vocabulary for a few words at a time, with a backward pass of its own."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CACHED = 2**22  # logits that a CPU computes at once: more do not fit its caches, fewer make the products small
HELD = 2**26  # logits that a GPU computes at once


class SoftTargets(NamedTuple):
    """A teacher's distributions of N words.

    Attributes:
        ids: Ids of the W most likely words, [N, W] int64.
        shares: The share of the target that each of them gets, [N, W]; 0 for words without a teacher's distribution.
    """

    ids: Tensor
    shares: Tensor


def chunked_cross_entropy(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    soft_targets: SoftTargets | None = None,
    *,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Compute `word_loss.word_loss_equation` of the logits W f + b, without [N, V] in memory.

    Numbers and gradients are the same.

    Args:
        features: f [N, F].
        weight: W [V, F].
        bias: b [V], or None.
        targets: Ids y [N].
        soft_targets: A teacher's distributions, or None.
        label_smoothing: ε.

    Returns:
        The loss, summed over the N words, and the loss of each word without gradient, [N].
    """
    return _Words.apply(features, weight, bias, targets, soft_targets, label_smoothing, torch.is_grad_enabled())


class _Words(torch.autograd.Function):
    """The loss of logits W f + b; its gradient by the logits is softmax − the target's distribution."""

    @staticmethod
    def forward(
        context,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        soft_targets: SoftTargets | None,
        smoothing: float,
        learning: bool,
    ):
        vocabulary, wanted = len(weight), learning and any(context.needs_input_grad)
        of_features, of_weight, of_bias = (
            torch.zeros_like(part) if wanted and part is not None else None for part in (features, weight, bias)
        )
        most = max(1, (_CACHED if features.device.type == "cpu" else HELD) // vocabulary)
        at_once = max(1, -(-len(targets) // max(1, -(-len(targets) // most))))  # parts of equal size
        total: list[Tensor] = []
        of_words: list[Tensor] = []
        for rows in range(0, len(targets), at_once):
            part, ids = features[rows : rows + at_once], targets[rows : rows + at_once, None]
            scores = wide(_logits(part, weight, bias))
            scores -= scores.amax(-1, keepdim=True)
            own: Tensor = scores.gather(-1, ids)
            even: Tensor | float = scores.mean(-1, keepdim=True) if smoothing else 0.0
            soft_target: SoftTargets | None = None
            left: Tensor | float = 1.0
            taught: Tensor | float = 0.0
            if soft_targets is not None:
                soft_target = SoftTargets(*(values[rows : rows + at_once] for values in soft_targets))
                soft_target = soft_target._replace(shares=soft_target.shares.to(scores.dtype))
                left = 1 - soft_target.shares.sum(-1, keepdim=True)
                taught = (scores.gather(-1, soft_target.ids) * soft_target.shares).sum(-1, keepdim=True)
            normalizer = scores.exp_().sum(-1, keepdim=True)
            of_words.append(normalizer.log() - left * ((1 - smoothing) * own + smoothing * even) - taught)
            total.append(of_words[-1].sum())
            if wanted:
                outer = scores.div_(normalizer).scatter_add_(-1, ids, torch.full_like(own, smoothing - 1) * left)
                outer = outer.sub_(left * (smoothing / vocabulary)) if smoothing else outer
                outer = (outer.scatter_add_(-1, soft_target.ids, -soft_target.shares) if soft_target else outer).to(
                    part.dtype
                )
                assert of_features is not None and of_weight is not None
                torch.mm(outer, weight, out=of_features[rows : rows + at_once])
                torch.addmm(of_weight, outer.T, part, out=of_weight)
                if of_bias is not None:
                    of_bias += outer.sum(0)
            del scores  # free the memory before the next ones are computed
        if wanted:
            context.save_for_backward(of_features, of_weight, of_bias)
        losses = torch.cat(of_words).squeeze(-1) if of_words else wide(features.new_zeros(0))
        context.mark_non_differentiable(losses)
        return (torch.stack(total).sum() if total else losses.sum()), losses

    @staticmethod
    @once_differentiable
    def backward(context, outer: Tensor, _):
        parts = (None if part is None else (part * outer).to(part.dtype) for part in context.saved_tensors)
        return *parts, None, None, None, None


def _logits(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute W f + b [n, V] as the transpose of a product [V, n], which is up to 1.5 times as fast on some CPUs."""
    return (weight @ features.T if bias is None else torch.addmm(bias[:, None], weight, features.T)).T


def wide(logits: Tensor) -> Tensor:
    """Convert to at least float32: half precision is too coarse for sums over a vocabulary."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
