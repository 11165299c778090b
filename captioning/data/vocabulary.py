"""Map words to ids and back; built from the training split only, and stored in checkpoints as a plain list."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from captioning.errors import CheckpointError, DataError, must_be

PAD, START, END, UNKNOWN = range(4)
SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")


class Vocabulary:
    """Maps words to ids 0…V−1; the first four ids are <pad>, <start>, <end> and <unk>, four different things.

    Args:
        words: the words after the four special tokens, each once, the most frequent first (which `rarity` reads).
    """

    pad, start, end, unknown = PAD, START, END, UNKNOWN

    def __init__(self, words: Sequence[str]):
        self.words: tuple[str, ...] = (*SPECIALS, *words)
        self._ids = {word: index for index, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            repeated = [word for word, count in Counter(self.words).items() if count > 1]
            raise DataError(f"vocabulary holds words more than once: {', '.join(repeated[:5])}")

    @classmethod
    def build(cls, captions: Iterable[Sequence[str]], *, min_count: int = 5) -> "Vocabulary":
        """Words that occur at least `min_count` times in the tokenized captions, the most frequent first."""
        must_be("data.min_count", min_count, least=1)
        counts = Counter(word for tokens in captions for word in tokens)
        kept = [word for word, count in counts.items() if count >= min_count]
        if not kept:
            raise DataError(f"no word occurs {min_count} times in the training captions: lower data.min_count")
        return cls(sorted(kept, key=lambda word: (-counts[word], word)))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokens: Sequence[str], *, max_length: int) -> list[int]:
        """<start>, at most `max_length` word ids, <end>; a caption that is cut keeps its <end>."""
        return [START, *self.ids(tokens[:max_length]), END]

    def ids(self, tokens: Iterable[str]) -> list[int]:
        """Their ids, as they stand; <unk>'s for words that are not in the vocabulary."""
        return [self._ids.get(word, UNKNOWN) for word in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Words up to <end>, without it; <start> and <pad> are skipped."""
        words = []
        for index in ids:
            if index == END:
                break
            if index not in (PAD, START):
                words.append(self.words[index])
        return words

    def rarity(self) -> list[float]:
        """log(1 + rank) of each word, the most frequent being the first, as `build` sorts them.

        By Zipf's law a word's frequency goes as one over its rank: but for a constant, this is what the logarithm of
        its inverse document frequency is. <unk> stands for words rarer than any; the specials that are no words have 0.
        """
        ranks = [0, 0, 0, len(self.words) - len(SPECIALS) + 1, *range(1, len(self.words) - len(SPECIALS) + 1)]
        return [math.log1p(rank) for rank in ranks]

    def coverage(self, captions: Iterable[Sequence[str]]) -> float:
        """Share of the running words that are in the vocabulary; 1.0 for no words."""
        known = [word in self._ids for tokens in captions for word in tokens]
        return sum(known) / len(known) if known else 1.0

    def state_dict(self) -> list[str]:
        """All words in the order of their ids: what a checkpoint keeps."""
        return list(self.words)

    @classmethod
    def from_state_dict(cls, words: Sequence[str]) -> "Vocabulary":
        """The vocabulary that `state_dict` wrote."""
        if tuple(words[:4]) != SPECIALS:
            raise CheckpointError(f"vocabulary must begin with {' '.join(SPECIALS)}, not with {' '.join(words[:4])}")
        return cls(words[4:])
