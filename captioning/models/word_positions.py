"""Encode the position of a word in its caption, for decoders that do not read word by word."""

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError, must_be


class SinusoidalPositions(nn.Module):
    """Sines and cosines of the position t (Vaswani et al. 2017, section 3.5), for captions of any length.

    PE(t, 2i) = sin(t / 10000^(2i / W)), PE(t, 2i + 1) = cos(t / 10000^(2i / W)).

    Args:
        width: W, an even number.

    Attributes:
        longest: None: there is no last position.

    Raises:
        ConfigError: `width` is odd.
    """

    longest = None

    def __init__(self, width: int):
        super().__init__()
        if width % 2:
            raise ConfigError(
                f"model.width must be even for model/word_positions=sinusoidal, not {width}. "
                f"Set model.width={width + 1}, or model/word_positions=learned"
            )
        self.width = width

    def forward(self, start: int, count: int, *, like: Tensor) -> Tensor:
        """Compute the code of the positions start … start + count − 1: [count, W].

        Args:
            start: The first position.
            count: Number of positions.
            like: A tensor of the device and type to use.
        """
        evens = torch.arange(0, self.width, 2, device=like.device, dtype=torch.float64)
        place = torch.arange(start, start + count, device=like.device, dtype=torch.float64)
        turns = place[:, None] * 10000.0 ** (-evens / self.width)
        return torch.stack((turns.sin(), turns.cos()), -1).flatten(1).to(like.dtype)


class LearnedPositions(nn.Module):
    """One learned vector per position.

    Args:
        width: W.
        longest: Number of positions: the greatest number of tokens that the model can read, `<start>` included.

    Raises:
        ConfigError: `longest` is less than 2: `<start>` and one word.
    """

    def __init__(self, width: int, *, longest: int = 64):
        super().__init__()
        must_be("model.word_positions.longest", longest, least=2)
        self.longest = longest
        self.vectors = nn.Parameter(torch.empty(longest, width))
        nn.init.normal_(self.vectors, std=0.02)

    def forward(self, start: int, count: int, *, like: Tensor) -> Tensor:
        """Return the vectors of the positions start … start + count − 1: [count, W].

        Args:
            start: The first position.
            count: Number of positions.
            like: A tensor of the type to use.

        Raises:
            ConfigError: The model has no vector for the last position.
        """
        if start + count > self.longest:  # a given caption; settings that allow longer ones are refused earlier
            raise ConfigError(
                f"model.word_positions.longest={self.longest} is too small for a caption of {start + count} tokens. "
                f"Shorten the caption, or train with model.word_positions.longest={start + count}"
            )
        return self.vectors[start : start + count].to(like.dtype)
