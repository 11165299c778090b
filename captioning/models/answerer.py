"""Answer a question about an image: encode the question, attend to the image, score the answers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError, must_be
from captioning.models.adapter import build_adapter, mean_over_places, some_place
from captioning.models.attention import Attention, SoftAttention
from captioning.models.cells import LSTM, Cell
from captioning.models.embeddings import learned
from captioning.models.interface import Glimpse
from captioning.models.ops import Dropout
from captioning.models.positions import NoPositions
from captioning.models.scorers import Additive


class Answered(NamedTuple):
    """The result of an `Answerer`.

    Attributes:
        logits: Scores [B, K, N] of the N answers to the K questions about each image.
        glimpse: The glimpses of all G attention modules, [B, K, G, …], without the context. The weights are [B, K, G,
            L], with L = 0 without attention.
    """

    logits: Tensor
    glimpse: Glimpse


class ProductReadout(nn.Module):
    """Multiply question and image: logits = W_o (tanh(W_q q) ∘ tanh(W_v v)) (Antol et al. 2015).

    A sum would not be enough: whether the color in the question is the color in the image depends on both together.

    Args:
        query_size: Size of q.
        seen_size: Size of v.
        width: Size of both factors.
        answers: N.
        dropout: On the product.
    """

    def __init__(self, query_size: int, seen_size: int, *, width: int, answers: int, dropout: float):
        super().__init__()
        self.query, self.seen = nn.Linear(query_size, width), nn.Linear(seen_size, width)
        self.dropout, self.output = Dropout(dropout), nn.Linear(width, answers)

    def forward(self, query: Tensor, seen: Tensor) -> Tensor:
        """Score the answers.

        Args:
            query: q [B, K, H].
            seen: v [B, K, D], or [B, 1, D] for all K questions.

        Returns:
            Logits [B, K, N].
        """
        return self.output(self.dropout(torch.tanh(self.query(query)) * torch.tanh(self.seen(seen))))


class Answerer(nn.Module):
    """A visual question answering model: K questions about each image, with attention.

    The recurrence reads a question, and its last state is the first attention query q_0. With several glimpses, the
    query of each further one includes the context of the one before: q_g = q_{g-1} + W z_g (stacked attention, Yang et
    al. 2016, where state and context have the same width). The readout combines the last context with the query that
    led to it. Without attention, the image vector is the context.

    Args:
        encoder: Module that maps images to features; nn.Identity() if features are stored.
        cell: Recurrent cell without feedback.
        looks: One attention module per glimpse.
        adapter: Module that brings features to the width that attention takes.
        readout: (q, v) -> logits.
        vocabulary_size: Number of question words.
        embedding_size: E.
        pad: Id of the padding token.
        dropout: On the word embeddings.
    """

    def __init__(
        self,
        encoder: nn.Module,
        cell: Cell,
        *,
        looks: Sequence[Attention],
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
        self.looks = cast("Sequence[Attention]", nn.ModuleList(looks))
        self.hard_attention = getattr(looks[0], "decode", None)
        again = [nn.Linear(look.context_size, cell.state_size, bias=False) for look in looks[1:]]
        self.again = nn.ModuleList(again)

    def forward(self, images: Tensor, questions: Tensor, mask: Tensor | None = None) -> Answered:
        """Score the answers to questions [B, K, T].

        Args:
            images: Input of the encoder: images [B, 3, S, S] uint8, or features [B, L, D] or [B, D].
            questions: [B, K, T] int64: words `<end>` `<pad>`….
            mask: [B, L] bool, True at real locations; None if all are real. An image without any location gets one
                location of zeros.

        Returns:
            Logits [B, K, N] and the glimpses.
        """
        features = self.encoder(images).to(self.embedding.weight.dtype)
        if mask is not None:
            features, mask = some_place(features, mask)
        features = self.adapter(features)
        grid = features if features.dim() == 3 else features[:, None]
        query = self.read(questions)
        seen: list[Glimpse] = []
        for index, look in enumerate(self.looks):
            if index:
                query = query + self.again[index - 1](seen[-1].context)
            seen.append(look(query, grid, look.project(grid), mask))
        context = seen[-1].context if seen[-1].context.shape[-1] else mean_over_places(grid, mask)[:, None]
        return Answered(self.readout(query, context), _without_context(seen))

    def read(self, questions: Tensor) -> Tensor:
        """Return the top layer's state after the last word of each question: [B, K, T] -> [B, K, H].

        An empty question slot has the state after one padding word, which has no meaning.
        """
        batch, rows, _ = questions.shape
        words = self.dropout(self.embedding(questions)).permute(2, 0, 1, 3)  # [T, B, K, E]
        states, _ = self.cell.sequence(words, self.cell.zero_state(batch, like=words).repeat(rows))
        last = ((questions != self.pad).sum(-1) - 1).clamp(min=0)  # [B, K]
        index = last[None, :, :, None].expand(1, -1, -1, states.shape[-1])
        return states.gather(0, index).squeeze(0)


def _without_context(seen: list[Glimpse]) -> Glimpse:
    """Join the G glimpses along dimension 2, without the context."""
    parts: list[Any] = [None if field[0] is None else torch.stack(field, 2) for field in zip(*seen, strict=True)]
    return Glimpse(parts[0][..., :0], *parts[1:])


def build_answerer(
    *,
    feature_size: int,
    grid: bool | tuple[int, int],
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
    """Build an answerer from its parts; all sizes of the parts are computed here.

    Args:
        feature_size: D of the encoder's features.
        grid: Rows and columns of the encoder's grid [B, L, D]; False for one fc vector [B, D]; True for regions,
            or for a square grid.
        regions: Whether the locations are a detector's regions, not a grid.
        vocabulary_size: Number of question words.
        answers: N, the number of answers to choose from.
        pad: Id of the padding token.
        encoder: None if features are stored.
        cell: Class of the recurrent cell, or a partial of it with further arguments; the same holds for the parts
            below.
        attention: Class of the attention.
        scorer: Class of the attention scorer.
        positions: Class of the position code of the locations.
        glimpses: Number of attention modules, applied one after the other, each with its own weights.
        width: H, the size of the recurrent state.
        embedding_size: E, the size of a word vector.
        feature_width: Features are first brought to this width by ReLU(W a_i + b); None: they stay as they are.
        readout_width: Size of the product of question and image.
        layers: Number of stacked recurrences.
        dropout: On adapted features, on word embeddings, between layers and in the readout.

    Raises:
        ConfigError: A size or probability is out of range, or parts do not fit together.
    """
    must_be("model.width", width, least=1)
    must_be("model.embedding_size", embedding_size, least=1)
    must_be("model.readout_width", readout_width, least=1)
    must_be("model.layers", layers, least=1)
    must_be("model.glimpses", glimpses, least=1)
    must_be("model.dropout", dropout, least=0, below=1)
    adapter, feature_size = build_adapter(
        feature_size, positions=positions, regions=regions, grid=grid, width=feature_width, dropout=dropout
    )
    look = partial(attention, feature_size, width, scorer=scorer, grid=bool(grid))
    looks = [look() for _ in range(glimpses)]
    if glimpses > 1 and not looks[0].context_size:
        raise ConfigError(f"model.glimpses={glimpses} needs attention, but model/attention=none. Set model.glimpses=1")
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
