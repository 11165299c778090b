"""Search for captions by beam search, diverse beam search and greedy search (a beam of one)."""

from collections.abc import Callable

import torch
from torch import Tensor

from captioning.decoding.constraints import ConstraintState, Rules, takes_rules
from captioning.decoding.hypothesis import Backpointers, Hypothesis, device_of, looks, normalized
from captioning.errors import ConfigError


@takes_rules
def greedy_search(
    step: Callable, state, *, batch: int, start: int, end: int, forbidden: tuple[int, ...] = (), rules: Rules
) -> list[list[Hypothesis]]:
    """The most probable word at every step: beam search of width one."""
    return _search(step, state, [1], batch=batch, start=start, end=end, forbidden=forbidden, n_best=1, rules=rules)


@takes_rules
def beam_search(
    step: Callable,
    state,
    *,
    batch: int,
    start: int,
    end: int,
    forbidden: tuple[int, ...] = (),
    beam_size: int = 3,
    n_best: int = 1,
    rules: Rules,
) -> list[list[Hypothesis]]:
    """Beam search, batched over images and beams.

    A beam that writes <end> is retired and takes its place in the beam with it; the search for an image ends when no
    live beam can overtake its `n_best` finished ones, or all are finished. Unfinished captions, cut at the greatest
    length or left without a word by the rules, are returned only for an image where nothing finished.

    Args:
        step, state: see the package; `state` holds one row an image.
        batch: B.
        start, end: token ids.
        forbidden: ids that are never written (<pad>, <start>, <unk>), but for those that the rules allow.
        beam_size: K.
        n_best: hypotheses returned an image, best first (fewer where fewer exist).
        rules: each of `Rules`' arguments is one of this function.

    Returns:
        For each image its hypotheses, best score first.
    """
    check_beams(beam_size, n_best)
    arguments = {"batch": batch, "start": start, "end": end, "forbidden": forbidden, "n_best": n_best, "rules": rules}
    return _search(step, state, [beam_size], **arguments)


