"""Captions of a batch of features, by any search: what joins a captioner, a vocabulary and `captioning.decoding`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from captioning.data.vocabulary import Vocabulary
from captioning.decoding import Hypothesis
from captioning.errors import DataError
from captioning.models.captioner import Captioner
from captioning.searches import with_words


def decode(
    captioner: Captioner,
    images: Tensor,
    mask: Tensor | None = None,
    *,
    search: Callable,
    vocabulary: Vocabulary,
    names: Sequence[Any] | None = None,
) -> list[list[Hypothesis]]:
    """Hypotheses for a batch of whatever the captioner's encoder takes (an ensemble: tuples, a part for each member).

    <pad>, <start> and <unk> are never written, but for what the search's `allow` names.

    Raises:
        DataError: word scores are not finite, of the pictures named (by `names`, paths or image ids, or by number).
    """
    state, memory = captioner.begin(images, mask)
    step = _Watched(partial(captioner.step, memory=memory))
    hypotheses = with_words(search, vocabulary)(
        step,
        state,
        batch=_count(images),
        start=vocabulary.start,
        end=vocabulary.end,
        forbidden=(vocabulary.pad, vocabulary.start, vocabulary.unknown),
    )
    step.check(names)
    return hypotheses


class _Watched:
    """A step that notes which images' scores are not finite, and goes on with zeros in their place.

    The note stays on the device until the search is over: to ask at every step would make a GPU wait.
    """

    def __init__(self, step: Callable):
        self.step, self.wrong = step, None

    def __call__(self, token: Tensor, state):
        made = self.step(token, state)
        wrong = ~made.logits.sum(-1).isfinite()  # [B, K]; one pass, and any NaN or infinity shows in a sum
        found = wrong.any(1)
        self.wrong = found if self.wrong is None else self.wrong | found
        return made._replace(logits=made.logits.masked_fill(wrong[..., None], 0.0))

    def check(self, names: Sequence[Any] | None) -> None:
        """A DataError where there were any."""
        places = [] if self.wrong is None else self.wrong.nonzero().flatten().tolist()
        if places:
            told = [f"number {place} of the batch" if names is None else str(names[place]) for place in places]
            raise DataError(
                f"word scores are not finite for {len(places)} pictures: {', '.join(told[:5])}: their features are "
                "not, or the model's numbers overflow: take an earlier checkpoint, or make the features anew"
            )


@torch.inference_mode()
def write(
    captioner: Captioner,
    images: Tensor,
    mask: Tensor | None = None,
    *,
    search: Callable,
    vocabulary: Vocabulary,
    names: Sequence[Any] | None = None,
) -> list[str]:
    """The best caption of each image as text; see `decode`."""
    hypotheses = decode(captioner, images, mask, search=search, vocabulary=vocabulary, names=names)
    return [" ".join(vocabulary.decode(best[0].tokens)) for best in hypotheses]


def _count(images: Tensor | tuple[Tensor, ...]) -> int:
    return len(images[0] if isinstance(images, tuple) else images)
