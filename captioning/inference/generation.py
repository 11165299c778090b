"""Generate captions with any search: find it by name, and turn its words into ids and its seed into a generator."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from captioning.data import Vocabulary
from captioning.decoding import (
    MAX_LENGTH,
    WORD_RULES,
    Hypothesis,
    PhraseRules,
    WordGroup,
    beam_search,
    consensus_search,
    diverse_beam_search,
    greedy_search,
    sample,
)
from captioning.errors import ConfigError, DataError
from captioning.inference.borrowed_words import BorrowedWords
from captioning.models import CaptionModel, LongestCaption, Step

# The default of the files in conf/decoding. Without it, beam search would prefer short captions.
LENGTH_NORMALIZATION = 0.6
METHODS: dict[str, Callable] = {
    "greedy": greedy_search,
    "beam": partial(beam_search, length_normalization=LENGTH_NORMALIZATION),
    "diverse_beam": partial(diverse_beam_search, length_normalization=LENGTH_NORMALIZATION),
    "sample": sample,
    "consensus": partial(consensus_search, length_normalization=LENGTH_NORMALIZATION, seed=0),
}


def get_search(method: str | Callable, **arguments) -> Callable:
    """Return a search with its arguments set.

    Args:
        method: a name in `METHODS`, or a function with the signature of `beam_search`.
        **arguments: keyword arguments of the search, such as `beam_size=5`.

    Raises:
        ConfigError: `METHODS` has no such name.
    """
    if isinstance(method, str):
        if method not in METHODS:
            raise ConfigError(f"method='{method}' does not exist. Choose one of {', '.join(METHODS)}")
        method = METHODS[method]
    return partial(method, **arguments)


def with_words(search: Callable, vocabulary: Vocabulary, *, max_length: int | None = None) -> Callable:
    """Replace words in a search's arguments by their ids, and set what depends on the model.

    A search that takes `rarity` receives the words' rarity; one without its own `max_length` receives that of the
    model; and no search ends a caption within a word.

    Raises:
        ConfigError: an argument is not a list of words, or a word is not in the vocabulary.
    """
    function, arguments = _unwrap(search)
    ids = {word: index for index, word in enumerate(vocabulary.words)}
    _check_pieces(arguments, vocabulary)
    words = {name: _ids(arguments[name], name, ids) for name in WORD_RULES if name in arguments}
    taken, given = inspect.signature(function).parameters, dict(arguments)
    if "avoid_endings" in taken and (unfinished := vocabulary.unfinished):
        words["avoid_endings"] = sorted({*words.get("avoid_endings", []), *unfinished})
    if "max_length" in taken and max_length is not None and given.get("max_length") is None:
        given["max_length"] = max_length
    rarity = {"rarity": vocabulary.rarity()} if "rarity" in taken else {}
    return partial(function, **rarity | given | words)


def _check_pieces(arguments: Mapping[str, Any], vocabulary: Vocabulary) -> None:
    """Refuse rules about words if words have pieces: the same word can be written in several ways."""
    tokenizer = vocabulary.tokenizer
    given = [name for name in WORD_RULES if name != "allow" and arguments.get(name)]
    if given and tokenizer.learned_pieces() is not None:
        raise ConfigError(
            f"decoding.{given[0]} is for vocabularies of whole words, but this captioner writes words in pieces "
            f"(data.tokenizer={tokenizer.name}). Remove decoding.{given[0]}, or train with "
            f"data.tokenizer={tokenizer.word_tokenizer.name}"
        )


def _ids(words: Sequence[str] | None, name: str, ids: Mapping[str, int]) -> list[int]:
    if isinstance(words, str) or not isinstance(words, Sequence):
        given = "null" if words is None else repr(words)
        raise ConfigError(f"decoding.{name} must be a list of words such as [dog,ball], not {given}")
    for word in words:
        if not isinstance(word, str):
            raise ConfigError(
                f"decoding.{name} contains {word!r}, which is not text. Put the word in quotes, as in ['no']"
            )
        if word not in ids:
            near = difflib.get_close_matches(word, ids, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else "Choose a word of the training captions"
            raise ConfigError(f"decoding.{name}: '{word}' is not in the vocabulary. {hint}")
    return [ids[word] for word in words]


def with_generator(search: Callable) -> Callable:
    """Replace the search's `seed` by one generator for all its calls, so that each batch draws different numbers.

    Raises:
        ConfigError: the seed does not fit into 64 bits.
    """
    function, arguments = _unwrap(search)
    seed = arguments.pop("seed", None)
    if seed is not None and not -(2**63) <= seed < 2**64:
        raise ConfigError(f"decoding.seed={seed} must be at least -2**63 and below 2**64")
    generator = {} if seed is None else {"generator": torch.Generator().manual_seed(seed)}
    return partial(function, **arguments, **generator)


def with_guides(
    search: Callable,
    guides: Sequence[Sequence[WordGroup]],
    *,
    no_repeat_ngram: int = 0,
    phrases: PhraseRules | None = None,
) -> Callable:
    """Return a search with groups of words for each image of a batch, and with `no_repeat_ngram` if it has none.

    Raises:
        ConfigError: the search does not take them.
    """
    function, arguments = _unwrap(search)
    if "guides" not in inspect.signature(function).parameters:
        raise ConfigError(
            f"{getattr(function, '__name__', function)} takes no groups of words, so tags cannot guide it. Set "
            "tags=null, or choose beam, consensus, diverse_beam, greedy or sample"
        )
    repeats = arguments.get("no_repeat_ngram") or no_repeat_ngram
    return partial(search, guides=guides, no_repeat_ngram=repeats, phrases=phrases)


def most_required(search: Callable, *, max_length: int | None = None) -> int:
    """Return how many groups of words a search may be required to write, so that half of each caption remains free.

    Args:
        search: the search.
        max_length: the limit of a search that does not set its own; None: the default of all searches.
    """
    _, arguments = _unwrap(search)
    limit = arguments.get("max_length") or max_length or MAX_LENGTH
    required = {str(word) for word in arguments.get("require") or ()}  # text, because the words are not checked yet
    return max(0, (limit - 1) // 2 - len(required))  # <end> is one of the tokens


def check_length(search: Callable, longest: LongestCaption | None) -> None:
    """Refuse a search that may write longer captions than the model can read.

    Args:
        search: the search, with its `max_length`; a search that has no such argument is not checked.
        longest: the longest caption that the model can read, or None.

    Raises:
        ConfigError: the search is refused.
    """
    function, arguments = _unwrap(search)
    if longest and "max_length" in inspect.signature(function).parameters:
        limit = arguments.get("max_length")
        longest.check("decoding.max_length", MAX_LENGTH if limit is None else limit)


def _unwrap(search: Callable) -> tuple[Callable, dict[str, Any]]:
    """Return the function inside any number of partials, and their keyword arguments merged.

    Positional arguments are ignored: partials of searches have none.
    """
    arguments: dict[str, Any] = {}
    while isinstance(search, partial):
        arguments = search.keywords | arguments
        search = search.func
    return search, arguments


def generate(
    captioner: CaptionModel | BorrowedWords,
    images: Any,
    mask: Any = None,
    *,
    search: Callable,
    vocabulary: Vocabulary,
    names: Sequence[Any] | None = None,
    max_length: int | None = None,
) -> list[list[Hypothesis]]:
    """Generate captions for a batch of B images with any search.

    <pad>, <start> and <unk> are never written, except those that the search's argument `allow` names.

    Args:
        captioner: the model, an `Ensemble`, or one of them with borrowed words.
        images: what `captioner.begin` takes: a tensor [B, …] of images or features; for an ensemble, a tuple with one
            tensor per member.
        mask: [B, L] bool, True at real locations; None if all are. For an ensemble, a tuple with one per member.
        search: a search of `captioning.decoding`, with its arguments set.
        vocabulary: the model's.
        names: paths or image ids of the B images, for error messages; otherwise images are numbered.
        max_length: the greatest number of tokens for a search that does not set its own; None: the search's default.

    Returns:
        The hypotheses of each image, best first.

    Raises:
        ConfigError: the search's words are not in the vocabulary, or the model cannot read its longest captions.
        DataError: word scores are not finite; the message names the images.
    """
    search = with_words(search, vocabulary, max_length=max_length)
    check_length(search, captioner.longest)
    state, memory = captioner.begin(images, mask)
    step = _Watched(partial(captioner.step, memory=memory))
    hypotheses = search(
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
    """A `step` that records which images have scores that are not finite, and replaces these scores by zeros.

    The record stays on the device until the search ends: reading it at every step would make the GPU wait.
    """

    def __init__(self, step: Callable):
        self.step = step
        self.wrong: Tensor | None = None  # [B] bool

    def __call__(self, token: Tensor, state: Any) -> Step:
        scored = self.step(token, state)
        # [B, K]. Summing takes one pass, and a NaN or infinity stays in the sum. Sums over V words overflow in float16.
        wide = torch.promote_types(scored.logits.dtype, torch.float32)
        wrong = ~scored.logits.sum(-1, dtype=wide).isfinite()
        found = wrong.any(1)
        self.wrong = found if self.wrong is None else self.wrong | found
        return scored._replace(logits=scored.logits.masked_fill(wrong[..., None], 0.0))

    def check(self, names: Sequence[Any] | None) -> None:
        """Raise a DataError if any scores were not finite."""
        if self.wrong is not None and (images := self.wrong.nonzero().flatten().tolist()):
            listed = [f"number {image} of the batch" if names is None else str(names[image]) for image in images[:5]]
            raise DataError(
                f"the word scores of {len(images)} of {len(self.wrong)} images are not finite: {', '.join(listed)}. "
                "Their features are not finite, or numbers overflow in the model. Compute the features again, or set "
                "checkpoint=… to an earlier checkpoint"
            )


@torch.inference_mode()
def generate_texts(
    captioner: CaptionModel,
    images: Any,
    mask: Any = None,
    *,
    search: Callable,
    vocabulary: Vocabulary,
    names: Sequence[Any] | None = None,
    max_length: int | None = None,
) -> list[str]:
    """Generate the best caption of each image, as text; arguments and errors as for `generate`."""
    hypotheses = generate(
        captioner, images, mask, search=search, vocabulary=vocabulary, names=names, max_length=max_length
    )
    return [vocabulary.text(best[0].tokens) for best in hypotheses]


def _count(images: Tensor | tuple[Tensor, ...]) -> int:
    return len(images[0] if isinstance(images, tuple) else images)
