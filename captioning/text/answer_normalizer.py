"""Normalize short answers exactly as VQA's evaluation program does, for the answer vocabulary and for the scorer.

The program (Antol et al. 2015; published code, version for VQA v2) normalizes answers before it compares them. Its
oddities are reproduced here, because an accuracy is official only with them.
"""

import re
from functools import lru_cache

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # apostrophe and colon are kept; the full stop has its own rule
COMMA = re.compile(r"\d,\d")
# The original pattern has "(?!<=\d)", probably meant as a look-behind for a preceding digit. As written, it removes
# every full stop that no digit follows. The original also passes a flag (of value 32) as the maximal number of
# replacements, so at most 32 full stops are removed.
STOP, STOPS = re.compile(r"\.(?!\d)"), 32
_NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"}
_NUMBERS |= {"seven": "7", "eight": "8", "nine": "9", "ten": "10"}
ARTICLES = {"a", "an", "the"}
# Contractions that get a missing apostrophe back; those in TWO have two, and either may be missing.
ONE = """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't
    it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't
    somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's
    they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's
    where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
TWO = """
    couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've
    there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've
"""
CONTRACTIONS = {
    **{word.replace("'", ""): word for word in ONE.split()},
    **{word.replace("'", "", 1): word for word in TWO.split()},
    **{"".join(word.rsplit("'", 1)): word for word in TWO.split()},
    **{"ow's'at": "'ow's'at", "'ows'at": "'ow's'at", "'ow'sat": "'ow's'at"},
    **{"yall'd've": "y'all'd've", "y'alld've": "y'all'd've", "y'all'dve": "y'all'd've"},
    "somebody'd": "somebodyd",  # the wrong way round, as in the original
}


@lru_cache(maxsize=2**16)
def normalize(answer: str) -> str:
    """Return an answer in the normal form in which VQA compares answers.

    Punctuation is removed, letters become lower case, number words become digits, articles are dropped, and missing
    apostrophes of contractions are restored.
    """
    words = without_punctuation(clean(answer)).lower().split()
    words = [word for word in (_NUMBERS.get(word, word) for word in words) if word not in ARTICLES]
    return " ".join(CONTRACTIONS.get(word, word) for word in words)


def clean(answer: str) -> str:
    """Return the answer on one line, without surrounding white space."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=2**16)
def without_punctuation(answer: str) -> str:
    """Remove punctuation from an answer, or replace it by spaces.

    A mark with a space next to it anywhere in the answer is removed; any other mark is replaced by a space. If the
    answer has a comma between digits ("1,000"), all marks are removed. A full stop that no digit follows is removed.
    """
    numeral, result = COMMA.search(answer), answer
    for mark in _PUNCTUATION:
        beside = f"{mark} " in answer or f" {mark}" in answer
        result = result.replace(mark, "" if beside or numeral else " ")
    return STOP.sub("", result, count=STOPS)
