"""Find the words of a caption that name a category."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from captioning.errors import DataError

_NOTHING = "nothing"  # in place of a category: phrases that name none
Phrases = dict[tuple[str, ...], str]


class Mention(NamedTuple):
    """Words start … stop - 1 of a caption name a category."""

    start: int
    stop: int
    category: str


def compile_phrases(words: Mapping[str, Sequence[str]]) -> Phrases:
    """Words of each phrase -> category, plurals of the last word by rule included.

    Raises:
        DataError: one phrase for two categories.
    """
    phrases: Phrases = {}
    for category, ways in words.items():
        for way in ways:
            *first, last = way.lower().split()
            for form in ((*first, last), (*first, plural(last))):
                if phrases.setdefault(form, category) != category:
                    raise DataError(f"'{' '.join(form)}' names both '{phrases[form]}' and '{category}': choose one")
    return phrases


def plural(noun: str) -> str:
    """The regular English plural."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return noun[:-1] + "ies"
    return noun + "s"


def find_mentions(tokens: Sequence[str], phrases: Phrases) -> list[Mention]:
    """From left to right, the longest phrase that begins at a word; words of one phrase begin no other."""
    longest, mentions, start = max(map(len, phrases), default=0), [], 0
    while start < len(tokens):
        lengths = range(min(longest, len(tokens) - start), 0, -1)
        length = next((n for n in lengths if tuple(tokens[start : start + n]) in phrases), None)
        if length and (category := phrases[tuple(tokens[start : start + length])]) != _NOTHING:
            mentions.append(Mention(start, start + length, category))
        start += length or 1
    return mentions
