"""Let a captioner write words that training never saw: each one borrows the scores and the embedding of a stand-in.

"zebra" may borrow from "horse". Hendricks et al. 2016 copy the weights of a similar word in a related way. The
captioner is not changed: to the decoder, a borrowed word is its stand-in; to the search, it is a word of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from captioning.data import Vocabulary
from captioning.models import LongestCaption, Step
from captioning.tags import forms

NEVER = -1e4  # logit of a word that an image may not have; finite, because scores that are not finite are reported
VOWELS = tuple("aeiou")
# Words whose first sound is not that of their first letter; the words that begin with them have the same sound.
AN_BEFORE = ("heir", "honest", "honor", "honour", "hour")
A_BEFORE = (
    "eucalyptus", "euro", "ewe", "once", "one", "ubiquitous", "uganda", "ukrain", "ukulele", "unanimous", "unicorn",
    "unicycl", "unif", "union", "unique", "unison", "unit", "univers", "uranium", "urin", "usable", "usage", "use",
    "using", "usual", "utah", "utensil", "utilit", "utiliz", "utopia",
)  # fmt: skip
# Letters and numbers that are spoken one by one, or begin with a vowel's sound.
AN_BEFORE_ALL = ("8", "11", "18", "80", "atm", "fbi", "hd", "lcd", "led", "lp", "mp3", "mri", "nba", "nfl", "suv",
    "x-ray", "xbox")  # fmt: skip
ENGLISH_ARTICLES = {"a", "an", "the"}  # a vocabulary with these words is taken for English


class BorrowedWords:
    """The `begin` and `step` of a captioner, with further words after the ids of its own vocabulary.

    Args:
        captioner: The captioner, or an ensemble.
        stand_ins: For each borrowed word, the id of its stand-in, [E].
        size: V of the captioner's own vocabulary.
        allowed: Which borrowed words each image of the batch may have, [B, E] bool. The probabilities of an image's
            words are normalized over its V words and its allowed borrowed words.
    """

    def __init__(self, captioner: Any, stand_ins: Sequence[int], *, size: int, allowed: Tensor):
        self.captioner, self.size, self.allowed = captioner, size, allowed
        self.stand_ins = torch.tensor(stand_ins, dtype=torch.int64, device=allowed.device)

    @property
    def longest(self) -> LongestCaption | None:
        """The longest caption that the captioner can read; see `CaptionModel.longest`."""
        return self.captioner.longest

    def begin(self, images: Any, mask: Any = None) -> tuple[Any, Any]:
        """Compute state and memory; see `CaptionModel.begin`."""
        return self.captioner.begin(images, mask)

    def step(self, token: Tensor, state: Any, memory: Any) -> Step:
        """Score the next word: logits [B, K, V + E]."""
        if not len(self.stand_ins):
            return self.captioner.step(token, state, memory)
        borrowed = self.stand_ins[(token - self.size).clamp(min=0)]
        scored = self.captioner.step(torch.where(token < self.size, token, borrowed), state, memory)
        further = scored.logits[..., self.stand_ins].masked_fill(~self.allowed[:, None], NEVER)
        return scored._replace(logits=torch.cat((scored.logits, further), -1))


class ExtendedVocabulary:
    """A captioner's vocabulary and the words that it can borrow.

    Args:
        vocabulary: The captioner's own vocabulary, of whole words.
        borrowed: {new word: its stand-in}; words that the vocabulary has, and stand-ins that it lacks, are left out.

    Attributes:
        words: The vocabulary with all borrowed words after its own.
        borrowed: {new word: its stand-in}, in the order of the ids.
        stand_ins: Id of each stand-in.
        size: V of the captioner's own vocabulary.
        is_english: Whether the vocabulary has the articles of English.
    """

    def __init__(self, vocabulary: Vocabulary, borrowed: Mapping[str, str]):
        known = {word: index for index, word in enumerate(vocabulary.words)}
        self.borrowed = {new: old for new, old in borrowed.items() if new not in known and old in known}
        self.size, self.stand_ins = len(vocabulary), [known[old] for old in self.borrowed.values()]
        self.words = Vocabulary([*vocabulary.words[4:], *self.borrowed], vocabulary.tokenizer)
        self.ids = {word: index for index, word in enumerate(self.words.words)}
        self.is_english = set(known) >= ENGLISH_ARTICLES
        self._ids_of: dict[str, tuple[int, ...]] = {}
        self._cache: dict[str, Any] = {}

    def ids_of(self, noun: str) -> tuple[int, ...]:
        """Return the ids of all forms of a noun that this vocabulary has, borrowed ones included."""
        if noun not in self._ids_of:
            found = (self.ids.get(form) for form in forms(noun))
            self._ids_of[noun] = tuple(index for index in found if index is not None)
        return self._ids_of[noun]

    def cached(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what a guide derives from this vocabulary, made at first use."""
        if name not in self._cache:
            self._cache[name] = make()
        return self._cache[name]

    def plain(self, tokens: Sequence[int]) -> list[int]:
        """Return a caption's ids with each borrowed word replaced by its stand-in."""
        return [token if token < self.size else self.stand_ins[token - self.size] for token in tokens]

    def with_articles(self, words: Sequence[str]) -> list[str]:
        """Return words with "an" before words that begin with the sound of a vowel, and "a" before all others.

        The captioner chooses the article before it knows which word follows: that of the stand-in ("a horse", so "a
        ostrich"), or that of the word that it would have preferred to a required one. For a vocabulary that is not
        English, only articles before borrowed words change: "an" is a German preposition.
        """
        fixed = list(words)
        for place, word in enumerate(words[1:]):
            if words[place] in ("a", "an") and (word in self.borrowed or self.is_english):
                fixed[place] = article_of(word)
        return fixed


def article_of(word: str) -> str:
    """Return "a" or "an", whichever comes before a word, by the sound that the word begins with."""
    if word in AN_BEFORE_ALL or word.startswith(AN_BEFORE):
        return "an"
    return "an" if word.startswith(VOWELS) and not word.startswith(A_BEFORE) else "a"
