"""Search for captions by beam search, diverse beam search and greedy search (a beam of one)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captioning.decoding.constraints import ConstraintState, Rules, takes_rules
from captioning.decoding.hypothesis import Backpointers, Hypothesis, device_of, looks, normalized
from captioning.errors import ConfigError

Seen = tuple[Tensor, Tensor | None]  # attention weights [B, K, L], and the locations [B, K] of hard attention


@takes_rules
def greedy_search(
    step: Callable, state: Any, *, batch: int, start: int, end: int, forbidden: tuple[int, ...] = (), rules: Rules
) -> list[list[Hypothesis]]:
    """Choose the most probable word at every step: beam search with a beam of one.

    Args:
        step: (token [B, K], state) -> (logits [B, K, V], state, glimpse), see `captioning.decoding`.
        state: State before `<start>`, one row per image.
        batch: B.
        start: Id of `<start>`.
        end: Id of `<end>`.
        forbidden: Ids that are never generated (`<pad>`, `<start>`, `<unk>`), except those in `Rules.allow`.
        rules: All arguments of `Rules` are keyword arguments of this function.

    Returns:
        One list with one hypothesis per image.

    Raises:
        ConfigError: An argument is out of range.
    """
    return _search(step, state, [1], batch=batch, start=start, end=end, forbidden=forbidden, n_best=1, rules=rules)


@takes_rules
def beam_search(
    step: Callable,
    state: Any,
    *,
    batch: int,
    start: int,
    end: int,
    forbidden: tuple[int, ...] = (),
    beam_size: int = 3,
    n_best: int = 1,
    rules: Rules,
) -> list[list[Hypothesis]]:
    """Search for the most probable captions by beam search, for all images and beams together.

    A beam that generates `<end>` is finished, and its slot in the beam remains empty. The search for an image ends when
    no live beam can overtake its `n_best` finished ones, or when all beams are finished. Unfinished captions (cut at
    the greatest length, or without an allowed word) are returned only for an image without a finished one.

    Args:
        step: (token [B, K], state) -> (logits [B, K, V], state, glimpse), see `captioning.decoding`.
        state: State before `<start>`, one row per image.
        batch: B.
        start: Id of `<start>`.
        end: Id of `<end>`.
        forbidden: Ids that are never generated (`<pad>`, `<start>`, `<unk>`), except those in `Rules.allow`.
        beam_size: K.
        n_best: Number of hypotheses per image, best first (fewer if there are fewer).
        rules: All arguments of `Rules` are keyword arguments of this function.

    Returns:
        One list of hypotheses per image, best score first.

    Raises:
        ConfigError: An argument is out of range.
    """
    check_beams(beam_size, n_best)
    arguments: dict[str, Any] = {
        "batch": batch,
        "start": start,
        "end": end,
        "forbidden": forbidden,
        "n_best": n_best,
        "rules": rules,
    }
    return _search(step, state, [beam_size], **arguments)


@takes_rules
def diverse_beam_search(
    step: Callable,
    state: Any,
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
    """Search for different captions by diverse beam search with Hamming diversity.

    Source: Vijayakumar et al. 2016, Algorithm 1 and section 5.1. The beam is divided into groups, which choose their
    words one after another at each step. A group ranks a word y by log-probability − λ · (number of beams of the groups
    before it that chose y at this step). The penalty affects only this choice and does not accumulate: captions are
    scored, and the best of all groups are ranked, as in beam search.

    Args:
        step: (token [B, K], state) -> (logits [B, K, V], state, glimpse), see `captioning.decoding`.
        state: State before `<start>`, one row per image.
        batch: B.
        start: Id of `<start>`.
        end: Id of `<end>`.
        forbidden: Ids that are never generated (`<pad>`, `<start>`, `<unk>`), except those in `Rules.allow`.
        beam_size: Number of beams of all groups together.
        groups: Number of groups; it must divide `beam_size`. One group is beam search.
        diversity: λ; with 0 every group searches the same beam.
        n_best: Number of hypotheses per image, best first; the same caption may come from two groups.
        rules: All arguments of `Rules` are keyword arguments of this function.

    Returns:
        One list of hypotheses per image, best score first.

    Raises:
        ConfigError: An argument is out of range.
    """
    check_beams(beam_size, n_best)
    if groups < 1 or beam_size % groups:
        raise ConfigError(f"decoding.groups ({groups}) must divide decoding.beam_size ({beam_size})")
    if diversity < 0:
        raise ConfigError(f"decoding.diversity ({diversity}) must not be negative")
    arguments: dict[str, Any] = {
        "batch": batch,
        "start": start,
        "end": end,
        "forbidden": forbidden,
        "n_best": n_best,
        "rules": rules,
    }
    return _search(step, state, [beam_size // groups] * groups, diversity=diversity, **arguments)


def check_beams(beam_size: int, n_best: int) -> None:
    """Refuse beam sizes and numbers of results that are out of range."""
    if not 1 <= n_best <= beam_size:
        raise ConfigError(f"decoding.n_best ({n_best}) must be between 1 and decoding.beam_size ({beam_size})")


@torch.inference_mode()
def _search(
    step: Callable,
    state: Any,
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
    """Run the loop over time: groups of beams of equal width side by side, all rows in one call of `step`."""
    device = device_of(state)
    referee = ConstraintState(rules, forbidden=forbidden, end=end, batch=batch, device=device)
    groups = [_Group(width, min(n_best, width), referee=referee) for width in widths]
    token = torch.full((batch, 1), start, device=device)
    for t in range(rules.limit):
        logits, state, glimpse = step(token, state)
        log_probs = normalized(logits)
        referee.rule_out(log_probs)
        chosen = _choose(groups, log_probs, looks(glimpse), diversity=diversity)
        _end_early(groups)
        token, parents = (torch.cat(part, 1) for part in zip(*chosen, strict=True))
        # The only transfer from the device per step.
        if t + 1 == rules.limit or bool(torch.stack([group.is_over() for group in groups]).all()):
            break
        referee.advance(parents, token)
        state = state.select(parents)
    found = [referee.honest(group.hypotheses()) for group in groups]
    if len(found) == 1:
        return found[0]
    merged = [[hypothesis for part in parts for hypothesis in part] for parts in zip(*found, strict=True)]
    return [_best(hypotheses, n_best, end=end) for hypotheses in merged]


def _choose(groups: list["_Group"], log_probs: Tensor, seen: Seen, *, diversity: float) -> list[tuple[Tensor, Tensor]]:
    """Return each group's next tokens and parents [B, K]; parents are counted over the rows of all groups."""
    rows = log_probs.shape[1] // (1 if groups[0].live is None else len(groups))
    chosen: list[tuple[Tensor, Tensor]] = []
    counts: Tensor | None = None
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
    """End each image in the groups that cannot find anything better, from the last group to the first.

    If a group ended, the groups after it would rank their words differently. So a group may end only after all groups
    after it have ended.
    """
    ended = None
    for group in reversed(groups):
        ended = group.end_early(ended)


