"""Guide a search image by image with groups of words: a caption must contain one of a group, or scores more if it does.

A group holds the words that mean the same, such as "dog", "dogs" and "puppy". A required group is a disjunctive
constraint of constrained beam search (Anderson et al. 2017).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class WordGroup(NamedTuple):
    """Words that count as one.

    Attributes:
        words: Their ids.
        required: Whether every caption must contain one of them.
        bonus: Added to the guided log-probability of a caption that contains at least one of them, in nats; negative to
            discourage them.
    """

    words: tuple[int, ...]
    required: bool = False
    bonus: float = 0.0


class GroupTable:
    """The groups of a batch of images as tensors, padded with empty groups.

    Args:
        groups: The groups of each image.
        device: Device of the tensors.

    Attributes:
        bonus: [B, N].
        required: [B, N] bool.
        most_required: Largest number of required groups of an image; they are the first of its groups.
        candidates: Ids of the words of all required groups, each once per image, [B, U]; −1 is padding.
    """

    def __init__(self, groups: Sequence[Sequence[WordGroup]], *, device: torch.device):
        groups = [sorted(each, key=lambda group: not group.required) for each in groups]  # required groups first
        self.groups = groups
        self.most_required = max((sum(group.required for group in each) for each in groups), default=0)
        batch, count = len(groups), max((len(each) for each in groups), default=0)
        listed = [sorted({word for group in each if group.required for word in group.words}) for each in groups]
        known = max((word for each in groups for group in each for word in group.words), default=0)
        every = [_padded(each, count, WordGroup(())) for each in groups]

        def tensor(values: list, *shape: int, dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device).reshape(batch, *shape)

        # The words of all groups with a bonus, without padding inside: groups have very different numbers of words.
        pairs = [
            [(word, number) for number, group in enumerate(each) if group.bonus for word in set(group.words)]
            for each in groups
        ]
        longest = max(map(len, pairs), default=0)
        padded = [_padded(each, longest, (0, count)) for each in pairs]
        self.words, self.group_of = tensor(padded, longest, 2, dtype=torch.int64).unbind(-1)
        self.bonus = tensor([[group.bonus for group in each] for each in every], count, dtype=torch.float32)
        self.required = tensor([[group.required for group in each] for each in every], count, dtype=torch.bool)
        candidates = [_padded(ids, max(map(len, listed), default=0), -1) for ids in listed]
        self.candidates = tensor(candidates, max(map(len, listed), default=0), dtype=torch.int64)
        # Row [b, w] says which groups of image b contain word w; the last row, for all other words, is empty.
        self._of_word = torch.zeros(batch, known + 2, count, dtype=torch.bool, device=device)
        entries = [
            (image, word, number)
            for image, each in enumerate(groups)
            for number, group in enumerate(each)
            for word in group.words
        ]
        if entries:
            index = torch.tensor(entries, dtype=torch.int64, device=device).unbind(1)
            self._of_word.index_put_(index, torch.ones((), dtype=torch.bool, device=device))
        belongs = self._rows(self.candidates.clamp(min=0)) & (self.candidates >= 0)[..., None]
        self._candidate_of = belongs & self.required[:, None]  # [B, U, N]: required groups of each candidate
        self.has_bonus = any(group.bonus for each in groups for group in each)

    def contain(self, tokens: Tensor, count: int | None = None) -> Tensor:
        """Return which groups contain each token: [B, K] -> [B, K, N] bool, or the first `count` of the N groups."""
        return self._rows(tokens, count)

    def _rows(self, tokens: Tensor, count: int | None = None) -> Tensor:
        table = self._of_word if count is None else self._of_word[..., :count]
        index = tokens.clamp(max=table.shape[1] - 1)[..., None].expand(-1, -1, table.shape[2])
        return table.gather(1, index)

    def add_bonus(self, log_probs: Tensor, met: Tensor) -> None:
        """Add to log_probs [B, K, V], in place, the bonus of the groups that a row does not contain yet.

        Args:
            log_probs: [B, K, V].
            met: Groups that each row contains, [B, K, N] bool.
        """
        open_bonus = self.bonus[:, None].to(log_probs.dtype).masked_fill(met, 0.0)  # [B, K, N]
        open_bonus = torch.nn.functional.pad(open_bonus, (0, 1))  # padding belongs to group N, whose bonus is 0
        values = open_bonus.gather(-1, self.group_of[:, None].expand(-1, met.shape[1], -1))  # [B, K, E]
        log_probs.scatter_add_(-1, self.words[:, None].expand_as(values), values)

    def hope(self, met: Tensor) -> Tensor:
        """Return the sum of the positive bonuses that each row can still get: [B, K, N] -> [B, K]."""
        return self.bonus.clamp(min=0)[:, None].masked_fill(met, 0.0).sum(-1)

    def missing(self, met: Tensor) -> Tensor:
        """Return the number of required groups that each row does not contain: [B, K, N] -> [B, K]."""
        return (self.required[:, None] & ~met).sum(-1)

    def wanted(self, met: Tensor) -> Tensor:
        """Return which of the candidates belong to a required group that a row does not contain: [B, K, U] bool."""
        return (~met[:, :, None] & self._candidate_of[:, None]).any(-1)

    def bonus_of(self, image: int, tokens: Sequence[int]) -> float:
        """Return the sum of the bonuses that a full caption of one image gets."""
        return sum(group.bonus for group in self.groups[image] if not set(tokens).isdisjoint(group.words))


def _padded(values: Sequence, count: int, filler: object) -> list:
    return [*values, *[filler] * (count - len(values))]


def of_words(words: Sequence[int]) -> list[WordGroup]:
    """Return one required group per word."""
    return [WordGroup((word,), required=True) for word in sorted(set(words))]


def without_implied(groups: Sequence[WordGroup]) -> list[WordGroup]:
    """Drop the requirement of a group that contains all words of another required group, which implies it."""
    kept: list[WordGroup] = []
    for number, group in enumerate(groups):
        others = (
            set(other.words)
            for place, other in enumerate(groups)
            # Of two equal groups, the first one stays required.
            if other.required and place != number and (place < number or set(other.words) != set(group.words))
        )
        implied = group.required and any(other <= set(group.words) for other in others)
        kept.append(group._replace(required=False) if implied else group)
    return kept


def voters(groups: Sequence[Sequence[WordGroup]]) -> list[list[WordGroup]]:
    """Return the groups without their requirement: the bonus alone."""
    return [[group._replace(required=False) for group in each] for each in groups]
