"""Beam search; greedy search is a beam of one."""

from collections.abc import Callable

import torch
from torch import Tensor

from captioning.decoding.hypothesis import Hypothesis, Trail, device_of
from captioning.errors import ConfigError


def greedy_search(
    step: Callable, state, *, batch: int, start: int, end: int, forbidden: tuple[int, ...] = (), max_length: int = 20
) -> list[list[Hypothesis]]:
    """The most probable word at every step: beam search of width one."""
    return beam_search(
        step, state, batch=batch, start=start, end=end, forbidden=forbidden, max_length=max_length, beam_size=1
    )


@torch.inference_mode()
def beam_search(
    step: Callable,
    state,
    *,
    batch: int,
    start: int,
    end: int,
    forbidden: tuple[int, ...] = (),
    max_length: int = 20,
    beam_size: int = 3,
    n_best: int = 1,
    length_normalization: float = 0.0,
) -> list[list[Hypothesis]]:
    """Beam search, batched over images and beams.

    A beam that writes <end> is retired and takes its place in the beam with it; the search for an image ends when no
    live beam can overtake its `n_best` finished ones, or all are finished. Unfinished captions are returned only for
    an image where nothing finished.

    Args:
        step, state: see the package; `state` holds one row an image.
        batch: B.
        start, end: token ids.
        forbidden: ids that are never written (<pad>, <start>, <unk>).
        max_length: tokens at the most, <end> included.
        beam_size: K.
        n_best: hypotheses returned an image, best first (fewer where fewer exist).
        length_normalization: exponent of the length (with <end>) that divides the log-probability; 0 ranks by
            probability, 1 by the average log-probability of a token.

    Returns:
        For each image its hypotheses, best score first.
    """
    if not 1 <= n_best <= beam_size:
        raise ConfigError(f"decoding.n_best ({n_best}) must be between 1 and decoding.beam_size ({beam_size})")
    if max_length < 1 or length_normalization < 0:
        raise ConfigError(
            f"decoding.max_length ({max_length}) must be at least 1, and decoding.length_normalization "
            f"({length_normalization}) must not be negative"
        )
    search = _Search(batch, beam_size, n_best=n_best, exponent=length_normalization, max_length=max_length)
    device = device_of(state)
    token = torch.full((batch, 1), start, device=device)
    live = torch.zeros(batch, 1, device=device)  # log-probabilities of the live rows; -inf: no row
    for t in range(max_length):
        logits, state, glimpse = step(token, state)
        log_probs = _log_probs(logits, forbidden)
        live, token, parents = search.extend(live, log_probs, glimpse, end=end, t=t)
        live = search.prune(live)
        if live.isneginf().all():  # the one transfer from the device a step
            break
        state = state.select(parents)
    return search.hypotheses(live)


class _Search:
    """The books of one beam search: traces by step, and the finished rows."""

    def __init__(self, batch: int, beams: int, *, n_best: int, exponent: float, max_length: int):
        self.batch, self.beams, self.n_best = batch, beams, n_best
        self.exponent, self.max_length = exponent, max_length
        self.trail = Trail()
        self.ended: list[Tensor] = []  # by step: [B, K] log-probability of the rows that ended there, else -inf
        self.room = None  # [B] rows an image may still keep alive
        self.best = None  # [B, n_best] best finished scores so far, descending

    def extend(self, live: Tensor, log_probs: Tensor, glimpse, *, end: int, t: int):
        """Takes the best continuations and retires those that end. Returns live log-probs, tokens, parents [B, K]."""
        batch, rows, vocabulary = log_probs.shape
        if self.room is None:
            self.room = live.new_full((batch,), self.beams, dtype=torch.int64)
            self.best = live.new_full((batch, self.n_best), -torch.inf)
        total = (live[..., None] + log_probs).flatten(1)
        log_prob, flat = total.topk(min(self.beams, rows * vocabulary), dim=1)
        ranks = torch.arange(log_prob.shape[1], device=live.device)
        log_prob = log_prob.masked_fill(ranks >= self.room[:, None], -torch.inf)
        parents, tokens = flat // vocabulary, flat % vocabulary
        ends = (tokens == end) & log_prob.isfinite()
        self.trail.add(tokens, parents, glimpse)
        self.ended.append(log_prob.masked_fill(~ends, -torch.inf))
        self.room = self.room - ends.sum(1)
        self.best = torch.cat((self.best, self._score(self.ended[-1], t + 1)), 1).topk(self.n_best, dim=1).values
        return log_prob.masked_fill(ends, -torch.inf), tokens, parents

    def prune(self, live: Tensor) -> Tensor:
        """Ends the rows that can no longer enter their image's n best: [B, K] -> [B, K], -inf where ended."""
        # A log-probability only falls, so the best that a row can reach has today's sum and the longest length.
        hopeless = self._score(live, self.max_length) <= self.best[:, -1:]
        return live.masked_fill(hopeless, -torch.inf)

    def hypotheses(self, live: Tensor) -> list[list[Hypothesis]]:
        """The n best finished rows of each image; live ones where none finished."""
        columns = self.ended + [live]  # live rows: they ran into max_length at the last step
        width = max(column.shape[1] for column in columns)
        log_probs = torch.stack([_widen(column, width) for column in columns], 1)  # [B, steps + 1, K]
        lengths = torch.arange(1, len(columns) + 1, device=live.device).clamp(max=len(self.ended))
        scores = self._score(log_probs, lengths[:, None].to(log_probs.dtype))
        unfinished = torch.zeros_like(scores, dtype=torch.bool)
        unfinished[:, -1] = log_probs[:, :-1].isfinite().flatten(1).any(1)[:, None]
        scores = scores.masked_fill(unfinished, -torch.inf).flatten(1)
        score, flat = scores.topk(min(self.n_best, scores.shape[1]), dim=1)
        log_prob = log_probs.flatten(1).gather(1, flat)
        return self.trail.hypotheses(flat % width, lengths[flat // width], log_prob=log_prob, score=score)

    def _score(self, log_prob: Tensor, length) -> Tensor:
        return log_prob / length**self.exponent


def _log_probs(logits: Tensor, forbidden: tuple[int, ...]) -> Tensor:
    """log softmax over the vocabulary; forbidden ids get -inf, the others keep the model's own probabilities."""
    log_probs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    if forbidden:
        log_probs[..., list(forbidden)] = -torch.inf
    return log_probs


def _widen(column: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(column, (0, width - column.shape[1]), value=-torch.inf)
