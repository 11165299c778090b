"""What training says of captions that it would cut, or whose language the tokenizer cannot split."""

import pytest
from PIL import Image
from small_world import SMALL, run

from captioning.errors import DataError
from captioning.tasks import image_captioning

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

    monkeypatch.setattr(image_captioning.Vocabulary, "build", enough)
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
