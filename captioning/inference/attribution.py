"""Attribute each word of a caption to grid locations by gradients: a second view beside the attention weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

from captioning.decoding import Hypothesis
from captioning.errors import CheckpointError
from captioning.models import CaptionModel


def with_gradient_maps(
    captioner: CaptionModel, features: Tensor, found: Sequence[Hypothesis], *, start: int
) -> list[Hypothesis]:
    """Replace the attention weights of one caption per image by maps of gradient × input, whose rows sum to 1.

    Args:
        captioner: see `gradient_times_input`.
        features: see `gradient_times_input`.
        found: one caption per image.
        start: id of `<start>`.
    """
    contributions = gradient_times_input(captioner, features, [each.tokens for each in found], start=start)
    return [
        each._replace(weights=as_map(part).cpu(), places=None) for each, part in zip(found, contributions, strict=True)
    ]


def gradient_times_input(
    captioner: CaptionModel,
    features: Tensor,
    tokens: Sequence[Sequence[int]],
    *,
    start: int,
    mask: Tensor | None = None,
) -> list[Tensor]:
    """Compute how much each grid location contributes to each word of a caption, as gradient × input.

    The contribution of location l to word t is Σ_d a_ld · ∂ log p(w_t | w_<t, a) / ∂a_ld, where a [L, D'] is the grid
    that the decoder reads (Shrikumar et al. 2017, *Learning important features through propagating activation
    differences*, section 2). It follows every path from the grid to the word: attention, its scores, the image vector
    and the states of earlier steps. So it exists without attention too. If log p were linear in a, it would be the
    exact contribution; otherwise it is a first-order approximation.

    Args:
        captioner: a model in eval mode that implements both halves of `begin`.
        features: [B, L, D], as its encoder computes them (with V crops, [B, V, L, D]).
        tokens: ids of the words of each image's caption, without `<start>`.
        start: id of `<start>`.
        mask: [B, L] bool, True at real locations; None if all are.

    Returns:
        The contributions [T, L] of each image, in nats; they may be negative.

    Raises:
        CheckpointError: the features are one vector per image, so there are no locations.
    """
    longest = max(map(len, tokens), default=0)
    table = torch.full((len(tokens), 1, 1 + longest), captioner.pad)
    table[:, :, 0] = start
    for image, line in enumerate(tokens):
        table[image, 0, 1 : 1 + len(line)] = torch.tensor(line, dtype=torch.long)
    with torch.inference_mode(False), torch.enable_grad():
        grid, mask = captioner.encode(features.clone(), mask)
        if grid.shape[1] < 2:
            raise CheckpointError(
                "map=gradient_input compares locations, but the encoder computes one vector per image. Use a "
                "checkpoint whose encoder computes a grid"
            )
        grid = grid.detach().requires_grad_()
        state, memory = captioner.begin_from(grid, mask)
        decoded = captioner.teacher_force(table.to(grid.device), state, memory)
        targets = table[..., 1:].flatten().to(decoded.index.device)[decoded.index]
        scores = decoded.logits.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
        step = decoded.index % max(longest, 1)
        found = grid.new_zeros(len(tokens), longest, grid.shape[1])
        for t in range(longest):  # images are independent, so one backward pass per step serves the batch
            (gradient,) = torch.autograd.grad(scores[step == t].sum(), grid, retain_graph=True)
            found[:, t] = (gradient * grid.detach()).sum(-1)
    return [found[image, : len(line)].detach() for image, line in enumerate(tokens)]


def as_map(contributions: Tensor) -> Tensor:
    """Turn contributions [T, L] into maps whose rows sum to 1: the positive parts, or uniform if there are none."""
    positive = contributions.clamp_min(0)
    total = positive.sum(-1, keepdim=True)
    return torch.where(total > 0, positive / total.clamp_min(torch.finfo(total.dtype).tiny), 1 / positive.shape[-1])
