"""Words of many scripts, normalization, and joined text that is split into the same words again."""

import sys
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from captioning.errors import ConfigError
from captioning.text import make_tokenizer
from captioning.text.segmenters import SEGMENTERS
from captioning.text.unicode_tokenizer import normal_form

WORDS = {
    "A man's dog can't stop 3.5 of 1,000 T-shirts, 50% off!": "a man's dog can't stop 3.5 of 1,000 t shirts 50 off",
    "don’t go, snow‑covered “tree” 👍🏽 ♥ x² a_b": "don't go snow covered tree x ² a_b",
    "一只狗在草地上，穿T恤。": "一 只 狗 在 草 地 上 穿 t 恤",
    "人々は〇と〆をｶﾞｯﾂ・Ｔシャツ、２人": "人 々 は 〇 と 〆 を ガ ッ ツ t シ ャ ツ 2 人",
    "か\u3099っこう": "が っ こ う",
    "สุนัขกำลังวิ่ง ๒ ตัว": "สุ นั ข กำ ลั ง วิ่ ง ๒ ตั ว",
    "ຊາຍຄົນໜຶ່ງກຳ": "ຊ າ ຍ ຄົ ນ ໜຶ່ ງ ກຳ",
    "ខ្មែរៗ\u200bម្នាក់": "ខ្មែ រ ៗ ម្នា ក់",
    "လူတစ်ယောက်": "လူ တ စ် ယော က်",
    "མི་ཞིག་རྐང་འཁོར།": "མི ཞིག རྐང འཁོར",
    "한 남자가 자전거를 타고 있다.": "한 남자가 자전거를 타고 있다",
    "رجل يركب دراجة، ﻻ مﹶ": "رجل يركب دراجة لا مَ",
    "می\u200cخواهم": "می\u200cخواهم",
    "एक आदमी साइकिल चला रहा है।": "एक आदमी साइकिल चला रहा है",
    "Мужчина едет на Ёлке": "мужчина едет на ёлке",
    "Ein MÄDCHEN a\u0308 STRAẞE ﬁel so\u00adft\ufeff": "ein mädchen ä straße fiel soft",
    "ΟΔΟΣ İzmir": "οδος i\u0307zmir",
    "": "",
    " 。、\t...\n♥ ": "",
}


@pytest.mark.parametrize("text", WORDS)
def test_words_of_many_scripts(text):
    assert make_tokenizer("unicode")(text) == WORDS[text].split()


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("一只狗 在草地上。", "一只狗在草地上"),
        ("赤い四角は、iPhoneの上", "赤い四角は iphone の上"),
        ("สุนัขวิ่ง เล่น", "สุนัขวิ่งเล่น"),
        ("མི་ཞིག་རྐང།", "མི་ཞིག་རྐང"),
        ("한 남자가!", "한 남자가"),
        ("رجل يركب دراجة", "رجل يركب دراجة"),
        ("Два кота", "два кота"),
        ("एक आदमी", "एक आदमी"),
        ("中文ไทย", "中文ไทย"),
    ],
)
def test_text_is_joined_as_the_language_writes_it(text, joined):
    tokenizer = make_tokenizer("unicode")
    assert tokenizer.join(tokenizer(text)) == joined
    assert tokenizer(joined) == tokenizer(text)


# Signs of the scripts that are written without spaces, and of others, with marks, joiners, spaces and punctuation.
MIXED = st.sampled_from(
    [
        *"aBé1.,'-_ 中々〇ーかガｶﾞกาำัຊຳໜកខ្រៗ།་མིယောက်ᬅ한ᄒ하ا\u0654ेकАё½²①ﬁＴ",
        "\u0301",
        "\u3099",
        "\u200c",
        "\u200d",
        "\u200b",
    ]
    + ["\u17d2", "\u1039", "\u0e33", "\u2019", "👩\u200d👧", "🇫🇷", "\ufe0f", "\u0345", "\u0130", "\u03a3", "\u2028"]
)


@given(st.one_of(st.lists(MIXED, max_size=14).map("".join), st.text(max_size=14)))
@settings(max_examples=1500, deadline=None)
@example("ខ្ ម")
@example("ก ำ")
@example("か \u3099")
@example("Ωก\u0345")
def test_joined_text_is_split_into_the_same_words(text):
    tokenizer = make_tokenizer("unicode")
    words = tokenizer(text)
    assert tokenizer(tokenizer.join(words)) == words


@given(st.one_of(st.lists(MIXED, max_size=14).map("".join), st.text(max_size=14)))
@example("0 \x08")
@settings(max_examples=500, deadline=None)
def test_normalized_text_stays_as_it_is_and_words_are_in_nfc(text):
    assert normal_form(normal_form(text)) == normal_form(text)
    assert all(unicodedata.is_normalized("NFC", word) for word in make_tokenizer("unicode")(text))