@takes_rules
def diverse_beam_search(
    step: Callable,
    state,
    *,
    batch: int,
    start: int,
    end: int,
    forbidden: tuple[int, ...] = (),
    beam_size: int = 6,
    groups: int = 3,
    diversity: float = 0.5,
    n_best: int = 1,
    rules: Rules,
) -> list[list[Hypothesis]]:
    """Diverse beam search with Hamming diversity (Vijayakumar et al. 2016, Algorithm 1 and section 5.1).

    The beam is cut into groups, which choose their words one after another at each step: a group ranks a word y by
    log-probability - λ · (how many beams of the groups before it chose y at this step). The penalty decides what a
    group takes and is not carried along: captions are scored, and the best of all groups ranked, as in beam search.

    Args:
        step, state, batch, start, end, forbidden, rules: as in `beam_search`.
        beam_size: beams of all groups together.
        groups: must divide beam_size; one group is beam search.
        diversity: λ; 0 searches the same beam in every group.
        n_best: hypotheses returned an image, best first; the same caption may come from two groups.
    """
    check_beams(beam_size, n_best)
    if groups < 1 or beam_size % groups:
        raise ConfigError(f"decoding.groups ({groups}) must divide decoding.beam_size ({beam_size})")
    if diversity < 0:
        raise ConfigError(f"decoding.diversity ({diversity}) must not be negative")
    arguments = {"batch": batch, "start": start, "end": end, "forbidden": forbidden, "n_best": n_best, "rules": rules}
    return _search(step, state, [beam_size // groups] * groups, diversity=diversity, **arguments)


def check_beams(beam_size: int, n_best: int) -> None:
    """Refuses widths that cannot be."""
    if not 1 <= n_best <= beam_size:
        raise ConfigError(f"decoding.n_best ({n_best}) must be between 1 and decoding.beam_size ({beam_size})")


@torch.inference_mode()
def _search(
    step: Callable,
    state,
    widths: list[int],
    *,
    batch: int,
    start: int,
    end: int,
    forbidden: tuple[int, ...],
    n_best: int,
    rules: Rules,
    diversity: float = 0.0,
) -> list[list[Hypothesis]]:
    """The one loop over time: groups of beams of equal width side by side, all rows in one call of `step`."""
    device = device_of(state)
    referee = ConstraintState(rules, forbidden=forbidden, end=end, batch=batch, device=device)
    groups = [_Group(width, min(n_best, width), referee=referee) for width in widths]
    token = torch.full((batch, 1), start, device=device)
    for t in range(rules.max_length):
        logits, state, glimpse = step(token, state)
        log_probs = normalized(logits)
        referee.rule_out(log_probs)
        chosen = _choose(groups, log_probs, looks(glimpse), diversity=diversity)
        _end_early(groups)
        token, parents = (torch.cat(part, 1) for part in zip(*chosen, strict=True))
        # The one transfer from the device a step.
        if t + 1 == rules.max_length or bool(torch.stack([group.is_over() for group in groups]).all()):
            break
        referee.advance(parents, token)
        state = state.select(parents)
    found = [group.hypotheses() for group in groups]
    if len(found) == 1:
        return found[0]
    merged = [[hypothesis for part in parts for hypothesis in part] for parts in zip(*found, strict=True)]
    return [_best(hypotheses, n_best, end=end) for hypotheses in merged]


def _choose(groups: list["_Group"], log_probs: Tensor, seen, *, diversity: float) -> list[tuple[Tensor, Tensor]]:
    """Each group's next tokens and parents [B, K], the parents counted over the rows of all groups."""
    rows = log_probs.shape[1] // (1 if groups[0].live is None else len(groups))
    chosen, counts = [], None
    for number, group in enumerate(groups):
        first = 0 if group.live is None else number * rows  # at the first step all groups share one row
        penalty = None if counts is None else diversity * counts
        tokens, parents, lives = group.extend(log_probs, first, rows, seen, penalty=penalty)
        chosen.append((tokens, parents))
        if diversity and number + 1 < len(groups):
            counts = log_probs.new_zeros(len(log_probs), log_probs.shape[-1]) if counts is None else counts
            counts.scatter_add_(1, tokens, lives.to(counts.dtype))
    return chosen


def _end_early(groups: list["_Group"]) -> None:
    """Ends each image in the groups that can find nothing better, from the last group backwards.

    A group that is behind a live one would rank its words otherwise if that one ended, so it must have ended first.
    """
    ended = None
    for group in reversed(groups):
        ended = group.end_early(ended)


def _best(hypotheses: list[Hypothesis], n_best: int, *, end: int) -> list[Hypothesis]:
    """The n best of several groups; unfinished ones where no group finished one."""
    finished = [hypothesis for hypothesis in hypotheses if hypothesis.tokens[-1:] == [end]]
    return sorted(finished or hypotheses, key=lambda hypothesis: -hypothesis.score)[:n_best]


class _Group:
    """The books of one group of beams: its trail, its live rows and the finished ones.

    Attributes:
        live: [B, K] log-probabilities of the live rows, -inf: no row; None before the first step.
    """

    def __init__(self, width: int, n_best: int, *, referee: ConstraintState):
        self.width, self.n_best, self.referee, self.rules = width, n_best, referee, referee.rules
        self.trail, self.live = Backpointers(), None
        self.ended: list[Tensor] = []  # by step: [B, K] log-probability of the rows that ended there, else -inf
        self.stuck: list[Tensor] = []  # by step: [B, K] of the rows before it that the rules left without a word
        self.room = None  # [B] rows an image may still keep alive
        self.best = None  # [B, n_best] best finished scores so far, descending

    def extend(self, log_probs: Tensor, first: int, rows: int, seen, *, penalty: Tensor | None):
        """One step over the group's rows first … first + rows - 1: takes the best continuations, retires the ended.

        Returns tokens, parents (counted over all groups) and which of them were taken, [B, K] each.
        """
        log_probs = log_probs[:, first : first + rows]
        if self.live is None:
            self.live = log_probs.new_zeros(log_probs.shape[:2])
            self.room = torch.full_like(self.live[:, 0], self.width, dtype=torch.int64)
            self.best = log_probs.new_full((len(log_probs), self.n_best), -torch.inf)
        rank, log_prob, tokens, parents = self._candidates(log_probs, penalty)
        index = self._pick(rank, tokens, parents, first)
        log_prob, tokens, parents = (part.gather(1, index) for part in (log_prob, tokens, parents))
        claims = torch.arange(log_prob.shape[1], device=log_prob.device)
        log_prob = log_prob.masked_fill(claims >= self.room[:, None], -torch.inf)
        taken = log_prob.isfinite()
        ends = taken & (tokens == self.referee.end)
        weights, places = (None if part is None else part[:, first : first + rows] for part in seen)
        self.trail.add(tokens, parents, weights, places)
        self.ended.append(log_prob.masked_fill(~ends, -torch.inf))
        self.live = log_prob.masked_fill(ends, -torch.inf)
        self.room = self.room - ends.sum(1)
        scores = self.rules.score(self.ended[-1], len(self.trail))
        self.best = torch.cat((self.best, scores), 1).topk(self.n_best, dim=1).values
        return tokens, parents + first, taken

    def _candidates(self, log_probs: Tensor, penalty: Tensor | None) -> tuple[Tensor, ...]:
        """Continuations that can be among the best: what they rank by, log-probability, token, parent; [B, N] each."""
        ranked = log_probs if penalty is None else log_probs - penalty[:, None]
        required = self.referee.required
        # [B, K, count]: a row places no more than the width, nor words behind required ones that are not placed.
        gains, tokens = ranked.topk(min(self.width, log_probs.shape[-1]), dim=-1)
        self.stuck.append(self.live.masked_fill(gains[..., 0] > -torch.inf, -torch.inf))
        if len(required):  # always among the candidates, and once
            gains = gains.masked_fill((tokens[..., None] == required).any(-1), -torch.inf)
            gains = torch.cat((gains, ranked[..., required]), -1)
            tokens = torch.cat((tokens, required.expand(*tokens.shape[:2], -1)), -1)
        parents = torch.arange(log_probs.shape[1], device=log_probs.device)[:, None].expand(tokens.shape)
        rank = self.live[..., None] + gains
        log_prob = rank
        if penalty is not None:
            log_prob = (self.live[..., None] + log_probs.gather(-1, tokens)).masked_fill(rank.isneginf(), -torch.inf)
        return tuple(part.flatten(1) for part in (rank, log_prob, tokens, parents))

    def _pick(self, rank: Tensor, tokens: Tensor, parents: Tensor, first: int) -> Tensor:
        """Index [B, K] of the candidates [B, N] to take, in the order in which they have a claim to the room.

        With required words, in the manner of dynamic beam allocation (Post and Vilar 2018): continuations that hold
        equally many of the C words form a bank; each of the C + 1 banks may take an equal whole share of the room by
        itself, and what is left over goes to the best of all.
        """
        count = min(self.width, rank.shape[1])
        if not len(self.referee.required):
            return rank.topk(count, dim=1).indices
        order = rank.argsort(dim=1, descending=True, stable=True)
        bank = self.referee.banks((parents + first).gather(1, order), tokens.gather(1, order))
        banks = len(self.referee.required) + 1
        member = bank[..., None] == torch.arange(banks, device=bank.device)
        place = member.cumsum(1).gather(2, bank[..., None]).squeeze(2)  # 1, 2, … within the bank
        served = (place <= (self.room // banks)[:, None]) & rank.gather(1, order).isfinite()
        return order.gather(1, served.to(torch.int8).argsort(dim=1, descending=True, stable=True))[:, :count]

    def end_early(self, may: Tensor | None) -> Tensor:
        """Ends an image when none of its live rows can enter its n best any more; returns [B] where none is live.

        Single rows are not ended: their continuations would make room for others, and the result would depend on it.

        Args:
            may: [B], images that may be ended; None: all.
        """
        hopeless = self.rules.bound(self.live).amax(1) <= self.best[:, -1]
        hopeless = hopeless if may is None else hopeless & may
        self.live = self.live.masked_fill(hopeless[:, None], -torch.inf)
        ended = self.live.isneginf().all(1)
        return ended if may is None else ended & may

    def is_over(self) -> Tensor:
        """Whether no image has a live row, a tensor on the device."""
        return self.live.isneginf().all()

    def hypotheses(self) -> list[list[Hypothesis]]:
        """The n best finished rows of each image; unfinished ones where none finished."""
        steps = len(self.trail)
        columns = [*self.ended, *self.stuck, self.live]
        lengths = [*range(1, steps + 1), *range(len(self.stuck)), steps]
        width = max(column.shape[1] for column in columns)
        log_probs = torch.stack([_widen(column, width) for column in columns], 1)  # [B, columns, K]
        lengths = torch.tensor(lengths, device=log_probs.device)
        scores = self.rules.score(log_probs, lengths[:, None].clamp(min=1))
        finished = log_probs[:, :steps].isfinite().flatten(1).any(1)
        scores[:, steps:].masked_fill_(finished[:, None, None], -torch.inf)
        score, flat = scores.flatten(1).topk(min(self.n_best, scores[0].numel()), dim=1)
        log_prob = log_probs.flatten(1).gather(1, flat)
        return self.trail.hypotheses(flat % width, lengths[flat // width], log_prob=log_prob, score=score)


def _widen(column: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(column, (0, width - column.shape[1]), value=-torch.inf)
