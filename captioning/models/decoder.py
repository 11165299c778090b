"""Decode with a recurrence: `step` for search and `forward` for teacher forcing compute the same numbers.

Every tensor starts with [B, K]: B images, and K rows that share an image's features (its captions in training, its
beams or samples in decoding).
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captioning.models.attention import Attention, Keys
from captioning.models.interface import Decoded, Glimpse, Step
from captioning.models.ops import Dropout, Layout, summed_at_once
from captioning.models.readout import Readout
from captioning.models.state import RecurrentState


class Memory(NamedTuple):
    """Data about B images that the decoder reads at every step, computed once and shared by all rows of an image.

    Attributes:
        grid: Feature grid [B, L, D].
        keys: Keys from `attention.project`.
        mask: [B, L] bool, True at real locations, or None.
        every: Image input that is concatenated with the word at every step, [B, I] (I may be 0).
    """

    grid: Tensor
    keys: Keys
    mask: Tensor | None
    every: Tensor


class Decoder(nn.Module):
    """A recurrent decoder: embedding, attention, recurrence and readout.

    Args:
        recurrence: Built recurrence, see `recurrence`.
        attention: Built attention, see `attention`.
        embedding: Word embedding.
        readout: Built output layer, see `readout`.
        pad: Id of the padding token.
        dropout: On the word embeddings that enter the recurrence.
        word_dropout: Probability with which an input word's embedding is set to zero in training, so that the model
            must predict the next word from the image and the state.
    """

    def __init__(
        self,
        recurrence: Any,
        attention: Attention,
        *,
        embedding: nn.Embedding,
        readout: Readout,
        pad: int,
        dropout: float,
        word_dropout: float = 0.0,
    ):
        super().__init__()
        self.embedding = embedding
        self.recurrence, self.attention, self.readout, self.pad = recurrence, attention, readout, pad
        self.dropout, self.word_dropout = Dropout(dropout), nn.Dropout1d(word_dropout)

    def step(self, token: Tensor, state: RecurrentState, memory: Memory) -> Step:
        """Read one word per row and score the next one.

        Args:
            token: [B, K] int64.
            state: The state before the step.
            memory: From `Captioner.begin`.

        Returns:
            Logits [B, K, V], the new state and the glimpse.
        """
        word = self._embed(token)
        state, glimpse = self.recurrence.step(self._project(word, memory), state, self._look(memory))
        return Step(self.readout(word, state.top, glimpse.context), state, glimpse)

    def first_step(self, vector: Tensor, state: RecurrentState, memory: Memory) -> RecurrentState:
        """Run one step on an image vector [B, E] instead of a word, without attention (x_{-1} of Show and Tell).

        Args:
            vector: [B, E].
            state: The state before the step, one row per image.
            memory: From `Captioner.begin`.

        Returns:
            The state after the step.
        """

        def blind(query: Tensor, sentinel=None) -> Glimpse:
            return Glimpse(query.new_zeros(*query.shape[:2], self.attention.context_size), query[..., :0])

        return self.recurrence.step(self._project(vector[:, None], memory), state, blind)[0]

    def forward(self, tokens: Tensor, state: RecurrentState, memory: Memory, *, carry: bool = False) -> Decoded:
        """Score every word of K captions per image by teacher forcing: the same numbers as a loop over `step`.

        Args:
            tokens: [B, K, 1 + T] int64: `<start>` words `<end>` `<pad>`….
            state: [layers, B, 1, H], before `<start>`.
            memory: From `Captioner.begin`.
            carry: Whether the caller needs the state after the last step.

        Returns:
            Scores as `LazyLogits`, attention weights and, with `carry`, the last state.
        """
        real = tokens[..., 1:] != self.pad
        state = state.repeat(tokens.shape[1])
        # On a CPU the fused kernel, which also computes the padding, is slower than a loop over the real words.
        fused = not self.recurrence.loops and (carry or tokens.device.type != "cpu")
        run = self._sequence if fused else self._loop
        words, hidden, context, index, glimpse, state = run(tokens[..., :-1], real, state, memory)
        return Decoded(self.readout.scores(words, hidden, context), index, glimpse, state)

    def _sequence(self, tokens: Tensor, real: Tensor, state: RecurrentState, memory: Memory):
        """Run all steps in torch's fused kernel, then attend for all steps at once."""
        words = self._embed(tokens)
        outputs, state = self.recurrence.sequence(self._join(words, memory).permute(2, 0, 1, 3), state)
        hidden = outputs.permute(1, 2, 0, 3)  # [B, K, T, H]
        index = real.flatten().nonzero().squeeze(1)
        seen = self._look(memory)(hidden.flatten(1, 2))
        context = seen.context.flatten(0, 1)[index]
        fields = [None if part is None else part.unflatten(1, real.shape[1:]) for part in seen]
        return words.flatten(0, 2)[index], hidden.flatten(0, 2)[index], context, index, _at_words(fields, real), state

    def _loop(self, tokens: Tensor, real: Tensor, state: RecurrentState, memory: Memory):
        """Run one step at a time over the n_t rows that have a word in step t, as [1, n_t, …].

        Only attention needs the rows grouped by image.
        """
        layout = Layout.of(real)
        words = self._embed(tokens.flatten()[layout.index])  # [N, E]
        inputs = torch.cat((words, memory.every[layout.image]), -1) if memory.every.shape[-1] else words
        # One split: the backward pass of a slice per step would fill a tensor of full size with zeros at each step.
        projected = self.recurrence.project(inputs).split(layout.counts)
        state = RecurrentState(*(part.flatten(1, 2).unsqueeze(1) for part in state))  # [layers, 1, B · K, H]
        hidden, seen = [], []
        with summed_at_once():
            for inputs, rows, slots, kept in zip(projected, *layout[3:], strict=True):
                if kept is not None:
                    state = RecurrentState(*(part[:, :, kept] for part in state))
                look = partial(self._look_by_image, memory=memory, rows=rows, slots=slots)
                state, glimpse = self.recurrence.step(inputs[None], state, look)
                hidden.append(state.top[0])
                seen.append(glimpse)
        context = torch.cat([glimpse.context[0] for glimpse in seen])
        fields: list[Any] = [_scatter(parts, layout.index, real.shape) for parts in list(zip(*seen, strict=True))[1:]]
        glimpse = Glimpse(context.new_zeros(*real.shape, 0), *fields)
        return words, torch.cat(hidden), context, layout.index, glimpse, None

    def _look_by_image(self, query: Tensor, sentinel=None, *, memory: Memory, rows: int, slots: Tensor | None):
        """Group n rows [1, n, H], at positions `slots` of [B, rows], by image, attend, and return the n rows."""
        batch = len(memory.grid)

        def by_image(part: Tensor) -> Tensor:
            if slots is None:
                return part.view(batch, rows, part.shape[-1])
            return (
                part.new_zeros(batch * rows, part.shape[-1]).index_copy(0, slots, part[0]).unflatten(0, (batch, rows))
            )

        def by_row(part: Tensor | None) -> Tensor | None:
            if part is None:
                return None
            part = part.flatten(0, 1)
            return (part if slots is None else part.index_select(0, slots)).unsqueeze(0)

        sentinel = None if sentinel is None else type(sentinel)(*map(by_image, sentinel))
        fields: list[Any] = [by_row(part) for part in self._look(memory)(by_image(query), sentinel=sentinel)]
        return Glimpse(*fields)

    def _embed(self, tokens: Tensor) -> Tensor:
        """Embed ids of any shape, [...] -> [..., E]; in training with dropout."""
        words = self.embedding(tokens)
        if self.training and self.word_dropout.p:
            words = self.word_dropout(words.view(1, -1, words.shape[-1])).view_as(words)
        return self.dropout(words)

    def _look(self, memory: Memory):
        return partial(self.attention, grid=memory.grid, keys=memory.keys, mask=memory.mask)

    def _project(self, word: Tensor, memory: Memory) -> Tensor:
        """Compute the recurrence's share of the known input, [B, K, E] -> [B, K, X]."""
        return self.recurrence.project(self._join(word[:, :, None], memory).squeeze(2))

    def _join(self, words: Tensor, memory: Memory) -> Tensor:
        """Concatenate words [B, K, T, E] and the image's input [B, I]: -> [B, K, T, E + I]."""
        if not memory.every.shape[-1]:
            return words
        return torch.cat((words, memory.every[:, None, None].expand(*words.shape[:3], -1)), -1)


def _scatter(parts, index: Tensor, shape: torch.Size) -> Tensor | None:
    """Join one glimpse field of all steps, each [1, n_t, …], into [B, K, T, …], zero where there is no word."""
    if parts[0] is None:
        return None
    flat = torch.cat([part[0] for part in parts])
    return flat.new_zeros(shape.numel(), *flat.shape[1:]).index_copy(0, index, flat).view(*shape, *flat.shape[1:])


def _at_words(fields, real: Tensor) -> Glimpse:
    """Build a glimpse that is zero where there is no word, without the context, which the readout already used."""
    context, weights, *others = fields
    others = [None if part is None else part * real for part in others]
    return Glimpse(context[..., :0], weights * real[..., None], *others)
