"""Split words into pieces by byte-pair encoding, learned from the training captions (Sennrich et al. 2016).

The `tokenizers` library learns and applies the merges. Every character of a word becomes one symbol of a private
alphabet, and the last character another one, so that no text of a caption can be mistaken for a mark of the end of a
word, and the library's order of merges does not depend on anything but the captions.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from captioning.errors import CheckpointError, ConfigError
from captioning.text.tokenizer import DEFAULT, Tokenizer, make_tokenizer

CONTINUED = "@@"  # the suffix of pieces that do not end a word
SIZE, SMALLEST, LARGEST = 4000, 10, 1_000_000  # pieces
_FIRST = 0xF0000  # of the private alphabet: Unicode's private planes 15 and 16
_SYMBOLS = 0x110000 - _FIRST
_MIN_COUNT = 2  # a pair that occurs once is not merged
_LONGEST = 1000  # characters of one piece in a checkpoint


class BpeTokenizer(Tokenizer):
    """Words of another tokenizer, whose pieces are learned from the training captions by byte-pair encoding.

    A piece that ends a word is plain text; any other piece has the suffix "@@": the pieces of "dog" may be "do@@" and
    "g". Each frequent word is a piece itself. All words made of characters of the training captions can be written in
    pieces; other characters become pieces that are not in the vocabulary.

    Args:
        option: "SIZE" or "SIZE:BASE"; SIZE: number of pieces, single characters included, 4000 by default; BASE: name
            of the tokenizer that splits captions into words, "ptb" by default.

    Raises:
        ConfigError: SIZE is not a number in its range, BASE is unknown, or the package tokenizers is not installed.
    """

    kind: ClassVar = "bpe"

    def __init__(self, option: str = ""):
        super().__init__(option)
        size, _, base = option.partition(":")
        self.size = _size(size, self.name)
        if base.partition(":")[0] == self.kind:
            raise ConfigError(
                f"data.tokenizer={self.name}: the words must come from another tokenizer. Write bpe:{size}"
            )
        self._base = make_tokenizer(base or DEFAULT, key=f"data.tokenizer=bpe:{self.size}:BASE, BASE")
        self.splits_unspaced = self._base.splits_unspaced
        _library(self.name)
        self._alphabet = ""
        self._merges: list[tuple[str, str]] = []  # pairs of private symbols
        self._model: Any = None
        self._known: dict[str, list[str]] = {}

    @property
    def word_tokenizer(self) -> Tokenizer:
        """The tokenizer BASE, after which scores are named."""
        return self._base

    def __call__(self, text: str) -> list[str]:
        """Split one caption into the words of BASE."""
        return self._base(text)

    def fit(self, captions: Iterable[str]) -> "BpeTokenizer":
        """Learn the pieces from the raw captions of the training split, and return self.

        The same captions, in any order, give the same pieces.

        Raises:
            ConfigError: there are more characters than pieces.
        """
        library = _library(self.name)
        counts = Counter(word for caption in captions for word in self._base(caption))
        alphabet = "".join(sorted({character for word in counts for character in word}))
        self._check_size(alphabet)
        self._set(alphabet, [])
        tokenizer = library.Tokenizer(library.models.BPE())
        trainer = library.trainers.BpeTrainer(
            vocab_size=self.size,
            min_frequency=_MIN_COUNT,
            show_progress=False,
            initial_alphabet=[chr(_FIRST + index) for index in range(2 * len(alphabet))],
        )
        tokenizer.train_from_iterator(self._sequences(counts), trainer)
        self._set(alphabet, _merges(tokenizer))
        return self

    def learned_pieces(self) -> list[str] | None:
        """Return all pieces: single characters, at the end of a word and before it, and the results of the merges."""
        singles = [self._text(chr(_FIRST + index)) for index in range(2 * len(self._alphabet))]
        return singles + [self._text(left + right) for left, right in self._merges]

    def pieces(self, words: Sequence[str]) -> list[str]:
        """Return the pieces of words, in order."""
        return [piece for word in words for piece in self._split(word)]

    def groups(self, pieces: Sequence[str]) -> list[list[int]]:
        """Return for each word the indices of its pieces, in order; a word that is not finished counts as one."""
        groups: list[list[int]] = []
        finished = True
        for index, piece in enumerate(pieces):
            if finished:
                groups.append([])
            groups[-1].append(index)
            finished = self.is_finished(piece)
        return groups

    def word(self, pieces: Sequence[str]) -> str:
        """Return the word that the pieces of one group form."""
        return "".join(piece.removesuffix(CONTINUED) for piece in pieces)

    def is_finished(self, piece: str) -> bool:
        """Return whether a word ends with this piece."""
        return not piece.endswith(CONTINUED)

    def join(self, words: Sequence[str]) -> str:
        """Join words into text as BASE does."""
        return self._base.join(words)

    def state_dict(self) -> dict[str, Any]:
        """Return the name, the characters as one string, and the merges in their order, as in "do@@ g"."""
        merges = [f"{self._text(left)} {self._text(right)}" for left, right in self._merges]
        return {"name": self.name, "alphabet": self._alphabet, "merges": merges}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the pieces of the `state_dict` of a tokenizer with the same name.

        Raises:
            CheckpointError: the state is damaged.
        """
        alphabet, merges = state.get("alphabet"), state.get("merges")
        if not isinstance(alphabet, str) or list(alphabet) != sorted(set(alphabet)) or 2 * len(alphabet) > _SYMBOLS:
            raise _damaged("its alphabet is not a sorted string of characters")
        if not isinstance(merges, list) or len(merges) > LARGEST:
            raise _damaged(f"its merges are not a list of at most {LARGEST}")
        self._set(alphabet, [])
        pairs: list[tuple[str, str]] = []
        known = {chr(_FIRST + index) for index in range(2 * len(alphabet))}
        for merge in merges:
            left, right = self._pair(merge)
            if left not in known or right not in known or left + right in known:
                raise _damaged(f"the merge {merge!r:.40} does not follow from those before it")
            known.add(left + right)
            pairs.append((left, right))
        self._set(alphabet, pairs)

    # Between pieces and the private alphabet: the character number i is symbol 2 i, or 2 i + 1 at the end of a word.

    def _set(self, alphabet: str, merges: list[tuple[str, str]]) -> None:
        self._alphabet, self._merges, self._known = alphabet, merges, {}
        self._codes = {character: _FIRST + 2 * index for index, character in enumerate(alphabet)}
        singles = [chr(_FIRST + index) for index in range(2 * len(alphabet))]
        vocabulary = {piece: index for index, piece in enumerate(singles + [left + right for left, right in merges])}
        self._model = _library(self.name).models.BPE(vocab=vocabulary, merges=merges)

    def _symbols(self, text: str, *, ends: bool) -> str:
        """Return the symbols of known characters; `ends`: the last one ends a word."""
        codes = [self._codes[character] for character in text]
        return "".join(map(chr, [*codes[:-1], codes[-1] + ends]))

    def _text(self, symbols: str) -> str:
        """Return the piece of the vocabulary for symbols."""
        codes = [ord(symbol) - _FIRST for symbol in symbols]
        return "".join(self._alphabet[code // 2] for code in codes) + ("" if codes[-1] % 2 else CONTINUED)

    def _pair(self, merge: Any) -> tuple[str, str]:
        """Return the two pieces of a merge of a checkpoint as symbols."""
        left, _, right = merge.partition(" ") if isinstance(merge, str) else ("", "", "")
        ends = not right.endswith(CONTINUED)
        stems = (left.removesuffix(CONTINUED), right.removesuffix(CONTINUED))
        sound = left.endswith(CONTINUED) and all(stems) and len(merge) <= _LONGEST
        if not sound or not set("".join(stems)) <= self._codes.keys():
            raise _damaged(f"{merge!r:.40} is not a merge such as 'do@@ g'")
        return self._symbols(stems[0], ends=False), self._symbols(stems[1], ends=ends)

    def _check_size(self, alphabet: str) -> None:
        if 2 * len(alphabet) > min(self.size, _SYMBOLS):
            raise ConfigError(
                f"data.tokenizer={self.name}: the training captions have {len(alphabet)} different characters, which "
                f"need {2 * len(alphabet)} pieces. Write at least bpe:{2 * len(alphabet)}, or data.tokenizer=unicode"
            )

    def _sequences(self, counts: Mapping[str, int]) -> Iterable[str]:
        for word in sorted(counts):
            for part, ends in _parts(word):
                for _ in range(counts[word]):
                    yield self._symbols(part, ends=ends)

    def _split(self, word: str) -> list[str]:
        if word not in self._known:
            pieces = [piece for part, ends in _parts(word) for piece in self._encode(part, ends)]
            if len(self._known) >= 200_000:
                return pieces
            self._known[word] = pieces
        return self._known[word]

    def _encode(self, part: str, ends: bool) -> list[str]:
        """Return the pieces of a part of a word; each unknown character is a piece of its own."""
        if all(character in self._codes for character in part):
            return [self._text(token.value) for token in self._model.tokenize(self._symbols(part, ends=ends))]
        pieces: list[str] = []
        run = ""
        for index, character in enumerate(part):
            last = index == len(part) - 1
            if character in self._codes:
                run += character
            if run and (last or character not in self._codes):
                pieces += self._encode(run, ends and last and character in self._codes)
                run = ""
            if character not in self._codes:
                pieces.append(character + ("" if ends and last else CONTINUED))
        return pieces


def _parts(word: str) -> list[tuple[str, bool]]:
    """Return the parts of a word within which characters may merge, and whether each ends the word.

    The last character of a word like "x@@" stays alone, because a piece that ends in "@@" does not end a word; that of
    "<end>" does because a piece must not look like a special token of the vocabulary.
    """
    if len(word) > 1 and word.endswith((CONTINUED, ">")):
        return [(word[:-1], False), (word[-1], True)]
    return [(word, True)]


def _merges(tokenizer: Any) -> list[tuple[str, str]]:
    """Return the merges of a trained tokenizer, in their order."""
    import json

    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]


def _library(name: str) -> Any:
    # The library then starts no threads, so it does not warn about processes that are started later.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError(
            f"data.tokenizer={name} needs the package tokenizers. Run: pip install 'captioning[bpe]'"
        ) from error
    return tokenizers


def _size(text: str, name: str) -> int:
    if not text:
        return SIZE
    if not (text.isascii() and text.isdigit() and SMALLEST <= int(text[:10]) <= LARGEST and len(text) < 10):
        raise ConfigError(
            f"data.tokenizer={name}: {text} is not a number of pieces from {SMALLEST} to {LARGEST}. Write bpe:{SIZE}"
        )
    return int(text)


def _damaged(why: str) -> CheckpointError:
    return CheckpointError(f"the checkpoint's 'tokenizer' is damaged: {why}. Use another checkpoint")
