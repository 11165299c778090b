"""Sample captions from the model's distribution, or from its most probable words (top-k, nucleus)."""

from collections.abc import Callable

import torch
from torch import Tensor

from captioning.decoding.constraints import ConstraintState, Rules, takes_rules
from captioning.decoding.hypothesis import Backpointers, Hypothesis, device_of, looks, normalized
from captioning.errors import ConfigError


@takes_rules
@torch.inference_mode()
def sample(
    step: Callable,
    state,
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
    """Draws captions word by word, `samples` an image, independently of one another.

    A word is drawn from softmax(log p / temperature), of the `top_k` most probable words, of the fewest of those
    whose probabilities reach `top_p` (the nucleus of Holtzman et al. 2020); what a rule takes out is out beforehand.
    A caption that the rules leave without a word stops there, unfinished.

    Args:
        step, state: see the package; `state` holds one row an image.
        batch, start, end, forbidden, rules: as in `beam_search`.
        samples: captions an image; they share its features, and its first step.
        temperature: below 1 sharpens, above 1 flattens; log_prob stays the model's own.
        top_k, top_p: None takes all words.
        generator: of the uniform numbers, one a word, drawn on its device; None draws from torch's global one.
        seed: makes a new generator for this call, in the place of `generator`.

    Returns:
        For each image its captions in the order drawn.
    """
    _check(samples=samples, temperature=temperature, top_k=top_k, top_p=top_p)
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
    device = device_of(state)
    referee = ConstraintState(rules, forbidden=forbidden, end=end, batch=batch, device=device)
    rows = torch.arange(samples, device=device).expand(batch, -1)
    trail, done = Backpointers(), torch.zeros_like(rows, dtype=torch.bool)
    lengths, total = torch.zeros_like(rows), 0.0
    token, parents = torch.full((batch, 1), start, device=device), torch.zeros_like(rows)
    for t in range(rules.max_length):
        logits, state, glimpse = step(token, state)
        log_probs = normalized(logits)
        referee.rule_out(log_probs)
        done = done | (log_probs.amax(-1) == -torch.inf)
        log_probs[..., end].masked_fill_(done[:, : log_probs.shape[1]], 0.0)  # drawn, but not part of the caption
        # At the first step one row an image, from which all its samples are drawn.
        log_probs = log_probs.expand(-1, samples, -1)
        token = draw_tokens(log_probs, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
        total = total + log_probs.gather(-1, token[..., None]).squeeze(-1).masked_fill(done, 0.0)
        lengths = lengths + ~done
        trail.add(token, parents, *looks(glimpse))
        done = done | (token == end)
        if t + 1 == rules.max_length or bool(done.all()):  # the one transfer from the device a step
            break
        referee.advance(parents, token)
        if t == 0:
            state = state.select(parents)
        parents = rows
    score = rules.score(total, lengths.clamp(min=1))
    return trail.hypotheses(rows, lengths, log_prob=total, score=score)


def draw_tokens(
    log_probs: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One id a row of log_probs [B, K, V] (-inf: never) -> [B, K], by inverting the distribution function."""
    values, ids = log_probs, None
    if top_k is not None or top_p is not None:
        values, ids = log_probs.topk(min(top_k or log_probs.shape[-1], log_probs.shape[-1]), dim=-1)  # descending
    probabilities = (values.double() / temperature).softmax(-1)
    cumulative = probabilities.cumsum(-1)
    if top_p is not None:
        # A word is out where the words before it reach top_p already; the first word never is.
        probabilities = probabilities.masked_fill(cumulative - probabilities >= top_p, 0.0)
        cumulative = probabilities.cumsum(-1)
    noise_device = log_probs.device if generator is None else generator.device
    uniform = torch.rand(*log_probs.shape[:2], 1, dtype=torch.float64, generator=generator, device=noise_device)
    # The first word whose sum exceeds it has probability; at most 1 - 2^-53, the product stays below the last sum.
    index = torch.searchsorted(cumulative, uniform.to(log_probs.device) * cumulative[..., -1:], right=True)
    return (index if ids is None else ids.gather(-1, index)).squeeze(-1)


def _check(*, samples: int, temperature: float, top_k: int | None, top_p: float | None) -> None:
    if samples < 1:
        raise ConfigError(f"decoding.samples ({samples}) must be at least 1")
    if not 1e-6 <= temperature <= 1e6:
        raise ConfigError(
            f"decoding.temperature ({temperature}) must be between 1e-6 and 1e6: towards 0 it is decoding=greedy"
        )
    if top_k is not None and top_k < 1:
        raise ConfigError(f"decoding.top_k ({top_k}) must be at least 1, or null for all words")
    if top_p is not None and not 0 < top_p <= 1:
        raise ConfigError(f"decoding.top_p ({top_p}) must lie above 0 and not above 1, or be null for all words")
