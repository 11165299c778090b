"""Tokenizer and vocabulary."""

import gzip
import json

import pytest

from captioning.data import Vocabulary
from captioning.data.vocabulary import END, PAD, START, UNKNOWN
from captioning.errors import CheckpointError, DataError
from captioning.text import tokenize


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A man's dog, running.", "a man 's dog running"),
        ("Food on a plate. There is a fork...", "food on a plate there is a fork"),
        ("A sign on Main St. and 5th Ave.", "a sign on main st. and 5th ave."),
        ('A "red" (old) bus!', "a red -lrb- old -rrb- bus"),
        ("it can't, won't; isn't", "it ca n't wo n't is n't"),
        ("line\none\ttwo", "line one two"),
        (" . , !", ""),
        ("", ""),
    ],
)
def test_penn_treebank_tokens(caption, tokens):
    assert " ".join(tokenize(caption)) == tokens


def test_agrees_with_the_recorded_java_tokenizer(shared_dir):
    pairs = json.loads(gzip.decompress((shared_dir / "metrics" / "ptb_java_pairs.json.gz").read_bytes()))
    for recorded in pairs.values():
        equal = sum(" ".join(tokenize(raw)) == tokens for raw, tokens in recorded[::4])
        assert equal / len(recorded[::4]) > 0.999


def test_ids_of_frequent_words_in_order_of_frequency():
    vocabulary = Vocabulary.build([["a", "b", "a"], ["c", "a", "b"]], min_count=2)
    assert vocabulary.words == ("<pad>", "<start>", "<end>", "<unk>", "a", "b")
    assert vocabulary.encode(["b", "c"], max_length=9) == [START, 5, UNKNOWN, END]
    assert vocabulary.coverage([["a", "c"], ["b", "a"]]) == 0.75


def test_a_cut_caption_keeps_its_end():
    vocabulary = Vocabulary(["a"])
    assert vocabulary.encode(["a"] * 50, max_length=3) == [START, 4, 4, 4, END]


def test_decoding_stops_at_end_and_skips_padding():
    vocabulary = Vocabulary(["a", "b"])
    assert vocabulary.decode([START, 4, PAD, 5, END, 4]) == ["a", "b"]


def test_state_goes_round_and_a_strange_one_is_refused():
    vocabulary = Vocabulary(["a", "b"])
    assert Vocabulary.from_state_dict(vocabulary.state_dict()).words == vocabulary.words
    with pytest.raises(CheckpointError, match="must begin with <pad>"):
        Vocabulary.from_state_dict(["a", "b", "c", "d"])


def test_faults_are_told():
    with pytest.raises(DataError, match=r"no word occurs 5 times.*data\.min_count"):
        Vocabulary.build([["a"]])
    with pytest.raises(DataError, match="more than once: a"):
        Vocabulary(["a", "a"])
