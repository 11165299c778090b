"""The script of each letter."""

import unicodedata

import pytest

from captioning.text import letter_script, letters_by_script
from captioning.text.letters import OTHER, SPACED
from captioning.text.scripts import UNSPACED


@pytest.mark.parametrize(
    ("sign", "script"),
    [
        *[("a", "Latin"), ("É", "Latin"), ("ß", "Latin"), ("я", "Cyrillic"), ("λ", "Greek"), ("ב", "Hebrew")],
        *[
            ("ب", "Arabic"),
            ("क", "Devanagari"),
            ("한", "Hangul"),
            ("ก", "Thai"),
            ("ា", ""),
            ("狗", "Han"),
            ("々", "Han"),
        ],
        *[
            ("か", "Hiragana"),
            ("ー", "Katakana"),
            ("ｶ", "Katakana"),
            ("ம", "Tamil"),
            ("አ", "Ethiopic"),
            ("မ", "Myanmar"),
        ],
        *[("1", ""), (".", ""), (" ", ""), ("\u0301", ""), ("👍", ""), ("𐎠", OTHER), ("ᐁ", "Canadian Aboriginal")],
    ],
)
def test_the_script_of_a_letter(sign, script):
    assert letter_script(sign) == script


def test_most_letters_have_a_script_with_a_name():
    letters = [chr(code) for code in range(0x10000) if unicodedata.category(chr(code))[0] == "L"]
    names = {letter_script(letter) for letter in letters}
    assert set(UNSPACED) | set(SPACED) - {"Adlam", "Osage", "Chakma"} <= names
    assert sum(letter_script(letter) == OTHER for letter in letters) < 0.03 * len(letters)


def test_letters_are_counted_by_script():
    assert letters_by_script("Ab 1. 狗跑狗 я狗") == {"Han": 4, "Latin": 2, "Cyrillic": 1}
    assert list(letters_by_script("Ab 1. 狗跑狗 я狗")) == ["Han", "Latin", "Cyrillic"]
    assert not letters_by_script("12 !")
