"""Find out which script each letter belongs to."""

import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

import regex

from captioning.text.scripts import script_of

# Unicode's scripts that people write today, beside those of `UNSPACED`, which have spaces between words.
SPACED = (
    *("Latin", "Cyrillic", "Greek", "Armenian", "Georgian", "Arabic", "Hebrew", "Syriac", "Thaana", "Ethiopic"),
    *("Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala"),
    *("Hangul", "Mongolian", "Cherokee", "Canadian Aboriginal", "Nko", "Tifinagh", "Adlam", "Ol Chiki", "Meetei Mayek"),
    *("Vai", "Osage", "Sundanese", "Buginese", "Batak", "Lepcha", "Limbu", "Cham", "Kayah Li", "Lisu", "Chakma"),
)
OTHER = "other scripts"
_SPACED = {name: regex.compile(rf"\p{{Script={name.replace(' ', '_')}}}") for name in SPACED}


@lru_cache(maxsize=2**17)
def letter_script(sign: str) -> str:
    """Return the name of the script of one letter; "" for a sign that is not a letter, such as a digit or an accent."""
    if unicodedata.category(sign)[0] != "L":
        return ""
    return script_of(sign) or next((name for name, letter in _SPACED.items() if letter.match(sign)), OTHER)


def letters_by_script(text: str | Mapping[str, int]) -> Counter[str]:
    """Return the number of letters of each script in a text, or in counts of signs; the most frequent script first."""
    counts: Counter[str] = Counter()
    for sign, count in Counter(text).items():
        if script := letter_script(sign):
            counts[script] += count
    return Counter(dict(counts.most_common()))
