"""Compose encoder, conditioning and recurrent decoder into a model that scores the words of a caption."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from captioning.errors import must_be
from captioning.models.adapter import build_adapter, mean_over_places, some_place
from captioning.models.attention import SoftAttention
from captioning.models.cells import LSTM
from captioning.models.conditioning import InitialState
from captioning.models.decoder import Decoder, Memory
from captioning.models.embeddings import learned
from captioning.models.interface import CaptionModel, Decoded, Step
from captioning.models.positions import NoPositions
from captioning.models.readout import DeepReadout
from captioning.models.recurrence import LookFirst
from captioning.models.scorers import Additive
from captioning.models.state import RecurrentState
from captioning.models.vector import Raw

MOST_LAYERS = 64  # a million would be built one by one for minutes before anything refused them


class Captioner(CaptionModel):
    """Encoder, conditioning and recurrent decoder: an image, or its stored features, to captions.

    Args:
        encoder: pictures -> features; nn.Identity() where features are stored.
        conditioning: where the image vector enters.
        decoder: what writes words.
        adapter: features -> features of the width that conditioning and decoder take.
        vector: the image vector -> what conditioning takes of it.
    """

    def __init__(
        self, encoder: nn.Module, conditioning: nn.Module, *, decoder: Decoder, adapter: nn.Module, vector: nn.Module
    ):
        super().__init__()
        self.encoder, self.adapter, self.conditioning, self.decoder = encoder, adapter, conditioning, decoder
        self.vector = vector
        self.pad, self.attends = decoder.pad, decoder.attention.context_size > 0
        self.has_sentinel = getattr(decoder.recurrence, "sentinel_state", None) is not None

    def begin(self, images: Tensor, mask: Tensor | None = None) -> tuple[RecurrentState, Memory]:
        """All that is computed once an image: the state before <start> ([layers, B, 1, H]) and the memory.

        Args:
            images: what the encoder takes: pictures [B, 3, S, S] uint8, or features [B, P, D] or [B, D].
                Where places are missing (regions, of which pictures have more and fewer), features are anything.
            mask: [B, P] bool, True at real places; None where all are. An image without a single one is shown its
                first, filled with zeros: what is made of it is finite, and about no picture.
        """
        return self.begin_from(*self.encode(images, mask))

    @property
    def hard_attention(self) -> str | None:
        """What hard attention looks at in evaluation; None for other kinds."""
        return getattr(self.decoder.attention, "decode", None)

    def encode(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What attention and conditioning take of images: adapted features [B, P, D'] (P = 1 of an fc vector), mask."""
        features = self.encoder(images).to(self.decoder.embedding.weight.dtype)
        if mask is not None:
            features, mask = some_place(features, mask)
        features = self.adapter(features)
        return features if features.dim() == 3 else features[:, None], mask

    def begin_from(self, grid: Tensor, mask: Tensor | None = None) -> tuple[RecurrentState, Memory]:
        """As `begin`, from what `encode` returns."""
        vector = self.vector(mean_over_places(grid, mask))
        memory = Memory(grid, self.decoder.attention.project(grid), mask, self.conditioning.every_input(vector))
        state = self.conditioning.initial_state(vector, self.decoder.recurrence.zero_state(len(grid), like=vector))
        first = self.conditioning.first_input(vector)
        if first is not None:
            state = self.decoder.first_step(first, state, memory)
        return state, memory

    def step(self, token: Tensor, state: RecurrentState, memory: Memory) -> Step:
        """One word for K rows an image; see `Decoder.step`."""
        return self.decoder.step(token, state, memory)

    def teacher_force(self, tokens: Tensor, state: RecurrentState, memory: Memory, *, carry: bool = False) -> Decoded:
        """Score given captions at once; see `Decoder.forward`."""
        return self.decoder(tokens, state, memory, carry=carry)


def build_captioner(
    *,
    feature_size: int,
    grid: bool,
    regions: bool = False,
    vocabulary_size: int,
    pad: int = 0,
    encoder: nn.Module | None = None,
    cell: Callable = LSTM,
    recurrence: Callable = LookFirst,
    attention: Callable = SoftAttention,
    scorer: Callable = Additive,
    conditioning: Callable = InitialState,
    positions: Callable = NoPositions,
    vector: Callable = Raw,
    embedding: Callable = learned,
    readout: Callable = DeepReadout,
    width: int = 512,
    embedding_size: int | None = 512,
    feature_width: int | None = None,
    layers: int = 1,
    dropout: float = 0.5,
    word_dropout: float = 0.0,
) -> Captioner:
    """Composes a captioner; the one place where the parts' sizes are worked out.

    Args:
        feature_size: D of the encoder's features; 0 for a language model, which sees nothing.
        grid: whether the encoder gives places [B, P, D] (else one fc vector [B, D]).
        regions: whether these places are a detector's regions, not a CNN's square grid.
        vocabulary_size, pad: V and the id of the padding token.
        encoder: None where features are stored.
        cell, recurrence, attention, scorer, conditioning, positions, vector, embedding, readout: the parts' classes
            (of the embedding a function), or partials of them with further arguments.
        width: H, of the recurrent state.
        embedding_size: E, of a word; None: V, as wide as the vocabulary.
        feature_width: features are first brought to this width by ReLU(W a_i + b); None leaves them as they are.
        layers: stacked recurrences.
        dropout: on adapted features, word embeddings, between layers and in the readout.
        word_dropout: share of the input words that are left out whole.

    Raises:
        ConfigError: a size or share that cannot be, or parts that do not go together.
    """
    must_be("model.width", width, least=1)
    must_be("model.embedding_size", embedding_size, least=1)
    must_be("model.layers", layers, least=1, most=MOST_LAYERS)
    must_be("model.dropout", dropout, least=0, below=1)
    must_be("model.word_dropout", word_dropout, least=0, below=1)
    embedding_size = vocabulary_size if embedding_size is None else embedding_size
    adapter, feature_size = build_adapter(
        feature_size, positions=positions, regions=regions, width=feature_width, dropout=dropout
    )
    attend = attention(feature_size, width, scorer=scorer, grid=grid)
    sizes = {"context_size": attend.context_size, "key_size": attend.key_size, "state_size": width}
    recur = partial(recurrence, cell=cell, layers=layers, dropout=dropout, **sizes)
    with torch.device("meta"):  # the state's shape alone: conditioning and recurrence each want to know of the other
        zeros = recur(embedding_size).zero_state(1, like=torch.empty(0))
    enter = conditioning(feature_size, embedding_size, zeros=zeros)
    recur = recur(embedding_size + enter.input_size)
    ends = {"context_size": recur.context_size, "vocabulary_size": vocabulary_size}
    own = getattr(readout, "keywords", {})  # of a partial: a readout's own dropout goes before the common one
    read = readout(embedding_size, width, **{"dropout": dropout} | own | ends)
    decoder = Decoder(
        recur,
        attend,
        embedding=embedding(vocabulary_size, embedding_size, pad=pad),
        readout=read,
        pad=pad,
        dropout=dropout,
        word_dropout=word_dropout,
    )
    seen = vector(feature_size)
    return Captioner(encoder or nn.Identity(), enter, decoder=decoder, adapter=adapter, vector=seen)
