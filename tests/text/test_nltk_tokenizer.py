"""Tokenizers of nltk by name: lower case, without punctuation, and one line for those that need data."""

import nltk.tokenize
import pytest

from captioning.errors import ConfigError
from captioning.text import make_tokenizer
from captioning.text.ptb_tokenizer import PUNCTUATION

TEXT = "A man's dog, (aged 7) can't swim in 3.5 feet of WATER... “Wow”!"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nltk", "a man 's dog ( aged 7 ) ca n't swim in 3.5 feet of water wow"),
        ("nltk:TreebankWordTokenizer", "a man 's dog ( aged 7 ) ca n't swim in 3.5 feet of water “wow”"),
        ("nltk:TweetTokenizer", "a man's dog ( aged 7 ) can't swim in 3.5 feet of water wow"),
        ("nltk:WordPunctTokenizer", "a man s dog ( aged 7 ) can t swim in 3 5 feet of water wow"),
    ],
)
def test_words_of_the_usual_tokenizers(name, words):
    assert make_tokenizer(name)(TEXT) == words.split()


@pytest.mark.parametrize("name", ["NLTKWordTokenizer", "TreebankWordTokenizer", "TweetTokenizer", "ToktokTokenizer"])
def test_the_words_are_nltks_own(name):
    own = getattr(nltk.tokenize, name)().tokenize(TEXT)
    kept = [token.lower() for token in own if token not in PUNCTUATION and token not in {"“", "”"}]
    assert make_tokenizer(f"nltk:{name}")(TEXT) == kept
    assert make_tokenizer("nltk").name == "nltk"


def test_punctuation_of_other_scripts_is_dropped_and_symbols_are_kept():
    assert make_tokenizer("nltk")("一 狗 。 50 % ، x") == ["一", "狗", "50", "%", "x"]


@pytest.mark.parametrize(("name", "data"), [("TextTilingTokenizer", "stopwords"), ("PunktTokenizer", "punkt_tab")])
def test_missing_data_gets_the_line_that_downloads_it(name, data, monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [])
    if not hasattr(nltk.tokenize, name):
        pytest.skip(f"this nltk has no {name}")
    with pytest.raises(ConfigError) as caught:
        make_tokenizer(f"nltk:{name}")
    assert str(caught.value) == f"data.tokenizer=nltk:{name} needs data. Run: python -m nltk.downloader {data}"
