"""Map words to ids and back. The vocabulary is built from the training split and stored in checkpoints as a list.

Its entries are the pieces of the tokenizer (`captioning.text.Tokenizer`): words, or parts of words for `bpe`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from captioning.errors import CheckpointError, DataError, must_be
from captioning.text import Tokenizer, make_tokenizer, tokenizer_from_state_dict

PAD, START, END, UNKNOWN = range(4)
SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")


class Vocabulary:
    """Mapping between words and ids 0…V−1. The ids 0 to 3 are `<pad>`, `<start>`, `<end>` and `<unk>`.

    Args:
        words: the entries after the four special tokens, each once; the most frequent first, as `rarity` assumes.
        tokenizer: splits captions into words, words into entries, and joins them again; None: the default tokenizer.

    Raises:
        DataError: a word is given twice.
    """

    pad, start, end, unknown = PAD, START, END, UNKNOWN

    def __init__(self, words: Sequence[str], tokenizer: Tokenizer | None = None):
        self.tokenizer = tokenizer or make_tokenizer("ptb")
        self.words: tuple[str, ...] = (*SPECIALS, *words)
        self._ids = {word: index for index, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            repeated = [word for word, count in Counter(self.words).items() if count > 1]
            raise DataError(
                f"the vocabulary must have each word once, but repeats {', '.join(map(repr, repeated[:5]))}"
            )

    @classmethod
    def build(
        cls, captions: Iterable[Sequence[str]], *, min_count: int = 5, tokenizer: Tokenizer | None = None
    ) -> "Vocabulary":
        """Build a vocabulary of the pieces that occur at least `min_count` times, the most frequent first.

        A tokenizer that learned its pieces adds all of them, however rare.

        Args:
            captions: the words of each training caption.
            min_count: smallest number of occurrences.
            tokenizer: splits words into pieces; None: the default tokenizer, whose pieces are the words.

        Raises:
            ConfigError: min_count is below 1.
            DataError: no word is frequent enough.
        """
        must_be("data.min_count", min_count, least=1)
        tokenizer = tokenizer or make_tokenizer("ptb")
        counts = Counter(piece for words in captions for piece in tokenizer.pieces(words))
        learned = tokenizer.learned_pieces()
        kept = [piece for piece, count in counts.items() if count >= min_count] if learned is None else learned
        if not kept:
            raise DataError(f"no word occurs {min_count} times in the training captions: lower data.min_count")
        return cls(sorted(kept, key=lambda piece: (-counts[piece], piece)), tokenizer)

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, words: Sequence[str], *, max_length: int | None = None) -> list[int]:
        """Return the ids of `<start>`, of the first `max_length` pieces of the words (None: all), and of `<end>`.

        A word that does not fit completely is left out.
        """
        pieces = self.tokenizer.pieces(words)
        kept = pieces[:max_length]
        while len(kept) < len(pieces) and kept and not self.tokenizer.is_finished(kept[-1]):
            kept = kept[:-1]
        return [START, *self.ids(kept), END]

    def encode_text(self, text: str) -> list[int]:
        """Split a caption into words, and return the ids of `<start>`, of all their pieces, and of `<end>`."""
        return self.encode(self.tokenizer(text))

    def ids(self, pieces: Iterable[str]) -> list[int]:
        """Return the ids of pieces; pieces that are not in the vocabulary get the id of `<unk>`."""
        return [self._ids.get(piece, UNKNOWN) for piece in pieces]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Return the entries before `<end>`, without `<start>` and `<pad>`."""
        pieces = []
        for index in ids:
            if index == END:
                break
            if index not in (PAD, START):
                pieces.append(self.words[index])
        return pieces

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Return the words before `<end>`, without `<start>` and `<pad>`."""
        return self.tokenizer.words(self.pieces(ids))

    def scored_words(self, ids: Iterable[int]) -> list[str]:
        """Return the words that scores compare: those of `text`, split again if its script has no spaces."""
        return self.tokenizer(self.text(ids)) if self.tokenizer.splits_unspaced else self.decode(ids)

    def text(self, ids: Iterable[int]) -> str:
        """Return the words before `<end>` as text, joined as the tokenizer joins them."""
        return self.tokenizer.join(self.decode(ids))

    @cached_property
    def unfinished(self) -> list[int]:
        """The ids of pieces that do not end a word, so that `<end>` must not follow them."""
        return [index for index, piece in enumerate(self.words) if not self.tokenizer.is_finished(piece)]

    def rarity(self) -> list[float]:
        """Return log(1 + rank) of each word; rank 1 is the most frequent word, as `build` sorts them.

        By Zipf's law a word's frequency is proportional to 1 / rank, so this is the logarithm of its inverse document
        frequency up to a constant. `<unk>` stands for rarer words, so it has the last rank plus one. `<pad>`, `<start>`
        and `<end>` have 0.
        """
        ranks = [0, 0, 0, len(self.words) - len(SPECIALS) + 1, *range(1, len(self.words) - len(SPECIALS) + 1)]
        return [math.log1p(rank) for rank in ranks]

    def coverage(self, captions: Iterable[Sequence[str]]) -> float:
        """Return the share of the captions' pieces that are in the vocabulary; 1.0 if there are none."""
        known = [piece in self._ids for words in captions for piece in self.tokenizer.pieces(words)]
        return sum(known) / len(known) if known else 1.0

    def state_dict(self) -> list[str]:
        """Return all words in the order of their ids, for a checkpoint."""
        return list(self.words)

    @classmethod
    def from_state_dict(cls, words: Sequence[str], tokenizer: Mapping[str, Any] | None = None) -> "Vocabulary":
        """Rebuild a vocabulary.

        Args:
            words: the list that `state_dict` returned.
            tokenizer: the `state_dict` of its tokenizer; None for the default tokenizer.

        Raises:
            CheckpointError: the list does not begin with the four special tokens, or the tokenizer's state is damaged.
            ConfigError: the tokenizer needs a package that is not installed.
        """
        if tuple(words[:4]) != SPECIALS:
            raise CheckpointError(
                f"the checkpoint's 'vocabulary' must begin with {' '.join(SPECIALS)}, not with {' '.join(words[:4])}"
            )
        return cls(words[4:], tokenizer_from_state_dict(tokenizer))
