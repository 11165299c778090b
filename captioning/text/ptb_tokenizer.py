"""Split captions into Penn-Treebank tokens, for the vocabulary (training) and for the scorers (evaluation).

The tokens are those of coco-caption's Java tokenizer (Stanford CoreNLP 3.4.1): lower case, without punctuation. The
rules were found by running the original on captions and made-up words. docs/evaluate.md reports how often the two
agree, and the remaining differences.
"""

import re
import unicodedata
from typing import ClassVar

from captioning.text.tokenizer import Tokenizer

# coco-caption drops these tokens. Its list has brackets in upper case ("-LRB-"), but the text is in lower case by then,
# so brackets ("-lrb-") are kept, there and here.
PUNCTUATION = frozenset(["''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", "...", ";"])
SPELLINGS = {
    **{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **{
        "½": "1/2",
        "¼": "1/4",
        "¾": "3/4",
        "⅓": "1/3",
        "⅔": "2/3",
        "£": "#",
        "€": "$",
        "¢": "cents",
        "¤": "$",
        "’": "'",
    },
    **{"–": "--", "—": "--", "…": "...", "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "''", "&nbsp;": "-"},
}
QUOTES = str.maketrans({"‘": "'", "‛": "'", "“": '"', "”": '"', "\u00ad": None, "\u200b": " "})
TWO_WORDS = {
    **{"cannot": ("can", "not"), "gonna": ("gon", "na"), "gotta": ("got", "ta"), "wanna": ("wan", "na")},
    **{"lemme": ("lem", "me"), "gimme": ("gim", "me"), "'tis": ("'t", "is"), "'twas": ("'t", "was")},
}

# Abbreviations that keep their full stop, in any case. Those in TITLED keep it only when capitalized: "La." but not
# "la.".
ABBREVIATIONS = """
    al cf co ct dr ft ga jr ky lt md mo mr ms mt ph rd rt sq sr st va vs vt wm adj adm adv ala apr aug ave bhd cie col
    cos cpl dak dec det drs ens esq est etc ext feb fla fri gen gov hon inc ind jan jos jul jun kan ltd maj mar mme mon
    mrs neb nev nov oct pfc plc pvt rep rev sen sep seq sfc sgt spc ste sys tel thu tue wed wis wyo alex ariz assn asst
    atty bldg blvd brig bros capt cmdr colo conn corp dept elec govs insp intl invt kans mich minn mlle mont msgr natl
    okla penn pres prof reps sens sept supt tenn tues univ wisc assoc attys calif comdr lieut messrs supts thurs treas
    mfg mtg pte pty ppte ppty ptes ptys
"""
TITLED = "Az La Pa Ark Del Ill Ore Tex Mass Miss Wash"
# Words that begin a sentence. Before them, and at the end of the text, the stop after a single letter ends a sentence.
STARTERS = """
    A An The One There These This Some Many In At We They While That He Here Her It You As But However If More Now Once
    Our She Since So Such Their Then What When Yet According After Other
"""


def _either(words: str) -> str:
    return "|".join(words.split())


# Combining accents and vowel signs are part of the word.
MARKS = "".join(chr(code) for code in range(0x300, 0x1900) if unicodedata.category(chr(code)) in ("Mn", "Mc"))
_NUMBERS = "¹²³¼½¾\u2160-\u2188"  # numbers of one character; the range is Roman numerals
LETTER, SIGN = rf"(?:[^\W\d_{_NUMBERS}]|[{MARKS}])", rf"(?:[^\W_{_NUMBERS}]|[{MARKS}])"  # a letter; a letter or digit
TAIL = rf"(?i:s|m|d|re|ve|ll)(?!{SIGN})"  # after the apostrophe of it's, I'm, they'd, …
RULES = rf"""
    [A-Za-z]+(?!\S)                                                 # most words
    | <[/!?]?[A-Za-z][^<>]*> | &(?:amp|lt|gt|quot|nbsp);            # markup
    | https?://[^\s"<>|(){{}}]*[^\s"<>|.!?(){{}},-]
    | {SIGN}[^\s"<>|(){{}}]{{0,60}}@(?:[^\s"<>|(){{}}.]+\.)*[^\s"<>|(){{}}.,]+ # an address
    | [#@][A-Za-z_]\w* | \#+
    | \d{{1,4}}[- ]\d{{1,4}}/\d{{1,4}}(?!\d)                        # 22 3/4
    | {SIGN}+(?:-{SIGN}+)*\.(?=[,;:])                               # trees.,
    | {SIGN}+(?:[.,]{SIGN}*){{0,9}}(?:-{SIGN}+)+(?![/_])              # hyphenated: t-shirt, 1.5-inch
    | (?:{_either(TITLED + " " + TITLED.upper())}|(?i:{_either(ABBREVIATIONS)}))\.(?!{LETTER})
    | (?i:no)\.(?=\s*\d) | (?i:ph\.d|ed\.d)\.(?!{LETTER}{{2}})
    | {LETTER}*?[^\W\d_nN](?=(?i:n(?:'|`)t)) | (?i:n(?:'|`)t){LETTER}*      # do n't
    | {LETTER}(?=\.(?:\s*$|\s+(?:{_either(STARTERS)})(?!\S)))      # X. The: the stop ends a sentence
    | (?:{LETTER}\.)+(?!{LETTER})                                   # u.s., and any single letter's stop
    | {LETTER}+(?:[.!?]{LETTER}+)+                                  # a stop without space: plate.there
    | '' | ``
    | '{TAIL} | ’(?i:s|m|d|re|ve|ll|n)(?!{SIGN}*')                   # a curly apostrophe also within a word
    | (?i:'n') | (?i:'n|'em|'till?|'cause|'tis|'twas)(?!{SIGN}) | '\d0s(?!{SIGN})
    | (?i:li'l|nat'l|ev'ry|e'er|c'mon|s'mores|cont'd\.?|nor'easter|ol'|somethin'|dunkin')(?!{SIGN})
    | [A-HJ-XZdlno]'(?!{TAIL}){LETTER}{{2,}}                          # o'clock, O'Neil
    | {LETTER}+[aeiouyAEIOUY](?:'|`)(?!{TAIL})[aeiouA-Z]{LETTER}*      # ma'am, Hawai'i
    | (?i:[djly])'(?!{TAIL})
    | [A-Z]+(?:&[A-Z]+)+ | C\+\+ | [CcFf]\# | [A-Z]+\$
    | [-+]?\d+:\d\d(?::\d\d)?(?!\d)                                 # 6:40, also of 6:40PM
    | [-+]?[.,:]?\d+(?:[.,:]\d+)+(?![-/]) | [-+]?[.,:]\d+ | [-+]?\d+(?![-\w/])  # 1,000  .5  -5
    | {SIGN}+(?:[-_/‐‑]{SIGN}+)*                                    # words, with hyphens or slashes
    | \.{{3}} | -{{5,}} | -{{2,4}} | [!?]+ | \*+ | _+
    | [:;=][-o*]?[()DPdpO\\{{@|\[\]](?![A-Za-z])                      # a smiley
    | \S
"""
TOKEN = re.compile(RULES.replace("'", "['’]"), re.VERBOSE)


# Text whose tokens depend on neighboring words: a fraction, markup, the stop after a single letter, "No. 5".
IN_CONTEXT = re.compile(r"\d \d|<|(?<!\w)\w\.|\b[Nn][Oo]\.")


class PtbTokenizer(Tokenizer):
    """The Penn-Treebank tokenizer of coco-caption: the default, and the official one for English scores."""

    kind: ClassVar = "ptb"

    def __call__(self, text: str) -> list[str]:
        """Split one caption into tokens in lower case, without punctuation."""
        return tokenize(text)


def tokenize(caption: str) -> list[str]:
    """Split one caption into Penn-Treebank tokens in lower case, without punctuation.

    White space of any kind separates words. The list is empty for a caption that is empty or only punctuation.
    """
    if IN_CONTEXT.search(caption):
        return split(" ".join(caption.split()))
    return [word for text in caption.split() for word in _WORDS[text]]


def split(text: str) -> list[str]:
    """Split text into tokens like `tokenize`, but without the cache of words."""
    if not text.isascii():
        text = text.translate(QUOTES)
    return [word for token in TOKEN.findall(text) for word in _finish(token)]


class _Remembered(dict[str, list[str]]):
    """Cache of the tokens of each text between white space: captions have few different ones."""

    def __missing__(self, text: str) -> list[str]:
        words = split(text)
        if len(self) < 200_000:
            self[text] = words
        return words


_WORDS = _Remembered()


# A curly apostrophe becomes a plain one in contractions only.
CONTRACTED = re.compile("^(n?)’(?=(?:s|m|d|re|ve|ll|t\\w*)$)")


def _finish(token: str) -> tuple[str, ...]:
    word = token.lower()
    if word[0] in ":;=" and not word[-1].isalnum():  # a smiley's mouth is a bracket
        word = word[:-1] + SPELLINGS.get(word[-1], word[-1])
    word = CONTRACTED.sub(r"\1'", SPELLINGS.get(word, word))
    if word in PUNCTUATION or re.fullmatch("-{2,4}", word) or _unknown(word):
        return ()
    if word[0].isdigit() and " " in word:  # "22 3/4" is one token in the original too, with a non-breaking space
        return (word.replace(" ", "\u00a0"),)
    return TWO_WORDS.get(word) or tuple(word.split())


# Rarer characters that the original has no rule for: marks other than "…", currencies except ₤ and €, Roman
# numerals of one character, East Asian brackets and marks, and the replacement character.
RARE = re.compile(
    "[\u2024\u2025\u2027\u203c\u203d\u2043\u2045-\u205e\u20a1-\u20a3\u20a5-\u20ab\u20ad-\u20c0\u215f-\u2182"
    "\u2185-\u218b\u2e00-\u2e5c\u3003\u3004\u3007-\u3011\u3013-\u301b\u301d-\u3029\u3036-\u303a\u303d-\u303f"
    "\ufe10-\ufe19\ufe30\ufe33-\ufe57\ufe59-\ufe62\ufe64-\ufe6b\uffe2-\uffe4\uffe8-\uffee\ufffc\ufffd]"
)


def _unknown(word: str) -> bool:
    """Return whether the original drops this character: emoji, guillemets, stray accents, control characters."""
    if len(word) > 1:
        return False
    if RARE.match(word):
        return True
    # Cs: half of an emoji, which cannot be written in UTF-8.
    dropped = ("Cc", "Cf", "Co", "Cs", "Me", "Mn", "Mc", "Pd", "Pf", "Pi")
    return not word.isalnum() and (ord(word) > 0xFFFF or (unicodedata.category(word) in dropped and word not in "-‟"))
