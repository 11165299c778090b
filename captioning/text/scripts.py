"""Detect captions in scripts without spaces between words, which tokenizers for English cannot split.

They make one token of a Chinese, Japanese or Thai sentence. Such a sentence is too rare to be learned as a word, and
one wrong character makes it a different word for the metrics.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from captioning.text.ptb_tokenizer import PtbTokenizer
from captioning.text.tokenizer import Tokenizer

# Scripts written without spaces between words. Hangul, Arabic, Devanagari, Cyrillic and others are not listed: they are
# written with spaces. Words in the DENSE scripts, such as Chinese and Japanese, have 1 to 4 characters, mostly 2.
DENSE = {
    "Han": "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U000323af",
    "Hiragana": "\u3041-\u3096\u309d-\u309f\U0001b001-\U0001b11f",
    "Katakana": "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f",
    "Bopomofo": "\u3105-\u312f\u31a0-\u31bf",
    "Yi": "\ua000-\ua48c",
}
# Words in these scripts have mostly 3 to 6 letters.
LONGER = {
    "Thai": "\u0e01-\u0e3a\u0e40-\u0e4e",
    "Lao": "\u0e81-\u0ece\u0edc-\u0edf",
    "Tibetan": "\u0f00\u0f40-\u0fbc",
    "Myanmar": "\u1000-\u103f\u1050-\u108f\u109a-\u109d\ua9e0-\ua9fe\uaa60-\uaa7f",
    "Khmer": "\u1780-\u17d3\u17d7\u17dc\u17dd",
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
# Letters per token. Tokens of one caption whose mean exceeds _MEAN are not words; nor is the only token of a caption
# if it has at least _ALONE letters.
_MEAN = {_DENSE: 4, _LONGER: 8}
_ALONE = {_DENSE: 3, _LONGER: 6}
# If the mean over all captions of a file exceeds this, its tokens are phrases between marks or spaces, not words.
_TYPICAL = {_DENSE: 2.5, _LONGER: 4.0}
_KATAKANA = re.compile(f"[{DENSE['Katakana']}]")
WARN_FROM = 0.01  # share of the captions
HELP = (
    "Set data.tokenizer=unicode or data.tokenizer=characters (for scores alone: metrics.tokenizer=unicode), "
    "or put spaces between the words of the captions first."
)
_PTB = PtbTokenizer()


class Unsplit(NamedTuple):
    """Captions that the tokenizer cannot split into words.

    Attributes:
        count: number of such captions.
        total: number of all captions that are not blank.
        example: the first such caption; "" if there is none.
        script: name of the example's script; "" if there is none.
    """

    count: int  # type: ignore[assignment]  # hides tuple.count, which nothing calls
    total: int
    example: str
    script: str

    @property
    def share(self) -> float:
        """`count` as a share of `total`; 0.0 if there are no captions."""
        return self.count / self.total if self.total else 0.0


def unsplit_share(texts: Iterable[str], tokenizer: Tokenizer = _PTB) -> float:
    """Return the share of the non-blank captions that the tokenizer cannot split into words; 0.0 for no captions."""
    return unsplit(texts, tokenizer).share


def unsplit_warning(texts: Iterable[str], where: str, tokenizer: Tokenizer = _PTB) -> str | None:
    """Return a one-line warning if at least 1 % of the captions cannot be split into words, otherwise None.

    Args:
        texts: the captions.
        where: the file or data set, which the warning names.
        tokenizer: splits the captions. There is no warning for one that splits scripts without spaces.
    """
    return unsplit_line(unsplit(texts, tokenizer), where)


def unsplit_line(found: Unsplit, where: str) -> str | None:
    """Return the line of `unsplit_warning` for captions that `unsplit` has counted."""
    return f"{where}: {describe(found)}" if found.share >= WARN_FROM else None


def describe(found: Unsplit) -> str:
    """Return a message with the number of unsplit captions, an example, the consequence and the remedy."""
    example = found.example if len(found.example) <= 30 else found.example[:30] + "…"
    return (
        f"{found.count} of {found.total} captions ({found.share:.0%}) are written without spaces between words "
        f"({found.script} script), for example '{example}': the tokenizer makes one word of a whole sentence, so "
        f"neither training nor the scores can work with them. {HELP}"
    )


def unsplit(texts: Iterable[str], tokenizer: Tokenizer = _PTB) -> Unsplit:
    """Count the captions that the tokenizer cannot split into words. Blank captions are not counted at all.

    There are none for a tokenizer that splits scripts without spaces.

    If the tokens of all captions together are too long to be words, every caption with tokens of that length counts.
    This detects phrases between commas (Chinese, Japanese) or between spaces (Thai, Lao, Myanmar).
    """
    count, total, example = 0, 0, ""
    lengths: list[tuple[str, dict[re.Pattern[str], tuple[float, int]]]] = []
    for text in texts:
        dense = not text.isascii() and not tokenizer.splits_unspaced and _ANY.search(text)
        total += bool(text.strip())
        if dense:
            lengths.append((text, _lengths(text, tokenizer)))
    phrases = {script for script in _TYPICAL if _mean([row[script] for _, row in lengths]) > _TYPICAL[script]}
    for text, row in lengths:
        if is_unsplit(text, tokenizer) or any(_mean([row[script]]) > _TYPICAL[script] for script in phrases):
            count += 1
            example = example or " ".join(text.split())
    return Unsplit(count, total, example, script_of(example) if example else "")


def is_unsplit(caption: str, tokenizer: Tokenizer = _PTB) -> bool:
    """Return whether most of a caption is text without spaces, with tokens too long to be words.

    Captions with spaces between their words are not; nor are captions of another script that contain one foreign word
    or name; nor is any caption for a tokenizer that splits scripts without spaces.
    """
    if tokenizer.splits_unspaced or caption.isascii() or not _ANY.search(caption):
        return False
    caption = unicodedata.normalize("NFC", caption)  # so that accents stay with their kana
    tokens = tokenizer(caption)
    return any(_too_long(tokens, script) for script in (_DENSE, _LONGER))


def _too_long(tokens: list[str], script: re.Pattern) -> bool:
    counts = [count for token in tokens if (count := sum(map(_is_letter, script.findall(token))))]
    others = sum(map(_is_letter, "".join(tokens))) - sum(counts)
    if not counts or 2 * sum(counts) < others:  # one such character counts as much as two Latin letters
        return False
    alone = len(tokens) == 1 and counts[0] >= _ALONE[script]
    return alone or sum(counts) > _MEAN[script] * len(counts)


def _lengths(caption: str, tokenizer: Tokenizer) -> dict[re.Pattern, tuple[float, int]]:
    """Return for each group of scripts (its letters, its tokens); (0, 0) if another script prevails.

    A Katakana letter counts half, because foreign words are spelled out in Katakana.
    """
    tokens = tokenizer(unicodedata.normalize("NFC", caption))
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
    """Return the name of the unspaced script with the most characters in the text; "" if it has no such character."""
    counts = {name: len(signs.findall(text)) for name, signs in _ONE.items()}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] else ""
