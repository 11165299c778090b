"""Decode with a recurrence: `step` for search, `forward` for teacher forcing, with the same numbers.

Every tensor leads with [B, K]: B images, and K rows that share an image's features (its captions in training, its
beams or samples in decoding).
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captioning.models.attention import Keys
from captioning.models.interface import Decoded, Glimpse, Step
from captioning.models.ops import Dropout, Layout, summed_at_once
from captioning.models.state import RecurrentState


class Memory(NamedTuple):
    """What the decoder looks up about B images, computed once and shared by all their rows.

    grid: [B, P, D]. keys: from attention.project. mask: [B, P] bool, True at real places, or None.
    every: [B, I], what joins the word at every step (I may be 0).
    """

    grid: Tensor
    keys: Keys
    mask: Tensor | None
    every: Tensor


class Decoder(nn.Module):
    """Embedding, attention, recurrence and readout.

    Args:
        embedding, recurrence, attention, readout: built parts whose sizes fit.
        pad: id of the padding token.
        dropout: on the word embeddings that enter the recurrence.
        word_dropout: of the words that enter in training, the share that is left out whole, so that the image and
            the state must tell what follows.
    """

    def __init__(
        self,
        recurrence,
        attention,
        *,
        embedding: nn.Embedding,
        readout,
        pad: int,
        dropout: float,
        word_dropout: float = 0.0,
    ):
        super().__init__()
        self.embedding = embedding
        self.recurrence, self.attention, self.readout, self.pad = recurrence, attention, readout, pad
        self.dropout, self.word_dropout = Dropout(dropout), nn.Dropout1d(word_dropout)

    def step(self, token: Tensor, state: RecurrentState, memory: Memory) -> Step:
        """One word: token [B, K] int64 -> scores of the next word."""
        word = self._embed(token)
        state, glimpse = self.recurrence.step(self._project(word, memory), state, self._look(memory))
        return Step(self.readout(word, state.top, glimpse.context), state, glimpse)

    def first_step(self, vector: Tensor, state: RecurrentState, memory: Memory) -> RecurrentState:
        """Feeds an image vector [B, E] in the place of a word, and sees nothing (Show and Tell's x_{-1})."""

        def blind(query: Tensor, sentinel=None) -> Glimpse:
            return Glimpse(query.new_zeros(*query.shape[:2], self.attention.context_size), query[..., :0])

        return self.recurrence.step(self._project(vector[:, None], memory), state, blind)[0]

    def forward(self, tokens: Tensor, state: RecurrentState, memory: Memory, *, carry: bool = False) -> Decoded:
        """Teacher forcing: the same numbers as a loop over `step`, for K captions an image.

        Args:
            tokens: [B, K, 1 + T], <start> words <end> <pad>….
            state: [layers, B, 1, H] before <start>.
            carry: whether the state after the last step is wanted.
        """
        real = tokens[..., 1:] != self.pad
        state = state.repeat(tokens.shape[1])
        # A CPU's fused kernel takes more time for the padding of an image's captions than a loop over their real words.
        fused = not self.recurrence.loops and (carry or tokens.device.type != "cpu")
        run = self._sequence if fused else self._loop
        words, hidden, context, index, glimpse, state = run(tokens[..., :-1], real, state, memory)
        return Decoded(self.readout.scores(words, hidden, context), index, glimpse, state)

    def _sequence(self, tokens: Tensor, real: Tensor, state: RecurrentState, memory: Memory):
        """Nothing feeds back: the fused kernel runs all steps, and all of them look at once."""
        words = self._embed(tokens)
        outputs, state = self.recurrence.sequence(self._join(words, memory).permute(2, 0, 1, 3), state)
        hidden = outputs.permute(1, 2, 0, 3)  # [B, K, T, H]
        index = real.flatten().nonzero().squeeze(1)
        seen = self._look(memory)(hidden.flatten(1, 2))
        context = seen.context.flatten(0, 1)[index]
        fields = [None if part is None else part.unflatten(1, real.shape[1:]) for part in seen]
        return words.flatten(0, 2)[index], hidden.flatten(0, 2)[index], context, index, _at_words(fields, real), state

    def _loop(self, tokens: Tensor, real: Tensor, state: RecurrentState, memory: Memory):
        """A step a word, over the n_t rows that have one, as [1, n_t, …]; attention alone has them by image."""
        layout = Layout.of(real)
        words = self._embed(tokens.flatten()[layout.index])  # [N, E]
        inputs = torch.cat((words, memory.every[layout.image]), -1) if memory.every.shape[-1] else words
        # Taken apart at once: a slice a step would fill the whole with zeros in the backward pass of each.
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
        fields = [_scatter(parts, layout.index, real.shape) for parts in list(zip(*seen, strict=True))[1:]]
        glimpse = Glimpse(context.new_zeros(*real.shape, 0), *fields)
        return words, torch.cat(hidden), context, layout.index, glimpse, None

    def _look_by_image(self, query: Tensor, sentinel=None, *, memory: Memory, rows: int, slots: Tensor | None):
        """Attention for the n rows [1, n, H] that lie at `slots` of [B, rows], in the layout that it wants."""
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
        return Glimpse(*map(by_row, self._look(memory)(by_image(query), sentinel=sentinel)))

    def _embed(self, tokens: Tensor) -> Tensor:
        """Ids of any shape -> what enters of them, [..., E]; in training without what dropout takes."""
        words = self.embedding(tokens)
        if self.training and self.word_dropout.p:
            words = self.word_dropout(words.view(1, -1, words.shape[-1])).view_as(words)
        return self.dropout(words)

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


def _scatter(parts, index: Tensor, shape: torch.Size) -> Tensor | None:
    """One field of the glimpses of all steps, [1, n_t, …] each -> [B, K, T, …], zero where there is no word."""
    if parts[0] is None:
        return None
    flat = torch.cat([part[0] for part in parts])
    return flat.new_zeros(shape.numel(), *flat.shape[1:]).index_copy(0, index, flat).view(*shape, *flat.shape[1:])


def _at_words(fields, real: Tensor) -> Glimpse:
    """Zero where there is no word; the context, which the readout has had, is left out."""
    context, weights, *others = fields
    others = [None if part is None else part * real for part in others]
    return Glimpse(context[..., :0], weights * real[..., None], *others)
