"""Declare what objectives, decoding, inference and analysis may use of a model that writes word by word.

`Captioner` implements this interface, and any other decoder can too: a subclass of `CaptionModel` with `begin` and
`step` can be trained, searched, scored and exported. Everything else has a default here.

Shapes: B images, K rows per image (captions in training, beams or samples in decoding), T time steps, V vocabulary, L
grid locations.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError
from captioning.models.readout import LazyLogits


class Glimpse(NamedTuple):
    """The result of one attention step: context vector and attention weights.

    Attributes:
        context: Context vectors [B, K, D'] with D' = attention.context_size (0 without attention).
        weights: Attention weights α [B, K, L]. Each row sums to 1, or to 1 − β if a visual sentinel has weight β. The
            shape is [B, K, 0] without attention. The last `CaptionModel.tag_places` weights belong to tags.
        places: Index of the one location that hard attention selected, [B, K] int64; L is the sentinel. None for other
            kinds of attention.
        log_prob: Log-probability [B, K] of the location sampled in training, for the score-function estimator; None
            otherwise.
        entropy: Entropy of α in nats, [B, K], where `log_prob` is present; None otherwise.
    """

    context: Tensor
    weights: Tensor
    places: Tensor | None = None
    log_prob: Tensor | None = None
    entropy: Tensor | None = None


class LongestCaption(NamedTuple):
    """The longest caption that a model can read.

    Attributes:
        tokens: Greatest number of tokens that it reads, `<start>` included.
        setting: Name of the setting that limits them.
    """

    tokens: int
    setting: str

    def check(self, key: str, value: int, *, extra: int = 0) -> None:
        """Refuse a greatest length that the model cannot read.

        Args:
            key: Name of the setting that has this length.
            value: The length.
            extra: Number of tokens that the model reads in addition: 1 if `value` counts neither `<start>` nor `<end>`.
                A search of N tokens reads N, because it does not read the last one.

        Raises:
            ConfigError: The length is too great; the message says what to set.
        """
        if value + extra > self.tokens:
            raise ConfigError(
                f"{key}={value} allows captions that this captioner cannot read: {self.setting}={self.tokens}. Set "
                f"{key}={self.tokens - extra}, or train with {self.setting}={value + extra}"
            )


class Step(NamedTuple):
    """The result of one decoding step.

    Attributes:
        logits: Unnormalized scores of the next word, [B, K, V].
        state: The state after the step.
        glimpse: Context and attention weights of the step.
    """

    logits: Tensor
    state: Any
    glimpse: Glimpse


class Decoded(NamedTuple):
    """Teacher-forced outputs at the N real words of a batch; padding is left out.

    Attributes:
        scores: Logits [N, V], or `LazyLogits` that compute them on demand.
        index: Position [N] of each word in the flattened targets [B · K · T].
        glimpse: The glimpses of all steps, [B, K, T, …], zero at padding, without the context.
        state: The state after all T steps, padding included. It may be None if `carry` was False.
    """

    scores: LazyLogits | Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nothing uses
    glimpse: Glimpse
    state: Any | None

    @property
    def logits(self) -> Tensor:
        """Logits [N, V]. `LazyLogits` are computed again at each access, with the current grad mode and weights."""
        return self.scores if isinstance(self.scores, Tensor) else self.scores.compute()


class State(Protocol):
    """The state of a model between two words, for B images × K rows: a NamedTuple of tensors with these methods.

    `RecurrentState` is the state of the recurrent decoders, `KeyValueCache` that of the transformer.
    """

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the fields."""

    def select(self, index: Tensor) -> Self:
        """Select rows: row index[b, j] of image b becomes its row j.

        Args:
            index: [B, J] int64, for example the reordering of a beam.
        """

    def repeat(self, rows: int) -> Self:
        """Repeat the one row of each image `rows` times."""

    def detach(self) -> Self:
        """Return the same values without gradient history, to truncate backpropagation through time."""


class CaptionModel(nn.Module):
    """A model that reads an image once and then writes a caption word by word.

    Attributes:
        encoder: Module that maps images to features; nn.Identity() if features are stored. Training sets it.
        pad: Id of the padding token.
        attends: Whether steps have attention weights.
        hard_attention: How hard attention selects a location in evaluation ("most_likely", "sample" or "expectation");
            None for soft attention or no attention.
        has_sentinel: Whether a share of each word's attention weight may go to a visual sentinel.
        tag_places: Number of the last attention weights that belong to tags of the image, not to its locations.
        summaries: Names of summaries of a word's attention maps, for a model with several maps per word.
        head_grid: Number of layers and of heads per layer that have a map of their own; (0, 0) for one map per word.
    """

    encoder: nn.Module
    pad: int
    attends: bool = False
    hard_attention: str | None = None
    has_sentinel: bool = False
    tag_places: int = 0
    summaries: tuple[str, ...] = ()
    head_grid: tuple[int, int] = (0, 0)

    @property
    def longest(self) -> LongestCaption | None:
        """The longest caption that the model can read; None if there is no limit."""
        return None

    def begin(self, images: Tensor, mask: Tensor | None = None) -> tuple[State, Any]:
        """Compute, once per image, the state before `<start>` (one row per image) and the memory that all steps read.

        Args:
            images: Input of the encoder: images [B, 3, S, S] uint8, or stored features [B, L, D] or [B, D].
            mask: [B, L] bool, True at real locations; None if all are real.

        Returns:
            The state and the memory.
        """
        return self.begin_from(*self.encode(images, mask))

    def encode(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compute the feature grid [B, L, D'] that the decoder attends to, and its mask: the first half of `begin`.

        Multi-crop evaluation joins the grids of several crops between the two halves. A model without this half
        implements only `begin`.

        Raises:
            ConfigError: The model does not implement this half, so it cannot be used with `crops`.
        """
        raise ConfigError(f"{type(self).__name__} takes one view per image: set crops=null")

    def begin_from(self, grid: Tensor, mask: Tensor | None = None) -> tuple[State, Any]:
        """Compute state and memory from the results of `encode`: the second half of `begin`.

        Raises:
            ConfigError: The model does not implement this half, so it cannot be used with `crops`.
        """
        raise ConfigError(f"{type(self).__name__} takes one view per image: set crops=null")

    def name_tags(self, images: Tensor) -> list[list[str]]:
        """Return the nouns of each image that its last `tag_places` attention weights belong to, in their order.

        Args:
            images: As in `begin`.
        """
        return [[] for _ in images]

    def step(self, token: Tensor, state: Any, memory: Any) -> Step:
        """Read one word per row and score the next one.

        Args:
            token: [B, K] int64.
            state: The state before the step (a `State`).
            memory: As returned by `begin`.

        Returns:
            Logits [B, K, V], the new state and the glimpse.
        """
        raise NotImplementedError

    def teacher_force(self, tokens: Tensor, state: Any, memory: Any, *, carry: bool = False) -> Decoded:
        """Score each word of given captions after the true words before it (teacher forcing), for K captions per image.

        The default is a loop over `step`. A model may compute the same numbers in parallel.

        Args:
            tokens: [B, K, 1 + T] int64: `<start>` words `<end>` `<pad>`….
            state: The state before `<start>`, one row per image.
            memory: As returned by `begin`.
            carry: Whether the caller needs the state after the last step.

        Returns:
            Scores, attention weights and, with `carry`, the last state.
        """
        real = tokens[..., 1:] != self.pad
        state, steps = state.repeat(tokens.shape[1]), []
        for token in tokens[..., :-1].unbind(-1):
            step = self.step(token, state, memory)
            state = step.state
            steps.append(step._replace(state=None))
        index = real.flatten().nonzero().squeeze(1)
        logits = torch.stack([step.logits for step in steps], 2).flatten(0, 2)[index]
        return Decoded(logits, index, stack_glimpses([step.glimpse for step in steps], real), state)

    @property
    def map_names(self) -> tuple[str, ...]:
        """What `named_maps` accepts: summaries, the mean of each layer, and each head; () for one map per word."""
        layers, heads = map(range, self.head_grid)
        means = [layer_name(layer) for layer in layers]
        return (*self.summaries, *means, *(head_name(layer, head) for layer in layers for head in heads))

    def named_maps(
        self, images: Tensor, tokens: Tensor, names: Sequence[str], mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute some of the attention maps of given captions by their names, without gradients.

        Args:
            images: As in `begin`.
            tokens: [B, K, 1 + T] int64: `<start>` words `<end>` `<pad>`….
            names: Some of `map_names`.
            mask: As in `begin`.

        Returns:
            {name: weights [B, K, T, L]}. Rows of real words sum to 1.

        Raises:
            ConfigError: The model has one map per word, the weights of its glimpses.
        """
        raise ConfigError(f"{type(self).__name__} has one attention map per word: set map=attention")

    def gradient_attention(self, images: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Weight the attention of each word of given captions by the gradient of the word's log-probability.

        For a model with one attention per step, this is (α_t ⊙ ∂ log p(w_t | w_<t) / ∂α_t)⁺: of the locations that step
        t attends to, those that made its word more probable (Chefer et al. 2021, eq. 5). A model with several layers
        also follows their results through later layers.

        Args:
            images: As in `begin`, with gradients enabled.
            tokens: [B, K, 1 + T] int64: `<start>` words `<end>` `<pad>`….
            mask: As in `begin`.

        Returns:
            Relevance [B, K, T, L], at least 0 and not normalized; 0 at padding.

        Raises:
            ConfigError: The logits do not depend on the weights of the glimpse: no attention, or hard attention.
        """
        state, memory = self.begin(images, mask)
        state, found = state.repeat(tokens.shape[1]), []
        for token, word in zip(tokens[..., :-1].unbind(-1), tokens[..., 1:].unbind(-1), strict=True):
            step = self.step(token, state, memory)
            weights, log_probs = step.glimpse.weights, step.logits.log_softmax(-1).gather(-1, word[..., None])
            gradient = None
            if weights.requires_grad:  # rows are independent, so one backward pass serves all of them
                (gradient,) = torch.autograd.grad(log_probs.sum(), weights, allow_unused=True, retain_graph=True)
            if gradient is None:
                raise ConfigError(
                    f"map=gradient_attention: words of {type(self).__name__} have no gradient with respect to "
                    "attention weights. Set map=gradient_input"
                )
            found.append((gradient * weights).clamp_min(0).detach() * (word != self.pad)[..., None])
            state = step.state.detach()
        return torch.stack(found, 2)

    def forward(self, images: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Decoded:
        """Apply teacher forcing to captions [B, K, 1 + T] of images; see `begin` and `teacher_force`."""
        state, memory = self.begin(images, mask)
        return self.teacher_force(tokens, state, memory)


def layer_name(layer: int) -> str:
    """Return the name of the mean map of a layer's heads: layer 0 is "layer1"."""
    return f"layer{layer + 1}"


def head_name(layer: int, head: int) -> str:
    """Return the name of a head's map: head 2 of layer 0 is "layer1_head3"."""
    return f"{layer_name(layer)}_head{head + 1}"


def stack_glimpses(glimpses: list[Glimpse], real: Tensor) -> Glimpse:
    """Join the glimpses of T steps along time, without the context: [B, K, T, …], zero where `real` is False.

    Args:
        glimpses: One glimpse [B, K, …] per step.
        real: [B, K, T] bool, True at real words.
    """
    stacked = [None if parts[0] is None else torch.stack(parts, 2) for parts in list(zip(*glimpses, strict=True))[1:]]
    fields: list[Any] = [
        part if part is None else part * real.view(real.shape + (1,) * (part.dim() - 3)) for part in stacked
    ]
    return Glimpse(glimpses[0].context.new_zeros(*real.shape, 0), *fields)
