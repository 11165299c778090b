"""Sample captions from the model's distribution, or from its most probable words (top-k, nucleus)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captioning.decoding.constraints import ConstraintState, Rules, takes_rules
from captioning.decoding.hypothesis import Backpointers, Hypothesis, device_of, looks, normalized
from captioning.errors import ConfigError


@takes_rules
@torch.inference_mode()
def sample(
    step: Callable,
    state: Any,
    *,
    batch: int,
    start: int,
    end: int,
    forbidden: tuple[int, ...] = (),
    samples: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    rules: Rules,
) -> list[list[Hypothesis]]:
    """Sample captions word by word, `samples` per image, independently of one another.

    A word is sampled from softmax(log p / temperature), restricted to the `top_k` most probable words, and to the
    smallest set of those whose probabilities add up to `top_p` (nucleus sampling, Holtzman et al. 2020). Words excluded
    by a rule are excluded before that, and the bonus of a `WordGroup` is added to log p. If the rules leave no word, a
    caption ends there, unfinished.

    Args:
        step: (token [B, K], state) -> (logits [B, K, V], state, glimpse), see `captioning.decoding`.
        state: State before `<start>`, one row per image.
        batch: B.
        start: Id of `<start>`.
        end: Id of `<end>`.
        forbidden: Ids that are never generated (`<pad>`, `<start>`, `<unk>`), except those in `Rules.allow`.
        samples: Number of captions per image; they share the image's features and its first step.
        temperature: Below 1 sharpens the distribution, above 1 flattens it; log_prob is always that of the model.
        top_k: Number of most probable words; None: all words.
        top_p: Probability of the nucleus; None: all words.
        generator: Generator of the uniform numbers, one per word, sampled on its device; None: torch's global
            generator.
        seed: Seed of a new generator for this call, instead of `generator`.
        rules: All arguments of `Rules` are keyword arguments of this function.

    Returns:
        One list of captions per image, in the order in which they were sampled.

    Raises:
        ConfigError: An argument is out of range.
    """
    _check(samples=samples, temperature=temperature, top_k=top_k, top_p=top_p)
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
    device = device_of(state)
    referee = ConstraintState(rules, forbidden=forbidden, end=end, batch=batch, device=device)
    rows = torch.arange(samples, device=device).expand(batch, -1)
    trail, done = Backpointers(), torch.zeros_like(rows, dtype=torch.bool)
    lengths, total = torch.zeros_like(rows), torch.zeros_like(rows, dtype=torch.float32)
    token, parents = torch.full((batch, 1), start, device=device), torch.zeros_like(rows)
    for t in range(rules.limit):
        logits, state, glimpse = step(token, state)
        log_probs = normalized(logits)
        referee.rule_out(log_probs)
        done = done | (log_probs.amax(-1) == -torch.inf)
        log_probs[..., end].masked_fill_(done[:, : log_probs.shape[1]], 0.0)  # sampled, but not part of the caption
        # At the first step there is one row per image, which all its samples share.
        log_probs = log_probs.expand(-1, samples, -1)
        token = draw_tokens(log_probs, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
        total = total + log_probs.gather(-1, token[..., None]).squeeze(-1).masked_fill(done, 0.0)
        lengths = lengths + ~done
        trail.add(token, parents, *looks(glimpse))
        done = done | (token == end)
        if t + 1 == rules.limit or bool(done.all()):  # the only transfer from the device per step
            break
        referee.advance(parents, token)
        if t == 0:
            state = state.select(parents)
        parents = rows
    score = rules.score(total, lengths.clamp(min=1))
    return referee.honest(trail.hypotheses(rows, lengths, log_prob=total, score=score))


def draw_tokens(
    log_probs: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample one id per row by inverting the cumulative distribution.

    Args:
        log_probs: [B, K, V]; words with -inf are never sampled.
        temperature: As in `sample`.
        top_k: As in `sample`.
        top_p: As in `sample`.
        generator: As in `sample`.

    Returns:
        Ids [B, K].
    """
    values, ids = log_probs, None
    if top_k is not None or top_p is not None:
        values, ids = log_probs.topk(min(top_k or log_probs.shape[-1], log_probs.shape[-1]), dim=-1)  # descending
    probabilities = (values.double() / temperature).softmax(-1)
    cumulative = probabilities.cumsum(-1)
    if top_p is not None:
        # A word is excluded if the words before it already reach top_p; the first word never is.
        probabilities = probabilities.masked_fill(cumulative - probabilities >= top_p, 0.0)
        cumulative = probabilities.cumsum(-1)
    noise_device = log_probs.device if generator is None else generator.device
    uniform = torch.rand(*log_probs.shape[:2], 1, dtype=torch.float64, generator=generator, device=noise_device)
    # The first word whose sum exceeds the product has a positive probability. `uniform` is at most 1 - 2^-53, so the
    # product is below the last sum.
    index = torch.searchsorted(cumulative, uniform.to(log_probs.device) * cumulative[..., -1:], right=True)
    return (index if ids is None else ids.gather(-1, index)).squeeze(-1)


def _check(*, samples: int, temperature: float, top_k: int | None, top_p: float | None) -> None:
    if samples < 1:
        raise ConfigError(f"decoding.samples ({samples}) must be at least 1")
    if not 1e-6 <= temperature <= 1e6:
        raise ConfigError(
            f"decoding.temperature ({temperature}) must be between 1e-6 and 1e6. At 0 it is decoding=greedy"
        )
    if top_k is not None and top_k < 1:
        raise ConfigError(f"decoding.top_k ({top_k}) must be at least 1, or null for all words")
    if top_p is not None and not 0 < top_p <= 1:
        raise ConfigError(f"decoding.top_p ({top_p}) must be above 0 and at most 1, or null for all words")
