"""Compute other maps of the words of a caption: by gradients, and of single layers and heads.

| Name                 | Map of word t                                                                              |
|----------------------|--------------------------------------------------------------------------------------------|
| `attention`          | the weights of the model's glimpse at step t                                               |
| `gradient_attention` | attention, weighted by the gradient of log p(w_t) (`CaptionModel.gradient_attention`)      |
| `gradient_input`     | the positive part of `gradient_times_input`                                                |
| other names          | summaries, layers and heads of a model with several maps (`CaptionModel.named_maps`)       |
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from captioning.decoding import Hypothesis
from captioning.errors import CheckpointError, ConfigError
from captioning.models import CaptionModel

ATTENTION = "attention"
GRADIENT_ATTENTION = "gradient_attention"
GRADIENT_INPUT = "gradient_input"
BLIND = (
    "{} has no attention, so its weights cannot be compared with objects. Use map=gradient_input, or a checkpoint of a "
    "model with attention"
)


def names_of_maps(captioner: CaptionModel) -> tuple[str, ...]:
    """Return the names of all maps that a model has, for `with_maps`.

    Hard attention has no `gradient_attention`: a word depends only on the location that was chosen.
    """
    attention = (ATTENTION,) if captioner.attends else ()
    weighted = (GRADIENT_ATTENTION,) if captioner.attends and captioner.hard_attention is None else ()
    return (
        *attention,
        *captioner.summaries,
        *weighted,
        GRADIENT_INPUT,
        *captioner.map_names[len(captioner.summaries) :],
    )


def check_maps(names: Sequence[str], predictor: Any) -> None:
    """Refuse maps that a model does not have, before any image is captioned.

    Args:
        names: names of maps.
        predictor: a `Predictor`.

    Raises:
        ConfigError: there is no name, one is listed twice or is no text, or the model has no map of this name.
        CheckpointError: the model has no attention, or hard attention, and the map needs soft attention.
    """
    known, path = predictor.map_names, predictor.path
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"maps are chosen by their names: give one or several, for example [{[*known, ATTENTION][0]!r}]"
        )
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"map=[{','.join(names)}] must list one or several maps, each of them once")
    for name in names:
        if name in known:
            continue
        if name == ATTENTION:
            raise CheckpointError(BLIND.format(path))
        if name == GRADIENT_ATTENTION and GRADIENT_INPUT in known:
            kind = predictor.attention_kind
            raise CheckpointError(
                f"map=gradient_attention needs soft attention, but {path} has {kind} attention. Use map=gradient_input"
            )
        listed = [each for each in known if "_head" not in each]
        more = ", or one head such as layer1_head1" if len(listed) < len(known) else ""
        raise ConfigError(f"map={name} does not exist for {path}. Choose from {', '.join(listed)}{more}")


def with_maps(
    captioner: CaptionModel, features: Tensor, found: Sequence[Hypothesis], names: Sequence[str], *, start: int
) -> dict[str, list[Hypothesis]]:
    """Replace the attention weights of one caption per image by other maps of its words, whose rows sum to 1.

    Args:
        captioner: see `gradient_times_input`.
        features: see `gradient_times_input`.
        found: one caption per image.
        names: some of `names_of_maps`.
        start: id of `<start>`.

    Returns:
        {name: the captions with these maps}; those of "attention" are unchanged.
    """
    tokens, result = [each.tokens for each in found], {}
    several = [name for name in names if name in captioner.map_names]
    table = _table(tokens, start=start, pad=captioner.pad).to(features.device)
    with torch.inference_mode():
        named = captioner.named_maps(features, table, several) if several else {}
    for name in names:
        if name == ATTENTION:
            result[name] = list(found)
            continue
        if name == GRADIENT_INPUT:
            maps = [as_map(part) for part in gradient_times_input(captioner, features, tokens, start=start)]
        elif name == GRADIENT_ATTENTION:
            maps = [as_map(part) for part in gradient_weighted_attention(captioner, features, tokens, start=start)]
        else:
            maps = [rows[0, : len(line)] for rows, line in zip(named[name], tokens, strict=True)]
        result[name] = [each._replace(weights=rows.cpu(), places=None) for each, rows in zip(found, maps, strict=True)]
    return result


def gradient_weighted_attention(
    captioner: CaptionModel, features: Tensor, tokens: Sequence[Sequence[int]], *, start: int
) -> list[Tensor]:
    """Compute the relevance of each grid location to each word of a caption, by gradient-weighted attention.

    See `CaptionModel.gradient_attention`. Chefer, Gur and Wolf 2021, *Generic attention-model explainability for
    interpreting bi-modal and encoder-decoder transformers*.

    Args:
        captioner: a model in eval mode, with attention.
        features: see `gradient_times_input`.
        tokens: see `gradient_times_input`.
        start: id of `<start>`.

    Returns:
        The relevances [T, L] of each image, at least 0 and not normalized.
    """
    with torch.inference_mode(False), torch.enable_grad():
        images = features.clone().requires_grad_()  # gradients exist even if all weights are frozen
        found = captioner.gradient_attention(images, _table(tokens, start=start, pad=captioner.pad).to(images.device))
    return [found[image, 0, : len(line)] for image, line in enumerate(tokens)]


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
    table = _table(tokens, start=start, pad=captioner.pad)
    longest = table.shape[-1] - 1
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


def _table(tokens: Sequence[Sequence[int]], *, start: int, pad: int) -> Tensor:
    """Return one caption per image as ids [B, 1, 1 + T] that begin with `<start>`."""
    table = torch.full((len(tokens), 1, 1 + max(map(len, tokens), default=0)), pad)
    table[:, :, 0] = start
    for image, line in enumerate(tokens):
        table[image, 0, 1 : 1 + len(line)] = torch.tensor(line, dtype=torch.long)
    return table
