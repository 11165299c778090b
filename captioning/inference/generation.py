"""Get a search by its name, turn its words into ids and its seed into a generator, and generate captions with it."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from captioning.data import Vocabulary
from captioning.decoding import (
    WORD_RULES,
    Hypothesis,
    beam_search,
    consensus_search,
    diverse_beam_search,
    greedy_search,
    sample,
)
from captioning.errors import ConfigError, DataError
from captioning.models import CaptionModel

# As conf/decoding has them: beams ranked by probability alone would choose the short captions.
LENGTH_NORMALIZATION = 0.6
METHODS = {
    "greedy": greedy_search,
    "beam": partial(beam_search, length_normalization=LENGTH_NORMALIZATION),
    "diverse_beam": partial(diverse_beam_search, length_normalization=LENGTH_NORMALIZATION),
    "sample": sample,
    "consensus": partial(consensus_search, length_normalization=LENGTH_NORMALIZATION, seed=0),
}


def get_search(method: str | Callable, **arguments) -> Callable:
    """A search by its name in METHODS, or a function of the same signature, with arguments.

    Raises:
        ConfigError: there is no such name.
    """
    if isinstance(method, str) and method not in METHODS:
        raise ConfigError(f"there is no decoding '{method}': choose one of {', '.join(METHODS)}")
    return partial(METHODS.get(method, method), **arguments)


def with_words(search: Callable, vocabulary: Vocabulary) -> Callable:
    """The search with the words among its arguments turned into ids, and with their rarity where it asks for that.

    Raises:
        ConfigError: a word that the vocabulary lacks.
    """
    function, arguments = _unwrap(search)
    ids = {word: index for index, word in enumerate(vocabulary.words)}
    words = {name: _ids(arguments[name], name, ids) for name in WORD_RULES if name in arguments}
    rarity = {"rarity": vocabulary.rarity()} if "rarity" in inspect.signature(function).parameters else {}
    return partial(function, **rarity | arguments | words)


def _ids(words: Sequence[str] | None, name: str, ids: Mapping[str, int]) -> list[int]:
    if isinstance(words, str) or not isinstance(words, Sequence):
        raise ConfigError(f"decoding.{name} must be a list of words, not {words!r}")
    for word in words:
        if not isinstance(word, str):
            raise ConfigError(f"decoding.{name} holds {word!r}: a word needs quotes where YAML takes it for a value")
        if word not in ids:
            near = difflib.get_close_matches(word, ids, n=1)
            hint = f": did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"decoding.{name}: '{word}' is not in the vocabulary{hint}")
    return [ids[word] for word in words]


def with_generator(search: Callable) -> Callable:
    """The search with one generator for all its calls in the place of a `seed`: each batch draws other numbers.

    Raises:
        ConfigError: a seed that is too large.
    """
    function, arguments = _unwrap(search)
    seed = arguments.pop("seed", None)
    if seed is not None and not -(2**63) <= seed < 2**64:
        raise ConfigError(f"decoding.seed ({seed}) must have 64 bits at the most")
    generator = {} if seed is None else {"generator": torch.Generator().manual_seed(seed)}
    return partial(function, **arguments, **generator)


def _unwrap(search: Callable) -> tuple[Callable, dict[str, Any]]:
    """The function under any number of partials, and its keyword arguments; searches take no others beforehand."""
    arguments = {}
    while isinstance(search, partial):
        search, arguments = search.func, search.keywords | arguments
    return search, arguments


def generate(
    captioner: CaptionModel,
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
        # [B, K]; one pass, and any NaN or infinity shows in a sum, which float16 could not hold for many words.
        wide = torch.promote_types(made.logits.dtype, torch.float32)
        wrong = ~made.logits.sum(-1, dtype=wide).isfinite()
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
def generate_texts(
    captioner: CaptionModel,
    images: Tensor,
    mask: Tensor | None = None,
    *,
    search: Callable,
    vocabulary: Vocabulary,
    names: Sequence[Any] | None = None,
) -> list[str]:
    """The best caption of each image as text; see `decode`."""
    hypotheses = generate(captioner, images, mask, search=search, vocabulary=vocabulary, names=names)
    return [" ".join(vocabulary.decode(best[0].tokens)) for best in hypotheses]


def _count(images: Tensor | tuple[Tensor, ...]) -> int:
    return len(images[0] if isinstance(images, tuple) else images)
