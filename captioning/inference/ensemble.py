"""Decode with an ensemble: several checkpoints with one vocabulary, whose probabilities are averaged word by word."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from PIL import Image
from torch import Tensor, nn

from captioning.decoding import normalized
from captioning.errors import CheckpointError
from captioning.inference.attribution import ATTENTION
from captioning.inference.loading import load
from captioning.inference.predictor import Predictor
from captioning.models import CaptionModel, Glimpse, LongestCaption, State, Step


class States(NamedTuple):
    """The states of the members of an ensemble, all with the same rows."""

    members: tuple[State, ...]

    def select(self, index: Tensor) -> "States":
        """Select the same rows of every member's state; see `State.select`."""
        return States(tuple(state.select(index) for state in self.members))


class Ensemble(nn.Module):
    """Captioners that share a vocabulary, behind the `begin` and `step` of a single `CaptionModel`.

    Args:
        captioners: the members; their encoders, features and parts may differ.
        one_grid: whether the members' grids cover the same regions if they have equally many locations. Only then are
            attention weights returned: the mean of the members' weights, if all members attend. Members may attend to
            tags; each member's tags follow the locations. The locations that hard attention chose are never returned.
    """

    def __init__(self, captioners: Sequence[CaptionModel], *, one_grid: bool = False):
        super().__init__()
        self.members = cast("Sequence[CaptionModel]", nn.ModuleList(captioners))
        self.one_grid, self.tag_places = one_grid, sum(member.tag_places for member in captioners)

    @property
    def longest(self) -> LongestCaption | None:
        """The longest caption that every member can read; see `CaptionModel.longest`."""
        limits = [limit for member in self.members if (limit := member.longest) is not None]
        return min(limits, default=None)

    def name_tags(self, images: Sequence[Tensor]) -> list[list[str]]:
        """Return the nouns of all members for each image, member by member; see `CaptionModel.name_tags`."""
        named = [member.name_tags(features) for member, features in zip(self.members, images, strict=True)]
        return [[noun for nouns in same for noun in nouns] for same in zip(*named, strict=True)]

    def begin(
        self, images: Sequence[Tensor], mask: Sequence[Tensor | None] | None = None
    ) -> tuple[States, tuple[Any, ...]]:
        """Compute the states and memories of all members, from one tensor of features (and one mask) per member."""
        masks = [None] * len(self.members) if mask is None else mask
        inputs = zip(self.members, images, masks, strict=True)
        begun = [member.begin(features, own_mask) for member, features, own_mask in inputs]
        states, memories = zip(*begun, strict=True)
        return States(states), memories

    def step(self, token: Tensor, state: States, memory: Sequence[Any]) -> Step:
        """Score the next word: the logits [B, K, V] are log (1/M · Σ_m p_m(word)) over the M members."""
        parts = zip(self.members, state.members, memory, strict=True)
        steps = [member.step(token, own, memory=looked_up) for member, own, looked_up in parts]
        log_probs = torch.stack([normalized(step.logits) for step in steps])
        mean = log_probs.logsumexp(0) - math.log(len(steps))
        return Step(mean, States(tuple(step.state for step in steps)), self._glimpse([step.glimpse for step in steps]))

    def _glimpse(self, glimpses: Sequence[Glimpse]) -> Glimpse:
        counts = [member.tag_places for member in self.members]
        weights = [
            glimpse.weights.split((glimpse.weights.shape[-1] - count, count), -1)
            for glimpse, count in zip(glimpses, counts, strict=True)
        ]
        grids, tags = zip(*weights, strict=True)
        none = grids[0][..., :0]
        if not self.one_grid or len({grid.shape for grid in grids}) > 1:
            return Glimpse(none, none)
        mean = torch.stack(grids).mean(0)
        return Glimpse(none, torch.cat((mean, *(part / len(grids) for part in tags)), -1) if self.tag_places else mean)


class EnsemblePredictor(Predictor):
    """A predictor that decodes with an ensemble of other predictors.

    Attention maps are drawn on the region of the image that the first member sees.

    Args:
        members: the predictors; all must have the same vocabulary.

    Raises:
        CheckpointError: the vocabularies differ.
    """

    def __init__(self, members: Sequence[Predictor]):
        first = members[0]
        for other in members[1:]:
            if other.vocabulary.tokenizer.state_dict() != first.vocabulary.tokenizer.state_dict():
                names = [each.vocabulary.tokenizer.name for each in (first, other)]
                raise CheckpointError(
                    f"{first.path} and {other.path} have different tokenizers ({' and '.join(names)}): give "
                    "checkpoints that were trained on the same captions with the same data.tokenizer"
                )
            if other.vocabulary.words != first.vocabulary.words:
                differing = len(set(other.vocabulary.words) ^ set(first.vocabulary.words))
                raise CheckpointError(
                    f"{other.path} has another vocabulary than {first.path} ({differing} words differ). Choose "
                    "checkpoints that were trained with the same vocabulary"
                )
        self._members, self.path, self.metadata = tuple(members), first.path, first.metadata
        self.vocabulary, self.transform = first.vocabulary, first.transform
        self.max_length = first.max_length
        self.views = first.views
        seen = [([view.describe() for view in member.views], _shape(member)) for member in members]
        one_grid = all(views == seen[0] for views in seen)
        ensemble = Ensemble([member.captioner for member in members], one_grid=one_grid).eval()
        # Decoding uses only `begin` and `step`, and an ensemble has both.
        self.captioner = cast(CaptionModel, ensemble)

    @property
    def members(self) -> tuple[Predictor, ...]:
        """The predictors of the single checkpoints."""
        return self._members

    @property
    def hard_attention(self) -> str | None:
        """What the members with hard attention look at, such as "most_likely"; None if no member has it."""
        modes = {mode for member in self._members if (mode := member.hard_attention) is not None}
        return " and ".join(sorted(modes)) or None

    @property
    def attends(self) -> bool:
        """Whether every member has attention weights; only then are they returned."""
        return all(member.attends for member in self._members)

    @property
    def map_names(self) -> tuple[str, ...]:
        """The mean of the members' attention weights, if all members attend."""
        return (ATTENTION,) if self.attends else ()

    @property
    def has_sentinel(self) -> bool:
        """Whether any member has a visual sentinel; the share returned is the mean over the members."""
        return any(member.has_sentinel for member in self._members)

    def encode(self, pictures: Sequence[Image.Image]) -> tuple[Tensor, ...]:
        """Compute the images' features, once per member."""
        return tuple(cast(Tensor, member.encode(pictures)) for member in self._members)


def _shape(member: Predictor) -> list[int] | None:
    """Return rows and columns of a member's grid if it is not square: squares of L locations all have the same."""
    shape = member.metadata["features"].get("shape")
    return None if shape is None or shape[0] == shape[1] else list(shape)


def load_all(path: str | Path, others: Sequence[str | Path] = (), **options) -> Predictor:
    """Load one checkpoint, or an ensemble if `others` names further checkpoints.

    Args:
        path: the (first) checkpoint.
        others: the other members of an ensemble.
        **options: keyword arguments of `load`, applied to every checkpoint.

    Raises:
        CheckpointError: a checkpoint cannot be loaded (see `load`), or the vocabularies differ.
    """
    members = [load(each, **options) for each in (path, *others)]
    return EnsemblePredictor(members) if len(members) > 1 else members[0]
