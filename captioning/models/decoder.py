"""The recurrent decoder: `step` for decoding, `forward` for teacher forcing, one set of sums.

Every tensor leads with [B, K]: B images, and K rows that share an image's features (its captions in training, its
beams or samples in decoding).
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captioning.models.attention import Glimpse, Keys
from captioning.models.state import State


class Memory(NamedTuple):
    """What the decoder looks up about B images, computed once and shared by all their rows.

    grid: [B, P, D]. keys: from attention.project. mask: [B, P] bool, True at real places, or None.
    every: [B, I], what joins the word at every step (I may be 0).
    """

    grid: Tensor
    keys: Keys
    mask: Tensor | None
    every: Tensor


class Step(NamedTuple):
    """logits: [B, K, V]. state: after the step. glimpse: where it looked."""

    logits: Tensor
    state: State
    glimpse: Glimpse


class Decoded(NamedTuple):
    """Teacher-forced outputs at the N real words of a batch; padding is not computed.

    logits: [N, V]. index: [N] position of each in the flattened targets [B · K · T]. glimpse: those of all steps,
    [B, K, T, …] and zero at padding, without the context. state: [layers, B, K, H] after all T steps, padding
    included; None where the steps were a loop, which leaves out rows that have ended.
    """

    logits: Tensor
    index: Tensor
    glimpse: Glimpse
    state: State | None


class Decoder(nn.Module):
    """Embedding, attention, recurrence and readout.

    Args:
        embedding, recurrence, attention, readout: built parts whose sizes fit.
        pad: id of the padding token.
        dropout: on the word embeddings that enter the recurrence.
    """

    def __init__(self, recurrence, attention, *, embedding: nn.Embedding, readout, pad: int, dropout: float):
        super().__init__()
        self.embedding = embedding
        self.recurrence, self.attention, self.readout, self.pad = recurrence, attention, readout, pad
        self.dropout = nn.Dropout(dropout)

    def step(self, token: Tensor, state: State, memory: Memory) -> Step:
        """One word: token [B, K] int64 -> scores of the next word."""
        word = self.dropout(self.embedding(token))
        state, glimpse = self.recurrence.step(self._project(word, memory), state, self._look(memory))
        return Step(self.readout(word, state.top, glimpse.context), state, glimpse)

    def first_step(self, vector: Tensor, state: State, memory: Memory) -> State:
        """Feeds an image vector [B, E] in the place of a word, and sees nothing (Show and Tell's x_{-1})."""

        def blind(query: Tensor, sentinel=None) -> Glimpse:
            return Glimpse(query.new_zeros(*query.shape[:2], self.attention.context_size), query[..., :0])

        return self.recurrence.step(self._project(vector[:, None], memory), state, blind)[0]

    def forward(self, tokens: Tensor, state: State, memory: Memory) -> Decoded:
        """Teacher forcing: the same numbers as a loop over `step`, for K captions an image.

        Args:
            tokens: [B, K, 1 + T], <start> words <end> <pad>….
            state: [layers, B, 1, H] before <start>.
        """
        real = tokens[..., 1:] != self.pad
        words = self.dropout(self.embedding(tokens[..., :-1]))
        inputs = self._join(words, memory)
        state = state.repeat(tokens.shape[1])
        run = self._loop if self.recurrence.loops else self._sequence
        hidden, context, index, glimpse, state = run(inputs, real, state, self._look(memory))
        return Decoded(self.readout(words.flatten(0, 2)[index], hidden, context), index, glimpse, state)

    def _sequence(self, inputs: Tensor, real: Tensor, state: State, look):
        """Nothing feeds back: the fused kernel runs all steps, and all of them look at once."""
        outputs, state = self.recurrence.sequence(inputs.permute(2, 0, 1, 3), state)
        hidden = outputs.permute(1, 2, 0, 3)  # [B, K, T, H]
        index = real.flatten().nonzero().squeeze(1)
        seen = look(hidden.flatten(1, 2))
        context = seen.context.flatten(0, 1)[index]
        fields = [None if part is None else part.unflatten(1, real.shape[1:]) for part in seen]
        return hidden.flatten(0, 2)[index], context, index, _at_words(fields, real), state

    def _loop(self, inputs: Tensor, real: Tensor, state: State, look):
        """A step a word, over the rows that some image still needs."""
        # Taken apart at once: a slice a step would fill the whole with zeros in the backward pass of each.
        projected, (_, rows, length) = self.recurrence.project(inputs).unbind(2), real.shape
        # The last row that is real anywhere, by step; one transfer from the device for the whole batch.
        needed = (real.any(0) * torch.arange(1, rows + 1, device=real.device)[:, None]).amax(0).tolist()
        position = torch.arange(real.numel(), device=real.device).view(real.shape)
        hidden, seen, positions = [], [], []
        for t in range(length):
            k = needed[t]
            state, glimpse = self.recurrence.step(projected[t][:, :k], state.first(k), look)
            hidden.append(state.top.flatten(0, 1))
            seen.append(glimpse)
            positions.append(position[:, :k, t].flatten())
        positions = torch.cat(positions)
        kept = real.flatten()[positions].nonzero().squeeze(1)
        context = torch.cat([glimpse.context.flatten(0, 1) for glimpse in seen])
        fields = [_over_time(parts, rows) for parts in zip(*seen, strict=True)]
        return torch.cat(hidden)[kept], context[kept], positions[kept], _at_words(fields, real), None

    def _look(self, memory: Memory):
        return partial(self.attention, grid=memory.grid, keys=memory.keys, mask=memory.mask)

    def _project(self, word: Tensor, memory: Memory) -> Tensor:
        """[B, K, E] -> the recurrence's share of the known input, [B, K, X]."""
        return self.recurrence.project(self._join(word[:, :, None], memory).squeeze(2))

    def _join(self, words: Tensor, memory: Memory) -> Tensor:
        """[B, K, T, E] and the image's [B, I] -> [B, K, T, E + I]."""
        if not memory.every.shape[-1]:
            return words
        return torch.cat((words, memory.every[:, None, None].expand(*words.shape[:3], -1)), -1)


def _over_time(parts, rows: int) -> Tensor | None:
    """One field of the glimpses of all steps, [B, k_t, …] each -> [B, K, T, …], zero in the rows that were left out."""
    if parts[0] is None:
        return None
    padding = [(0, 0) * (part.dim() - 2) + (0, rows - part.shape[1]) for part in parts]
    return torch.stack([F.pad(part, pad) for part, pad in zip(parts, padding, strict=True)], 2)


def _at_words(fields, real: Tensor) -> Glimpse:
    """Zero where there is no word; the context, which the readout has had, is left out."""
    context, weights, *others = fields
    others = [None if part is None else part * real for part in others]
    return Glimpse(context[..., :0], weights * real[..., None], *others)
