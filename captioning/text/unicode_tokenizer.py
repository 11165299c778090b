"""Split captions of any language at Unicode's word boundaries, and scripts without spaces into characters or words."""

import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import regex

from captioning.text.scripts import UNSPACED
from captioning.text.segmenters import check_segmenter, load_segmenter
from captioning.text.tokenizer import Tokenizer

# Tibetan has no spaces, but a mark between syllables, which is a word boundary to Unicode: its tokens are syllables.
TSHEG = "\u0f0b"
SIGNS = {name: signs for name, signs in UNSPACED.items() if name != "Tibetan"}
# Vowels that a syllable cannot begin with, although Unicode calls them letters and not marks.
_VOWELS = "\u0e33\u0eb3"


def _beginning(signs: str) -> str:
    """Return the pattern of one sign that can begin a character."""
    return rf"[[{signs}]--[\p{{M}}{_VOWELS}]]"


_UNSPACED = regex.compile(f"(?V1){_beginning(''.join(SIGNS.values()))}")
_TIBETAN = regex.compile(r"\p{Tibetan}")
# Vowels such as Myanmar's AA are clusters of their own to Unicode, though they are marks; they stay with their letter.
_CLUSTER = regex.compile(r"\X(?:(?=\p{M})\X)*")
_BOUNDARY = regex.compile(r"(?V1w)\b")
_SIGN = regex.compile(r"[\p{L}\p{N}]")
_EDGES = regex.compile(r"^[^\p{L}\p{N}]+|[^\p{L}\p{N}\p{M}]+$")
# Formatting, control characters, halves of surrogates, variation selectors, and marks around a sign, such as the keycap
# of an emoji (the digit stays). The two joiners stay: they change words.
_DROPPED = regex.compile(r"(?V1)[[\p{Cc}\p{Cf}\p{Cs}\p{Me}\p{Variation_Selector}]--[\u200c\u200d]]")
# Forms of one character that only differ in looks: radicals, ligatures, Arabic presentation forms, and width.
_FORMS = (range(0x2E80, 0x2FE0), range(0xFB00, 0xFB50), range(0xFB50, 0xFE00), range(0xFE70, 0xFFF0), (0x3000,))
_PLAIN = {code: unicodedata.normalize("NFKC", chr(code)) for codes in _FORMS for code in codes}
# NFKC puts a space before an accent alone; without it, the accent stays with the letter before it.
_PLAIN = {code: form.lstrip(" ") for code, form in _PLAIN.items() if form != chr(code)} | {0x3000: " "}
_PLAIN |= {0x2019: "'", 0x200B: " "}  # the curly apostrophe; the invisible space between Khmer words


def normal_form(text: str) -> str:
    """Return text in Unicode's form NFC, with single spaces, and with one form of each character.

    Full-width and half-width characters get their usual width; ligatures, Arabic presentation forms and radicals are
    replaced as by NFKC. Other replacements of NFKC are left out, because they change spelling: it splits the Thai and
    Lao vowel AM, for instance. Invisible formatting characters are removed, except the two joiners; so are marks around
    a sign, such as the keycap of an emoji.
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    text = _DROPPED.sub("", " ".join(text.translate(_PLAIN).split()))
    return " ".join(unicodedata.normalize("NFC", text).split())


class UnicodeTokenizer(Tokenizer):
    """Words are what Unicode's word boundaries (UAX #29) separate, in lower case; punctuation and symbols are dropped.

    Scripts without spaces between words (Han, Kana, Thai, Lao, Khmer, Myanmar, …) have one token per character: a
    letter with its marks (an extended grapheme cluster). Tibetan has one per syllable. Every segment with a letter or a
    digit is kept, for example "can't", "3.5" and "한국어". `normal_form` says how text is normalized.

    Args:
        option: "jieba" (Chinese), "fugashi" (Japanese: MeCab with the dictionary unidic-lite) or "pythainlp" (Thai):
            the words of that program instead of characters in its scripts. "" for characters.

    Raises:
        ConfigError: there is no such option, or its package is not installed.
    """

    kind: ClassVar = "unicode"
    splits_unspaced = True

    def __init__(self, option: str = ""):
        super().__init__(option)
        segmenter = check_segmenter(option) if option else None
        scripts, self._case = (segmenter.scripts, segmenter.case) if segmenter else (frozenset(), str.lower)
        own, other = ("".join(SIGNS[name] for name in SIGNS if (name in scripts) is mine) for mine in (True, False))
        self._own = regex.compile(f"(?V1){_beginning(own)}") if own else None
        self._other = regex.compile(f"(?V1)((?:(?={_beginning(other)}){_CLUSTER.pattern})+)")
        self._known: dict[str, tuple[str, ...]] = {}

    def __call__(self, text: str) -> list[str]:
        """Split one caption into words in lower case, without punctuation."""
        words = [word for part in normal_form(text).split(" ") for word in self._words(part)]
        return words if self.option or text.isascii() else _clusters(words)

    def join(self, words: Sequence[str]) -> str:
        """Join words into text, with a space except between two words of scripts without spaces."""
        text = "".join(words[:1])
        for left, right in pairwise(words):
            text += _between(left, right) + right
        return text

    def _words(self, part: str) -> tuple[str, ...]:
        """Split text without white space, and remember the result: captions have few different words."""
        if part not in self._known:
            words = tuple(unicodedata.normalize("NFC", word.lower()) for word in self._split(part))
            if len(self._known) >= 200_000:
                return words
            self._known[part] = words
        return self._known[part]

    def _split(self, part: str) -> list[str]:
        words: list[str] = []
        for index, piece in enumerate(self._other.split(part)):
            if index % 2:  # a run of characters of scripts that have no segmenter
                words += _CLUSTER.findall(piece)
            elif self._own and self._own.search(piece):
                words += load_segmenter(self.option)(self._case(piece))
            else:
                words += _BOUNDARY.split(piece)
        return [_EDGES.sub("", word) for word in words if _SIGN.search(word)]


def _clusters(words: Sequence[str]) -> list[str]:
    """Split each run of characters again as if nothing had stood between them, so that `join` can be undone."""
    result: list[str] = []
    run = ""
    for word in words:
        if _UNSPACED.match(word):
            run += word
        else:
            result += [*_CLUSTER.findall(run), word]
            run = ""
    return result + _CLUSTER.findall(run)


def _between(left: str, right: str) -> str:
    if _UNSPACED.search(left) and _UNSPACED.search(right):
        return ""
    return TSHEG if _TIBETAN.match(left) and _TIBETAN.match(right) else " "
