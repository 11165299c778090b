"""Map words to ids and back. The vocabulary is built from the training split and stored in checkpoints as a list."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from captioning.errors import CheckpointError, DataError, must_be

PAD, START, END, UNKNOWN = range(4)
SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")


class Vocabulary:
    """Mapping between words and ids 0…V−1. The ids 0 to 3 are `<pad>`, `<start>`, `<end>` and `<unk>`.

    Args:
        words: the words after the four special tokens, each once; the most frequent first, as `rarity` assumes.

    Raises:
        DataError: a word is given twice.
    """

    pad, start, end, unknown = PAD, START, END, UNKNOWN

    def __init__(self, words: Sequence[str]):
        self.words: tuple[str, ...] = (*SPECIALS, *words)
        self._ids = {word: index for index, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            repeated = [word for word, count in Counter(self.words).items() if count > 1]
            raise DataError(
                f"the vocabulary must have each word once, but repeats {', '.join(map(repr, repeated[:5]))}"
            )

    @classmethod
    def build(cls, captions: Iterable[Sequence[str]], *, min_count: int = 5) -> "Vocabulary":
        """Build a vocabulary of the words that occur at least `min_count` times.

        Args:
            captions: tokenized captions.
            min_count: smallest number of occurrences.

        Raises:
            DataError: no word is frequent enough.
        """
        must_be("data.min_count", min_count, least=1)
        counts = Counter(word for tokens in captions for word in tokens)
        kept = [word for word, count in counts.items() if count >= min_count]
        if not kept:
            raise DataError(f"no word occurs {min_count} times in the training captions: lower data.min_count")
        return cls(sorted(kept, key=lambda word: (-counts[word], word)))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokens: Sequence[str], *, max_length: int) -> list[int]:
        """Return the ids of `<start>`, of at most the first `max_length` words, and of `<end>`."""
        return [START, *self.ids(tokens[:max_length]), END]

    def ids(self, tokens: Iterable[str]) -> list[int]:
        """Return the ids of the tokens; words that are not in the vocabulary get the id of `<unk>`."""
        return [self._ids.get(word, UNKNOWN) for word in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Return the words before `<end>`, without `<start>` and `<pad>`."""
        words = []
        for index in ids:
            if index == END:
                break
            if index not in (PAD, START):
                words.append(self.words[index])
        return words

    def rarity(self) -> list[float]:
        """Return log(1 + rank) of each word; rank 1 is the most frequent word, as `build` sorts them.

        By Zipf's law a word's frequency is proportional to 1 / rank, so this is the logarithm of its inverse document
        frequency up to a constant. `<unk>` stands for rarer words, so it has the last rank plus one. `<pad>`, `<start>`
        and `<end>` have 0.
        """
        ranks = [0, 0, 0, len(self.words) - len(SPECIALS) + 1, *range(1, len(self.words) - len(SPECIALS) + 1)]
        return [math.log1p(rank) for rank in ranks]

    def coverage(self, captions: Iterable[Sequence[str]]) -> float:
        """Return the share of all words of the captions that are in the vocabulary; 1.0 if there are no words."""
        known = [word in self._ids for tokens in captions for word in tokens]
        return sum(known) / len(known) if known else 1.0

    def state_dict(self) -> list[str]:
        """Return all words in the order of their ids, for a checkpoint."""
        return list(self.words)

    @classmethod
    def from_state_dict(cls, words: Sequence[str]) -> "Vocabulary":
        """Rebuild a vocabulary from the list that `state_dict` returned.

        Raises:
            CheckpointError: the list does not begin with the four special tokens.
        """
        if tuple(words[:4]) != SPECIALS:
            raise CheckpointError(
                f"the checkpoint's 'vocabulary' must begin with {' '.join(SPECIALS)}, not with {' '.join(words[:4])}"
            )
        return cls(words[4:])
