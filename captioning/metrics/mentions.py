"""Find the words of a caption that name an object category."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from captioning.errors import DataError

_NOTHING = "nothing"  # used as a category for phrases that name none
Phrases = dict[tuple[str, ...], str]


class Mention(NamedTuple):
    """A mention of a category in a caption.

    Attributes:
        start: index of the first word.
        stop: index after the last word.
        category: the category.
    """

    start: int
    stop: int
    category: str


def compile_phrases(words: Mapping[str, Sequence[str]]) -> Phrases:
    """Return {words of a phrase: category}, including the regular plural of each phrase's last word.

    Args:
        words: category -> phrases that name it.

    Raises:
        DataError: a phrase names two categories.
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
    """Return the regular English plural of a noun."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return noun[:-1] + "ies"
    return noun + "s"


def find_mentions(tokens: Sequence[str], phrases: Phrases) -> list[Mention]:
    """Find mentions from left to right: always the longest phrase that begins at a word; mentions do not overlap.

    Args:
        tokens: the words of the caption.
        phrases: result of `compile_phrases`.
    """
    longest, start = max(map(len, phrases), default=0), 0
    mentions: list[Mention] = []
    while start < len(tokens):
        lengths = range(min(longest, len(tokens) - start), 0, -1)
        length = next((n for n in lengths if tuple(tokens[start : start + n]) in phrases), None)
        if length and (category := phrases[tuple(tokens[start : start + length])]) != _NOTHING:
            mentions.append(Mention(start, start + length, category))
        start += length or 1
    return mentions
