"""Apply constraints and length normalization to any search: minimum length, forbidden, required and repeated words.

All are off by default. A rule takes words out (log-probability -inf) and leaves the others the model's own
probabilities, so a caption's log_prob never depends on the rules that it was found under.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captioning.errors import ConfigError

WORD_RULES = ("avoid", "allow", "require", "avoid_endings")  # the rules that hold words


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Lengths count tokens, <end> included; words are ids.

    Args:
        max_length: tokens at the most.
        min_length: tokens at the least: <end> is not written before.
        length_normalization: exponent e of the length T: score = log_prob / T^e; 0 ranks by probability, 1 by the
            average log-probability of a token.
        length_penalty: α of Wu et al. 2016 (GNMT), eq. 14: score = log_prob / ((5 + T) / 6)^α, which takes the place
            of length_normalization; 0: that stays.
        no_repeat_ngram: n > 0: no n words in a row are written twice in a caption; 0: no rule.
        avoid: words never written.
        allow: words written although the vocabulary's owner forbids them by default, such as <unk>.
        require: words that every caption holds; beam searches share their beams among the numbers of words held (see
            `banks`), and every search writes what is missing when no more than the room for it is left.
        avoid_endings: words that a caption does not end in, finished or cut.

    Raises:
        ConfigError: a value that cannot be, or two that exclude each other.
    """

    max_length: int = 20
    min_length: int = 0
    length_normalization: float = 0.0
    length_penalty: float = 0.0
    no_repeat_ngram: int = 0
    avoid: Sequence[int] = ()
    allow: Sequence[int] = ()
    require: Sequence[int] = ()
    avoid_endings: Sequence[int] = ()

    def __post_init__(self):
        for name in WORD_RULES:
            _check_words(name, getattr(self, name))
        for name in ("min_length", "length_normalization", "length_penalty", "no_repeat_ngram"):
            if getattr(self, name) < 0:
                raise ConfigError(f"decoding.{name} ({getattr(self, name)}) must not be negative")
        if self.max_length < 1:
            raise ConfigError(f"decoding.max_length ({self.max_length}) must be at least 1")
        if self.min_length > self.max_length:
            raise ConfigError(
                f"decoding.min_length ({self.min_length}) must not exceed decoding.max_length ({self.max_length})"
            )
        if len(set(self.require)) >= self.max_length:
            raise ConfigError(
                f"decoding.require ({len(set(self.require))} words) and <end> must fit in decoding.max_length "
                f"({self.max_length})"
            )

    def score(self, log_prob: Tensor, length) -> Tensor:
        """What captions of `length` tokens (number or tensor) are ranked by."""
        if isinstance(length, Tensor):
            length = length.to(log_prob.dtype)
        if self.length_penalty:
            return log_prob / ((5 + length) / 6) ** self.length_penalty
        if self.length_normalization:
            return log_prob / length**self.length_normalization
        return log_prob

    def bound(self, log_prob: Tensor) -> Tensor:
        """The best score a row can still reach: a log-probability only falls, and the longest divides it by most."""
        return self.score(log_prob, self.max_length)


