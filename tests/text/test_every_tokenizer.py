"""What every tokenizer promises: names, joined text, state, and one clear message for a wrong name."""

import copy
import json
import pickle
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning.errors import CheckpointError, ConfigError
from captioning.text import TOKENIZERS, make_tokenizer, tokenize, tokenizer_from_state_dict

NAMES = [*TOKENIZERS, "nltk:TweetTokenizer", "bpe:60:unicode", "bpe:200:characters"]
CAPTIONS = ["A man's dog runs.", "two dogs, running", "一只狗在草地上。", "สุนัขวิ่ง", "한 남자가", "ein Mädchen läuft"]


@pytest.mark.parametrize("name", NAMES)
def test_a_tokenizer_is_rebuilt_from_its_state_and_from_copies_of_it(name):
    tokenizer = make_tokenizer(name).fit(CAPTIONS) if "bpe:60" not in name else make_tokenizer(name).fit(CAPTIONS[:2])
    state = json.loads(json.dumps(tokenizer.state_dict()))
    assert tokenizer.name == name == state["name"]
    for other in (tokenizer_from_state_dict(state), pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert type(other) is type(tokenizer) and other.name == name and other.state_dict() == state
        assert other.learned_pieces() == tokenizer.learned_pieces()
        for caption in CAPTIONS:
            assert other.pieces(other(caption)) == tokenizer.pieces(tokenizer(caption))


@pytest.mark.parametrize("name", NAMES)
def test_pieces_form_the_words_again_and_words_have_no_spaces(name):
    tokenizer = make_tokenizer(name).fit(CAPTIONS) if "bpe:60" not in name else make_tokenizer(name).fit(CAPTIONS[:2])
    for caption in [*CAPTIONS, "", " \t\n", "...", "x\u2003y\u2028z", "unseen ßøñ 犬"]:
        words = tokenizer(caption)
        assert words == tokenizer.word_tokenizer(caption)
        assert all(word and not any(c.isspace() for c in word) for word in words)
        pieces = tokenizer.pieces(words)
        assert tokenizer.words(pieces) == words
        assert [index for group in tokenizer.groups(pieces) for index in group] == list(range(len(pieces)))
        assert not pieces or tokenizer.is_finished(pieces[-1])
    assert tokenizer("") == [] and tokenizer.join([]) == "" and tokenizer.groups([]) == []


def test_the_default_is_ptb_to_the_last_token():
    assert tokenizer_from_state_dict(None).name == "ptb"
    assert make_tokenizer("ptb")("A man's (old) dog — 22 3/4.") == tokenize("A man's (old) dog — 22 3/4.")
    assert make_tokenizer("ptb").join(["a", "dog"]) == "a dog"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unicod", "did you mean unicode? Choose one of ptb, nltk, whitespace, characters, unicode, bpe"),
        ("", "Choose one of ptb"),
        ("ptb:3", "ptb takes no option. Write ptb"),
        ("characters:x", "Write characters"),
        ("unicode:mecab", "Write unicode, unicode:jieba, unicode:fugashi, unicode:pythainlp"),
        ("bpe:few", "few is not a number of pieces from 10 to 1000000. Write bpe:4000"),
        ("bpe:9", "9 is not a number of pieces"),
        ("bpe:1000001", "1000001 is not a number"),
        ("bpe:²", "² is not a number"),
        ("bpe:100:bpe:50", "the words must come from another tokenizer. Write bpe:100"),
        ("bpe:100:ptp", "data.tokenizer=bpe:100:BASE, BASE=ptp is not a tokenizer: did you mean ptb?"),
        ("bpe:100:unicode:x", "data.tokenizer=bpe:100:BASE, BASE=unicode:x: there is no such segmenter."),
        ("nltk:TweetTokeniser", "did you mean TweetTokenizer? Choose one of NLTKWordTokenizer"),
        ("nltk:RegexpTokenizer", "cannot be built without arguments. Choose one of NLTKWordTokenizer"),
        ("nltk:PunktSentenceTokenizer", "splits text into sentences, not into words. Choose one of NLTKWordTokenizer"),
        ("nltk:MWETokenizer", "does not split a caption into words"),
        ("nltk:SyllableTokenizer", "splits text into syllables, not into words"),
        ("nltk:LineTokenizer", "splits text into lines, not into words"),
    ],
)
def test_a_wrong_name_gets_one_line_that_says_what_to_write(name, message):
    with pytest.raises(ConfigError) as caught:
        make_tokenizer(name)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith("data.tokenizer=")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "it has no name"),
        ([], "it has no name"),
        ({"name": "spm"}, "the name 'spm' is unknown"),
        ({"name": 3}, "it has no name"),
        ({"name": "bpe"}, "its alphabet is not"),
        ({"name": "bpe", "alphabet": "ba", "merges": []}, "its alphabet is not"),
        ({"name": "bpe", "alphabet": "aa", "merges": []}, "its alphabet is not"),
        ({"name": "bpe", "alphabet": ["a"], "merges": []}, "its alphabet is not"),
        ({"name": "bpe", "alphabet": "ab", "merges": "a@@ b"}, "its merges are not a list"),
        ({"name": "bpe", "alphabet": "ab", "merges": [3]}, "3 is not a merge such as 'do@@ g'"),
        ({"name": "bpe", "alphabet": "ab", "merges": ["a b"]}, "'a b' is not a merge"),
        ({"name": "bpe", "alphabet": "ab", "merges": ["a@@ c"]}, "'a@@ c' is not a merge"),
        ({"name": "bpe", "alphabet": "ab", "merges": ["a@@"]}, "'a@@' is not a merge"),
        ({"name": "bpe", "alphabet": "ab", "merges": ["a@@ @@"]}, "'a@@ @@' is not a merge"),
        ({"name": "bpe", "alphabet": "ab", "merges": ["a@@ " + "b" * 2000]}, "is not a merge"),
        ({"name": "bpe", "alphabet": "ab", "merges": ["ab@@ a"]}, "does not follow from those before it"),
        ({"name": "bpe", "alphabet": "ab", "merges": ["a@@ b", "a@@ b"]}, "does not follow from those before it"),
    ],
)
def test_a_damaged_state_is_refused(state, message):
    with pytest.raises(CheckpointError, match="'tokenizer' is damaged") as caught:
        tokenizer_from_state_dict(state)
    assert message in str(caught.value) and str(caught.value).endswith("Use another checkpoint")


