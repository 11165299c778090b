"""Normalize short answers as VQA's evaluation program does, for the answer vocabulary and the scorer alike.

What VQA's evaluation program does to answers before it compares them (Antol et al. 2015 and its published code, in
the version for VQA v2), its oddities included: an accuracy is official only with them.
"""

import re
from functools import lru_cache

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # apostrophe and colon stay; the full stop has a rule of its own
COMMA = re.compile(r"\d,\d")
# A look-behind seems to have been meant for the digit in front ("(?!<=\d)" there); as it is, any stop goes that no
# digit follows. A flag stands there where the most replacements belong: 32 of them.
STOP, STOPS = re.compile(r"\.(?!\d)"), 32
_NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"}
_NUMBERS |= {"seven": "7", "eight": "8", "nine": "9", "ten": "10"}
ARTICLES = {"a", "an", "the"}
# Contractions that are mended when their apostrophe is forgotten; of those with two, when either is.
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
    "somebody'd": "somebodyd",  # the wrong way round, there as here
}


@lru_cache(maxsize=2**16)
def normalize(answer: str) -> str:
    """An answer as it is compared: punctuation, lower case, digits for number words, no articles, apostrophes."""
    words = without_punctuation(clean(answer)).lower().split()
    words = [word for word in (_NUMBERS.get(word, word) for word in words) if word not in ARTICLES]
    return " ".join(CONTRACTIONS.get(word, word) for word in words)


def clean(answer: str) -> str:
    """On one line, without white space around it."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=2**16)
def without_punctuation(answer: str) -> str:
    """Each mark that somewhere in the answer has a space beside it is taken out, any other becomes a space.

    Where a comma stands between digits ("1,000"), all marks are taken out. So is a full stop that no digit follows.
    """
    numeral, result = COMMA.search(answer), answer
    for mark in _PUNCTUATION:
        beside = f"{mark} " in answer or f" {mark}" in answer
        result = result.replace(mark, "" if beside or numeral else " ")
    return STOP.sub("", result, count=STOPS)
