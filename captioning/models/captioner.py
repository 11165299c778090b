"""Encoder + conditioning + decoder: an image in, word scores out."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from captioning.models.attention import SoftAttention
from captioning.models.cells import LSTM
from captioning.models.conditioning import InitialState
from captioning.models.decoder import Decoded, Decoder, Memory, Step
from captioning.models.readout import DeepReadout
from captioning.models.state import State


class Captioner(nn.Module):
    """An image, or its stored features, to captions.

    Args:
        encoder: pictures -> features; nn.Identity() where features are stored.
        conditioning: where the image vector enters.
        decoder: what writes words.
    """

    def __init__(self, encoder: nn.Module, conditioning: nn.Module, *, decoder: Decoder):
        super().__init__()
        self.encoder, self.conditioning, self.decoder = encoder, conditioning, decoder

    def begin(self, images: Tensor, mask: Tensor | None = None) -> tuple[State, Memory]:
        """All that is computed once an image: the state before <start> ([layers, B, 1, H]) and the memory.

        Args:
            images: what the encoder takes: pictures [B, 3, S, S] uint8, or features [B, P, D] or [B, D].
            mask: [B, P] bool, True at real places; None where all are.
        """
        features = self.encoder(images).to(self.decoder.embedding.weight.dtype)
        grid = features if features.dim() == 3 else features[:, None]
        vector = _mean(grid, mask)
        memory = Memory(grid, self.decoder.attention.project(grid), mask, self.conditioning.every_input(vector))
        state = self.conditioning.initial_state(vector, self.decoder.cell.zero_state(len(grid), like=vector))
        first = self.conditioning.first_input(vector)
        if first is not None:
            state = self.decoder.first_step(first, state, memory)
        return state, memory

    def step(self, token: Tensor, state: State, memory: Memory) -> Step:
        """One word for K rows an image; see `Decoder.step`."""
        return self.decoder.step(token, state, memory)

    def forward(self, images: Tensor, tokens: Tensor) -> Decoded:
        """Teacher forcing on captions [B, K, 1 + T] of the images; see `Decoder.forward`."""
        state, memory = self.begin(images)
        return self.decoder(tokens, state, memory)


def _mean(grid: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the real places: [B, P, D] -> [B, D]."""
    if mask is None:
        return grid.mean(1)
    share = mask.to(grid.dtype) / mask.sum(1, keepdim=True)
    return torch.einsum("bp,bpd->bd", share, grid)


def build_captioner(
    *,
    feature_size: int,
    grid: bool,
    vocabulary_size: int,
    pad: int = 0,
    encoder: nn.Module | None = None,
    cell: Callable = LSTM,
    attention: Callable = SoftAttention,
    conditioning: Callable = InitialState,
    readout: Callable = DeepReadout,
    width: int = 512,
    embedding_size: int = 512,
    layers: int = 1,
    dropout: float = 0.5,
) -> Captioner:
    """Composes a captioner; the one place where the parts' sizes are worked out.

    Args:
        feature_size: D of the encoder's features.
        grid: whether the encoder gives places [B, P, D] (else one fc vector [B, D]).
        vocabulary_size, pad: V and the id of the padding token.
        encoder: None where features are stored.
        cell, attention, conditioning, readout: the parts' classes, or partials of them with further arguments.
        width: H, of the recurrent state.
        embedding_size: E, of a word.
        layers: stacked recurrences.
        dropout: on word embeddings, between layers and in the readout.
    """
    attend = attention(feature_size, width, grid=grid)
    enter = conditioning(feature_size, embedding_size, layers=layers, state_size=width)
    recur = cell(
        embedding_size + enter.input_size, attend.context_size, state_size=width, layers=layers, dropout=dropout
    )
    read = readout(
        embedding_size,
        width,
        context_size=attend.context_size,
        vocabulary_size=vocabulary_size,
        dropout=dropout,
    )
    decoder = Decoder(
        recur,
        attend,
        readout=read,
        vocabulary_size=vocabulary_size,
        embedding_size=embedding_size,
        pad=pad,
        dropout=dropout,
    )
    return Captioner(encoder or nn.Identity(), enter, decoder=decoder)
