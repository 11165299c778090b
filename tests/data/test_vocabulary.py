"""Tokenizer and vocabulary."""

import gzip
import json
import math

import pytest

from captioning.data import Vocabulary
from captioning.data.vocabulary import END, PAD, START, UNKNOWN
from captioning.errors import CheckpointError, ConfigError, DataError
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
    with pytest.raises(DataError, match="have each word once, but repeats 'a'"):
        Vocabulary(["a", "a"])
    with pytest.raises(DataError, match=r"have each word once, but repeats '<end>', 'a', 'b', 'c', 'd'$"):
        Vocabulary(["a", "b", "<end>", "c", "once", "d", "e", "e", "d", "c", "b", "a"])
    with pytest.raises(ConfigError, match=r"data\.min_count must be at least 1, not 0"):
        Vocabulary.build([["a"]], min_count=0)
    with pytest.raises(CheckpointError, match=r"must begin with <pad> <start> <end> <unk>, not with a b c d$"):
        Vocabulary.from_state_dict(["a", "b", "c", "d", "e"])
    with pytest.raises(CheckpointError, match=r"not with <pad> <start> <end> x$"):
        Vocabulary.from_state_dict(["<pad>", "<start>", "<end>", "x"])


def test_words_of_one_frequency_are_in_order_of_the_alphabet():
    captions = [["c", "b", "a"], ["d", "d", "a"], ["d"], ["d", "c"]]
    assert Vocabulary.build(captions, min_count=1).words[4:] == ("d", "a", "c", "b")
    assert Vocabulary.build(captions, min_count=2).words[4:] == ("d", "a", "c")
    assert Vocabulary.build([["a", "b"] * 4, ["a"]]).words[4:] == ("a",)  # five times, by default
    assert len(Vocabulary(["a", "b"])) == 6


def test_rarity_is_the_logarithm_of_one_plus_the_rank_and_an_unknown_word_is_rarer_than_any():
    assert Vocabulary(["a", "b", "c"]).rarity() == pytest.approx(
        [0, 0, 0, math.log(5), math.log(2), math.log(3), math.log(4)], rel=1e-15
    )
    assert Vocabulary([]).rarity() == pytest.approx([0, 0, 0, math.log(2)])


def test_coverage_counts_running_words_and_the_specials_are_four():
    vocabulary = Vocabulary(["a", "b"])
    assert vocabulary.coverage([["a", "a", "x"], [], ["b"]]) == 0.75
    assert vocabulary.coverage([[], []]) == vocabulary.coverage([]) == 1.0
    assert (vocabulary.pad, vocabulary.start, vocabulary.end, vocabulary.unknown) == (0, 1, 2, 3)
    assert vocabulary.words == ("<pad>", "<start>", "<end>", "<unk>", "a", "b")
    assert vocabulary.ids(["x", "b", "<end>"]) == [3, 5, 2]


def test_decoding_keeps_the_unknown_word_and_needs_no_end():
    vocabulary = Vocabulary(["a", "b"])
    assert vocabulary.decode([START, UNKNOWN, 5, START, 4]) == ["<unk>", "b", "a"]
    assert vocabulary.decode([END, 4]) == vocabulary.decode([]) == []
    assert vocabulary.encode([], max_length=3) == [START, END]
    assert vocabulary.encode(["a", "b", "a"], max_length=3) == [START, 4, 5, 4, END]
