"""Transform the image vector before it enters the recurrence: leave it as it is, or standardize it."""

import torch
from torch import Tensor, nn

from captioning.errors import must_be
from captioning.models.step_state import StepState

EPSILON = 1e-5  # added to a variance, as in BatchNorm


class Raw(nn.Module):
    """The image vector as it is: an fc vector, or the mean over the locations.

    Args:
        feature_size: Not used.
    """

    def __init__(self, feature_size: int):
        super().__init__()

    def forward(self, vector: Tensor) -> Tensor:
        """Return the vector unchanged."""
        return vector


class Standardized(StepState):
    """Subtract each feature's mean and divide by its standard deviation: (v_d − μ_d) / sqrt(σ_d² + ε).

    μ and σ² are running averages over the training images. They are constant during an optimizer step, and are then
    updated from all images of that step, over all processes and micro-batches. An image's vector therefore never
    depends on the other images of its batch (with BatchNorm it does, and BatchNorm fails for a batch of one). No
    gradient flows into them.

    The averages start from one imaginary image with μ = 0 and σ² = 1. At first all images count equally. Later a step
    counts at least `momentum`, so that the averages cover about the last hundred steps.

    If the image enters once, at the first step, a captioner learns sooner to use a standardized vector: features after
    a ReLU have a common mean, and differ less from image to image than words do.

    Args:
        feature_size: D.
        momentum: Minimum share of a step in the averages.

    Raises:
        ConfigError: `momentum` is not above 0 and at most 1.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor  # number of optimizer steps in the averages

    def __init__(self, feature_size: int, *, momentum: float = 0.01):
        super().__init__()
        must_be("model.vector.momentum", momentum, above=0, most=1)
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(feature_size))
        self.register_buffer("variance", torch.ones(feature_size))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, vector: Tensor) -> Tensor:
        """Standardize image vectors [B, D]; in training also record their sums for the next step."""
        mean, scale = self.mean, (self.variance + EPSILON).rsqrt()
        if self.training:
            apart = vector.detach().to(mean.dtype) - mean  # relative to the mean, so that squares keep their precision
            images = apart.new_full((1,), len(apart))
            standardized = (vector - mean) * scale
            self.note(torch.cat((images, apart.sum(0), apart.square().sum(0))))
            return standardized
        return (vector - mean) * scale

    @torch.no_grad()
    def take(self, sums: Tensor) -> None:
        """Update the averages as the moments of a mixture: earlier steps with share 1 − s, this step with share s.

        With n images in each of t earlier steps, the share of this step is n / (1 + t n + n) = 1 / (1 / n + t + 1).

        Args:
            sums: Number of images, then the D sums of v − μ, then the D sums of (v − μ)².
        """
        images, apart, squares = sums[0], *sums[1:].chunk(2)
        some = images > 0
        count = images.clamp(min=1)
        apart, squares = apart / count, squares / count  # of this step, relative to the mean before it
        share = (count.reciprocal() + self.batches.to(count.dtype) + 1).reciprocal().clamp(min=self.momentum) * some
        within = squares - apart.square()
        self.variance.mul_(1 - share).add_(share * (within + (1 - share) * apart.square()))
        self.mean.add_(share * apart)
        self.batches += some