def _best(hypotheses: list[Hypothesis], n_best: int, *, end: int) -> list[Hypothesis]:
    """Return the n best hypotheses of several groups; unfinished ones only if no group finished one."""
    finished = [hypothesis for hypothesis in hypotheses if hypothesis.tokens[-1:] == [end]]
    return sorted(finished or hypotheses, key=lambda hypothesis: -hypothesis.score)[:n_best]


class _Group:
    """One group of beams: its backpointers, its live rows and the finished ones.

    Attributes:
        live: Log-probabilities [B, K] of the live rows, bonuses included, -inf for no row; None before the first step.
        hope: Bonus that each row can still get, [B, K]; None without any bonus.
        room: Number of rows that an image may still keep alive, [B].
        best: Best finished scores so far, [B, n_best], descending.
        ended: For each step, the log-probabilities [B, K] of the rows that ended at it, -inf for the others.
        stuck: For each step, the log-probabilities [B, K] of the rows before it for which the rules allow no word.
    """

    def __init__(self, width: int, n_best: int, *, referee: ConstraintState):
        self.width, self.n_best, self.referee, self.rules = width, n_best, referee, referee.rules
        self.trail = Backpointers()
        self.live: Tensor | None = None
        self.hope: Tensor | None = None
        self.room: Tensor
        self.best: Tensor
        self.ended: list[Tensor] = []
        self.stuck: list[Tensor] = []

    def extend(
        self, log_probs: Tensor, first: int, rows: int, seen: Seen, *, penalty: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run one step over the group's rows first … first + rows - 1: select the best continuations.

        Returns tokens, parents (counted over all groups) and whether each was selected, [B, K] each.
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
        weights, places = seen
        places = None if places is None else places[:, first : first + rows]
        self.trail.add(tokens, parents, weights[:, first : first + rows], places)
        self.ended.append(log_prob.masked_fill(~ends, -torch.inf))
        self.live = log_prob.masked_fill(ends, -torch.inf)
        self.hope = self.referee.hope(parents + first, tokens)
        self.room = self.room - ends.sum(1)
        scores = self.rules.score(self.ended[-1], len(self.trail))
        self.best = torch.cat((self.best, scores), 1).topk(self.n_best, dim=1).values
        return tokens, parents + first, taken

    def _candidates(self, log_probs: Tensor, penalty: Tensor | None) -> tuple[Tensor, ...]:
        """Return the continuations that can be among the best: rank, log-probability, token, parent, [B, N] each."""
        assert self.live is not None
        ranked = log_probs if penalty is None else log_probs - penalty[:, None]
        required = self.referee.groups.candidates  # [B, U]
        # [B, K, count]: of a row's words that are not required, those after the `width` best ones are never selected.
        gains, tokens = ranked.topk(min(self.width + required.shape[1], log_probs.shape[-1]), dim=-1)
        self.stuck.append(self.live.masked_fill(gains[..., 0] > -torch.inf, -torch.inf))
        if required.shape[1]:  # always among the candidates, but only once
            gains = gains.masked_fill((tokens[..., None] == required[:, None, None]).any(-1), -torch.inf)
            words = required.clamp(min=0)[:, None].expand(-1, tokens.shape[1], -1)
            missing = (required < 0)[:, None]  # padding
            gains = torch.cat((gains, ranked.gather(-1, words).masked_fill(missing, -torch.inf)), -1)
            tokens = torch.cat((tokens, words), -1)
        parents = torch.arange(log_probs.shape[1], device=log_probs.device)[:, None].expand(tokens.shape)
        rank = self.live[..., None] + gains
        log_prob = rank
        if penalty is not None:
            log_prob = (self.live[..., None] + log_probs.gather(-1, tokens)).masked_fill(rank.isneginf(), -torch.inf)
        return tuple(part.flatten(1) for part in (rank, log_prob, tokens, parents))

    def _pick(self, rank: Tensor, tokens: Tensor, parents: Tensor, first: int) -> Tensor:
        """Return the index [B, K] of the candidates [B, N] to select, in order of priority for the free rows.

        With required words, this follows dynamic beam allocation (Post and Vilar 2018): continuations with the same
        number of the C required words, or groups, of their image form a bank. Each of the C + 1 banks gets an equal
        integer share of the free rows. The remaining rows go to the best of all candidates.
        """
        count = min(self.width, rank.shape[1])
        if not self.referee.groups.candidates.shape[1]:
            return rank.topk(count, dim=1).indices
        order = rank.argsort(dim=1, descending=True, stable=True)
        bank = self.referee.banks((parents + first).gather(1, order), tokens.gather(1, order))
        required = self.referee.groups.required
        member = bank[..., None] == torch.arange(self.referee.groups.most_required + 1, device=bank.device)
        place = member.cumsum(1).gather(2, bank[..., None]).squeeze(2)  # 1, 2, … within the bank
        banks = required.sum(1) + 1
        served = (place <= (self.room // banks)[:, None]) & rank.gather(1, order).isfinite()
        return order.gather(1, served.to(torch.int8).argsort(dim=1, descending=True, stable=True))[:, :count]

    def end_early(self, may: Tensor | None) -> Tensor:
        """End an image when none of its live rows can enter its n best; return [B], True where no row is live.

        Single rows are not ended: their continuations would make room for others, and the result would depend on it.

        Args:
            may: Images that may be ended, [B]; None: all.
        """
        assert self.live is not None
        hopeless = self.rules.bound(self.live, self.hope, length=len(self.trail) + 1).amax(1) <= self.best[:, -1]
        hopeless = hopeless if may is None else hopeless & may
        self.live = self.live.masked_fill(hopeless[:, None], -torch.inf)
        ended = self.live.isneginf().all(1)
        return ended if may is None else ended & may

    def is_over(self) -> Tensor:
        """Return whether no image has a live row, as a tensor on the device."""
        assert self.live is not None
        return self.live.isneginf().all()

    def hypotheses(self) -> list[list[Hypothesis]]:
        """Return the n best finished rows of each image; unfinished ones only if none finished."""
        assert self.live is not None
        steps = len(self.trail)
        columns = [*self.ended, *self.stuck, self.live]
        width = max(column.shape[1] for column in columns)
        log_probs = torch.stack([_widen(column, width) for column in columns], 1)  # [B, columns, K]
        counts = [*range(1, steps + 1), *range(len(self.stuck)), steps]
        lengths = torch.tensor(counts, device=log_probs.device)
        scores = self.rules.score(log_probs, lengths[:, None].clamp(min=1))
        finished = log_probs[:, :steps].isfinite().flatten(1).any(1)
        scores[:, steps:].masked_fill_(finished[:, None, None], -torch.inf)
        score, flat = scores.flatten(1).topk(min(self.n_best, scores[0].numel()), dim=1)
        log_prob = log_probs.flatten(1).gather(1, flat)
        return self.trail.hypotheses(flat % width, lengths[flat // width], log_prob=log_prob, score=score)


def _widen(column: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(column, (0, width - column.shape[1]), value=-torch.inf)
