"""Compose encoder, conditioning and recurrent decoder into a model that scores the words of a caption."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError, must_be
from captioning.models.adapter import build_adapter, mean_over_places, some_place
from captioning.models.attention import SoftAttention
from captioning.models.cells import LSTM
from captioning.models.conditioning import Conditioning, InitialState
from captioning.models.decoder import Decoder, Memory
from captioning.models.embeddings import learned
from captioning.models.interface import CaptionModel, Decoded, Step
from captioning.models.positions import NoPositions
from captioning.models.readout import DeepReadout
from captioning.models.recurrence import LookFirst
from captioning.models.scorers import Additive
from captioning.models.state import RecurrentState
from captioning.models.tag_places import NoTags, TagPlaces
from captioning.models.vector import Raw

MOST_LAYERS = 64  # a million layers would be built for minutes before any other check refused them


class Captioner(CaptionModel):
    """A captioner: image encoder, conditioning and recurrent decoder.

    Args:
        encoder: Module that maps images to features; nn.Identity() if features are stored.
        conditioning: Where the image vector enters the recurrence.
        decoder: Embedding, attention, recurrence and readout.
        adapter: Module that brings features to the width of conditioning and decoder.
        vector: Transform of the image vector before conditioning.
        tags: `TagPlaces`, or None if attention covers the grid only.
    """

    def __init__(
        self,
        encoder: nn.Module,
        conditioning: Conditioning,
        *,
        decoder: Decoder,
        adapter: nn.Module,
        vector: nn.Module,
        tags: NoTags | TagPlaces | None = None,
    ):
        super().__init__()
        self.encoder, self.adapter, self.conditioning, self.decoder = encoder, adapter, conditioning, decoder
        self.vector, self.tags = vector, tags or NoTags(0, 0)
        self.tag_places = self.tags.count
        self.pad, self.attends = decoder.pad, decoder.attention.context_size > 0
        self.has_sentinel = getattr(decoder.recurrence, "sentinel_state", None) is not None

    def begin(self, images: Tensor, mask: Tensor | None = None) -> tuple[RecurrentState, Memory]:
        """Compute, once per image, the state before `<start>` ([layers, B, 1, H]) and the memory that all steps read.

        Args:
            images: Input of the encoder: images [B, 3, S, S] uint8, or features [B, L, D] or [B, D]. Features of
                missing locations may have any value (images have different numbers of regions).
            mask: [B, L] bool, True at real locations; None if all are real. An image without any location gets one
                location of zeros: its result is finite, but has no meaning.

        Returns:
            The state and the memory.
        """
        return self.begin_from(*self.encode(images, mask))

    @property
    def hard_attention(self) -> str | None:  # type: ignore[override]  # read-only: the attention module owns it
        """How hard attention selects a location in evaluation; None for other kinds of attention."""
        return getattr(self.decoder.attention, "decode", None)

    def encode(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compute the adapted features [B, L, D'] (L = 1 for an fc vector) and their mask: the first half of `begin`.

        With `TagPlaces`, the vectors of N tags follow: [B, L + N, D'].

        Args:
            images: As in `begin`.
            mask: As in `begin`.

        Returns:
            The features and the mask.

        Raises:
            ConfigError: There is a mask, and the model has tags.
        """
        features = self.encoder(images).to(self.decoder.embedding.weight.dtype)
        if mask is not None:
            if self.tag_places:
                raise ConfigError("model/tags=places needs full grids, without a mask. Set model/tags=none")
            features, mask = some_place(features, mask)
        adapted = self.adapter(features)
        return self.tags(features, adapted if adapted.dim() == 3 else adapted[:, None]), mask

    def begin_from(self, grid: Tensor, mask: Tensor | None = None) -> tuple[RecurrentState, Memory]:
        """Compute state and memory from the results of `encode`: the second half of `begin`."""
        places, grid = self.tags.arrange(grid)
        vector = self.vector(mean_over_places(places, mask))  # of the image itself, without its tags
        memory = Memory(grid, self.decoder.attention.project(grid), mask, self.conditioning.every_input(vector))
        state = self.conditioning.initial_state(vector, self.decoder.recurrence.zero_state(len(grid), like=vector))
        first = self.conditioning.first_input(vector)
        if first is not None:
            state = self.decoder.first_step(first, state, memory)
        return state, memory

    def name_tags(self, images: Tensor) -> list[list[str]]:
        """Return the nouns that the last attention weights belong to; see `TagPlaces`."""
        if isinstance(self.tags, NoTags):  # without encoding images
            return super().name_tags(images)
        return self.tags.name(self.encoder(images).to(self.decoder.embedding.weight.dtype))

    def step(self, token: Tensor, state: RecurrentState, memory: Memory) -> Step:
        """Score the next word for K rows per image; see `Decoder.step`."""
        return self.decoder.step(token, state, memory)

    def teacher_force(self, tokens: Tensor, state: RecurrentState, memory: Memory, *, carry: bool = False) -> Decoded:
        """Score all words of given captions; see `Decoder.forward`."""
        return self.decoder(tokens, state, memory, carry=carry)


