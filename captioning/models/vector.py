"""Transform the image vector before it enters the recurrence: leave it as it is, or standardize it."""

import torch
from torch import Tensor, nn

from captioning.errors import must_be

EPSILON = 1e-5  # beside a variance, as BatchNorm has it


class Raw(nn.Module):
    """The vector as it is: an fc vector, or the mean over the places."""

    def __init__(self, feature_size: int):
        super().__init__()

    def forward(self, vector: Tensor) -> Tensor:
        return vector


class Standardized(nn.Module):
    """Every feature less its mean, over its standard deviation: (v_d − μ_d) / sqrt(σ_d² + ε).

    μ and σ² are those of the training pictures: running averages over the batches seen in training, all alike at first
    and then of the last hundred or so. Evaluation takes them as they are, and training too, once a batch is in them,
    so that a picture's vector hardly depends on the others of its batch (BatchNorm takes the batch's own, and fails
    for a batch of one). No gradient goes into them.

    Where the image enters once, at the first step, a captioner uses it sooner for that: features behind a ReLU have a
    common mean, and differ less from picture to picture than words do.

    Args:
        feature_size: D.
        momentum: least share of a batch in the averages.
    """

    def __init__(self, feature_size: int, *, momentum: float = 0.01):
        super().__init__()
        must_be("model.vector.momentum", momentum, above=0, most=1)
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(feature_size))
        self.register_buffer("variance", torch.ones(feature_size))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, vector: Tensor) -> Tensor:
        if self.training:
            self._take_in(vector.detach())
        return (vector - self.mean) * (self.variance + EPSILON).rsqrt()

    @torch.no_grad()
    def _take_in(self, vector: Tensor) -> None:
        """Moments of a mixture: all batches before with share 1 − s, which is 0 at first, and this one with share s."""
        self.batches += 1
        vector = vector.to(self.mean.dtype)
        share = self.batches.to(vector.dtype).reciprocal().clamp(min=self.momentum)
        apart = vector.mean(0) - self.mean
        self.variance.mul_(1 - share).add_(share * (vector.var(0, unbiased=False) + (1 - share) * apart.square()))
        self.mean.add_(share * apart)
