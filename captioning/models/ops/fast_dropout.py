"""Apply dropout with 16 random bits per element, which is faster on a CPU than torch's own."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHARES = 2**16  # values of 16 bits, a quarter of a 64-bit random number


def dropout(inputs: Tensor, share: float, training: bool) -> Tensor:
    """Set a `share` of the numbers to zero and scale the others by 1 / (1 − share) (Srivastava et al. 2014).

    On a CPU the share is rounded to a multiple of 2⁻¹⁶, and the scale is that of the rounded share. Random numbers come
    from torch's global generator.

    Args:
        inputs: Any shape.
        share: Probability of zero.
        training: False returns the inputs.
    """
    if not training or not share or inputs.device.type != "cpu":
        return F.dropout(inputs, share, training)
    left_out = min(round(share * SHARES), SHARES - 1)
    numbers = torch.empty(-(-inputs.numel() // 4), dtype=torch.int64, device=inputs.device)
    bits = numbers.random_(-(2**63), None).view(torch.int16)
    kept = bits[: inputs.numel()].view(inputs.shape) >= left_out - SHARES // 2
    return inputs * kept.to(inputs.dtype).mul_(SHARES / (SHARES - left_out))


class Dropout(nn.Dropout):
    """torch's `nn.Dropout`, computed by `dropout`."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply dropout in training mode."""
        return dropout(inputs, self.p, self.training)
