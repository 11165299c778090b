"""Records and captions in files: the same as in lists, for every kind of text and id, and made when asked for."""

import pickle
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from captioning.data import (
    Record,
    RecordTable,
    RowFile,
    TokenTable,
    Vocabulary,
    chosen_records,
    counts_of_splits,
    encode_captions,
    image_ids_of,
    of_split,
    select,
    tokenize_captions,
    write_records,
    write_tokens,
)
from captioning.errors import ConfigError, DataError
from captioning.text import make_tokenizer

RECORDS = [
    Record(2**31 + 5, Path("b/é 狗.jpg"), "val", ("a dog", "two\nlines", "")),
    Record(-3, Path("a.jpg"), "train", ("half \ud83d of an emoji", "\U0001f600 \ud83d\ude00", "...")),
    Record(2**62, Path("c\udce9.jpg"), "train", ()),
    Record(7, Path("/d/e.jpg"), "test", ("naïve – “quotes”\t\0",), "in-domain"),
    Record(8, Path("f.jpg"), "train", ("a cat sits",), ""),
    Record(9, Path("g.jpg"), "val", ()),
]
TRAIN, VAL, TEST = ([record for record in RECORDS if record.split == split] for split in ("train", "val", "test"))


def table_of(records, path):
    write_records(path, records, dict)
    return RecordTable(RowFile(path))


@pytest.fixture
def table(tmp_path):
    return table_of(RECORDS, tmp_path / "a.records")


def test_a_table_has_the_records_split_by_split(table):
    expected = [*TRAIN, *VAL, *TEST]
    assert list(table) == expected and len(table) == 6
    assert [table[index] for index in (-1, 0)] == [expected[-1], expected[0]]
    assert all(type(record.image_id) is int for record in table)
    assert table.image_ids.tolist() == [record.image_id for record in expected] == image_ids_of(expected).tolist()
    for part in (table[1:4], pickle.loads(pickle.dumps(table[1:4]))):
        assert list(part) == expected[1:4] and part.image_ids.tolist() == image_ids_of(expected[1:4]).tolist()
    with pytest.raises(IndexError):
        table[6]


def test_splits_and_chosen_records_are_those_of_lists(table):
    which = np.array([False, True, True, True, False, True])
    for some in (table, table.chosen(which), table[:0], table[2:4], table[2:4].chosen(np.array([False, True]))):
        listed = list(some)
        for split in ("train", "val", "test", "other"):
            assert list(of_split(some, split)) == of_split(listed, split)
        assert counts_of_splits(some) == counts_of_splits(listed)
        assert some.image_ids.tolist() == [record.image_id for record in listed]
    assert list(chosen_records(table, which)) == chosen_records(list(table), which)
    assert table.chosen(np.ones(6, bool)) is table
    assert list(select(table, "val")) == VAL == select(RECORDS, "val")
    for records in (table[:3], TRAIN):
        with pytest.raises(DataError, match=r"no images with captions in split 'val'; images per split: train 3\. Add"):
            select(records, "val")


def test_records_are_found_by_their_ids_in_any_order(table):
    ids = image_ids_of(RECORDS)
    assert list(table.with_ids(ids)) == RECORDS
    assert list(table[1:].with_ids(ids[[4, 0]])) == [RECORDS[4], RECORDS[0]]
    assert table.with_ids(table.image_ids) is table
    for other in ([5], [2**62 + 1], [-3, 10**18]):
        with pytest.raises(KeyError):
            table.with_ids(np.array(other))


def tokens_of(captions, training, tokenizer, path):
    write_tokens(path, captions, training, tokenizer, dict)
    return TokenTable(RowFile(path))


WORDS = ["a", "dog", "dogs", "the", "cat", "runs", "naïve", "狗", "don't", "..."]


def drawn(seed, images=40):
    """Captions of images, some images without any, some captions without a word."""
    draw = random.Random(seed)

    def caption():
        return " ".join(draw.choices(WORDS, weights=range(1, 11), k=draw.randrange(9)))

    return [[caption() for _ in range(draw.randrange(6))] for _ in range(images)]


@pytest.mark.parametrize("name", ["ptb", "characters", "bpe:40", "bpe:40:whitespace"])
@pytest.mark.parametrize("seed", [0, 1])
def test_captions_are_encoded_as_by_the_vocabulary(name, seed, tmp_path):
    captions, training = drawn(seed), 25
    records = [Record(number, Path("a"), "train", tuple(texts)) for number, texts in enumerate(captions)]
    tokenizer = make_tokenizer(name).fit(text for texts in captions[:training] for text in texts)
    table = tokens_of(captions, training, tokenizer, tmp_path / "a.tokens")
    words = tokenize_captions(records, tokenizer)
    known = [caption for texts in words[:training] for caption in texts]
    assert table.lengths == Counter(len(tokenizer.pieces(caption)) for caption in known)
    assert len(table) == 40
    for min_count in (1, 3, 8):
        vocabulary = table.vocabulary(min_count)
        expected = Vocabulary.build(known, min_count=min_count, tokenizer=tokenizer)
        assert vocabulary.words == expected.words
        assert vocabulary.tokenizer.state_dict() == tokenizer.state_dict()
        assert table.coverage(range(25, 40), vocabulary) == expected.coverage(c for t in words[25:] for c in t)
        for max_length in (1, 2, 5, 99, None):
            encoded = table.encoded(range(40), vocabulary, max_length)
            assert list(encoded) == encode_captions(words, expected, max_length=max_length)
        some = pickle.loads(pickle.dumps(table.encoded(np.array([39, 3]), vocabulary, 4)))
        assert list(some) == encode_captions([words[39], words[3]], expected, max_length=4)
    assert table.coverage([], vocabulary) == 1.0


def test_words_that_only_validation_has_are_unknown(tmp_path):
    table = tokens_of([["a b"], ["c c c"]], 1, make_tokenizer("whitespace"), tmp_path / "a.tokens")
    vocabulary = table.vocabulary(1)
    assert vocabulary.words[4:] == ("a", "b")
    assert list(table.encoded([1], vocabulary, None)) == [[[1, 3, 3, 3, 2]]]
    assert table.pieces(0) == [[0, 1]] and table.pieces(1) == [[2, 2, 2]]
    assert table.coverage([0, 1], vocabulary) == 0.4


def test_limits_and_captions_that_cannot_work(tmp_path):
    table = tokens_of([["a b"], []], 2, make_tokenizer("ptb"), tmp_path / "a.tokens")
    with pytest.raises(DataError, match=r"no word occurs 2 times in the training captions: lower data\.min_count"):
        table.vocabulary(2)
    with pytest.raises(ConfigError, match=r"data\.min_count must be at least 1, not 0"):
        table.vocabulary(0)
    with pytest.raises(ConfigError, match=r"data\.max_length must be at least 1, not 0"):
        table.encoded([0], table.vocabulary(1), 0)
    none = tokens_of([["..."]], 1, make_tokenizer("ptb"), tmp_path / "b.tokens")
    assert none.lengths == {} and none.pieces(0) == []
    with pytest.raises(DataError, match="no word occurs 1 times"):
        none.vocabulary(1)