def test_a_state_of_a_wrong_option_is_refused_as_a_setting_would_be():
    with pytest.raises(ConfigError, match="there is no such segmenter"):
        tokenizer_from_state_dict({"name": "unicode:x"})


@given(st.text(max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_is_split_into_words_without_spaces(text):
    for name in ("whitespace", "characters", "unicode", "nltk"):
        words = make_tokenizer(name)(text)
        assert all(word and not any(c.isspace() for c in word) for word in words)


def test_a_message_names_the_setting_that_was_given():
    for name in ("unicod", "ptb:3", "nltk:x"):
        with pytest.raises(ConfigError, match=f"^metrics.tokenizer={name}"):
            make_tokenizer(name, key="metrics.tokenizer")


@pytest.mark.parametrize("name", ["whitespace", "characters", "unicode", "nltk", "nltk:TweetTokenizer"])
@pytest.mark.parametrize("text", ["café crème", "Ångström Ñu", "한국어 개", "ガラス"])
def test_the_words_do_not_depend_on_how_accents_are_stored(name, text):
    """A keyboard of a Mac stores "é" as two code points, most others as one: without a common form, two words."""
    tokenizer, parts = make_tokenizer(name), unicodedata.normalize("NFD", text)
    assert parts != text and tokenizer(parts) == tokenizer(text)
