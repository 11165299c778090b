"""Define what a tokenizer does, and build one by the name that `data.tokenizer` gives it.

A tokenizer splits a caption into words. Scores, rewards and statistics compare words. The vocabulary has the
tokenizer's pieces: the words themselves, or parts of words for a byte-pair tokenizer. The same object joins the pieces
that a model generates into words, and the words into text.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

from captioning.errors import CheckpointError, ConfigError

DEFAULT = "ptb"
# Name of a tokenizer -> its file and class.
TOKENIZERS = {
    "ptb": ("ptb_tokenizer", "PtbTokenizer"),
    "nltk": ("nltk_tokenizer", "NltkTokenizer"),
    "whitespace": ("plain_tokenizers", "WhitespaceTokenizer"),
    "characters": ("plain_tokenizers", "CharacterTokenizer"),
    "unicode": ("unicode_tokenizer", "UnicodeTokenizer"),
    "bpe": ("bpe_tokenizer", "BpeTokenizer"),
}


class Tokenizer:
    """A tokenizer whose pieces are its words, joined by spaces.

    Subclasses define `kind` and `__call__`, and the other methods where they differ.

    Args:
        option: what follows the colon of `data.tokenizer=KIND:OPTION`; "" if there is no colon.

    Attributes:
        kind: a key of `TOKENIZERS`.
        option: as given.
        splits_unspaced: whether it splits scripts without spaces, such as Chinese, into words.

    Raises:
        ConfigError: the tokenizer has no such option, or needs a package that is not installed.
    """

    kind: ClassVar[str]
    splits_unspaced: bool = False

    def __init__(self, option: str = ""):
        if option and type(self).__init__ is Tokenizer.__init__:
            raise ConfigError(f"data.tokenizer={self.kind}:{option}: {self.kind} takes no option. Write {self.kind}")
        self.option = option

    @property
    def name(self) -> str:
        """The value of `data.tokenizer` that builds this tokenizer: KIND or KIND:OPTION."""
        return f"{self.kind}:{self.option}" if self.option else self.kind

    @property
    def word_tokenizer(self) -> "Tokenizer":
        """The tokenizer that splits text into the same words without pieces; scores are named after it."""
        return self

    def __call__(self, text: str) -> list[str]:
        """Split one caption into words. The list is empty for a caption without words.

        White space of any kind separates words.
        """
        raise NotImplementedError

    def fit(self, captions: Iterable[str]) -> "Tokenizer":
        """Learn from the raw captions of the training split, if the tokenizer learns anything, and return self."""
        return self

    def learned_pieces(self) -> list[str] | None:
        """Return all pieces that `fit` learned, which all enter the vocabulary; None if it does not learn any."""
        return None

    @property
    def unit(self) -> str:
        """What the vocabulary has and lengths count: "words", or "pieces" for a tokenizer that learns pieces."""
        return "words" if self.learned_pieces() is None else "pieces"

    def pieces(self, words: Sequence[str]) -> list[str]:
        """Return the pieces of words, in order: the entries of the vocabulary that a model reads and generates."""
        return list(words)

    def groups(self, pieces: Sequence[str]) -> list[list[int]]:
        """Return for each word the indices of its pieces, in order; a word that is not finished counts as one."""
        return [[index] for index in range(len(pieces))]

    def word(self, pieces: Sequence[str]) -> str:
        """Return the word that the pieces of one group form."""
        return "".join(pieces)

    def words(self, pieces: Sequence[str]) -> list[str]:
        """Join generated pieces into words."""
        return [self.word([pieces[index] for index in group]) for group in self.groups(pieces)]

    def is_finished(self, piece: str) -> bool:
        """Return whether a word may end with this piece."""
        return True

    def join(self, words: Sequence[str]) -> str:
        """Join words into text as the language writes it. Splitting the text gives the words again where it can."""
        return " ".join(words)

    def split_joined(self, text: str) -> list[str]:
        """Split text that `join` made into its words."""
        return self(text) if self.splits_unspaced else text.split()

    def state_dict(self) -> dict[str, Any]:
        """Return plain containers for a checkpoint: "name", and what `fit` learned."""
        return {"name": self.name}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `fit` learned from the `state_dict` of a tokenizer with the same name.

        Raises:
            CheckpointError: the state is damaged.
        """


def make_tokenizer(name: str, *, key: str = "data.tokenizer") -> Tokenizer:
    """Build a tokenizer.

    Args:
        name: KIND or KIND:OPTION, such as "ptb", "nltk:TweetTokenizer" or "bpe:4000"; KIND is a key of `TOKENIZERS`.
        key: the setting that has this name, for error messages.

    Raises:
        ConfigError: there is no such tokenizer or option, or a package is missing.
    """
    kind, _, option = str(name).partition(":")
    if kind not in TOKENIZERS:
        near = difflib.get_close_matches(kind, TOKENIZERS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"{key}={name} is not a tokenizer: {hint}Choose one of {', '.join(TOKENIZERS)}")
    file, cls = TOKENIZERS[kind]
    make: Callable[..., Tokenizer] = getattr(import_module(f"captioning.text.{file}"), cls)
    try:
        return make(option)
    except ConfigError as error:  # the classes name the usual key
        raise ConfigError(str(error).replace("data.tokenizer=", f"{key}=", 1)) from error


def tokenizer_from_state_dict(state: Mapping[str, Any] | None) -> Tokenizer:
    """Rebuild the tokenizer of a checkpoint; None, for a checkpoint without one, is the default tokenizer.

    Raises:
        CheckpointError: the state is damaged.
        ConfigError: the tokenizer needs a package that is not installed.
    """
    if state is None:
        return make_tokenizer(DEFAULT)
    name = state.get("name") if isinstance(state, Mapping) else None
    if not isinstance(name, str) or name.partition(":")[0] not in TOKENIZERS:
        named = f"the name {name!r:.40} is unknown" if isinstance(name, str) else "it has no name"
        raise CheckpointError(f"the checkpoint's 'tokenizer' is damaged: {named}. Use another checkpoint")
    tokenizer = make_tokenizer(name)
    tokenizer.load_state_dict(state)
    return tokenizer
