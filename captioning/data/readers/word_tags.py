"""Remove parts of speech from captions that a program has split into words: WORD:TAG WORD:TAG …"""

import re
from collections.abc import Sequence
from pathlib import Path

from captioning.data import Handling
from captioning.errors import DataError

_TAGGED = re.compile(r"(\S+):[A-Za-z]+\d?")
_CHINESE = re.compile(r"[\u3400-\u9fff]\S*:[a-z]{1,6}\d?$")  # a part of speech, and no name of a time or of a page
_SEGMENTED = ("seg.", "bosonseg")  # parts of the names of published files of words


def untagged(text: str) -> str:
    """Remove the part of speech from every word that has one: "猫:n 睡:v 12:30" becomes "猫 睡 12:30"."""
    return " ".join(word.rpartition(":")[0] if _TAGGED.fullmatch(word) else word for word in text.split())


def has_tags(texts: Sequence[str]) -> bool:
    """Return whether most words have a part of speech. A single word without one, such as 12:30, changes nothing."""
    tagged = [bool(_TAGGED.fullmatch(word)) for text in texts for word in text.split()]
    return sum(tagged) * 2 > len(tagged)


def refuse_some_tags(file: Path, lines: Sequence[tuple[int, str]], faults: Handling) -> None:
    """Refuse parts of speech in a file in which most words have none: they would stay in the captions.

    In a file whose name is that of a file of words, one such word is refused. In others two in one caption are, because
    plain text can have one: 牌子写着:stop.

    Args:
        file: the file of captions.
        lines: (number of the line, caption).
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        DataError: a caption has words with their part of speech.
    """
    least = 1 if any(part in file.name for part in _SEGMENTED) else 2
    for number, text in lines:
        words = [word for word in text.split() if _TAGGED.fullmatch(word) and _CHINESE.search(word)]
        if len(words) >= least:
            with faults:
                raise DataError(
                    f"{file}, line {number}: {words[0]!r:.40} is a word with its part of speech, but most words of the "
                    "file have none: remove all of them, or write them after every word"
                )
            return
