"""Define a search's result, and read it from the backpointers of the search's steps."""

from typing import NamedTuple

import torch
from torch import Tensor


class Hypothesis(NamedTuple):
    """One caption.

    tokens: ids of the words, without <start>, with <end> where it was written (not where the length ran out).
    log_prob: Σ log p of all tokens under the model, <end> included; no rule and no temperature enters it.
    score: what the search ranked by: log_prob, divided by a length where that is asked for, or agreement.
    weights: [T, P] attention weights, a row a token; None without attention.
    places: [T] int64, the one place that hard attention looked at for each token; None for other kinds.
    """

    tokens: list[int]
    log_prob: float
    score: float
    weights: Tensor | None
    places: Tensor | None = None


class Backpointers:
    """The steps of a search for B images: for every row its token and the row it came from, and where rows looked.

    Nothing is reordered while the search runs; `hypotheses` follows the parents of the few rows that are returned.
    """

    def __init__(self):
        self.tokens: list[Tensor] = []  # by step: [B, K]
        self.parents: list[Tensor] = []  # by step: [B, K], rows of the step before
        self.weights: list[Tensor] = []  # by step: [B, K of the step before, P]; the parents looked to choose the token
        self.places: list[Tensor | None] = []  # by step: [B, K of the step before]

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, tokens: Tensor, parents: Tensor, weights: Tensor, places: Tensor | None) -> None:
        """One step: rows [B, K] with their tokens and parents, and where the rows before it looked."""
        self.tokens.append(tokens)
        self.parents.append(parents)
        self.weights.append(weights)
        self.places.append(places)

    def hypotheses(self, rows: Tensor, lengths: Tensor, *, log_prob: Tensor, score: Tensor) -> list[list[Hypothesis]]:
        """Hypotheses of an image's rows [B, n], each as it stood after `lengths` [B, n] tokens; score -inf: no row."""
        tokens, weights, places = (None if part is None else part.cpu() for part in self._follow(rows, lengths))
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
        """tokens [B, n, T], weights [B, n, T, P] and places [B, n, T] of the rows; beyond their lengths, anything."""
        tokens, weights, places = [], [], []
        for t in range(len(self) - 1, -1, -1):
            here = rows.clamp(max=self.tokens[t].shape[1] - 1)  # rows that stopped before t wait
            parents = self.parents[t].gather(1, here)
            tokens.append(self.tokens[t].gather(1, here))
            seen = self.weights[t]
            weights.append(seen.gather(1, parents[..., None].expand(-1, -1, seen.shape[-1])))
            if self.places[t] is not None:
                places.append(self.places[t].gather(1, parents))
            rows = torch.where(t < lengths, parents, rows)
        return *(torch.stack(part[::-1], 2) for part in (tokens, weights)), _stack(places[::-1])


def _stack(parts: list[Tensor]) -> Tensor | None:
    return torch.stack(parts, 2) if parts else None


def normalized(logits: Tensor) -> Tensor:
    """log softmax over the vocabulary, in float32 at the least; a new tensor, which a search may write into."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def looks(glimpse) -> tuple[Tensor, Tensor | None]:
    """weights [B, K, P] and places [B, K] of a glimpse, which need not have places."""
    return glimpse.weights, getattr(glimpse, "places", None)


def device_of(state) -> torch.device:
    """Where the first tensor of a state is; a state may hold states."""
    while not isinstance(state, Tensor):
        state = next(iter(state))
    return state.device
