"""Attend to the locations of the feature grid: soft attention, hard attention, or none, with one signature.

    keys    = attention.project(grid)                              once per image
    glimpse = attention(query, grid, keys, mask, sentinel)         once per step

The grid [B, L, D] has L locations of D features. The query [B, K, H] is a state of the decoder for K captions or beams
per image. All K rows share the grid of their image: no tensor of size L × D is repeated for them.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError
from captioning.models.gradient_estimators import Draw, ScoreFunction, StraightThrough, most_likely
from captioning.models.interface import Glimpse
from captioning.models.scorers import Additive

DECODE = ("most_likely", "sample", "expectation")


class Sentinel(NamedTuple):
    """The visual sentinel: one more location per row, to attend to instead of the image (Lu et al. 2017).

    Attributes:
        vector: Sentinel vectors [B, K, D].
        key: Keys of the sentinel [B, K, A].
    """

    vector: Tensor
    key: Tensor


class Keys(NamedTuple):
    """The part of attention that is computed once per image.

    Attributes:
        places: Keys of the locations, [B, L, A].
        expected: [B] bool, the images that get the expected context in training; see `gradient_estimators`.
    """

    places: Tensor
    expected: Tensor | None = None


class NoAttention(nn.Module):
    """No attention: context and weights have width 0. The image enters through the conditioning only.

    Args:
        feature_size: Not used.
        state_size: Not used.
        scorer: Not used.
        grid: Not used.
    """

    def __init__(self, feature_size: int, state_size: int, *, scorer: Callable = Additive, grid: bool = False):
        super().__init__()
        self.context_size = self.key_size = 0

    def project(self, grid: Tensor) -> Keys:
        """Return empty keys, [B, 1, 0]."""
        return Keys(grid.new_zeros(len(grid), 1, 0))

    def forward(
        self, query: Tensor, grid: Tensor, keys: Keys, mask: Tensor | None = None, sentinel: Sentinel | None = None
    ) -> Glimpse:
        """Return an empty context and empty weights, [B, K, 0]."""
        empty = query.new_zeros(*query.shape[:2], 0)
        return Glimpse(empty, empty)


class SoftAttention(nn.Module):
    """Soft attention, Show, Attend and Tell (Xu et al. 2015) eqs. 4–6 and 13: α = softmax(e), z = Σ_i α_i a_i.

    Args:
        feature_size: D.
        state_size: H.
        scorer: (feature_size, state_size) -> module that computes the scores e, see `scorers`.
        grid: Whether the encoder returns a grid.

    Raises:
        ConfigError: The encoder returns one vector per image, not a grid.
    """

    def __init__(self, feature_size: int, state_size: int, *, scorer: Callable = Additive, grid: bool = True):
        super().__init__()
        _needs_places("soft", grid)
        self.scorer = scorer(feature_size, state_size)
        self.context_size, self.key_size = feature_size, self.scorer.width

    def project(self, grid: Tensor) -> Keys:
        """Compute the scorer's keys of all locations: grid [B, L, D] -> [B, L, A]."""
        return Keys(self.scorer.project(grid))

    def forward(
        self, query: Tensor, grid: Tensor, keys: Keys, mask: Tensor | None = None, sentinel: Sentinel | None = None
    ) -> Glimpse:
        """Compute the context vector and the attention weights.

        Args:
            query: [B, K, H].
            grid: [B, L, D].
            keys: From `project`.
            mask: [B, L] bool, True at real locations; None if all are real.
            sentinel: `Sentinel`, or None.

        Returns:
            Context [B, K, D] and weights [B, K, L], without the sentinel's weight.
        """
        weights = _scores(self.scorer, query, keys, mask, sentinel).softmax(-1)
        # The context is computed from the glimpse's own weights, so that gradients with respect to them exist.
        weights, rest = _parted(weights, sentinel)
        return Glimpse(_look(weights, rest, grid, sentinel), weights)


