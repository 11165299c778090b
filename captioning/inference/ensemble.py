"""Decode with several checkpoints of one vocabulary by averaging their probabilities word by word."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from captioning.decoding import normalized
from captioning.errors import CheckpointError
from captioning.inference.predictor import Predictor, load
from captioning.models import CaptionModel, Glimpse, State, Step


class States(NamedTuple):
    """A state for each member, all with the same rows."""

    members: tuple[State, ...]

    def select(self, index: Tensor) -> "States":
        """As `State.select`, of all members alike."""
        return States(tuple(state.select(index) for state in self.members))


class Ensemble(nn.Module):
    """Captioners that share a vocabulary, with the `begin` and `step` of one.

    Args:
        captioners: the members; their encoders, features and parts may differ.
        one_grid: whether equally many places are the same places for all members. Then, and where every member
            attends, the weights shown are the members' mean; otherwise none are shown. Places of hard attention never
            are.
    """

    def __init__(self, captioners: Sequence[CaptionModel], *, one_grid: bool = False):
        super().__init__()
        self.members, self.one_grid = nn.ModuleList(captioners), one_grid

    def begin(
        self, images: Sequence[Tensor], mask: Sequence[Tensor | None] | None = None
    ) -> tuple[States, tuple[Any, ...]]:
        """Each member's own features (and mask) -> its state and memory."""
        masks = [None] * len(self.members) if mask is None else mask
        begun = [member.begin(*parts) for member, *parts in zip(self.members, images, masks, strict=True)]
        states, memories = zip(*begun, strict=True)
        return States(states), memories

    def step(self, token: Tensor, state: States, memory: Sequence[Any]) -> Step:
        """logits: log (1/M Σ_m p_m(word)) over the M members, [B, K, V]."""
        parts = zip(self.members, state.members, memory, strict=True)
        steps = [member.step(token, own, memory=looked_up) for member, own, looked_up in parts]
        log_probs = torch.stack([normalized(step.logits) for step in steps])
        mean = log_probs.logsumexp(0) - math.log(len(steps))
        return Step(mean, States(tuple(step.state for step in steps)), self._glimpse([step.glimpse for step in steps]))

    def _glimpse(self, glimpses: Sequence[Glimpse]) -> Glimpse:
        weights = [glimpse.weights for glimpse in glimpses]
        shown = self.one_grid and len({part.shape for part in weights}) == 1
        none = weights[0][..., :0]
        return Glimpse(none, torch.stack(weights).mean(0) if shown else none)


class EnsemblePredictor(Predictor):
    """A predictor whose captioner is an `Ensemble` of others; it shows their pictures in the first one's box."""

    def __init__(self, members: Sequence[Predictor]):
        first = members[0]
        for other in members[1:]:
            if other.vocabulary.words != first.vocabulary.words:
                differing = len(set(other.vocabulary.words) ^ set(first.vocabulary.words))
                raise CheckpointError(
                    f"{other.path} has another vocabulary than {first.path} ({differing} words differ): an ensemble "
                    "needs checkpoints that were trained with one vocabulary"
                )
        self._members, self.path, self.metadata = tuple(members), first.path, first.metadata
        self.vocabulary, self.transform = first.vocabulary, first.transform
        self.views = first.views
        seen = [[view.describe() for view in member.views] for member in members]
        one_grid = all(views == seen[0] for views in seen)
        self.captioner = Ensemble([member.captioner for member in members], one_grid=one_grid).eval()

    @property
    def members(self) -> tuple[Predictor, ...]:
        """The predictors of the single checkpoints."""
        return self._members

    @property
    def hard_attention(self) -> str | None:
        """What the members with hard attention look at; None where there are none."""
        modes = {member.hard_attention for member in self._members}
        return " and ".join(sorted(modes - {None})) or None

    @property
    def attends(self) -> bool:
        """Whether every member does; only then are weights shown."""
        return all(member.attends for member in self._members)

    @property
    def has_sentinel(self) -> bool:
        """Whether any member has one; the share shown is the members' mean."""
        return any(member.has_sentinel for member in self._members)

    def encode(self, pictures: Sequence[Image.Image]) -> tuple[Tensor, ...]:
        """Each member's own features of the pictures."""
        return tuple(member.encode(pictures) for member in self._members)


def load_all(path: str | Path, others: Sequence[str | Path] = (), **options) -> Predictor:
    """The predictor of a checkpoint, or of an ensemble where there are others; options as for `load`.

    Raises:
        CheckpointError: as `load`, and where the vocabularies differ.
    """
    members = [load(each, **options) for each in (path, *others)]
    return EnsemblePredictor(members) if len(members) > 1 else members[0]
