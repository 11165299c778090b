"""Searches as a configuration or a user names them: by name, with words for ids and a seed for a generator."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from captioning.data.vocabulary import Vocabulary
from captioning.decoding import (
    WORD_RULES,
    beam_search,
    consensus_search,
    diverse_beam_search,
    greedy_search,
    sample,
)
from captioning.errors import ConfigError

# As conf/decoding has them: beams ranked by probability alone would choose the short captions.
LENGTH_NORMALIZATION = 0.6
METHODS = {
    "greedy": greedy_search,
    "beam": partial(beam_search, length_normalization=LENGTH_NORMALIZATION),
    "diverse_beam": partial(diverse_beam_search, length_normalization=LENGTH_NORMALIZATION),
    "sample": sample,
    "consensus": partial(consensus_search, length_normalization=LENGTH_NORMALIZATION, seed=0),
}


def named(method: str | Callable, **arguments) -> Callable:
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


def seeded(search: Callable) -> Callable:
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
