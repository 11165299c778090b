"""Define the state that a recurrent decoder carries from word to word."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from captioning.errors import ConfigError


class RecurrentState(NamedTuple):
    """Hidden states of all layers for B images × K rows (captions, beams or samples of the same image).

    Attributes:
        hidden: Hidden states [layers, B, K, H].
        cell: Cell states [layers, B, K, H], or [layers, B, K, 0] for recurrences without a cell state.
    """

    hidden: Tensor
    cell: Tensor

    @property
    def top(self) -> Tensor:
        """Hidden state of the last layer, [B, K, H]."""
        return self.hidden[-1]

    def layers(self, start: int, stop: int | None = None) -> "RecurrentState":
        """Return the layers start … stop − 1."""
        return RecurrentState(*(part[start:stop] for part in self))

    def below(self, above: "RecurrentState") -> "RecurrentState":
        """Stack another state's layers on top of these layers."""
        return RecurrentState(*(torch.cat(parts) for parts in zip(self, above, strict=True)))

    def select(self, index: Tensor) -> "RecurrentState":
        """Select rows: row index[b, j] of image b becomes its row j.

        Args:
            index: [B, J] int64, for example the reordering of a beam.
        """
        return RecurrentState(*(_gather_rows(part, index) for part in self))

    def repeat(self, rows: int) -> "RecurrentState":
        """Repeat the one row of each image as a view: […, B, 1, H] -> […, B, rows, H]."""
        return RecurrentState(*(part.expand(-1, -1, rows, -1) for part in self))

    def first(self, rows: int) -> "RecurrentState":
        """Return the first `rows` rows of each image."""
        return RecurrentState(*(part[:, :, :rows] for part in self))

    def detach(self) -> "RecurrentState":
        """Return the same values without gradient history, to truncate backpropagation through time."""
        return RecurrentState(*(part.detach() for part in self))


def recurrent(state: Any) -> RecurrentState:
    """Return the state if it is that of a recurrent decoder.

    Raises:
        ConfigError: It is that of another decoder, which has no hidden states and gates to study.
    """
    if not isinstance(state, RecurrentState):
        raise ConfigError(
            f"this captioner has no recurrent state but a {type(state).__name__}: to study states, gates and gradients "
            "through time, load a run with model=default"
        )
    return state


def _gather_rows(part: Tensor, index: Tensor) -> Tensor:
    layers, _, _, width = part.shape
    return part.gather(2, index[None, :, :, None].expand(layers, -1, -1, width))
