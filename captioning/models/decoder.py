"""The recurrent decoder: `step` for decoding, `forward` for teacher forcing, one set of sums.

Every tensor leads with [B, K]: B images, and K rows that share an image's features (its captions in training, its
beams or samples in decoding).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captioning.models.attention import Glimpse
from captioning.models.state import State


class Memory(NamedTuple):
    """What the decoder looks up about B images, computed once and shared by all their rows.

    grid: [B, P, D]. keys: [B, P, A] from attention.project. mask: [B, P] bool, True at real places, or None.
    every: [B, I], what joins the word at every step (I may be 0).
    """

    grid: Tensor
    keys: Tensor
    mask: Tensor | None
    every: Tensor


class Step(NamedTuple):
    """logits: [B, K, V]. state: after the step. glimpse: where it looked."""

    logits: Tensor
    state: State
    glimpse: Glimpse


class Decoded(NamedTuple):
    """Teacher-forced outputs at the N real words of a batch; padding is not computed.

    logits: [N, V]. index: [N] position of each in the flattened targets [B · K · T]. weights: [B, K, T, P] attention
    weights, zero at padding.
    """

    logits: Tensor
    index: Tensor
    weights: Tensor


class Decoder(nn.Module):
    """Embedding, recurrent cell, attention and readout.

    Args:
        cell, attention, readout: built parts whose sizes fit.
        vocabulary_size: V.
        embedding_size: E.
        pad: id of the padding token.
        dropout: on the word embeddings that enter the cell.
    """

    def __init__(
        self, cell, attention, *, readout, vocabulary_size: int, embedding_size: int, pad: int, dropout: float
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_size, padding_idx=pad)
        self.cell, self.attention, self.readout, self.pad = cell, attention, readout, pad
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embedding.weight, std=embedding_size**-0.5)

    def step(self, token: Tensor, state: State, memory: Memory) -> Step:
        """One word: token [B, K] int64 -> scores of the next word.

        The glimpse is taken from the state before the step, and feeds both the cell and the readout (Show, Attend and
        Tell, section 3.1.2).
        """
        word = self.dropout(self.embedding(token))
        state, glimpse = self._advance(self._project(word, memory), state, memory)
        return Step(self.readout(word, state.top, glimpse.context), state, glimpse)

    def first_step(self, vector: Tensor, state: State, memory: Memory) -> State:
        """Feeds an image vector [B, E] in the place of a word, with an empty context (Show and Tell's x_{-1})."""
        projected = self._project(vector[:, None], memory)
        return self.cell.step(projected, vector.new_zeros(len(vector), 1, self.cell.feedback_size), state)

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
        run = self._loop if self.cell.feedback_size else self._sequence
        hidden, context, weights, index = run(inputs, real, state, memory)
        return Decoded(self.readout(words.flatten(0, 2)[index], hidden, context), index, weights)

    def _sequence(self, inputs: Tensor, real: Tensor, state: State, memory: Memory):
        """Nothing feeds back: the fused kernel runs all steps."""
        outputs, _ = self.cell.sequence(inputs.permute(2, 0, 1, 3), state)
        index = real.flatten().nonzero().squeeze(1)
        hidden = outputs.permute(1, 2, 0, 3).flatten(0, 2)[index]
        return hidden, hidden.new_zeros(len(index), 0), hidden.new_zeros(*real.shape, 0), index

    def _loop(self, inputs: Tensor, real: Tensor, state: State, memory: Memory):
        """Attention feeds back: a step a word, over the rows that some image still needs."""
        projected, (_, rows, length) = self.cell.project(inputs), real.shape
        # The last row that is real anywhere, by step; one transfer from the device for the whole batch.
        needed = (real.any(0) * torch.arange(1, rows + 1, device=real.device)[:, None]).amax(0).tolist()
        position = torch.arange(real.numel(), device=real.device).view(real.shape)
        hidden, contexts, weights, positions = [], [], [], []
        for t in range(length):
            k = needed[t]
            state, glimpse = self._advance(projected[:, :k, t], state.first(k), memory)
            hidden.append(state.top.flatten(0, 1))
            contexts.append(glimpse.context.flatten(0, 1))
            weights.append(F.pad(glimpse.weights, (0, 0, 0, rows - k)))
            positions.append(position[:, :k, t].flatten())
        positions = torch.cat(positions)
        kept = real.flatten()[positions].nonzero().squeeze(1)
        weights = torch.stack(weights, 2) * real[..., None]
        return torch.cat(hidden)[kept], torch.cat(contexts)[kept], weights, positions[kept]

    def _advance(self, projected: Tensor, state: State, memory: Memory) -> tuple[State, Glimpse]:
        glimpse = self.attention(state.top, memory.grid, memory.keys, memory.mask)
        return self.cell.step(projected, glimpse.context, state), glimpse

    def _project(self, word: Tensor, memory: Memory) -> Tensor:
        """[B, K, E] -> the cell's share of the known input, [B, K, gates · H]."""
        return self.cell.project(self._join(word[:, :, None], memory).squeeze(2))

    def _join(self, words: Tensor, memory: Memory) -> Tensor:
        """[B, K, T, E] and the image's [B, I] -> [B, K, T, E + I]."""
        if not memory.every.shape[-1]:
            return words
        return torch.cat((words, memory.every[:, None, None].expand(*words.shape[:3], -1)), -1)
