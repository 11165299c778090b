"""Decode with a transformer: `step` for search and `teacher_force` for training compute the same numbers.

x ← x + self-attention(norm x), x ← x + cross-attention(norm x, image), x ← x + feed-forward(norm x), per block: the
decoder of Vaswani et al. 2017 with the normalization before each part (Xiong et al. 2020). W is the width of x.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captioning.errors import ConfigError, must_be
from captioning.models.adapter import build_adapter, some_place
from captioning.models.captioner import MOST_LAYERS
from captioning.models.embeddings import learned
from captioning.models.interface import CaptionModel, Decoded, Glimpse, LongestCaption, Step, head_name, layer_name
from captioning.models.key_value_cache import KeyValueCache, Past
from captioning.models.ops import Dropout, Prefixes
from captioning.models.positions import NoPositions
from captioning.models.readout import LazyLogits
from captioning.models.transformer_blocks import AllSteps, Block, ImageMemory, OneStep, attend
from captioning.models.transformer_maps import (
    AttentionMaps,
    attention_rollout,
    mix_layer,
    mix_locations,
    relevance,
    weight_by_gradient,
)
from captioning.models.word_positions import SinusoidalPositions

MAPS = ("last_layer", "all_layers", "rollout")


class TransformerCaptioner(CaptionModel):
    """A captioner with a transformer decoder, and optionally transformer blocks over the locations.

    Args:
        encoder: Module that maps images to features; nn.Identity() if features are stored.
        adapter: Module that brings features to width W.
        grid_blocks: Blocks over the locations, without cross-attention; they may be empty.
        blocks: Blocks over the words, with cross-attention.
        word_positions: (start, count, like=) -> code of the words' positions, [count, W]. Its attribute `longest` is
            the number of positions, None without a limit.
        embedding: Word embedding, [V, E]; None to use the rows of the output matrix (Press and Wolf 2017).
        output: Output layer from E to V.
        heads: Number of heads of every attention.
        pad: Id of the padding token.
        attends: Whether the images have a grid; otherwise attention has only one location, and no weights are returned.
        maps: Summary of the weights that a glimpse has: "last_layer" or "all_layers", the mean over the heads of
            cross-attention, or "rollout" (see `attention_rollout`).
        dropout: On the sum of word and position.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        adapter: nn.Module,
        grid_blocks: Sequence[Block],
        blocks: Sequence[Block],
        word_positions: nn.Module,
        embedding: nn.Embedding | None,
        output: nn.Linear,
        heads: int,
        pad: int,
        attends: bool,
        maps: str,
        dropout: float,
    ):
        super().__init__()
        self.encoder, self.adapter, self.word_positions = encoder, adapter, word_positions
        self.grid_blocks, self.blocks = nn.ModuleList(grid_blocks), nn.ModuleList(blocks)
        self.embedding, self.output = embedding, output
        width, size = blocks[0].self_output.out_features, output.in_features
        self.widen = nn.Identity() if size == width else nn.Linear(size, width, bias=False)
        self.narrow = nn.Identity() if size == width else nn.Linear(width, size, bias=False)
        self.grid_norm, self.norm, self.dropout = nn.LayerNorm(width), nn.LayerNorm(width), Dropout(dropout)
        self.heads, self.pad, self.attends, self.maps = heads, pad, attends, maps
        self.summaries, self.head_grid = (MAPS, (len(self.blocks), heads)) if attends else ((), (0, 0))

    def encode(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compute the grid [B, L, W] that the words attend to (L = 1 for an fc vector), and its mask.

        Args:
            images: Input of the encoder: images [B, 3, S, S] uint8, or features [B, L, D] or [B, D]. Features of
                missing locations may have any value.
            mask: [B, L] bool, True at real locations; None if all are real. An image without any location gets one
                location of zeros.

        Returns:
            The grid and the mask.
        """
        grid, mask, _ = self._encode(images, mask)
        return grid, mask

    def begin_from(self, grid: Tensor, mask: Tensor | None = None) -> tuple[KeyValueCache, ImageMemory]:
        """Compute an empty cache, and keys and values of cross-attention, from the results of `encode`."""
        keys = tuple(block.key_value(grid) for block in self._blocks())
        memory = ImageMemory(keys, None if mask is None else mask[:, None, None])
        empty = Past.of(keys[0].new_zeros(0, len(grid), 1, keys[0].shape[-1]))
        seen = Past.of(keys[0].new_zeros(0, len(grid), 1, grid.shape[1]))
        return KeyValueCache((empty,) * len(keys), (seen,) * len(keys) if self._rolls_out else ()), memory

    def step(self, token: Tensor, state: KeyValueCache, memory: ImageMemory) -> Step:
        """Read one word per row and score the next one.

        Args:
            token: [B, K] int64.
            state: Keys and values of the words before it.
            memory: From `begin`.

        Returns:
            Logits [B, K, V], the new state and the glimpse.
        """
        words = self._embed(token)
        x = self.dropout(words + self.word_positions(state.length, 1, like=words))
        attention = OneStep(state, memory, heads=self.heads, weighs=self._weighs())
        logits = self.output(self.narrow(self._run(x, attention)))
        seen, pasts = x.new_zeros(*token.shape, 1, memory.keys[0].shape[1]), []
        for past, *weights in zip(state.seen, attention.words, attention.image, strict=False):
            pasts.append(past.append(seen.squeeze(2)))
            seen = mix_layer(seen, pasts[-1].known.permute(1, 2, 0, 3), *weights)
        shown = self._summary(attention.image, seen).squeeze(2)
        return Step(logits, KeyValueCache(tuple(attention.pasts), tuple(pasts)), Glimpse(x[..., :0], shown))

    def teacher_force(self, tokens: Tensor, state: KeyValueCache, memory: ImageMemory, *, carry=False) -> Decoded:
        """Score all words of K captions per image in parallel: the same numbers as a loop over `step`.

        Args:
            tokens: [B, K, 1 + T] int64: `<start>` words `<end>` `<pad>`….
            state: From `begin`, before `<start>`.
            memory: From `begin`.
            carry: Whether the caller needs the state after the last step; then this is the loop.

        Returns:
            Scores as `LazyLogits`, attention weights and, with `carry`, the last state.
        """
        if carry or state.length:
            return super().teacher_force(tokens, state, memory, carry=carry)
        real = tokens[..., 1:] != self.pad
        prefixes = Prefixes.of(tokens[..., :-1], real)
        x, attention = self._parallel(tokens, prefixes, memory)
        seen = x.new_zeros(*real.shape, memory.keys[0].shape[1])
        if self._rolls_out:
            seen = attention_rollout(attention.words, attention.image, seen)
        glimpse = Glimpse(x.new_zeros(*real.shape, 0), self._summary(attention.image, seen) * real[..., None])
        features = self.narrow(x).index_select(0, prefixes.row[prefixes.index])
        return Decoded(LazyLogits(features, self.output), prefixes.index, glimpse, None)

    def attention_maps(self, images: Tensor, tokens: Tensor, mask: Tensor | None = None) -> AttentionMaps:
        """Return the attention weights of every layer and head along given captions, and their rollout.

        Use it in eval mode; dropout would change what the layers see.

        Args:
            images: As in `encode`.
            tokens: [B, K, 1 + T] int64: `<start>` words `<end>` `<pad>`….
            mask: As in `encode`.
        """
        grid, mask, grid_weights = self._encode(images, mask, weighs=True)
        _, memory = self.begin_from(grid, mask)
        real = tokens[..., 1:] != self.pad
        x, attention = self._parallel(tokens, Prefixes.of(tokens[..., :-1], real), memory, weighs=True)
        words, image = torch.stack(attention.words), torch.stack(attention.image)
        length = real.shape[-1]
        start = torch.cat((x.new_zeros(length, grid.shape[1]), torch.eye(length, dtype=x.dtype, device=x.device)), 1)
        of_inputs = mix_locations(grid_weights, image.mean(3))  # [layers, B, K, T, L]
        of_inputs = F.pad(of_inputs, (0, length)).unsqueeze(3)
        rollout = attention_rollout(words, of_inputs, start.expand(*real.shape, -1))
        return AttentionMaps(words, image, torch.stack(grid_weights) if grid_weights else None, rollout)

    def named_maps(
        self, images: Tensor, tokens: Tensor, names: Sequence[str], mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute summaries, means of layers ("layer1") and single heads ("layer1_head3") along given captions."""
        if unknown := [name for name in names if name not in self.map_names]:
            raise ConfigError(f"map={unknown[0]} does not exist. Choose from {', '.join(self.map_names)}")
        grid, mask = self.encode(images, mask)
        real = tokens[..., 1:] != self.pad
        prefixes = Prefixes.of(tokens[..., :-1], real)
        x, attention = self._parallel(tokens, prefixes, self.begin_from(grid, mask)[1], weighs=True)
        image = torch.stack(attention.image)  # [layers, B, K, heads, T, L]
        rollout = attention_rollout(attention.words, image, x.new_zeros(*real.shape, grid.shape[1]))
        found = {"last_layer": image[-1].mean(2), "all_layers": image.mean((0, 3))}
        found["rollout"] = rollout / rollout.sum(-1, keepdim=True)
        for layer, weights in enumerate(image):
            found[layer_name(layer)] = weights.mean(2)
            found |= {head_name(layer, head): weights[:, :, head] for head in range(self.heads)}
        return {name: found[name] * real[..., None] for name in names}

    def gradient_attention(self, images: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Follow gradient-weighted attention through all layers to the encoder's grid, for each word of given captions.

        The relevance of word t is the row of step t in `relevance`, with the gradients of log p(w_t | w_<t).
        """
        if not self.attends:
            return super().gradient_attention(images, tokens, mask)
        batch, rows, _ = tokens.shape
        # Each caption has its own blocks over the locations: their gradients differ from caption to caption.
        images, tokens = images.repeat_interleave(rows, 0), tokens.view(batch * rows, 1, -1)
        grid, mask, of_grid = self._encode(
            images, None if mask is None else mask.repeat_interleave(rows, 0), weighs=True
        )
        real = tokens[..., 1:] != self.pad
        prefixes = Prefixes.of(tokens[..., :-1], real)  # one caption per row: each word has its own
        x, attention = self._parallel(tokens, prefixes, self.begin_from(grid, mask)[1], weighs=True)
        words = tokens[..., 1:].flatten()[prefixes.index]
        log_probs = self.output(self.narrow(x)).log_softmax(-1).gather(1, words[:, None]).squeeze(1)
        steps, layers = prefixes.index % real.shape[-1], len(self.blocks)
        weights = [*attention.of_words, *attention.of_image, *of_grid]
        found = grid.new_zeros(batch * rows, real.shape[-1], grid.shape[1])
        for t in range(real.shape[-1]):
            weighted = weight_by_gradient(log_probs[steps == t].sum(), weights)
            parts = weighted[:layers], weighted[layers : 2 * layers], weighted[2 * layers :]
            found[:, t] = relevance(*parts)[:, t]
        return found.view(batch, rows, *found.shape[1:])

    @property
    def longest(self) -> LongestCaption | None:
        """The longest caption that the model can read: the number of learned positions, if they are learned."""
        count = cast("int | None", self.word_positions.longest)
        return None if count is None else LongestCaption(count, "model.word_positions.longest")

    @property
    def maps(self) -> str:
        """The summary of attention weights that a glimpse has, one of `MAPS`; it can be changed after training."""
        return self._maps

    @maps.setter
    def maps(self, name: str) -> None:
        if name not in MAPS:
            raise ConfigError(f"model.maps must be one of {', '.join(MAPS)}, not {name!r}")
        self._maps = name

    @property
    def _rolls_out(self) -> bool:
        return self.attends and self.maps == "rollout"

    def _weighs(self) -> tuple[bool, list[bool]]:
        """Return whether the maps need the weights of self-attention, and those of cross-attention for each layer."""
        every = self.attends and self.maps != "last_layer"
        return self._rolls_out, [every] * (len(self.blocks) - 1) + [self.attends]

    def _blocks(self) -> Sequence[Any]:
        return cast("Sequence[Any]", self.blocks)

    def _encode(self, images: Tensor, mask: Tensor | None, *, weighs: bool = False):
        """Return grid and mask, as `encode`, and with `weighs` the attention weights [B, heads, L, L] of its blocks."""
        features = self.encoder(images).to(self.output.weight.dtype)
        if mask is not None:
            features, mask = some_place(features, mask)
        grid, allowed = self.adapter(features), None if mask is None else mask[:, None, None]
        grid, seen = grid if grid.dim() == 3 else grid[:, None], []

        def read(inputs: Tensor) -> Tensor:
            found, weights = attend(*inputs.chunk(3, -1), heads=self.heads, weighs=weighs, mask=allowed)
            seen.append(weights)
            return found

        for block in self.grid_blocks:
            grid = block(grid, read)
        return self.grid_norm(grid), mask, seen

    def _embed(self, tokens: Tensor) -> Tensor:
        """Embed ids of any shape as vectors of variance 1, [...] -> [..., W]."""
        matrix = self.output.weight if self.embedding is None else self.embedding.weight
        padding = None if self.embedding is None else self.pad
        return self.widen(F.embedding(tokens, matrix, padding) * math.sqrt(matrix.shape[1]))

    def _run(self, x: Tensor, attention: OneStep | AllSteps) -> Tensor:
        for block in self.blocks:
            x = block(x, attention.read, attention.look)
        return self.norm(x)

    def _parallel(self, tokens: Tensor, prefixes: Prefixes, memory: ImageMemory, *, weighs: bool = False):
        """Run the blocks over the M different beginnings: -> [M, W], and what attention saw."""
        needed = (True, [True] * len(self.blocks)) if weighs else self._weighs()
        inputs = tokens[..., :-1]
        attention = AllSteps(prefixes, inputs.shape, memory, heads=self.heads, weighs=needed)
        words = self._embed(inputs.flatten()[prefixes.first])
        places = self.word_positions(0, inputs.shape[-1], like=words)[prefixes.first % inputs.shape[-1]]
        return self._run(self.dropout(words + places), attention), attention

    def _summary(self, image: Sequence[Any], seen: Tensor) -> Tensor:
        """Summarize the weights of all layers and heads: [B, K, T, L], or [B, K, T, 0] without a grid."""
        if not self.attends:
            return seen[..., :0]
        if self.maps == "rollout":
            return seen / seen.sum(-1, keepdim=True)
        return image[-1].mean(2) if self.maps == "last_layer" else torch.stack(list(image)).mean((0, 3))


def build_transformer(
    *,
    feature_size: int,
    grid: bool | tuple[int, int],
    regions: bool = False,
    vocabulary_size: int,
    pad: int = 0,
    encoder: nn.Module | None = None,
    positions: Callable = NoPositions,
    word_positions: Callable = SinusoidalPositions,
    width: int = 512,
    embedding_size: int | None = None,
    layers: int = 3,
    encoder_layers: int = 0,
    heads: int = 8,
    feed_forward: int | None = None,
    dropout: float = 0.1,
    tied: bool = True,
    maps: str = "last_layer",
) -> TransformerCaptioner:
    """Build a captioner with a transformer decoder; all sizes of the parts are computed here.

    Args:
        feature_size: D of the encoder's features.
        grid: Rows and columns of the encoder's grid [B, L, D]; False for one fc vector [B, D]; True for regions,
            or for a square grid.
        regions: Whether the locations are a detector's regions, not a grid.
        vocabulary_size: V.
        pad: Id of the padding token.
        encoder: None if features are stored.
        positions: Class of the position code of the locations.
        word_positions: Class of the position code of the words.
        width: W. Features are first brought to this width by ReLU(W a_i + b).
        embedding_size: E, the size of a word vector; None: W. Otherwise a matrix brings words to width W, and another
            one brings the result back to E before the output layer (Lan et al. 2020).
        layers: Number of blocks over the words.
        encoder_layers: Number of blocks over the locations.
        heads: Number of heads of every attention; it must divide W.
        feed_forward: Width of the hidden layer of the feed-forward networks; None: 4 W.
        dropout: On adapted features, on words, on the result of each part of a block and in feed-forward networks.
        tied: Whether the words' vectors are the rows of the output matrix.
        maps: Summary of the attention weights, see `TransformerCaptioner`.

    Raises:
        ConfigError: A size or probability is out of range, or parts do not fit together.
    """
    size = width if embedding_size is None else embedding_size
    feed_forward = 4 * width if feed_forward is None else feed_forward
    for key, value in (("width", width), ("embedding_size", size), ("heads", heads), ("feed_forward", feed_forward)):
        must_be(f"model.{key}", value, least=1)
    must_be("model.layers", layers, least=1, most=MOST_LAYERS)
    must_be("model.encoder_layers", encoder_layers, least=0, most=MOST_LAYERS)
    must_be("model.dropout", dropout, least=0, below=1)
    if width % heads:
        raise ConfigError(f"model.heads ({heads}) must divide model.width ({width})")
    if not feature_size:
        raise ConfigError("model=transformer needs an image: for task=language_model, set model=language")
    adapter, _ = build_adapter(
        feature_size, positions=positions, regions=regions, grid=grid, width=width, dropout=dropout
    )
    sizes: dict[str, Any] = {"feed_forward": feed_forward, "dropout": dropout}
    captioner = TransformerCaptioner(
        encoder or nn.Identity(),
        adapter=adapter,
        grid_blocks=[Block(width, looks=False, **sizes) for _ in range(encoder_layers)],
        blocks=[Block(width, looks=True, **sizes) for _ in range(layers)],
        word_positions=word_positions(width),
        embedding=None if tied else learned(vocabulary_size, size, pad=pad),
        output=nn.Linear(size, vocabulary_size),
        heads=heads,
        pad=pad,
        attends=bool(grid),
        maps=maps,
        dropout=dropout,
    )
    for linear in _linear_layers(captioner):
        nn.init.xavier_uniform_(linear.weight)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
    if tied:
        nn.init.normal_(captioner.output.weight, std=size**-0.5)
    return captioner


def _linear_layers(captioner: TransformerCaptioner) -> Iterator[nn.Linear]:
    """Yield all linear layers except those of the encoder, whose weights are trained already."""
    for name, module in captioner.named_modules():
        if isinstance(module, nn.Linear) and not name.startswith("encoder."):
            yield module
