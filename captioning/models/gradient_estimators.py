"""Draw a location for hard attention in training, and carry the gradient to α: REINFORCE or straight-through.

    expected = draw.expected(grid)                 once an image: which images see the expected context, [B] or None
    draw(log α [B, K, P], expected) -> Draw        each step

Places are drawn by the Gumbel-max trick, argmax_i (log α_i + g_i), which is a draw from Multinomial(α) exactly and
divides by nothing; masked places (log α = −inf) are never drawn.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from captioning.errors import ConfigError


class Draw(NamedTuple):
    """weights: [B, K, P] of the context, one-hot or α. places: [B, K]. log_prob, entropy: [B, K] or None."""

    weights: Tensor
    places: Tensor | None = None
    log_prob: Tensor | None = None
    entropy: Tensor | None = None


class ScoreFunction:
    """REINFORCE (Show, Attend and Tell eqs. 11–12): a one-hot context without gradient to α.

    Gives log α of the drawn place and H[α], from which objectives.Reinforce makes the gradient. Where the expected
    context stands in for a draw, log α counts as 0: nothing was drawn that could be reinforced.

    Args:
        expected_share: probability with which an image, in all its captions and steps, is shown Σ α_i a_i instead
            of a drawn place; 0.5 in the paper's section 4.1 (whose code draws it once a batch).
    """

    def __init__(self, *, expected_share: float = 0.5):
        if not 0 <= expected_share <= 1:
            raise ConfigError(f"draw.expected_share must be between 0 and 1, not {expected_share}")
        self.expected_share = expected_share

    def expected(self, grid: Tensor) -> Tensor | None:
        """[B] bool, drawn from torch's global generator."""
        return torch.rand(len(grid), device=grid.device) < self.expected_share if self.expected_share else None

    def __call__(self, log_weights: Tensor, expected: Tensor | None) -> Draw:
        drawn = most_likely(log_weights, sample=True)
        log_prob = log_weights.gather(-1, drawn.places[..., None]).squeeze(-1)
        weights = drawn.weights
        if expected is not None:
            weights = torch.where(expected[:, None, None], log_weights.exp(), weights)
            log_prob = log_prob.masked_fill(expected[:, None], 0.0)
        return Draw(weights, drawn.places, log_prob, entropy(log_weights))


class StraightThrough:
    """Straight-through Gumbel-softmax (Jang et al. 2017): one-hot forward, a softmax's gradient backward.

    y = softmax((log α + g) / τ); the context is that of the largest y, its gradient that of y. Biased, more so the
    smaller the network's linear range is against τ; needs no objective of its own.

    Args:
        temperature: τ.
    """

    def __init__(self, *, temperature: float = 1.0):
        if temperature <= 0:
            raise ConfigError(f"draw.temperature must be positive, not {temperature}")
        self.temperature = temperature

    def expected(self, grid: Tensor) -> None:
        """No image sees the expected context."""
        return

    def __call__(self, log_weights: Tensor, expected: Tensor | None) -> Draw:
        noisy = log_weights + _gumbel(log_weights)
        places = noisy.argmax(-1)
        soft = (noisy / self.temperature).softmax(-1)
        return Draw(_one_hot(places, soft) + (soft - soft.detach()), places)


def most_likely(log_weights: Tensor, *, sample: bool = False) -> Draw:
    """The place of largest α, or one drawn from α; ties go to the first place."""
    places = (log_weights + _gumbel(log_weights) if sample else log_weights).argmax(-1)
    return Draw(_one_hot(places, log_weights), places)


def entropy(log_weights: Tensor) -> Tensor:
    """H[α] = −Σ α log α in nats: [B, K, P] -> [B, K]; a place of weight zero adds nothing, and has no gradient."""
    finite = log_weights.masked_fill(log_weights.isneginf(), 0.0)
    return -(log_weights.exp() * finite).sum(-1)


def _gumbel(like: Tensor) -> Tensor:
    """Standard Gumbel noise, −log of exponential noise, from torch's global generator."""
    return -torch.empty_like(like).exponential_().clamp_min(torch.finfo(like.dtype).tiny).log()


def _one_hot(places: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter(-1, places[..., None], 1.0)
