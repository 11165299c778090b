"""What training says of captions that it would cut, or whose language the tokenizer cannot split."""

from pathlib import Path

import pytest
from PIL import Image
from small_world import SMALL, run

from captioning.data import Record, TokenTable
from captioning.errors import DataError
from captioning.tasks import caption_files
from captioning.text import make_tokenizer

CHINESE = [
    "\u4e00\u53ea\u72d7\u5728\u8349\u5730\u4e0a\u5954\u8dd1\u3002",
    "\u4e24\u4e2a\u7537\u5b69\u5728\u8857\u9053\u4e0a\u884c\u8d70\u3002",
]


def world(root, captions):
    """A table of four images with these captions; the overrides that read it."""
    rows = ["image,caption,split"]
    for number in range(4):
        Image.new("RGB", (32, 32), (60 * number, 20, 20)).save(root / f"{number}.png")
        rows += [f'{number}.png,"{caption}",{"val" if number > 2 else "train"}' for caption in captions]
    (root / "captions.csv").write_text("\n".join(rows), encoding="utf-8")
    return ["data=csv", f"data.root={root}", "data.min_count=1", "features=online", f"run_dir={root / 'run'}"]


class _EnoughError(Exception):
    """The captions were looked at: nothing is trained here."""


@pytest.fixture
def stops(monkeypatch):
    """Start training and go no further than to the vocabulary: the error that ends it."""

    def enough(*_, **__):
        raise _EnoughError

    def start(*arguments):
        with pytest.raises((_EnoughError, DataError)) as caught:
            run("train", *arguments, *SMALL)
        return caught.value

    monkeypatch.setattr(TokenTable, "vocabulary", enough)
    return start


def test_captions_without_spaces_are_refused(tmp_path, stops):
    error = stops(*world(tmp_path, CHINESE))
    assert isinstance(error, DataError)
    assert str(error).startswith(
        f"data=csv, data.root={tmp_path}, split 'train': 6 of 6 captions (100%) are written without spaces between "
        f"words (Han script), for example '{CHINESE[0]}': "
    )
    assert "\n" not in str(error)


def test_spaced_characters_are_learnt(tmp_path, capsys, stops):
    error = stops(*world(tmp_path, [" ".join(caption) for caption in CHINESE]))
    assert "without spaces" not in f"{error}{capsys.readouterr().err}"


def test_a_share_of_them_is_a_warning(tmp_path, capsys, stops):
    error = stops(*world(tmp_path, ["a dog runs", "a cat sits", CHINESE[0]]))
    assert "without spaces" not in str(error)
    assert "warning: data=csv, data.root=" in (printed := capsys.readouterr().err)
    assert "3 of 9 captions (33%)" in printed


def test_captions_that_are_cut(tmp_path, capsys, stops):
    stops(*world(tmp_path, ["a dog " + "runs " * 28]), "data.max_length=20", "decoding.max_length=30")
    assert (
        "warning: 3 of 3 training captions are longer than data.max_length=20 words and are cut: set "
        "data.max_length=30 (keeps all). decoding.max_length=30 does not help by itself"
    ) in capsys.readouterr().err


def test_the_limit_follows_the_data(tmp_path, capsys, stops):
    stops(*world(tmp_path, ["a dog " + "runs " * 28]))
    printed = capsys.readouterr()
    assert "data.max_length: 30 words (the longest training caption has 30)" in printed.out
    assert "longer than" not in printed.err


def test_chinese_captions_with_a_tokenizer_for_them(tmp_path, capsys, stops):
    error = stops(*world(tmp_path, CHINESE), "data.tokenizer=characters")
    assert "without spaces" not in f"{error}{capsys.readouterr().err}"


def test_byte_pairs_of_single_characters_are_a_warning(tmp_path, capsys, stops):
    stops(*world(tmp_path, CHINESE), "data.tokenizer=bpe:200:unicode")
    assert "100% of the words of unicode have one character" in capsys.readouterr().err
    (tmp_path / "english").mkdir()
    stops(*world(tmp_path / "english", ["a dog runs", "a cat sits"]), "data.tokenizer=bpe:200")
    assert "one character" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "captions", "share", "advice"),
    [
        ("bpe:200:characters", ["a dog", "cats"], "100%", "characters"),
        ("bpe:200:unicode", CHINESE, "100%", "unicode, or pieces of dictionary words: bpe:4000:unicode:jieba"),
        (
            "bpe:200:unicode",
            ["いぬがはしる。"],
            "100%",
            "unicode, or pieces of dictionary words: bpe:4000:unicode:fugashi",
        ),
        ("bpe:200:unicode", ["หมาวิ่ง"], "100%", "unicode, or pieces of dictionary words: bpe:4000:unicode:pythainlp"),
        ("bpe:200:unicode", ["a b c dog"], "75%", "unicode"),
        ("bpe:200:nltk:TweetTokenizer", ["a b c dog"], "75%", "nltk:TweetTokenizer"),
    ],
)
def test_the_advice_on_single_characters_fits_the_script(tmp_path, capsys, stops, name, captions, share, advice):
    stops(*world(tmp_path, captions), f"data.tokenizer={name}")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "one character" in line]
    base = name.removeprefix("bpe:200:")
    assert line == (
        f"warning: data.tokenizer={name}: {share} of the words of {base} have one character, so few longer pieces are "
        f"learned. Use data.tokenizer={advice}"
    )


def test_a_dictionary_in_use_is_not_proposed():
    pytest.importorskip("jieba")
    tokenizer = make_tokenizer("bpe:200:unicode:jieba").fit(["狗", "猫"])
    line = caption_files._few_pieces([Record(1, Path("a.png"), "train", ("狗", "猫"))], tokenizer)
    assert line.endswith("Use data.tokenizer=unicode:jieba")


def test_cut_captions_are_counted_in_pieces(tmp_path, capsys, stops):
    stops(*world(tmp_path, ["a dog " + "runs " * 28]), "data.tokenizer=bpe:20", "data.max_length=20")
    printed = capsys.readouterr().err
    assert "longer than data.max_length=20 pieces and are cut" in printed and "20 words" not in printed
