"""Text without spaces is recognized by its letters per token: both sides of each limit."""

import pytest

from captioning.text import is_unsplit, script_of, unsplit, unsplit_share, unsplit_warning
from captioning.text.scripts import DENSE, LONGER, WARN_FROM, Unsplit, describe

HAN, THAI = "狗", "ก"


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        (HAN * 2, False),  # a single token: three characters of a dense script, six letters of another
        (HAN * 3, True),
        (THAI * 5, False),
        (THAI * 6, True),
        (f"{HAN * 4} {HAN * 4}", False),  # several tokens: more than four, or eight, each
        (f"{HAN * 5} {HAN * 4}", True),
        (f"{HAN * 5} {HAN * 3}", False),
        (f"{THAI * 8} {THAI * 8}", False),
        (f"{THAI * 9} {THAI * 8}", True),
        (f"{THAI * 9} {THAI * 7}", False),
        (f"{HAN * 5} abcdefghij", True),  # a character says as much as two Latin letters
        (f"{HAN * 5} abcdefghijk", False),
        (f"{HAN * 5} 12345678901", True),  # digits are no letters
        (f"{HAN * 5} {'б' * 10}", True),
        (f"{HAN * 5} {'б' * 11}", False),
        ("abcdef", False),
        ("é" * 9, False),
        ("。。。", False),
        ("\u0e31\u0e31", False),  # signs that belong to letters, without any
        ("ｶﾞ" * 5, True),
    ],
)
def test_letters_per_token_of_one_caption(caption, found):
    assert is_unsplit(caption) is found


def test_accents_of_kana_do_not_split():
    """Written as two signs, which are one after NFC."""
    assert is_unsplit("が" * 3) and is_unsplit("か\u3099" * 3)
    assert not is_unsplit("か\u3099" * 2)


@pytest.mark.parametrize(
    ("captions", "count"),
    [
        ([f"{HAN * 3} {HAN * 2}", f"{HAN * 3} {HAN * 2}"], 0),  # 2.5 characters per token
        ([f"{HAN * 3} {HAN * 2}", f"{HAN * 3} {HAN * 3}"], 1),  # 2.75: the first has 2.5 itself, the second 3
        ([f"{HAN * 3} {HAN * 3}", f"{HAN * 3} {HAN * 3}"], 2),
        ([f"{HAN * 2} {HAN}"] * 5 + [f"{HAN * 3} {HAN * 3}"], 0),
        ([f"{THAI * 4} {THAI * 4}"] * 3, 0),
        ([f"{THAI * 5} {THAI * 4}", f"{THAI * 4} {THAI * 4}"], 1),
        ([f"{HAN * 3} {HAN * 3} abcdefghijkl", HAN * 2], 1),  # 12 Latin letters beside 6 characters: both count
        ([f"{HAN * 3} {HAN * 3} abcdefghijklm", HAN * 2], 0),
        ([f"{HAN * 3} {HAN * 3}", f"{HAN * 2} {HAN * 2}"], 0),  # 2.5 of all, 3 of the first
        ([f"{HAN * 3} {HAN * 3}", f"{HAN * 2} {HAN * 2}", f"{HAN} abcdefgh"], 0),  # Latin prevails: not counted in
        ([f"{HAN * 3} {HAN * 3}", f"{HAN} abcdefgh"], 1),
        ([f"{HAN * 4} カタカナ"], 1),  # (4 + 2) / 2
        ([f"{HAN * 3} カタカナ"], 0),  # (3 + 2) / 2
        (["カタカナ カタカナ"], 0),  # Katakana counts half: 2 per token
        (["カタカナカ カタカナカ"], 1),  # is unsplit by itself
        (["カタカナカ カタカ カタカ"], 0),
        ([], 0),
        (["a dog runs"], 0),
    ],
)
def test_letters_per_token_of_all_captions(captions, count):
    assert unsplit(captions).count == count


def test_captions_are_counted_where_they_have_words():
    found = unsplit(["", "  ", HAN * 3, "a dog", f"{HAN} ", f"{HAN * 4}\n x", "!"])
    assert found == Unsplit(2, 5, HAN * 3, "Han")
    assert found.share == unsplit_share(["", HAN * 3, "a dog", HAN, HAN * 4, "!"]) == 0.4
    assert Unsplit(0, 0, "", "").share == 0.0
    assert unsplit(["a", "b"]) == Unsplit(0, 2, "", "")


def test_a_warning_from_one_percent_on():
    assert WARN_FROM == 0.01
    assert unsplit_warning([HAN * 3] + ["a dog"] * 99, "x").startswith("x: 1 of 100 captions (1%)")
    assert unsplit_warning([HAN * 3] + ["a dog"] * 100, "x") is None
    assert unsplit_warning(["a dog"], "x") is None


@pytest.mark.parametrize(("length", "shown"), [(30, HAN * 30), (31, HAN * 30 + "…")])
def test_a_long_example_is_cut(length, shown):
    assert f"for example '{shown}': " in describe(unsplit([HAN * length]))


@pytest.mark.parametrize("name", [*DENSE, *LONGER])
def test_every_script_is_known_by_its_first_and_its_last_sign(name):
    for sign in {**DENSE, **LONGER}[name].split("-"):
        for each in (sign[0], sign[-1]):
            assert script_of(each) == name
    assert script_of(f"a {HAN}{THAI}{THAI}") == "Thai" and script_of(f"{HAN}{HAN}{THAI}") == "Han"
    assert script_of("") == script_of("dog 한국") == ""
