"""Apply constraints and length normalization to any search: minimum length, forbidden, required and repeated words.

All are off by default. A rule excludes words (log-probability -inf) and keeps the model's own probabilities of the
others. Only a `WordGroup` with a bonus changes the number that a search ranks by. A caption's `log_prob` never depends
on the rules of its search.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captioning.decoding.hypothesis import Hypothesis
from captioning.decoding.phrase_rules import PhraseMask, PhraseRules
from captioning.decoding.word_groups import GroupTable, WordGroup, of_words, without_implied
from captioning.errors import ConfigError

MAX_LENGTH = 20  # of captions, in tokens, where neither the search nor the model sets another limit
WORD_RULES = ("avoid", "allow", "require", "avoid_endings")  # the rules whose values are words


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Rules of a search. Lengths count tokens, `<end>` included; words are ids.

    Args:
        max_length: Greatest number of tokens; None is 20.
        min_length: Smallest number of tokens: `<end>` is not generated before.
        length_normalization: Exponent e of the length T: score = log_prob / T^e. 0 ranks by probability, 1 by the
            average log-probability per token.
        length_penalty: α of Wu et al. 2016 (GNMT), eq. 14: score = log_prob / ((5 + T) / 6)^α, instead of
            length_normalization. 0: length_normalization applies.
        no_repeat_ngram: n > 0: no n consecutive words occur twice in a caption; 0: no rule.
        avoid: Words that are never generated.
        allow: Words that may be generated although they are forbidden by default, such as `<unk>`.
        require: Words that every caption must contain. Beam searches divide their beams by the number of required words
            that a caption already contains (see `ConstraintState.banks`). Every search generates the missing words when
            the remaining length is only just enough for them.
        avoid_endings: Words that must not be the last word of a caption, finished or cut.
        guides: Groups of words for each image of the batch, or () for none. Required groups are treated like `require`:
            a caption must contain one word of each, unless other rules exclude all its words. If two of them share only
            a part of their words, captions near `max_length` get a word for each. A bonus is added to log_prob, once
            per group, before it is normalized by length.
        phrases: Rules about phrases, or None.

    Raises:
        ConfigError: A value is out of range, or two values contradict each other.
    """

    max_length: int | None = None
    min_length: int = 0
    length_normalization: float = 0.0
    length_penalty: float = 0.0
    no_repeat_ngram: int = 0
    avoid: Sequence[int] = ()
    allow: Sequence[int] = ()
    require: Sequence[int] = ()
    avoid_endings: Sequence[int] = ()
    guides: Sequence[Sequence[WordGroup]] = ()
    phrases: PhraseRules | None = None

    @property
    def limit(self) -> int:
        """Greatest number of tokens."""
        return MAX_LENGTH if self.max_length is None else self.max_length

    def __post_init__(self):
        for name in WORD_RULES:
            _check_words(name, getattr(self, name))
        for name in ("min_length", "length_normalization", "length_penalty", "no_repeat_ngram"):
            if getattr(self, name) < 0:
                raise ConfigError(f"decoding.{name} ({getattr(self, name)}) must not be negative")
        if self.limit < 1:
            raise ConfigError(f"decoding.max_length ({self.limit}) must be at least 1")
        if self.min_length > self.limit:
            raise ConfigError(
                f"decoding.min_length ({self.min_length}) must not exceed decoding.max_length ({self.limit})"
            )
        if len(set(self.require)) >= self.limit:
            raise ConfigError(
                f"decoding.require ({len(set(self.require))} words) and <end> must fit in decoding.max_length "
                f"({self.limit})"
            )
        lists = self.guides if isinstance(self.guides, Sequence) else [self.guides]
        if not all(isinstance(each, Sequence) and all(isinstance(one, WordGroup) for one in each) for each in lists):
            raise ConfigError(
                "decoding.guides must have a list of WordGroup per image, so it cannot be set in a configuration. For "
                "words that every caption must contain, set decoding.require"
            )
        if not isinstance(self.phrases, PhraseRules | None):
            raise ConfigError(
                "decoding.phrases must be a PhraseRules, so it cannot be set in a configuration. For words that no "
                "caption may contain, set decoding.avoid"
            )

    def score(self, log_prob: Tensor, length: Tensor | float) -> Tensor:
        """Compute the score that ranks captions.

        Args:
            log_prob: Log-probabilities, any shape.
            length: Number of tokens, a number or a tensor.

        Returns:
            Scores, with the shape of `log_prob`.
        """
        if isinstance(length, Tensor):
            length = length.to(log_prob.dtype)
        if self.length_penalty:
            return log_prob / ((5 + length) / 6) ** self.length_penalty
        if self.length_normalization:
            return log_prob / length**self.length_normalization
        return log_prob

    def bound(self, log_prob: Tensor, hope: Tensor | None = None, *, length: int = 1) -> Tensor:
        """Compute the best score a row can still reach: log_prob can only fall, and max_length divides it by most.

        Args:
            log_prob: Log-probabilities of rows, any shape.
            hope: Bonus that each row can still get, of the same shape; None: none.
            length: Smallest number of tokens of a continuation. It divides a sum above 0 by least.
        """
        best = self.score(log_prob if hope is None else log_prob + hope, self.limit)
        return best if hope is None else torch.maximum(best, self.score(log_prob + hope, length))


