"""Sample a location for hard attention in training and carry the gradient to α: REINFORCE or straight-through.

    expected = draw.expected(grid)                 once per image: which images get the expected context, [B] or None
    draw(log α [B, K, L], expected) -> Draw        once per step

Locations are sampled by the Gumbel-max trick, argmax_i (log α_i + g_i). This samples exactly from Multinomial(α)
without a division. Masked locations (log α = −inf) are never sampled.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from captioning.errors import ConfigError


class Draw(NamedTuple):
    """A sampled location per row.

    Attributes:
        weights: Weights of the context, [B, K, L]: one-hot, or α.
        places: Index of the location, [B, K]; None if the context is the expected one in evaluation.
        log_prob: Log-probability of the location, [B, K], or None.
        entropy: Entropy of α in nats, [B, K], or None.
    """

    weights: Tensor
    places: Tensor | None = None
    log_prob: Tensor | None = None
    entropy: Tensor | None = None


class ScoreFunction:
    """REINFORCE (Show, Attend and Tell eqs. 11–12): a one-hot context, through which no gradient reaches α.

    It returns log α of the sampled location and H[α]; `objectives.Reinforce` computes the gradient from them. If an
    image gets the expected context instead of a sample, log α counts as 0, because there is no sample to reinforce.

    Args:
        expected_share: Probability with which an image gets the expected context Σ_i α_i a_i instead of a sampled
            location, in all its captions and steps. It is 0.5 in section 4.1 of the paper (whose code samples it once
            per batch).

    Raises:
        ConfigError: `expected_share` is not between 0 and 1.
    """

    def __init__(self, *, expected_share: float = 0.5):
        if not 0 <= expected_share <= 1:
            raise ConfigError(f"model.attention.draw.expected_share must be between 0 and 1, not {expected_share}")
        self.expected_share = expected_share

    def expected(self, grid: Tensor) -> Tensor | None:
        """Sample which images get the expected context, [B] bool, with torch's global generator."""
        return torch.rand(len(grid), device=grid.device) < self.expected_share if self.expected_share else None

    def __call__(self, log_weights: Tensor, expected: Tensor | None) -> Draw:
        """Sample one location per row.

        Args:
            log_weights: log α [B, K, L].
            expected: [B] bool, from `expected`, or None.
        """
        drawn = most_likely(log_weights, sample=True)
        assert drawn.places is not None
        log_prob = log_weights.gather(-1, drawn.places[..., None]).squeeze(-1)
        weights = drawn.weights
        if expected is not None:
            weights = torch.where(expected[:, None, None], log_weights.exp(), weights)
            log_prob = log_prob.masked_fill(expected[:, None], 0.0)
        return Draw(weights, drawn.places, log_prob, entropy(log_weights))


class StraightThrough:
    """Straight-through Gumbel-softmax (Jang et al. 2017): one-hot context forward, softmax gradient backward.

    y = softmax((log α + s g) / τ). The context is that of the largest y, and its gradient is that of y. The estimate is
    biased. The bias is larger if the network is linear only over a range that is small compared with τ. It needs no
    objective of its own.

    With s = 1, locations are sampled from α, as in the paper. With s = 0, training uses the most probable location, as
    evaluation does by default, and nothing is sampled.

    Args:
        temperature: τ.
        noise: s.

    Raises:
        ConfigError: `temperature` is not positive, or `noise` is negative.
    """

    def __init__(self, *, temperature: float = 1.0, noise: float = 1.0):
        if temperature <= 0:
            raise ConfigError(f"model.attention.draw.temperature must be positive, not {temperature}")
        if noise < 0:
            raise ConfigError(f"model.attention.draw.noise must not be negative, not {noise}")
        self.temperature, self.noise = temperature, noise

    def expected(self, grid: Tensor) -> None:
        """Return None: no image gets the expected context."""
        return

    def __call__(self, log_weights: Tensor, expected: Tensor | None) -> Draw:
        """Sample one location per row.

        Args:
            log_weights: log α [B, K, L].
            expected: Not used.
        """
        noisy = log_weights + self.noise * _gumbel(log_weights) if self.noise else log_weights
        places = noisy.argmax(-1)
        soft = (noisy / self.temperature).softmax(-1)
        return Draw(_one_hot(places, soft) + (soft - soft.detach()), places)


def most_likely(log_weights: Tensor, *, sample: bool = False) -> Draw:
    """Select the location of largest α, or with `sample` one sampled from α; ties go to the first location."""
    places = (log_weights + _gumbel(log_weights) if sample else log_weights).argmax(-1)
    return Draw(_one_hot(places, log_weights), places)


def entropy(log_weights: Tensor) -> Tensor:
    """Compute H[α] = −Σ α log α in nats: [B, K, L] -> [B, K]; a weight of 0 adds nothing and has no gradient."""
    finite = log_weights.masked_fill(log_weights.isneginf(), 0.0)
    return -(log_weights.exp() * finite).sum(-1)


def _gumbel(like: Tensor) -> Tensor:
    """Sample standard Gumbel noise, −log of exponential noise, with torch's global generator."""
    return -torch.empty_like(like).exponential_().clamp_min(torch.finfo(like.dtype).tiny).log()


def _one_hot(places: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter(-1, places[..., None], 1.0)
