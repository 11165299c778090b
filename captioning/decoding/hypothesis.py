"""Define the result of a search, and build it from the backpointers of the search's steps."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Hypothesis(NamedTuple):
    """One caption found by a search.

    Attributes:
        tokens: Ids of the words, without `<start>`, with `<end>` if it was generated (not if the maximum length was
            reached).
        log_prob: Sum of the log-probabilities of all tokens under the model, `<end>` included; rules and temperature do
            not change it.
        score: The number that the search ranked by: log_prob, log_prob with length normalization, or agreement.
        weights: Attention weights [T, L], one row per token; None without attention.
        places: The one location that hard attention selected for each token, [T] int64; None for other kinds.
    """

    tokens: list[int]
    log_prob: float
    score: float
    weights: Tensor | None
    places: Tensor | None = None


class Backpointers:
    """The steps of a search for B images: the token, the parent row and the attention of every row.

    Nothing is reordered during the search. `hypotheses` follows the parents of the few rows that are returned.

    Attributes:
        tokens: For each step, [B, K].
        parents: For each step, [B, K]: row numbers of the step before.
        weights: For each step, the attention weights with which the tokens were chosen, [B, K of the step before, L].
        places: For each step, the selected locations [B, K of the step before], or None.
    """

    def __init__(self):
        self.tokens: list[Tensor] = []
        self.parents: list[Tensor] = []
        self.weights: list[Tensor] = []
        self.places: list[Tensor | None] = []

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, tokens: Tensor, parents: Tensor, weights: Tensor, places: Tensor | None) -> None:
        """Add one step.

        Args:
            tokens: Tokens of the rows, [B, K].
            parents: Their parents, rows of the step before, [B, K].
            weights: Attention weights of the rows before the step, [B, K of the step before, L].
            places: Their selected locations, [B, K of the step before], or None.
        """
        self.tokens.append(tokens)
        self.parents.append(parents)
        self.weights.append(weights)
        self.places.append(places)

    def hypotheses(self, rows: Tensor, lengths: Tensor, *, log_prob: Tensor, score: Tensor) -> list[list[Hypothesis]]:
        """Build the hypotheses of given rows.

        Args:
            rows: Rows [B, n].
            lengths: Number of tokens [B, n] after which each row is read.
            log_prob: Their log-probabilities, [B, n].
            score: Their scores, [B, n]; -inf: no hypothesis.

        Returns:
            One list of hypotheses per image.
        """
        tokens, weights, places = self._follow(rows, lengths)
        tokens, weights, places = tokens.cpu(), weights.cpu(), None if places is None else places.cpu()
        attends = weights.shape[-1] > 0
        columns = zip(tokens.tolist(), lengths.tolist(), log_prob.tolist(), score.tolist(), strict=True)
        return [
            [
                Hypothesis(
                    words[j][:n],
                    log_probs[j],
                    scores[j],
                    weights[b, j, :n] if attends else None,
                    None if places is None else places[b, j, :n],
                )
                for j, n in enumerate(counts)
                if scores[j] > -torch.inf
            ]
            for b, (words, counts, log_probs, scores) in enumerate(columns)
        ]

    def _follow(self, rows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return tokens [B, n, T], weights [B, n, T, L] and the rows' `places` [B, n, T], valid up to their lengths."""
        tokens, weights, places = [], [], []
        for t in range(len(self) - 1, -1, -1):
            here = rows.clamp(max=self.tokens[t].shape[1] - 1)  # rows that ended before t are not followed yet
            parents = self.parents[t].gather(1, here)
            tokens.append(self.tokens[t].gather(1, here))
            seen = self.weights[t]
            weights.append(seen.gather(1, parents[..., None].expand(-1, -1, seen.shape[-1])))
            if (locations := self.places[t]) is not None:
                places.append(locations.gather(1, parents))
            rows = torch.where(t < lengths, parents, rows)
        return torch.stack(tokens[::-1], 2), torch.stack(weights[::-1], 2), _stack(places[::-1])


def _stack(parts: list[Tensor]) -> Tensor | None:
    return torch.stack(parts, 2) if parts else None


def normalized(logits: Tensor) -> Tensor:
    """Compute the log-softmax over the vocabulary in at least float32, as a new tensor that a search may write into."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def looks(glimpse: Any) -> tuple[Tensor, Tensor | None]:
    """Return `weights` [B, K, L] and `places` [B, K] of a glimpse; the latter may be None."""
    return glimpse.weights, getattr(glimpse, "places", None)


def device_of(state: Any) -> torch.device:
    """Return the device of the first tensor of a state; a state may contain states."""
    while not isinstance(state, Tensor):
        state = next(iter(state))
    return state.device
