"""Split words into pieces by byte-pair encoding, learned from the training captions (Sennrich et al. 2016)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from captioning.errors import ConfigError
from captioning.text.byte_pairs import CONTINUED, MOST_CHARACTERS, MOST_MERGES, BytePairs, bpe_library, damaged
from captioning.text.tokenizer import DEFAULT, TOKENIZERS, Tokenizer, make_tokenizer

SIZE, SMALLEST, LARGEST = 4000, 10, MOST_MERGES  # pieces


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
        self.size = _size(size, base, self.name)
        if base.partition(":")[0] == self.kind:
            raise ConfigError(
                f"data.tokenizer={self.name}: the words must come from another tokenizer. Write bpe:{self.size}"
            )
        self._base = make_tokenizer(base or DEFAULT, key=f"data.tokenizer=bpe:{self.size}:BASE, BASE")
        self.splits_unspaced = self._base.splits_unspaced
        bpe_library()
        self._set(BytePairs())

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
        counts = Counter(word for caption in captions for word in self._base(caption))
        needed = 2 * len({character for word in counts for character in word})
        if needed > min(self.size, 2 * MOST_CHARACTERS):
            base = self._base.name
            other, words = ("unicode", "") if base == DEFAULT else (base, f":{base}")
            raise ConfigError(
                f"data.tokenizer={self.name}: the training captions have {needed // 2} different characters, which "
                f"need {needed} pieces. Write at least bpe:{needed}{words}, or data.tokenizer={other}"
            )
        self._set(BytePairs.learn(counts, self.size))
        return self

    def learned_pieces(self) -> list[str] | None:
        """Return all pieces: single characters, before and at the end of a word, and the results of the merges."""
        return self._pairs.pieces()

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
        return {"name": self.name, "alphabet": self._pairs.alphabet, "merges": self._pairs.merges()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the pieces of the `state_dict` of a tokenizer with the same name.

        Raises:
            CheckpointError: the state is damaged.
        """
        alphabet, merges = state.get("alphabet"), state.get("merges")
        if not isinstance(alphabet, str) or not all(a < b for a, b in pairwise(alphabet)):
            raise damaged("its alphabet is not a sorted string of characters")
        if len(alphabet) > MOST_CHARACTERS or not isinstance(merges, list) or len(merges) > MOST_MERGES:
            raise damaged(f"its merges are not a list of at most {MOST_MERGES}")
        self._set(BytePairs(alphabet, merges))

    def _set(self, pairs: BytePairs) -> None:
        self._pairs = pairs
        self._known: dict[str, list[str]] = {}

    def _split(self, word: str) -> list[str]:
        """Return the pieces of one word, and remember them."""
        if word not in self._known:
            pieces = self._pairs.split(word)
            if len(self._known) >= 200_000:
                return pieces
            self._known[word] = pieces
        return self._known[word]


def _size(text: str, base: str, name: str) -> int:
    if not text:
        return SIZE
    if not (text.isascii() and text.isdigit() and len(text) < 10 and SMALLEST <= int(text) <= LARGEST):
        named = ":".join(part for part in (text if text in TOKENIZERS else "", base) if part)  # the size was left out
        raise ConfigError(
            f"data.tokenizer={name}: {text} is not a number of pieces from {SMALLEST} to {LARGEST}. "
            f"Write bpe:{SIZE}{named and f':{named}'}"
        )
    return int(text)