class ConstraintState:
    """Holds the rows of one search to its rules: keeps what it must know of their words, in the order of the rows.

    Args:
        rules, end: of the search.
        forbidden: ids that are not written unless `rules.allow` names them.
        batch, device: of the search; it begins with one row an image.
    """

    def __init__(self, rules: Rules, *, forbidden: Sequence[int], end: int, batch: int, device: torch.device):
        self.rules, self.end, self.t = rules, end, 0
        out = sorted((set(forbidden) - set(rules.allow)) | set(rules.avoid))
        if end in out:
            raise ConfigError("decoding.avoid must not hold <end>: captions would never finish")
        if twice := sorted(set(rules.require) & {*out, end}):
            raise ConfigError(f"decoding.require holds what is never written as a word (ids {twice})")
        self.out, self.endings, self.required = (
            torch.tensor(ids, dtype=torch.int64, device=device)
            for ids in (out, sorted(set(rules.avoid_endings)), sorted(set(rules.require)))
        )
        self.history = torch.empty(batch, 1, 0, dtype=torch.int64, device=device)  # [B, K, t]
        self.met = torch.zeros(batch, 1, len(self.required), dtype=torch.bool, device=device)  # [B, K, C]

    def rule_out(self, log_probs: Tensor) -> None:
        """Sets to -inf, in place, what the rows may not write next: log_probs [B, K, V]."""
        rules, last = self.rules, self.t == self.rules.max_length - 1
        if len(self.out):
            log_probs.index_fill_(-1, self.out, -torch.inf)
        if self.t + 1 < rules.min_length:
            log_probs[..., self.end].fill_(-torch.inf)
        if len(self.endings):
            if self.t:
                hanging = (self.history[..., -1:] == self.endings).any(-1)
                log_probs[..., self.end].masked_fill_(hanging, -torch.inf)
            if last:
                log_probs.index_fill_(-1, self.endings, -torch.inf)
        if rules.no_repeat_ngram:
            self._rule_out_repeats(log_probs, rules.no_repeat_ngram)
        if len(self.required):
            self._rule_in_required(log_probs)

    def _rule_out_repeats(self, log_probs: Tensor, n: int) -> None:
        """A word is out where the last n - 1 words and it have been written before."""
        if self.t < n:
            return
        windows = self.history.unfold(-1, n, 1)  # [B, K, t - n + 1, n]
        context = self.history[..., None, self.t - n + 1 :]  # [B, K, 1, n - 1]
        repeats = (windows[..., :-1] == context).all(-1)
        limit = torch.full_like(repeats, torch.inf, dtype=log_probs.dtype).masked_fill_(repeats, -torch.inf)
        log_probs.scatter_reduce_(-1, windows[..., -1], limit, "amin")

    def _rule_in_required(self, log_probs: Tensor) -> None:
        """No <end> before all required words; only required words where the room is just enough for them and <end>."""
        missing = (~self.met).sum(-1)  # [B, K]
        log_probs[..., self.end].masked_fill_(missing > 0, -torch.inf)
        room = self.rules.max_length - self.t
        if room <= len(self.required) + 1:
            rest = log_probs[..., self.required].masked_fill(self.met, -torch.inf)
            only = torch.full_like(log_probs, -torch.inf)
            only[..., self.required] = rest
            pressed = (missing > 0) & (room <= missing + 1)
            log_probs.copy_(torch.where(pressed[..., None], only, log_probs))

    def banks(self, parents: Tensor, tokens: Tensor) -> Tensor:
        """How many required words the rows `parents` [B, N] hold once they have written `tokens` [B, N]."""
        held = _rows(self.met, parents)
        return (held | (tokens[..., None] == self.required)).sum(-1)

    def advance(self, parents: Tensor, tokens: Tensor) -> None:
        """The rows are now `parents` [B, K], each with its token [B, K] added."""
        self.t += 1
        if self.rules.no_repeat_ngram:
            self.history = torch.cat((_rows(self.history, parents), tokens[..., None]), -1)
        elif len(self.endings):
            self.history = tokens[..., None]  # the last word is enough
        if len(self.required):
            self.met = _rows(self.met, parents) | (tokens[..., None] == self.required)


def takes_rules(search: Callable) -> Callable:
    """Gives a search the arguments of `Rules` as keyword arguments of its own; it receives them as one `rules`."""
    own, rules = inspect.signature(search).parameters, inspect.signature(Rules).parameters

    @functools.wraps(search)
    def with_rules(step, state, **arguments):
        given = {name: arguments.pop(name) for name in rules if name in arguments}
        return search(step, state, rules=Rules(**given), **arguments)

    # What is shown, and what the configuration is checked against: the flat arguments.
    kept = [parameter for name, parameter in own.items() if name != "rules"]
    with_rules.__signature__ = inspect.Signature([*kept, *rules.values()])
    with_rules.__annotations__ = {p.name: p.annotation for p in with_rules.__signature__.parameters.values()}
    del with_rules.__wrapped__
    return with_rules


def _check_words(name: str, words: Sequence[int]) -> None:
    if isinstance(words, str) or not isinstance(words, Sequence):
        raise ConfigError(f"decoding.{name} must be a list of words, not {words!r}")
    for word in words:
        if not isinstance(word, int) or isinstance(word, bool):
            raise ConfigError(f"decoding.{name} holds {word!r}: a search takes ids; a predictor turns words into them")


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """values [B, K, N], index [B, J] -> [B, J, N]."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