def build_captioner(
    *,
    feature_size: int,
    grid: bool | tuple[int, int],
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
    tags: Callable = NoTags,
    embedding: Callable = learned,
    readout: Callable = DeepReadout,
    width: int = 512,
    embedding_size: int | None = 512,
    feature_width: int | None = None,
    layers: int = 1,
    dropout: float = 0.5,
    word_dropout: float = 0.0,
) -> Captioner:
    """Build a captioner from its parts; all sizes of the parts are computed here.

    Args:
        feature_size: D of the encoder's features; 0 for a language model, which has no image.
        grid: Rows and columns of the encoder's grid [B, L, D]; False for one fc vector [B, D]; True for regions,
            or for a square grid.
        regions: Whether the locations are a detector's regions, not a grid.
        vocabulary_size: V.
        pad: Id of the padding token.
        encoder: None if features are stored.
        cell: Class of the recurrent cell, or a partial of it with further arguments; the same holds for the parts
            below.
        recurrence: Class of the recurrence.
        attention: Class of the attention.
        scorer: Class of the attention scorer.
        conditioning: Class of the conditioning.
        positions: Class of the position code of the locations.
        vector: Class of the transform of the image vector.
        tags: Class of the tags that attention may look at beside the grid.
        embedding: Function that builds the word embedding.
        readout: Class of the output layer.
        width: H, the size of the recurrent state.
        embedding_size: E, the size of a word vector; None: the vocabulary size V.
        feature_width: Features are first brought to this width by ReLU(W a_i + b); None: they stay as they are.
        layers: Number of stacked recurrences.
        dropout: On adapted features, on word embeddings, between layers and in the readout.
        word_dropout: Probability with which an input word's embedding is set to zero in training.

    Raises:
        ConfigError: A size or probability is out of range, or parts do not fit together.
    """
    must_be("model.width", width, least=1)
    must_be("model.embedding_size", embedding_size, least=1)
    must_be("model.layers", layers, least=1, most=MOST_LAYERS)
    must_be("model.dropout", dropout, least=0, below=1)
    must_be("model.word_dropout", word_dropout, least=0, below=1)
    embedding_size = vocabulary_size if embedding_size is None else embedding_size
    raw_size = feature_size  # of the features before the adapter
    adapter, feature_size = build_adapter(
        feature_size, positions=positions, regions=regions, grid=grid, width=feature_width, dropout=dropout
    )
    look_up = tags(raw_size, feature_size, grid=grid, regions=regions, dropout=dropout)
    attend = attention(feature_size, width, scorer=scorer, grid=bool(grid))
    if look_up.count and not attend.context_size:
        raise ConfigError("model/tags=places needs attention. Set model/attention=soft, or model/tags=none")
    sizes = {"context_size": attend.context_size, "key_size": attend.key_size, "state_size": width}
    recur = partial(recurrence, cell=cell, layers=layers, dropout=dropout, **sizes)
    with torch.device("meta"):  # only for the state's shape, because conditioning and recurrence depend on each other
        zeros = recur(embedding_size).zero_state(1, like=torch.empty(0))
    enter = conditioning(feature_size, embedding_size, zeros=zeros)
    recur = recur(embedding_size + enter.input_size)
    ends = {"context_size": recur.context_size, "vocabulary_size": vocabulary_size}
    own = getattr(readout, "keywords", {})  # of a partial: a readout's own dropout overrides the common one
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
    return Captioner(encoder or nn.Identity(), enter, decoder=decoder, adapter=adapter, vector=seen, tags=look_up)
