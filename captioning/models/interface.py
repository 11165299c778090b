"""Declare what objectives, decoding, inference, analysis and pages may ask of a model that writes word by word.

`Captioner` serves this interface, and so does any other decoder: a subclass of `CaptionModel` with `begin` and `step`
can be trained, searched, scored and exported. Everything beyond that has a default here.

Shapes: B images, K rows per image (captions in training, beams or samples in decoding), T steps, V words, P locations.
"""

from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError
from captioning.models.readout import LazyLogits


class Glimpse(NamedTuple):
    """What one step saw.

    context: [B, K, D'] with D' = attention.context_size (0 without attention).
    weights: [B, K, P] attention weights α; each row sums to 1, or to 1 − β where a sentinel took the share β
        ([B, K, 0] without attention).
    places: [B, K] int64, the one location that hard attention looked at (P: the sentinel); None for other kinds.
    log_prob, entropy: [B, K], of a location drawn in training, for the score-function estimator; None otherwise.
    """

    context: Tensor
    weights: Tensor
    places: Tensor | None = None
    log_prob: Tensor | None = None
    entropy: Tensor | None = None


class Step(NamedTuple):
    """logits: [B, K, V] of the next word. state: after the step. glimpse: where the step looked."""

    logits: Tensor
    state: Any
    glimpse: Glimpse


class Decoded(NamedTuple):
    """Teacher-forced outputs at the N real words of a batch; padding is left out.

    scores: logits [N, V], or LazyLogits that compute them. index: [N] position of each word in the flattened targets
    [B · K · T]. glimpse: those of all steps, [B, K, T, …] and zero at padding, without the context. state: after all T
    steps, padding included; None where it was not asked for and the model does not have it.
    """

    scores: LazyLogits | Tensor
    index: Tensor
    glimpse: Glimpse
    state: Any | None

    @property
    def logits(self) -> Tensor:
        """[N, V]. LazyLogits compute them anew each time, with the grad mode and the weights of where it is read."""
        return self.scores if isinstance(self.scores, Tensor) else self.scores.compute()


class State(Protocol):
    """What a model carries from word to word, for B images × K rows: a NamedTuple of tensors with these methods.

    `RecurrentState` is the state of the recurrent decoders; a transformer's would be its key-value cache.
    """

    def select(self, index: Tensor) -> Self:
        """Row index[b, j] of image b becomes its row j; index is [B, J] int64 (a beam's reordering)."""

    def repeat(self, rows: int) -> Self:
        """One row per image becomes `rows` equal rows per image."""

    def detach(self) -> Self:
        """The same numbers without history, where truncated backpropagation through time cuts."""


class CaptionModel(nn.Module):
    """A model that reads an image once and then writes word by word.

    Attributes:
        encoder: images -> features; nn.Identity() where features are stored. Training sets it.
        pad: id of the padding token.
        attends: whether steps have attention weights.
        hard_attention: what hard attention looks at in evaluation ("most_likely", "sample" or "expectation"); None for
            soft attention or none.
        has_sentinel: whether a share of each word's weight may go to a visual sentinel.
    """

    encoder: nn.Module
    pad: int
    attends: bool = False
    hard_attention: str | None = None
    has_sentinel: bool = False

    def begin(self, images: Tensor, mask: Tensor | None = None) -> tuple[State, Any]:
        """Compute once per image the state before <start>, one row per image, and the memory that all steps look up.

        Args:
            images: what the encoder takes: images [B, 3, S, S] uint8, or stored features [B, P, D] or [B, D].
            mask: [B, P] bool, True at real locations; None where all are.
        """
        return self.begin_from(*self.encode(images, mask))

    def encode(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compute the grid [B, P, D'] that the decoder looks at, and its mask: the first half of `begin`.

        Multi-crop evaluation joins the grids of several crops between the two halves. A model that has no such half
        implements `begin` alone.
        """
        raise ConfigError(f"{type(self).__name__} takes one view of each image: leave crops out")

    def begin_from(self, grid: Tensor, mask: Tensor | None = None) -> tuple[State, Any]:
        """As `begin`, from what `encode` returns."""
        raise ConfigError(f"{type(self).__name__} takes one view of each image: leave crops out")

    def step(self, token: Tensor, state: State, memory: Any) -> Step:
        """Read one word, token [B, K] int64, and score the next one."""
        raise NotImplementedError

    def teacher_force(self, tokens: Tensor, state: State, memory: Any, *, carry: bool = False) -> Decoded:
        """Read given captions, K per image, and score each word after the true words before it.

        The default is a loop over `step`; a model may compute the same numbers at once.

        Args:
            tokens: [B, K, 1 + T], <start> words <end> <pad>….
            state: before <start>, one row per image.
            carry: whether the state after the last step is wanted.
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

    def forward(self, images: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Decoded:
        """Teacher forcing on captions [B, K, 1 + T] of the images; see `begin` and `teacher_force`."""
        state, memory = self.begin(images, mask)
        return self.teacher_force(tokens, state, memory)


def stack_glimpses(glimpses: list[Glimpse], real: Tensor) -> Glimpse:
    """Join the glimpses of T steps along time without the context: [B, K, T, …], zero where `real` [B, K, T] is not."""
    fields = [None if parts[0] is None else torch.stack(parts, 2) for parts in list(zip(*glimpses, strict=True))[1:]]
    fields = [part if part is None else part * real.view(real.shape + (1,) * (part.dim() - 3)) for part in fields]
    return Glimpse(glimpses[0].context.new_zeros(*real.shape, 0), *fields)
