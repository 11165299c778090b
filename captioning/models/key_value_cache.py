"""Keep the keys and values of the words that a transformer has read, for the steps that follow."""

from typing import NamedTuple

import torch
from torch import Tensor

LEAST_ROOM = 16  # positions of a new buffer; a full buffer is replaced by one of twice its size


class Past(NamedTuple):
    """What one layer computed for the T positions read so far, for B images × K rows.

    It is a value: `append` returns a new one and never changes what an earlier one contains. Without gradients, all
    values that `append` made one from another share a buffer, and a step copies only its own position. A second step
    from the same value finds its position taken, and copies the past to a new buffer.

    Attributes:
        known: [T, B, K, C], the first T positions of the buffer.
        buffer: [S, B, K, C] with S ≥ T.
        filled: One number: how many positions of the buffer any value uses.
    """

    known: Tensor
    buffer: Tensor
    filled: list[int]

    @classmethod
    def of(cls, known: Tensor) -> "Past":
        """Return a value without free positions."""
        return cls(known, known, [len(known)])

    def append(self, new: Tensor) -> "Past":
        """Add one position.

        Args:
            new: [B, K, C].
        """
        length, buffer, filled = len(self.known), self.buffer, self.filled
        if torch.is_grad_enabled():  # a backward pass needs every past as it was
            return Past.of(torch.cat((self.known.to(new.dtype), new[None])))
        writable = buffer.is_inference() == torch.is_inference_mode_enabled()
        if length == len(buffer) or filled[0] != length or not writable:
            buffer, filled = new.new_empty(max(LEAST_ROOM, 2 * length), *new.shape), [length]
            buffer[:length] = self.known
        buffer[length] = new
        filled[0] = length + 1
        return Past(buffer[: length + 1], buffer, filled)

    def select(self, index: Tensor) -> "Past":
        """Copy rows to a buffer that has free positions, so that the next `append` need not copy them again."""
        length, batch, rows, width = self.known.shape
        if rows == index.shape[1] == 1:  # greedy decoding
            return self
        flat = (torch.arange(batch, device=index.device)[:, None] * rows + index).flatten()
        if torch.is_grad_enabled():
            return Past.of(self.known.flatten(1, 2).index_select(1, flat).unflatten(1, index.shape))
        buffer = self.known.new_empty(max(LEAST_ROOM, 2 * length), *index.shape, width)
        torch.index_select(self.known.flatten(1, 2), 1, flat, out=buffer[:length].flatten(1, 2))
        return Past(buffer[:length], buffer, [length])


class KeyValueCache(NamedTuple):
    """The state of a transformer between two words, for B images × K rows.

    Attributes:
        layers: For each layer, the keys and values of self-attention, [T, B, K, 2 W].
        seen: For each layer, how much each word's input to this layer comes from each location, [T, B, K, L] (see
            `attention_rollout`); empty if the model's maps do not need it.
    """

    layers: tuple[Past, ...]
    seen: tuple[Past, ...] = ()

    @property
    def length(self) -> int:
        """T, the number of words read."""
        return len(self.layers[0].known)

    def select(self, index: Tensor) -> "KeyValueCache":
        """Select rows: row index[b, j] of image b becomes its row j.

        Args:
            index: [B, J] int64, for example the reordering of a beam.
        """
        return KeyValueCache(*(tuple(past.select(index) for past in part) for part in self))

    def repeat(self, rows: int) -> "KeyValueCache":
        """Repeat the one row of each image as a view."""
        return self._each(lambda known: known.expand(-1, -1, rows, -1))

    def detach(self) -> "KeyValueCache":
        """Return the same values without gradient history, to truncate backpropagation through time."""
        return self._each(Tensor.detach)

    def _each(self, change) -> "KeyValueCache":
        return KeyValueCache(*(tuple(Past.of(change(past.known)) for past in part) for part in self))