def test_every_sign_of_a_script_without_spaces_is_a_word_or_part_of_one():
    """No letter is lost: each one alone gives one word, which is that letter in its normal form."""
    tokenizer = make_tokenizer("unicode")
    letters = [chr(code) for code in range(0x20000) if unicodedata.category(chr(code)) in ("Lo", "Lm", "Nl")]
    alone = [c for c in letters if unicodedata.category(normal_form(c)[0]) != "Mn"]  # not the accents among them
    assert len(alone) > 60_000 and len(letters) - len(alone) == 16
    assert [c for c in alone if "".join(tokenizer(c)) != "".join(normal_form(c).lower().split())] == []


def test_characters_keep_everything():
    tokenizer = make_tokenizer("characters")
    assert tokenizer(" A  dog,\n一只狗! ") == ["A", "▁", "d", "o", "g", ",", "▁", "一", "只", "狗", "!"]
    assert tokenizer("e\u0301 กำ 👩\u200d👧") == ["é", "▁", "กำ", "▁", "👩\u200d👧"]
    assert tokenizer("a▁b") == ["a", "▁", "b"] == tokenizer("a b")
    assert tokenizer.join(["▁", "a", "▁", "b", "▁"]) == "a b"


@given(st.one_of(st.lists(MIXED, max_size=14).map("".join), st.text(max_size=14)))
@settings(max_examples=500, deadline=None)
def test_joined_characters_are_the_caption(text):
    tokenizer = make_tokenizer("characters")
    words = tokenizer(text)
    caption = unicodedata.normalize("NFC", " ".join(text.replace("▁", " ").split()))
    assert tokenizer.join(words) == caption and tokenizer(caption) == words


SEGMENTED = {
    "jieba": (
        "一个穿红色T恤的男人在iPhone上打电话，两只狗 a man",
        "一个 穿 红色 t恤 的 男人 在 iphone 上 打电话 两只 狗 a man",
    ),
    "fugashi": ("赤い四角は、青い円の上にあります。iPhone", "赤い 四角 は 青い 円 の 上 に あり ます iphone"),
    "pythainlp": ("ผู้ชายคนหนึ่งใส่เสื้อ สีแดง 2 คน, กำลังวิ่ง", "ผู้ชาย คน หนึ่ง ใส่ เสื้อ สีแดง 2 คน กำลัง วิ่ง"),
}


@pytest.mark.parametrize("name", SEGMENTERS)
def test_words_of_a_segmenter(name):
    for package in SEGMENTERS[name].packages:
        pytest.importorskip(package)
    tokenizer = make_tokenizer(f"unicode:{name}")
    text, words = SEGMENTED[name]
    assert tokenizer(text) == words.split()
    assert tokenizer(text.lower()) == tokenizer(text.upper()) == tokenizer(text)
    assert tokenizer("A man's dog.") == ["a", "man's", "dog"]
    assert tokenizer.name == f"unicode:{name}" and tokenizer.splits_unspaced


def test_a_segmenter_splits_its_own_scripts_only():
    pytest.importorskip("pythainlp")
    assert make_tokenizer("unicode:pythainlp")("中文สุนัขวิ่งかな") == ["中", "文", "สุนัข", "วิ่ง", "か", "な"]


@pytest.mark.parametrize(
    ("name", "extra"),
    [("jieba", "chinese"), ("fugashi", "japanese"), ("unidic_lite", "japanese"), ("pythainlp", "thai")],
)
def test_a_missing_segmenter_gets_the_line_that_installs_it(name, extra, monkeypatch):
    monkeypatch.setattr("captioning.text.segmenters.find_spec", lambda package: None if package == name else object())
    option = next(key for key, value in SEGMENTERS.items() if name in value.packages)
    with pytest.raises(ConfigError) as caught:
        make_tokenizer(f"unicode:{option}")
    assert str(caught.value) == (
        f"data.tokenizer=unicode:{option} needs the package {name.replace('_', '-')}. "
        f"Run: pip install 'captioning[{extra}]'"
    )


def test_the_words_of_jieba_do_not_come_from_a_file_that_anyone_can_write(tmp_path, monkeypatch):
    jieba = pytest.importorskip("jieba")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    segment = SEGMENTERS["jieba"].load()
    assert segment("两只狗") == ["两只", "狗"] and jieba is sys.modules["jieba"] and not list(tmp_path.iterdir())


def test_a_keycap_is_its_digit():
    tokenizer = make_tokenizer("unicode")
    assert tokenizer("dogs 2\ufe0f\u20e3, bus 7\u20e3") == ["dogs", "2", "bus", "7"] == tokenizer("dogs 2, bus 7")
