"""Split captions at white space only, or into single characters. Letter case and punctuation stay as written."""

import unicodedata
from collections.abc import Sequence
from typing import ClassVar

import regex

from captioning.text.tokenizer import Tokenizer

SPACE = "▁"  # U+2581, the token for the white space between two words


class WhitespaceTokenizer(Tokenizer):
    """Words are what white space separates, for captions that are tokenized already.

    Captions are normalized to NFC only, so that a word is one entry of the vocabulary however its accents are stored.
    """

    kind: ClassVar = "whitespace"

    def __call__(self, text: str) -> list[str]:
        """Split one caption at white space."""
        return unicodedata.normalize("NFC", text).split()


class CharacterTokenizer(Tokenizer):
    """Words are single characters as a reader counts them: Unicode's extended grapheme clusters (UAX #29).

    Letter case and punctuation are kept. Captions are normalized to NFC only, so that "é" is one character however it
    is stored. White space of any length between two words is the one token "▁" (U+2581); a caption neither begins nor
    ends with it. A "▁" within a caption counts as white space. Therefore the tokens, joined, are the caption in NFC
    with single spaces.
    """

    kind: ClassVar = "characters"
    splits_unspaced = True

    def __call__(self, text: str) -> list[str]:
        """Split one caption into characters, with "▁" between its words."""
        tokens: list[str] = []
        for word in unicodedata.normalize("NFC", text).replace(SPACE, " ").split():
            tokens += [SPACE] * bool(tokens)
            tokens += word if word.isascii() else regex.findall(r"\X", word)
        return tokens

    def join(self, words: Sequence[str]) -> str:
        """Join characters into text, with a space for each "▁"."""
        return "".join(words).replace(SPACE, " ").strip(" ")
