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


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("TextTilingTokenizer", "topics"),
        ("PunktTokenizer", "sentences"),
        ("PunktSentenceTokenizer", "sentences"),
        ("LegalitySyllableTokenizer", "syllables"),
        ("LineTokenizer", "lines"),
    ],
)
def test_other_units_than_words_are_refused_before_their_data_is_missed(name, unit, monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(ConfigError) as caught:
        make_tokenizer(f"nltk:{name}")
    assert str(caught.value).startswith(f"data.tokenizer=nltk:{name} splits text into {unit}, not into words. Choose ")


class _NeedsData:
    def tokenize(self, text):
        raise LookupError("Resource words not found. >>> nltk.download('words')")


def test_missing_data_gets_the_line_that_downloads_it(monkeypatch):
    monkeypatch.setattr(nltk.tokenize, "NeedsData", _NeedsData, raising=False)
    with pytest.raises(ConfigError) as caught:
        make_tokenizer("nltk:NeedsData")
    assert str(caught.value) == "data.tokenizer=nltk:NeedsData needs data. Run: python -m nltk.downloader words"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("word_tokenize", "NLTKWordTokenizer"),
        ("casual_tokenize", "TweetTokenizer"),
        ("TweetTokeniser", "TweetTokenizer"),
        ("StanfordTokenizer", ""),
        ("StanfordSegmenters", ""),
    ],
)
def test_only_tokenizers_of_words_are_proposed(name, near):
    with pytest.raises(ConfigError) as caught:
        make_tokenizer(f"nltk:{name}")
    assert ("did you mean" in str(caught.value)) == bool(near)
    assert not near or f"no such class: did you mean {near}? Choose" in str(caught.value)


def test_the_usual_tokenizer_has_one_name():
    """Scores of two names are not compared."""
    assert make_tokenizer("nltk:NLTKWordTokenizer").name == make_tokenizer("nltk").name == "nltk"
    assert make_tokenizer("bpe:50:nltk:NLTKWordTokenizer").word_tokenizer.name == "nltk"