class ConstraintState:
    """Apply the rules to the rows of one search; track what the rules need about the words of each row.

    Args:
        rules: Rules of the search.
        forbidden: Ids that are not generated unless they are in `rules.allow`.
        end: Id of `<end>`.
        batch: B; the search begins with one row per image.
        device: Device of the search.

    Raises:
        ConfigError: `<end>` is excluded, a required word is, or the guides do not fit the batch or the length.
    """

    def __init__(self, rules: Rules, *, forbidden: Sequence[int], end: int, batch: int, device: torch.device):
        self.rules, self.end, self.t = rules, end, 0
        out = sorted((set(forbidden) - set(rules.allow)) | set(rules.avoid))
        if end in out:
            raise ConfigError("decoding.avoid must not contain <end>: captions would never finish. Remove it")
        if twice := sorted(set(rules.require) & {*out, end}):
            raise ConfigError(f"decoding.require contains words that are never generated (ids {twice}). Remove them")
        self.out, self.endings = (
            torch.tensor(ids, dtype=torch.int64, device=device) for ids in (out, sorted(set(rules.avoid_endings)))
        )
        self.groups = GroupTable(_groups(rules, batch, out={*out, end}), device=device)
        self.phrases = PhraseMask(rules.phrases, device=device) if rules.phrases else None
        self.history = torch.empty(batch, 1, 0, dtype=torch.int64, device=device)  # [B, K, t]
        self.met = torch.zeros(batch, 1, self.groups.bonus.shape[1], dtype=torch.bool, device=device)  # [B, K, N]

    def rule_out(self, log_probs: Tensor) -> None:
        """Change log_probs [B, K, V] in place: add bonuses, and set words that the rows may not generate to -inf."""
        rules, last = self.rules, self.t == self.rules.limit - 1
        if self.groups.has_bonus:
            self.groups.add_bonus(log_probs, self.met)
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
        if self.phrases:
            self.phrases.rule_out(log_probs, self.history)
        if self.groups.candidates.shape[1]:
            self._rule_in_required(log_probs)

    def _rule_out_repeats(self, log_probs: Tensor, n: int) -> None:
        """Exclude a word if it and the last n - 1 words already occur together."""
        if self.t < n:
            return
        windows = self.history.unfold(-1, n, 1)  # [B, K, t - n + 1, n]
        context = self.history[..., None, self.t - n + 1 :]  # [B, K, 1, n - 1]
        repeats = (windows[..., :-1] == context).all(-1)
        limit = torch.full_like(repeats, torch.inf, dtype=log_probs.dtype).masked_fill_(repeats, -torch.inf)
        log_probs.scatter_reduce_(-1, windows[..., -1], limit, "amin")

    def _rule_in_required(self, log_probs: Tensor) -> None:
        """Exclude <end> before a row has all required groups; allow only their words if the length just fits them."""
        groups = self.groups
        missing = groups.missing(self.met)  # [B, K]
        log_probs[..., self.end].masked_fill_(missing > 0, -torch.inf)
        room = self.rules.limit - self.t
        if room <= groups.required.shape[1] + 1:
            index = groups.candidates.clamp(min=0)[:, None].expand(-1, log_probs.shape[1], -1)
            rest = log_probs.gather(-1, index).masked_fill(~groups.wanted(self.met), -torch.inf)
            only = torch.full_like(log_probs, -torch.inf).scatter_reduce(-1, index, rest, "amax")
            pressed = (missing > 0) & (room <= missing + 1)
            log_probs.copy_(torch.where(pressed[..., None], only, log_probs))

    def met_after(self, parents: Tensor, tokens: Tensor) -> Tensor:
        """Return the groups that each row contains after its next token.

        Args:
            parents: Rows [B, J].
            tokens: The next token of each, [B, J].

        Returns:
            [B, J, N] bool.
        """
        return _rows(self.met, parents) | self.groups.contain(tokens)

    def banks(self, parents: Tensor, tokens: Tensor) -> Tensor:
        """Return the number of required groups that each row contains after its next token; see `met_after`."""
        count = self.groups.most_required
        met = _rows(self.met[..., :count], parents) | self.groups.contain(tokens, count)
        return (met & self.groups.required[:, None, :count]).sum(-1)

    def hope(self, parents: Tensor, tokens: Tensor) -> Tensor | None:
        """Return the bonus that each row can still get after its next token, [B, J]; None without any bonus."""
        return self.groups.hope(self.met_after(parents, tokens)) if self.groups.has_bonus else None

    def advance(self, parents: Tensor, tokens: Tensor) -> None:
        """Update after a step: the rows are now `parents` [B, K], each extended by its token [B, K]."""
        self.t += 1
        if self.rules.no_repeat_ngram or self.phrases:
            self.history = torch.cat((_rows(self.history, parents), tokens[..., None]), -1)
        elif len(self.endings):
            self.history = tokens[..., None]  # the last word is enough
        if self.met.shape[-1]:
            self.met = self.met_after(parents, tokens)

    def honest(self, found: list[list[Hypothesis]]) -> list[list[Hypothesis]]:
        """Return the hypotheses of each image with the bonuses taken out of their `log_prob`."""
        if not self.groups.has_bonus:
            return found
        return [
            [each._replace(log_prob=each.log_prob - self.groups.bonus_of(image, each.tokens)) for each in hypotheses]
            for image, hypotheses in enumerate(found)
        ]


