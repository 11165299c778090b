"""Split captions with a tokenizer of the Natural Language Toolkit (Bird, Klein and Loper 2009)."""

import difflib
import re
import unicodedata
import warnings
from typing import Any, ClassVar

from captioning.errors import ConfigError
from captioning.text.ptb_tokenizer import PUNCTUATION
from captioning.text.tokenizer import Tokenizer

_USUAL = "NLTKWordTokenizer"  # the one of nltk.word_tokenize, which needs no downloaded data
# Names that people know -> the class behind them.
_CALLED = {"word_tokenize": _USUAL, "casual_tokenize": "TweetTokenizer", "wordpunct_tokenize": "WordPunctTokenizer"}
# Classes that need data, or an argument, before they could show that they split text into other units than words.
_OTHER_UNITS = {
    "PunktTokenizer": "sentences",
    "PunktSentenceTokenizer": "sentences",
    "TextTilingTokenizer": "topics",
    "LegalitySyllableTokenizer": "syllables",
    "SyllableTokenizer": "syllables",
    "LineTokenizer": "lines",
    "BlanklineTokenizer": "paragraphs",
}
SAMPLE = "Two dogs, aged 7, don't run."  # what splits it into something other than words is no tokenizer of captions


class NltkTokenizer(Tokenizer):
    """Words of one of the tokenizers of nltk.tokenize, in lower case and without punctuation.

    Captions are normalized to NFC and split. Then the tokens become lower case, and tokens of the punctuation marks
    that `ptb` drops, or of those of other scripts such as "。", are dropped.

    Args:
        option: name of a class of nltk.tokenize that can be built without arguments, such as "TweetTokenizer"; "" is
            NLTKWordTokenizer, the improved Treebank tokenizer.

    Raises:
        ConfigError: nltk.tokenize has no such class, or it needs arguments or data, or it does not return words.
    """

    kind: ClassVar = "nltk"

    def __init__(self, option: str = ""):
        super().__init__("" if option == _USUAL else option)  # one name for one tokenizer
        self._tokenizer = _build(option or _USUAL)
        self._check()

    def __call__(self, text: str) -> list[str]:
        """Split one caption into words in lower case, without punctuation."""
        tokens = self._tokenizer.tokenize(unicodedata.normalize("NFC", text))
        tokens = [part for token in tokens for part in token.lower().split()]
        return [token for token in tokens if not is_punctuation(token)]

    def _check(self) -> None:
        """Refuse tokenizers of other units, such as sentences, syllables, or words that must be split already."""
        try:
            with warnings.catch_warnings():  # the one of syllables warns about each letter that it does not know
                warnings.simplefilter("ignore")
                tokens = list(self._tokenizer.tokenize(SAMPLE))
        except LookupError as error:
            raise _needs_data(self.option, error) from error
        except Exception:  # any error here means that the class is not for captions
            tokens = []
        if "".join(tokens) != "".join(SAMPLE.split()):
            raise ConfigError(
                f"data.tokenizer=nltk:{self.option}: it does not split a caption into words. "
                f"Choose one of {', '.join(_word_tokenizers())}"
            )


def is_punctuation(token: str) -> bool:
    """Return whether a token is made of the marks that `ptb` drops, and of punctuation outside of ASCII."""
    return all(c in PUNCTUATION or (not c.isascii() and unicodedata.category(c)[0] == "P") for c in token)


def _word_tokenizers() -> list[str]:
    """Return the names of the tokenizers of words that need neither arguments nor data."""
    return [_USUAL, "TreebankWordTokenizer", "TweetTokenizer", "ToktokTokenizer", "WordPunctTokenizer"]


def _nearest(name: str) -> str:
    """Return the tokenizer of words with the most similar name; "" if none is similar before "Tokenizer"."""
    starts = {known.removesuffix("Tokenizer"): known for known in _word_tokenizers()}
    near = difflib.get_close_matches(re.split("(?i)token", name)[0], starts, n=1)
    return starts[near[0]] if near else ""


def _build(name: str) -> Any:
    import nltk.tokenize

    if unit := _OTHER_UNITS.get(name):
        raise ConfigError(
            f"data.tokenizer=nltk:{name} splits text into {unit}, not into words. "
            f"Choose one of {', '.join(_word_tokenizers())}"
        )
    kinds = {key: value for key, value in vars(nltk.tokenize).items() if isinstance(value, type)}
    kinds = {key: value for key, value in kinds.items() if hasattr(value, "tokenize")}
    if name not in kinds:
        near = _CALLED.get(name) or _nearest(name)
        hint = f"did you mean {near}? " if near else ""
        raise ConfigError(
            f"data.tokenizer=nltk:{name}: nltk.tokenize has no such class: {hint}"
            f"Choose one of {', '.join(_word_tokenizers())}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kinds[name]()
    except TypeError as error:
        raise ConfigError(
            f"data.tokenizer=nltk:{name} cannot be built without arguments. "
            f"Choose one of {', '.join(_word_tokenizers())}"
        ) from error
    except LookupError as error:
        raise _needs_data(name, error) from error


def _needs_data(name: str, error: LookupError) -> ConfigError:
    """Return the error for a tokenizer whose data or program is missing; nltk's message fills a page."""
    found = re.search(r"nltk\.download\(\s*'([\w-]+)'", re.sub(r"\x1b\[\d*m", "", str(error)))
    if found:
        return ConfigError(f"data.tokenizer=nltk:{name} needs data. Run: python -m nltk.downloader {found[1]}")
    first = next((line.strip() for line in str(error).splitlines() if line.strip(" =*")), "")
    return ConfigError(
        f"data.tokenizer=nltk:{name} needs a program or data ({first}). Choose one of {', '.join(_word_tokenizers())}"
    )
