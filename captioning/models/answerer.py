"""Answer a question about an image: encode the question, attend to the image, score the answers."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError, must_be
from captioning.models.adapter import build_adapter, mean_over_places, some_place
from captioning.models.attention import SoftAttention
from captioning.models.cells import LSTM, Cell
from captioning.models.embeddings import learned
from captioning.models.interface import Glimpse
from captioning.models.ops import Dropout
from captioning.models.positions import NoPositions
from captioning.models.scorers import Additive


class Answered(NamedTuple):
    """logits: [B, K, N] of the answers to each picture's K questions. glimpse: of all G looks, [B, K, G, …], without
    the context; weights [B, K, G, P] have P = 0 without attention."""

    logits: Tensor
    glimpse: Glimpse


class ProductReadout(nn.Module):
    """logits = W_o (tanh(W_q q) ∘ tanh(W_v v)): question and picture multiplied (Antol et al. 2015).

    A sum would not do: whether a colour asked for is the one seen is a question of both together.

    Args:
        query_size: of q. seen_size: of v. width: of either factor. answers: N.
        dropout: on the product.
    """

    def __init__(self, query_size: int, seen_size: int, *, width: int, answers: int, dropout: float):
        super().__init__()
        self.query, self.seen = nn.Linear(query_size, width), nn.Linear(seen_size, width)
        self.dropout, self.output = Dropout(dropout), nn.Linear(width, answers)

    def forward(self, query: Tensor, seen: Tensor) -> Tensor:
        """q [B, K, H], v [B, K, D] (or [B, 1, D] for all K) -> logits [B, K, N]."""
        return self.output(self.dropout(torch.tanh(self.query(query)) * torch.tanh(self.seen(seen))))


class Answerer(nn.Module):
    """Answers questions about pictures, K of them about each.

    The recurrence reads a question, and its last state is the query q_0 by which attention looks at the picture. A
    further look asks with what the one before saw, q_g = q_{g-1} + W z_g (stacked attention, Yang et al. 2016,
    where state and context share one width). What the last one saw, and the query that asked for it, give the answer.
    Without attention the picture is its one vector.

    Args:
        encoder: pictures -> features; nn.Identity() where features are stored.
        cell: recurrence without feedback.
        looks: attention modules, one for each glimpse.
        adapter: features -> features of the width that attention takes.
        readout: (q, v) -> logits.
        vocabulary_size: of question words. embedding_size: E. pad: id of the padding token.
        dropout: on the word embeddings.
    """

    def __init__(
        self,
        encoder: nn.Module,
        cell: Cell,
        *,
        looks: list[nn.Module],
        adapter: nn.Module,
        readout: nn.Module,
        vocabulary_size: int,
        embedding_size: int,
        pad: int,
        dropout: float,
    ):
        super().__init__()
        self.encoder, self.cell, self.adapter, self.readout, self.pad = encoder, cell, adapter, readout, pad
        self.embedding = learned(vocabulary_size, embedding_size, pad=pad)
        self.dropout = Dropout(dropout)
        self.looks = nn.ModuleList(looks)
        self.hard_attention = getattr(looks[0], "decode", None)
        again = [nn.Linear(look.context_size, cell.state_size, bias=False) for look in looks[1:]]
        self.again = nn.ModuleList(again)

    def forward(self, images: Tensor, questions: Tensor, mask: Tensor | None = None) -> Answered:
        """Scores of the answers to questions [B, K, T], words <end> <pad>….

        Args:
            images: what the encoder takes: pictures [B, 3, S, S] uint8, or features [B, P, D] or [B, D].
            mask: [B, P] bool, True at real places; None where all are. An image without a single one is shown its
                first, filled with zeros.
        """
        features = self.encoder(images).to(self.embedding.weight.dtype)
        if mask is not None:
            features, mask = some_place(features, mask)
        features = self.adapter(features)
        grid = features if features.dim() == 3 else features[:, None]
        query, seen = self.read(questions), []
        for index, look in enumerate(self.looks):
            if index:
                query = query + self.again[index - 1](seen[-1].context)
            seen.append(look(query, grid, look.project(grid), mask))
        context = seen[-1].context if seen[-1].context.shape[-1] else mean_over_places(grid, mask)[:, None]
        return Answered(self.readout(query, context), _without_context(seen))

    def read(self, questions: Tensor) -> Tensor:
        """The top layer's state after each question's last word: [B, K, T] -> [B, K, H]; padding is behind it.

        A slot without a question has the state after one word of padding, and no meaning.
        """
        batch, rows, _ = questions.shape
        words = self.dropout(self.embedding(questions)).permute(2, 0, 1, 3)  # [T, B, K, E]
        states, _ = self.cell.sequence(words, self.cell.zero_state(batch, like=words).repeat(rows))
        last = ((questions != self.pad).sum(-1) - 1).clamp(min=0)  # [B, K]
        index = last[None, :, :, None].expand(1, -1, -1, states.shape[-1])
        return states.gather(0, index).squeeze(0)


def _without_context(seen: list[Glimpse]) -> Glimpse:
    """The glimpses as one, a field's G values along dimension 2."""
    parts = [None if field[0] is None else torch.stack(field, 2) for field in zip(*seen, strict=True)]
    return Glimpse(parts[0][..., :0], *parts[1:])


def build_answerer(
    *,
    feature_size: int,
    grid: bool,
    regions: bool = False,
    vocabulary_size: int,
    answers: int,
    pad: int = 0,
    encoder: nn.Module | None = None,
    cell: Callable = LSTM,
    attention: Callable = SoftAttention,
    scorer: Callable = Additive,
    positions: Callable = NoPositions,
    glimpses: int = 1,
    width: int = 512,
    embedding_size: int = 300,
    feature_width: int | None = None,
    readout_width: int = 1024,
    layers: int = 1,
    dropout: float = 0.5,
) -> Answerer:
    """Composes an answerer; the one place where the parts' sizes are worked out.

    Args:
        feature_size, grid, regions, encoder, cell, attention, scorer, positions, width, embedding_size, feature_width,
        layers: as for `captioner.build_captioner`.
        vocabulary_size, pad: of question words, and the id of the padding token.
        answers: N to choose from.
        glimpses: looks at the picture, one after the other, each with weights of its own.
        readout_width: of the product of question and picture.
        dropout: on adapted features, word embeddings, between layers and in the readout.

    Raises:
        ConfigError: a size or share that cannot be, or parts that do not go together.
    """
    must_be("model.width", width, least=1)
    must_be("model.embedding_size", embedding_size, least=1)
    must_be("model.readout_width", readout_width, least=1)
    must_be("model.layers", layers, least=1)
    must_be("model.glimpses", glimpses, least=1)
    must_be("model.dropout", dropout, least=0, below=1)
    adapter, feature_size = build_adapter(
        feature_size, positions=positions, regions=regions, width=feature_width, dropout=dropout
    )
    look = partial(attention, feature_size, width, scorer=scorer, grid=grid)
    looks = [look() for _ in range(glimpses)]
    if glimpses > 1 and not looks[0].context_size:
        raise ConfigError(f"model.glimpses={glimpses} looks at places, but model/attention=none sees none: set it to 1")
    read = ProductReadout(
        width, looks[0].context_size or feature_size, width=readout_width, answers=answers, dropout=dropout
    )
    return Answerer(
        encoder or nn.Identity(),
        cell(embedding_size, 0, state_size=width, layers=layers, dropout=dropout),
        looks=looks,
        adapter=adapter,
        readout=read,
        vocabulary_size=vocabulary_size,
        embedding_size=embedding_size,
        pad=pad,
        dropout=dropout,
    )
