"""Attend to the locations of the feature grid: soft attention, hard attention, or none, with one signature.

    keys    = attention.project(grid)                              once an image
    glimpse = attention(query, grid, keys, mask, sentinel)         each step

grid [B, P, D] holds P places of D features; query [B, K, H] is a state of the decoder, for K captions or beams of
each image. All K look at the one grid of their image: nothing of size P × D is repeated for them.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError
from captioning.models.gradient_estimators import Draw, ScoreFunction, most_likely
from captioning.models.interface import Glimpse
from captioning.models.scorers import Additive

DECODE = ("most_likely", "sample", "expectation")


class Sentinel(NamedTuple):
    """A further place of each row's own, to look at instead of the image: vector [B, K, D], key [B, K, A]."""

    vector: Tensor
    key: Tensor


class Keys(NamedTuple):
    """What attention works out once an image. places: [B, P, A]. expected: see `draws`."""

    places: Tensor
    expected: Tensor | None = None


class NoAttention(nn.Module):
    """Sees nothing: a context and weights of width zero. The image enters through the conditioning alone."""

    def __init__(self, feature_size: int, state_size: int, *, scorer: Callable = Additive, grid: bool = False):
        super().__init__()
        self.context_size = self.key_size = 0

    def project(self, grid: Tensor) -> Keys:
        """Nothing to project: [B, 1, 0]."""
        return Keys(grid.new_zeros(len(grid), 1, 0))

    def forward(self, query: Tensor, grid: Tensor, keys: Keys, mask: Tensor | None = None, sentinel=None) -> Glimpse:
        empty = query.new_zeros(*query.shape[:2], 0)
        return Glimpse(empty, empty)


class SoftAttention(nn.Module):
    """Deterministic soft attention, Show, Attend and Tell eqs. 4–6 and 13: α = softmax(e), z = Σ_i α_i a_i.

    Args:
        feature_size: D. state_size: H.
        scorer: (feature_size, state_size) -> what gives e, see `scorers`.
        grid: whether the encoder gives places at all; attention over one fc vector is refused.
    """

    def __init__(self, feature_size: int, state_size: int, *, scorer: Callable = Additive, grid: bool = True):
        super().__init__()
        _needs_places("soft", grid)
        self.scorer = scorer(feature_size, state_size)
        self.context_size, self.key_size = feature_size, self.scorer.width

    def project(self, grid: Tensor) -> Keys:
        """The scorer's keys of every place."""
        return Keys(self.scorer.project(grid))

    def forward(self, query: Tensor, grid: Tensor, keys: Keys, mask: Tensor | None = None, sentinel=None) -> Glimpse:
        weights = _scores(self.scorer, query, keys, mask, sentinel).softmax(-1)
        return Glimpse(_look(weights, grid, sentinel), weights[..., : grid.shape[1]])


class HardAttention(nn.Module):
    """Stochastic hard attention, Show, Attend and Tell section 4.1: s_t ~ Multinomial(α_t), z_t = a_{s_t}.

    In training, `draw` looks at a random place and says how the gradient reaches α; random numbers come from torch's
    global generator. In eval mode `decode` says what is looked at.

    Args:
        feature_size, state_size, scorer, grid: as for `SoftAttention`.
        draw: ScoreFunction (REINFORCE) or StraightThrough (Gumbel-softmax), see `draws`.
        decode: "most_likely" (the place of largest α), "sample", or "expectation" (the soft context Σ α_i a_i).
    """

    def __init__(
        self,
        feature_size: int,
        state_size: int,
        *,
        scorer: Callable = Additive,
        grid: bool = True,
        draw: Callable | None = None,
        decode: str = "most_likely",
    ):
        super().__init__()
        _needs_places("hard", grid)
        if decode not in DECODE:
            raise ConfigError(f"model.attention.decode must be one of {', '.join(DECODE)}, not {decode!r}")
        self.scorer, self.draw, self.decode = scorer(feature_size, state_size), draw or ScoreFunction(), decode
        self.context_size, self.key_size = feature_size, self.scorer.width

    def project(self, grid: Tensor) -> Keys:
        """The scorer's keys of every place, and in training which images are shown the expected context."""
        return Keys(self.scorer.project(grid), self.draw.expected(grid) if self.training else None)

    def forward(self, query: Tensor, grid: Tensor, keys: Keys, mask: Tensor | None = None, sentinel=None) -> Glimpse:
        log_weights = _scores(self.scorer, query, keys, mask, sentinel).log_softmax(-1)  # no log of an underflown α
        drawn = self.draw(log_weights, keys.expected) if self.training else self._decode(log_weights)
        weights = log_weights[..., : grid.shape[1]].exp()
        return Glimpse(_look(drawn.weights, grid, sentinel), weights, drawn.places, drawn.log_prob, drawn.entropy)

    def _decode(self, log_weights: Tensor) -> Draw:
        if self.decode == "expectation":
            return Draw(log_weights.exp())
        return most_likely(log_weights, sample=self.decode == "sample")


def _needs_places(kind: str, grid: bool) -> None:
    if not grid:
        raise ConfigError(
            f"model/attention={kind} looks over a grid, but the encoder gives one fc vector: "
            "set encoder.output=grid or model/attention=none "
            "(which needs model/recurrence=look_first, look_with_word or up_down)"
        )


def _scores(scorer, query: Tensor, keys: Keys, mask: Tensor | None, sentinel: Sentinel | None) -> Tensor:
    """[B, K, P], or [B, K, P + 1] with the sentinel last; −inf at masked places, before any softmax: no 0 / 0."""
    scores = scorer(query, keys.places)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None], -torch.inf)
    if sentinel is None:
        return scores
    return torch.cat((scores, scorer.of_rows(query, sentinel.key)[..., None]), -1)


def _look(weights: Tensor, grid: Tensor, sentinel: Sentinel | None) -> Tensor:
    """Σ_i w_i a_i (and the sentinel's share of its vector): [B, K, P (+ 1)] -> [B, K, D]."""
    if sentinel is None:
        return weights @ grid
    return weights[..., :-1] @ grid + weights[..., -1:] * sentinel.vector
