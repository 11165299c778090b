"""Byte pairs: the pieces by hand, words without loss, the same merges everywhere, and no text that breaks it."""

import os
import subprocess
import sys
import unicodedata
from collections import Counter
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from captioning.errors import ConfigError
from captioning.text import make_tokenizer, tokenizer_from_state_dict

pytest.importorskip("tokenizers")

# Sennrich et al. (2016), figure 1: low, lowest, newer and wider, here with counts.
LOW = ["low"] * 5 + ["lowest"] * 2 + ["newer"] * 6 + ["wider"] * 3


def merged(pieces, pair):
    """Return the pieces of a word after one merge, from left to right."""
    result = []
    for piece in pieces:
        if result and (result[-1], piece) == pair:
            result[-1] = pair[0].removesuffix("@@") + piece
        else:
            result.append(piece)
    return result


def letters(word):
    return [f"{letter}@@" for letter in word[:-1]] + [word[-1]]


def pairs_of(texts, counts):
    pairs = Counter()
    for word, pieces in texts.items():
        for pair in pairwise(pieces):
            pairs[pair] += counts[word]
    return pairs


@pytest.mark.parametrize(
    "words", [LOW, ["banana"] * 9 + ["bandana"] * 5 + ["ananas"] * 4 + ["panda"] * 3 + ["nap"] * 2 + ["a"]]
)
def test_each_merge_is_the_most_frequent_pair_of_neighbors(words):
    """By the definition, until no pair occurs twice; and the pieces are what the merges make of the letters."""
    tokenizer = make_tokenizer("bpe:1000:whitespace").fit(words)
    counts, texts = Counter(words), {word: letters(word) for word in words}
    merges = [tuple(merge.split(" ")) for merge in tokenizer.state_dict()["merges"]]
    for merge in merges:
        pairs = pairs_of(texts, counts)
        assert pairs[merge] == max(pairs.values()) >= 2
        texts = {word: merged(pieces, merge) for word, pieces in texts.items()}
    assert len(merges) > 10 and max(pairs_of(texts, counts).values(), default=0) < 2
    assert {word: tokenizer.pieces([word]) for word in texts} == texts


def test_the_number_of_pieces_is_kept():
    tokenizer = make_tokenizer("bpe:23:whitespace").fit(LOW)
    state = tokenizer.state_dict()
    assert state["alphabet"] == "deilnorstw" and state["merges"][0] == "e@@ r" and len(state["merges"]) == 3
    assert len(tokenizer.learned_pieces()) == len(set(tokenizer.learned_pieces())) == 23
    assert tokenizer.pieces(["wider"]) == ["w@@", "i@@", "d@@", "er"]


def test_frequent_words_become_single_pieces_that_look_like_the_word():
    tokenizer = make_tokenizer("bpe:60:whitespace").fit(LOW)
    assert tokenizer.pieces(["newer", "low", "wider"]) == ["newer", "low", "wider"]
    assert tokenizer.words(tokenizer.pieces(["slower"])) == ["slower"] and len(tokenizer.pieces(["slower"])) < 6
    assert all(tokenizer.is_finished(piece) is not piece.endswith("@@") for piece in tokenizer.learned_pieces())


def test_pieces_of_each_word_and_of_a_word_without_end():
    tokenizer = make_tokenizer("bpe:23:whitespace").fit(LOW)
    pieces = ["w@@", "er", "low", "s@@", "t@@"]
    assert tokenizer.groups(pieces) == [[0, 1], [2], [3, 4]]
    assert tokenizer.words(pieces) == ["wer", "low", "st"]
    assert tokenizer.word(["n@@", "e@@", "w"]) == "new"
    assert tokenizer.join(["new", "low"]) == "new low"
    assert make_tokenizer("bpe:100:unicode").fit(["狗跑"]).join(["狗", "跑"]) == "狗跑"


def test_unseen_characters_are_pieces_that_the_vocabulary_does_not_have():
    tokenizer = make_tokenizer("bpe:60:whitespace").fit(LOW)
    known = set(tokenizer.learned_pieces())
    for word, unknown in [("lowß", ["ß"]), ("ßlow", ["ß@@"]), ("loßw", ["ß@@"]), ("ß", ["ß"]), ("ßß", ["ß@@", "ß"])]:
        pieces = tokenizer.pieces([word])
        assert [piece for piece in pieces if piece not in known] == unknown
        assert tokenizer.words(pieces) == [word]
    assert tokenizer.words(tokenizer.pieces(["ßlow" * 5000])) == ["ßlow" * 5000]
    assert set(tokenizer.pieces(["rid", "worest"])) <= known