class HardAttention(nn.Module):
    """Stochastic hard attention, Show, Attend and Tell section 4.1: s_t ~ Multinomial(α_t), z_t = a_{s_t}.

    In training, `draw` samples a location with torch's global generator and defines how the gradient reaches α. In eval
    mode, `decode` selects the location.

    Args:
        feature_size: D.
        state_size: H.
        scorer: As for `SoftAttention`.
        grid: As for `SoftAttention`.
        draw: `ScoreFunction` (REINFORCE, the default) or `StraightThrough` (Gumbel-softmax).
        decode: "most_likely" (the location of largest α), "sample", or "expectation" (the soft context Σ_i α_i a_i).

    Raises:
        ConfigError: `decode` is unknown, or the encoder returns one vector per image, not a grid.
    """

    def __init__(
        self,
        feature_size: int,
        state_size: int,
        *,
        scorer: Callable = Additive,
        grid: bool = True,
        draw: Callable | None = None,  # checked as a group with _target_ (captioning.config.validation)
        decode: str = "most_likely",
    ):
        super().__init__()
        _needs_places("hard", grid)
        if decode not in DECODE:
            raise ConfigError(f"model.attention.decode must be one of {', '.join(DECODE)}, not {decode!r}")
        self.scorer, self.decode = scorer(feature_size, state_size), decode
        self.draw = cast("ScoreFunction | StraightThrough", draw or ScoreFunction())
        self.context_size, self.key_size = feature_size, self.scorer.width

    def project(self, grid: Tensor) -> Keys:
        """Compute the keys of all locations, and in training select the images that get the expected context."""
        return Keys(self.scorer.project(grid), self.draw.expected(grid) if self.training else None)

    def forward(
        self, query: Tensor, grid: Tensor, keys: Keys, mask: Tensor | None = None, sentinel: Sentinel | None = None
    ) -> Glimpse:
        """Select one location per row and return its features as the context.

        Arguments and shapes are those of `SoftAttention`. The glimpse also has the selected location, and in training
        with `ScoreFunction` its log-probability and the entropy of α.
        """
        # log_softmax never takes the log of an α that underflowed to 0.
        log_weights = _scores(self.scorer, query, keys, mask, sentinel).log_softmax(-1)
        drawn = self.draw(log_weights, keys.expected) if self.training else self._decode(log_weights)
        weights = log_weights[..., : grid.shape[1]].exp()
        chosen, rest = _parted(drawn.weights, sentinel)
        return Glimpse(_look(chosen, rest, grid, sentinel), weights, drawn.places, drawn.log_prob, drawn.entropy)

    def _decode(self, log_weights: Tensor) -> Draw:
        if self.decode == "expectation":
            return Draw(log_weights.exp())
        return most_likely(log_weights, sample=self.decode == "sample")


# The kinds of attention; a plug-in's class needs the same methods and attributes.
Attention = NoAttention | SoftAttention | HardAttention


def _needs_places(kind: str, grid: bool) -> None:
    if not grid:
        raise ConfigError(
            f"model/attention={kind} needs a feature grid, but the encoder returns one vector per image. "
            "Set encoder.output=grid or model/attention=none "
            "(which needs model/recurrence=look_first, look_with_word or up_down)"
        )


def _scores(scorer, query: Tensor, keys: Keys, mask: Tensor | None, sentinel: Sentinel | None) -> Tensor:
    """Compute scores [B, K, L], or [B, K, L + 1] with the sentinel last.

    Masked locations get −inf before any softmax, so there is never a division 0 / 0.
    """
    scores = scorer(query, keys.places)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None], -torch.inf)
    if sentinel is None:
        return scores
    return torch.cat((scores, scorer.of_rows(query, sentinel.key)[..., None]), -1)


def _parted(weights: Tensor, sentinel: Sentinel | None) -> tuple[Tensor, Tensor | None]:
    """Split off the sentinel's weight, the last one: [B, K, L + 1] -> [B, K, L] and [B, K, 1]."""
    return (weights, None) if sentinel is None else (weights[..., :-1], weights[..., -1:])


def _look(weights: Tensor, rest: Tensor | None, grid: Tensor, sentinel: Sentinel | None) -> Tensor:
    """Compute Σ_i w_i a_i, plus the sentinel's share of its vector: weights [B, K, L], rest [B, K, 1] -> [B, K, D]."""
    if sentinel is None or rest is None:
        return weights @ grid
    return weights @ grid + rest * sentinel.vector
