"""Compute cross-entropy over a large vocabulary a few words at a time, with an own backward pass."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_CACHED = 2**22  # scores that a CPU makes at once: more no longer fit its caches, with fewer the products are small
HELD = 2**26  # scores that a GPU makes at once


class SoftTargets(NamedTuple):
    """What a teacher says of N words: ids [N, W] int64 of the words that it thinks likely, and what share of the target
    each has, [N, W]; the shares of a word of which it says nothing are 0."""

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
    """`word_loss.word_loss_equation` of the logits W f + b: the same numbers and gradients, without [N, V] in memory.

    Args:
        features: f [N, F]. weight, bias: W [V, F] and b [V] (or None).
        targets, soft_targets, label_smoothing: as there.
    """
    return _Words.apply(features, weight, bias, targets, soft_targets, label_smoothing, torch.is_grad_enabled())


class _Words(torch.autograd.Function):
    """Of logits W f + b; the gradient of the loss by them is softmax − the target's distribution."""

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
        at_once = max(1, (_CACHED if features.device.type == "cpu" else HELD) // vocabulary)
        total, of_words = [], []
        for rows in range(0, len(targets), at_once):
            part, ids = features[rows : rows + at_once], targets[rows : rows + at_once, None]
            scores = wide(F.linear(part, weight, bias))
            scores -= scores.amax(-1, keepdim=True)
            own, even = scores.gather(-1, ids), scores.mean(-1, keepdim=True) if smoothing else 0.0
            soft_target, left, taught = None, 1.0, 0.0
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
                torch.mm(outer, weight, out=of_features[rows : rows + at_once])
                torch.addmm(of_weight, outer.T, part, out=of_weight)
                if of_bias is not None:
                    of_bias += outer.sum(0)
            del scores  # before the next are made
        if wanted:
            context.save_for_backward(of_features, of_weight, of_bias)
        of_words = torch.cat(of_words).squeeze(-1) if of_words else wide(features.new_zeros(0))
        context.mark_non_differentiable(of_words)
        return (torch.stack(total).sum() if total else of_words.sum()), of_words

    @staticmethod
    @once_differentiable
    def backward(context, outer: Tensor, _):
        parts = (None if part is None else (part * outer).to(part.dtype) for part in context.saved_tensors)
        return *parts, None, None, None, None


def wide(logits: Tensor) -> Tensor:
    """At least float32: sums over a vocabulary in half precision lose words."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
