"""Learn and apply byte-pair merges (Sennrich et al. 2016) with the `tokenizers` library.

Every character of a word becomes one symbol of a private alphabet, and the last character of a word another one:
character number i is symbol 2 i, or 2 i + 1 at the end of a word. So no text of a caption can be mistaken for a mark of
the end of a word, and the order of the library's merges does not depend on anything but the words.
"""

import json
import os
from collections.abc import Iterator, Mapping
from itertools import groupby, repeat
from typing import Any

from captioning.errors import CheckpointError, ConfigError

CONTINUED = "@@"  # the suffix of pieces that do not end a word
MOST_MERGES = 1_000_000
_FIRST = 0xF0000  # of the private alphabet: Unicode's private planes 15 and 16
MOST_CHARACTERS = (0x110000 - _FIRST) // 2
_MIN_COUNT = 2  # a pair that occurs once is not merged
_LONGEST = 1000  # characters of one merge in a checkpoint


class BytePairs:
    """Merges of pairs of neighboring pieces, in the order in which they are applied.

    Args:
        alphabet: the known characters, each once.
        merges: pairs of pieces, such as ("do@@", "g"). A piece that does not end a word has the suffix "@@".

    Raises:
        CheckpointError: a pair is not made of known characters, or of pieces of the pairs before it.
    """

    def __init__(self, alphabet: str = "", merges: list[Any] | None = None):
        self.alphabet = alphabet
        self._codes = {character: _FIRST + 2 * index for index, character in enumerate(alphabet)}
        self._singles = [chr(_FIRST + index) for index in range(2 * len(alphabet))]
        self._merges = list(self._pairs(merges or []))
        vocabulary = {piece: index for index, piece in enumerate(self._singles + self._results())}
        self._model = bpe_library().models.BPE(vocab=vocabulary, merges=self._merges)

    @classmethod
    def learn(cls, counts: Mapping[str, int], size: int) -> "BytePairs":
        """Learn merges until there are `size` pieces, or no pair occurs twice.

        Args:
            counts: the number of occurrences of each word.
            size: number of pieces, two per character included.
        """
        library, pairs = bpe_library(), cls("".join(sorted({character for word in counts for character in word})))
        trainer = library.trainers.BpeTrainer(
            vocab_size=size, min_frequency=_MIN_COUNT, show_progress=False, initial_alphabet=pairs._singles
        )
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.train_from_iterator(pairs._sequences(counts), trainer)
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        return cls(pairs.alphabet, [f"{pairs._piece(left)} {pairs._piece(right)}" for left, right in merges])

    def pieces(self) -> list[str]:
        """Return all pieces: single characters, before and at the end of a word, and the results of the merges."""
        return [self._piece(symbols) for symbols in self._singles + self._results()]

    def merges(self) -> list[str]:
        """Return the merges in their order, as in "do@@ g"."""
        return [f"{self._piece(left)} {self._piece(right)}" for left, right in self._merges]

    def split(self, word: str) -> list[str]:
        """Return the pieces of a word; each unknown character is a piece of its own."""
        return [piece for part, ends in _parts(word) for piece in self._encode(part, ends)]

    def _results(self) -> list[str]:
        return [left + right for left, right in self._merges]

    def _symbols(self, text: str, ends: bool) -> str:
        """Return the symbols of known characters; `ends`: the last one ends a word."""
        codes = [self._codes[character] for character in text]
        return "".join(map(chr, [*codes[:-1], codes[-1] + ends]))

    def _piece(self, symbols: str) -> str:
        codes = [ord(symbol) - _FIRST for symbol in symbols]
        return "".join(self.alphabet[code // 2] for code in codes) + ("" if codes[-1] % 2 else CONTINUED)

    def _sequences(self, counts: Mapping[str, int]) -> Iterator[str]:
        for word, count in counts.items():
            for part, ends in _parts(word):
                yield from repeat(self._symbols(part, ends), count)

    def _encode(self, part: str, ends: bool) -> list[str]:
        pieces: list[str] = []
        length = 0
        for known, group in groupby(part, self._codes.__contains__):
            run = "".join(group)
            length += len(run)
            last = ends and length == len(part)
            if known:
                pieces += [self._piece(token.value) for token in self._model.tokenize(self._symbols(run, last))]
            else:
                pieces += [character + CONTINUED for character in run[:-1]] + [run[-1] + ("" if last else CONTINUED)]
        return pieces

    def _pairs(self, merges: list[Any]) -> Iterator[tuple[str, str]]:
        """Check merges, and return them as symbols."""
        known = set(self._singles)
        for merge in merges:
            left, right = self._pair(merge)
            if left not in known or right not in known or left + right in known:
                raise damaged(f"the merge {merge!r:.40} does not follow from those before it")
            known.add(left + right)
            yield left, right

    def _pair(self, merge: Any) -> tuple[str, str]:
        left, _, right = merge.partition(" ") if isinstance(merge, str) and len(merge) <= _LONGEST else ("", "", "")
        stems = (left.removesuffix(CONTINUED), right.removesuffix(CONTINUED))
        if not left.endswith(CONTINUED) or not all(stems) or not self._codes.keys() >= set("".join(stems)):
            raise damaged(f"{merge!r:.40} is not a merge such as 'do@@ g'")
        return self._symbols(stems[0], False), self._symbols(stems[1], not right.endswith(CONTINUED))


def _parts(word: str) -> list[tuple[str, bool]]:
    """Return the parts of a word within which characters may merge, and whether each ends the word.

    The last character of a word like "x@@" stays alone, because a piece that ends in "@@" does not end a word; that of
    "<end>" does because a piece must not look like a special token of the vocabulary.
    """
    if len(word) > 1 and word.endswith((CONTINUED, ">")):
        return [(word[:-1], False), (word[-1], True)]
    return [(word, True)]


def damaged(why: str) -> CheckpointError:
    """Return the error for a damaged state of a tokenizer."""
    return CheckpointError(f"the checkpoint's 'tokenizer' is damaged: {why}. Use another checkpoint")


def bpe_library() -> Any:
    """Import the `tokenizers` library.

    Raises:
        ConfigError: it is not installed.
    """
    # The library then starts no threads, so it does not warn about processes that are started later.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError(
            "data.tokenizer=bpe needs the package tokenizers. Run: pip install 'captioning[bpe]'"
        ) from error
    return tokenizers
