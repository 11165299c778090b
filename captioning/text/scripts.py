"""Notice text of languages that write no spaces between words: the Penn-Treebank tokenizer cannot split it.

A Chinese, Japanese or Thai sentence is one token there, so it is never learnt, and one character off is a wrong
sentence to the metrics.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from captioning.text.ptb_tokenizer import tokenize

# Scripts written without spaces between words. Hangul, Arabic, Devanagari, Cyrillic and others have them.
# Chinese and Japanese words have 1 to 4 characters, mostly 2.
DENSE = {
    "Han": "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U000323af",
    "Hiragana": "\u3041-\u3096\u309d-\u309f\U0001b001-\U0001b11f",
    "Katakana": "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f",
    "Bopomofo": "\u3105-\u312f\u31a0-\u31bf",
    "Yi": "\ua000-\ua48c",
}
# Words of these have 3 to 6 letters, mostly.
LONGER = {
    "Thai": "\u0e01-\u0e3a\u0e40-\u0e4e",
    "Lao": "\u0e81-\u0ece\u0edc-\u0edf",
    "Tibetan": "\u0f00\u0f40-\u0fbc",
    "Myanmar": "\u1000-\u103f\u1050-\u108f\u109a-\u109d\ua9e0-\ua9fe\uaa60-\uaa7f",
    "Khmer": "\u1780-\u17d3\u17dc\u17dd",
    "Tai Le": "\u1950-\u1974",
    "New Tai Lue": "\u1980-\u19c9",
    "Tai Tham": "\u1a20-\u1a7c",
    "Balinese": "\u1b00-\u1b4b",
    "Javanese": "\ua980-\ua9c0",
    "Tai Viet": "\uaa80-\uaadd",
}
UNSPACED = DENSE | LONGER
_ONE = {name: re.compile(f"[{signs}]") for name, signs in UNSPACED.items()}
_DENSE, _LONGER = (re.compile(f"[{''.join(group.values())}]") for group in (DENSE, LONGER))
_ANY = re.compile(f"[{''.join(UNSPACED.values())}]")
# The mean number of letters per token beyond which the tokens are no words, and the number that a caption of a single
# token must have.
_MEAN = {_DENSE: 4, _LONGER: 8}
_ALONE = {_DENSE: 3, _LONGER: 6}
# The mean over all captions of a file beyond which its tokens are phrases between marks or spaces, and no words.
_TYPICAL = {_DENSE: 2.5, _LONGER: 4.0}
_KATAKANA = re.compile(f"[{DENSE['Katakana']}]")
WARN_FROM = 0.01  # of the captions
HELP = "put spaces between the words (or between all characters) of the captions first"


class Unsplit(NamedTuple):
    """Captions that the tokenizer cannot split: how many of how many, the first of them, and its script's name."""

    count: int
    total: int
    example: str
    script: str

    @property
    def share(self) -> float:
        return self.count / self.total if self.total else 0.0


def unsplit_share(texts: Iterable[str]) -> float:
    """The share of the captions with words that the tokenizer cannot split into words; 0.0 of no captions."""
    return unsplit(texts).share


def unsplit_warning(texts: Iterable[str], where: str) -> str | None:
    """One line that says so, for a file or data set `where`; None where less than 1 % of the captions are so."""
    found = unsplit(texts)
    return f"{where}: {describe(found)}" if found.share >= WARN_FROM else None


def describe(found: Unsplit) -> str:
    """How many captions, an example, what becomes of them, and what to do."""
    example = found.example if len(found.example) <= 30 else found.example[:30] + "…"
    return (
        f"{found.count} of {found.total} captions ({found.share:.0%}) are written without spaces between words "
        f"({found.script} script), for example '{example}': the tokenizer makes one word of a whole sentence, so "
        f"neither training nor the scores can work with them. To mend it, {HELP}"
    )


def unsplit(texts: Iterable[str]) -> Unsplit:
    """Count the captions that the tokenizer cannot split; those without any word are not counted at all.

    Where the tokens of all captions together are too long to be words, each caption of such tokens counts: phrases
    between commas (Chinese, Japanese) or between spaces (Thai, Lao, Myanmar) are no words either.
    """
    count, total, example, lengths = 0, 0, "", []
    for text in texts:
        dense = not text.isascii() and _ANY.search(text)
        total += bool(text.strip())
        if dense:
            lengths.append((text, _lengths(text)))
    phrases = {script for script in _TYPICAL if _mean([row[script] for _, row in lengths]) > _TYPICAL[script]}
    for text, row in lengths:
        if is_unsplit(text) or any(_mean([row[script]]) > _TYPICAL[script] for script in phrases):
            count += 1
            example = example or " ".join(text.split())
    return Unsplit(count, total, example, script_of(example) if example else "")


def is_unsplit(caption: str) -> bool:
    """Whether most of a caption is text without spaces whose tokens are too long to be words.

    A foreign word or name inside other text does not make it so; nor do captions with spaces between their words.
    """
    if caption.isascii() or not _ANY.search(caption):
        return False
    caption = unicodedata.normalize("NFC", caption)  # else accents of kana would split
    tokens = tokenize(caption)
    return any(_too_long(tokens, script) for script in (_DENSE, _LONGER))


def _too_long(tokens: list[str], script: re.Pattern) -> bool:
    counts = [count for token in tokens if (count := sum(map(_is_letter, script.findall(token))))]
    others = sum(map(_is_letter, "".join(tokens))) - sum(counts)
    if not counts or 2 * sum(counts) < others:  # one such character says as much as two or more Latin letters
        return False
    alone = len(tokens) == 1 and counts[0] >= _ALONE[script]
    return alone or sum(counts) > _MEAN[script] * len(counts)


def _lengths(caption: str) -> dict[re.Pattern, tuple[float, int]]:
    """Of each kind of script: its letters and the tokens that have any; (0, 0) where another script prevails.

    A sign of Katakana counts half, since foreign words are spelled out in it.
    """
    tokens = tokenize(unicodedata.normalize("NFC", caption))
    result = {}
    for script in _TYPICAL:
        found = [[sign for sign in script.findall(token) if _is_letter(sign)] for token in tokens]
        letters = sum(0.5 if _KATAKANA.match(sign) else 1.0 for signs in found for sign in signs)
        others = sum(map(_is_letter, "".join(tokens))) - sum(map(len, found))
        result[script] = (letters, sum(map(bool, found))) if 2 * letters >= others else (0.0, 0)
    return result


def _mean(lengths: list[tuple[float, int]]) -> float:
    return sum(letters for letters, _ in lengths) / max(1, sum(tokens for _, tokens in lengths))


def _is_letter(sign: str) -> bool:
    return unicodedata.category(sign)[0] == "L"


def script_of(text: str) -> str:
    """The name of the script without spaces that most of the text's characters belong to; "" where none do."""
    counts = {name: len(signs.findall(text)) for name, signs in _ONE.items()}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] else ""