def _groups(rules: Rules, batch: int, *, out: set[int]) -> list[list[WordGroup]]:
    """Return the groups of each image, without words that are never generated; an empty group is not required."""
    if rules.guides and len(rules.guides) != batch:
        raise ConfigError(f"decoding.guides has {len(rules.guides)} lists for {batch} images: give one list per image")
    required = of_words(rules.require)
    groups = [[*required, *(_without(group, out) for group in each)] for each in (rules.guides or [()] * batch)]
    for image, each in enumerate(groups):
        if (count := sum(group.required for group in each)) >= rules.limit:
            raise ConfigError(
                f"decoding.guides: the {count} required groups of image {image} and <end> must fit in "
                f"decoding.max_length ({rules.limit}). Raise decoding.max_length, or require fewer (guidance.most)"
            )
    return [without_implied(each) for each in groups]


def _without(group: WordGroup, out: set[int]) -> WordGroup:
    if out.isdisjoint(group.words):
        return group
    words = tuple(word for word in group.words if word not in out)
    return group._replace(words=words, required=group.required and bool(words))


def takes_rules(search: Callable) -> Callable:
    """Decorate a search that takes `rules` so that it takes the arguments of `Rules` as its own keyword arguments."""
    own, rules = inspect.signature(search).parameters, inspect.signature(Rules).parameters

    @functools.wraps(search)
    def with_rules(step, state, **arguments):
        given = {name: arguments.pop(name) for name in rules if name in arguments}
        return search(step, state, rules=Rules(**given), **arguments)

    # Help texts and the configuration check use this signature with flat arguments.
    kept = [parameter for name, parameter in own.items() if name != "rules"]
    shown: Any = with_rules
    shown.__signature__ = inspect.Signature([*kept, *rules.values()])
    shown.__annotations__ = {p.name: p.annotation for p in shown.__signature__.parameters.values()}
    del shown.__wrapped__
    return shown


def _check_words(name: str, words: Sequence[int]) -> None:
    if isinstance(words, str) or not isinstance(words, Sequence):
        raise ConfigError(f"decoding.{name} must be a list of words, not {words!r}")
    for word in words:
        if not isinstance(word, int) or isinstance(word, bool):
            raise ConfigError(
                f"decoding.{name} contains {word!r}, but a search takes ids. Pass words to a predictor instead"
            )


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Select rows: values [B, K, N], index [B, J] -> [B, J, N]."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
