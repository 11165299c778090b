"""Keep a search from broken phrases: noun phrases without a noun, repeated words, and phrases that must not occur.

Words that a guide discourages leave gaps: "a black and white [dog] is sitting on a table". The captioner itself has
seen few such phrases, but a search that avoids its first choice finds them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

OPENER, MODIFIER = 1, 2


class PhraseRules(NamedTuple):
    """Rules about the words before a word, as ids.

    Attributes:
        openers: Words that begin a noun phrase, such as "a".
        modifiers: Words that belong to a noun phrase but do not complete it, such as "black" and "and".
        closers: Words that cannot follow an opener and its modifiers before any other word, such as "is" and `<end>`.
        once: Words that occur at most once in a caption.
        distance: A word is not written again within this number of words; 0: no rule.
        never: Phrases that never occur.
    """

    openers: tuple[int, ...] = ()
    modifiers: tuple[int, ...] = ()
    closers: tuple[int, ...] = ()
    once: tuple[int, ...] = ()
    distance: int = 0
    never: tuple[tuple[int, ...], ...] = ()


class PhraseMask:
    """The rules as tensors, applied to all rows of a search.

    Args:
        rules: The rules.
        device: Device of the search.
    """

    def __init__(self, rules: PhraseRules, *, device: torch.device):
        self.rules = rules
        known = max((*rules.openers, *rules.modifiers, *rules.once, 0))
        kinds, once = torch.zeros(known + 2, dtype=torch.int64), torch.zeros(known + 2, dtype=torch.bool)
        kinds[list(rules.modifiers)] = MODIFIER
        kinds[list(rules.openers)] = OPENER
        once[list(rules.once)] = True
        self.kinds, self.once = kinds.to(device), once.to(device)  # the last entry is for all words that follow
        self.closers = torch.tensor(rules.closers, dtype=torch.int64, device=device)
        followers: dict[tuple[int, ...], list[int]] = {}
        for phrase in rules.never:
            followers.setdefault(phrase[:-1], []).append(phrase[-1])
        alike: dict[tuple[int, tuple[int, ...]], list[tuple[int, ...]]] = {}  # beginnings with the same last words
        for before, lasts in followers.items():
            alike.setdefault((len(before), tuple(sorted(set(lasts)))), []).append(before)
        self.never = [
            (torch.tensor(starts, dtype=torch.int64, device=device), torch.tensor(lasts, device=device))
            for (_, lasts), starts in alike.items()
        ]

    def rule_out(self, log_probs: Tensor, history: Tensor) -> None:
        """Set the words that rows may not generate to -inf, in place.

        Args:
            log_probs: [B, K, V].
            history: The t words of each row, [B, K, t].
        """
        count = history.shape[-1]
        for starts, lasts in self.never:  # [P, n] and [M]
            if starts.shape[1] <= count:
                ends = history[..., None, count - starts.shape[1] :]
                follows = (ends == starts).all(-1).any(-1, keepdim=True)
                log_probs.index_copy_(-1, lasts, log_probs[..., lasts].masked_fill(follows, -torch.inf))
        if not count:
            return
        listed = history.clamp(max=len(self.kinds) - 1)
        if len(self.closers):
            waiting = self._waits_for_noun(self.kinds[listed])
            ruled = log_probs[..., self.closers].masked_fill(waiting[..., None], -torch.inf)
            log_probs.index_copy_(-1, self.closers, ruled)
        if self.rules.once:
            limit = torch.full(history.shape, torch.inf, dtype=log_probs.dtype, device=log_probs.device)
            limit.masked_fill_(self.once[listed], -torch.inf)
            log_probs.scatter_reduce_(-1, history, limit, "amin")
        if self.rules.distance:
            log_probs.scatter_(-1, history[..., -self.rules.distance :], -torch.inf)

    @staticmethod
    def _waits_for_noun(kinds: Tensor) -> Tensor:
        """Return whether a row ends with an opener and one modifier or more, [B, K] bool.

        An opener alone does not wait: what may follow "a" is known to the captioner.
        """
        place = torch.arange(kinds.shape[-1], device=kinds.device)
        last = place.masked_fill(kinds == MODIFIER, -1).amax(-1, keepdim=True)  # the last word that is no modifier
        opened = kinds.gather(-1, last.clamp(min=0)) == OPENER
        return (opened & (last >= 0) & (last < kinds.shape[-1] - 1)).squeeze(-1)