@pytest.mark.parametrize(
    "word", ["@@", "@@@", "do@@", "@@g", "a@@b", "@", "<end>", "<unk>", "</w>", ">", "x\n", "\u2581"]
)
def test_words_that_look_like_marks_survive(word):
    captions = [f"{word} dog {word}x x{word}"] * 50
    tokenizer = make_tokenizer("bpe:200:whitespace").fit(captions)
    known = set(tokenizer.learned_pieces())
    words = tokenizer(captions[0])
    pieces = tokenizer.pieces(words)
    assert tokenizer.words(pieces) == words and set(pieces) <= known
    assert len(tokenizer.groups(pieces)) == len(words)
    assert not known & {"<pad>", "<start>", "<end>", "<unk>", "", "@@"}
    assert tokenizer_from_state_dict(tokenizer.state_dict()).pieces(words) == pieces


SIGNS = st.text(
    st.sampled_from([*"ab@<>▁", "é", "狗", "\U000f0000", "\U000f0001", "\ud800", "Ġ", "\u0301"]), min_size=1, max_size=8
).map(partial(unicodedata.normalize, "NFC"))  # as the tokenizer of the words does


@given(st.lists(SIGNS, min_size=1, max_size=20), st.lists(SIGNS, max_size=5))
@settings(max_examples=200, deadline=None)
@example(["ab"] * 3, ["abab@@"])
def test_every_word_of_known_characters_is_written_without_loss(training, others):
    tokenizer = make_tokenizer("bpe:60:whitespace").fit(training)
    known, characters = set(tokenizer.learned_pieces()), {c for word in training for c in word}
    assert tokenizer.words(tokenizer.pieces(training)) == training and set(tokenizer.pieces(training)) <= known
    for word in others:
        assert tokenizer.words(tokenizer.pieces([word])) == [word]
        if set(word) <= characters:
            assert set(tokenizer.pieces([word])) <= known


FIT = """
from captioning.text import make_tokenizer
captions = [f"{a}{b}{c} {c}{a}" for a in ("sa", "to", "ri") for b in ("na", "lo") for c in ("mi", "ka", "te")]
print(make_tokenizer("bpe:60").fit(captions).state_dict())
print(make_tokenizer("bpe:60").fit(reversed(captions)).state_dict())
"""


def test_the_same_captions_give_the_same_merges_in_every_process():
    """Many pairs have equal counts here: nothing but the captions may decide which is merged first."""
    outputs = set()
    for seed, threads in [("0", "1"), ("1", "4"), ("12345", "2")]:
        environment = os.environ | {
            "PYTHONHASHSEED": seed,
            "RAYON_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "true",
        }
        done = subprocess.run([sys.executable, "-c", FIT], env=environment, capture_output=True, text=True, check=True)
        outputs |= set(done.stdout.splitlines())
    (state,) = outputs
    assert "merges" in state and "@@" in state


def test_too_few_pieces_for_the_characters():
    with pytest.raises(ConfigError) as caught:
        make_tokenizer("bpe:20:whitespace").fit(["abcdefghijk"])
    assert str(caught.value) == (
        "data.tokenizer=bpe:20:whitespace: the training captions have 11 different characters, which need 22 pieces. "
        "Write at least bpe:22:whitespace, or data.tokenizer=whitespace"
    )
    assert len(make_tokenizer("bpe:22:whitespace").fit(["abcdefghijk"]).learned_pieces()) == 22


def test_nothing_to_learn_from():
    tokenizer = make_tokenizer("bpe").fit([])
    assert tokenizer.learned_pieces() == [] and tokenizer.pieces(["dog"]) == ["d@@", "o@@", "g"]
    assert tokenizer.state_dict() == {"name": "bpe", "alphabet": "", "merges": []}


def test_the_missing_package_gets_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"needs the package tokenizers. Run: pip install 'captioning\[bpe\]'"):
        make_tokenizer("bpe")


def test_scores_are_named_after_the_tokenizer_of_the_words():
    assert make_tokenizer("bpe:100:unicode").word_tokenizer.name == "unicode"
    assert make_tokenizer("bpe").word_tokenizer.name == "ptb" and make_tokenizer("bpe").size == 4000
    assert make_tokenizer("bpe::nltk").word_tokenizer.name == "nltk" and make_tokenizer("bpe::nltk").size == 4000


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("bpe:unicode", "bpe:4000:unicode"),
        ("bpe:nltk:TweetTokenizer", "bpe:4000:nltk:TweetTokenizer"),
        ("bpe:3:unicode:jieba", "bpe:4000:unicode:jieba"),
        ("bpe:uni", "bpe:4000"),
    ],
)
def test_the_advised_size_keeps_the_tokenizer_of_the_words(name, advice):
    with pytest.raises(ConfigError) as caught:
        make_tokenizer(name)
    assert str(caught.value).endswith(f"is not a number of pieces from 10 to 1000000. Write {advice}")
    with pytest.raises(ConfigError, match=r"Write at least bpe:22, or data\.tokenizer=unicode$"):
        make_tokenizer("bpe:20").fit(["abcdefghijk"])
