"""Running text: which files are whose, and how a text becomes streams and windows."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning.data import Text, Vocabulary, Windows, encode_texts, read_texts, split_text
from captioning.data.corpus import Encoded, standard_library
from captioning.data.vocabulary import END, PAD, UNKNOWN
from captioning.errors import CaptioningError, ConfigError, DataError


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(1, 7), st.integers(1, 20))
def test_every_token_is_a_target_once_and_windows_go_on_where_the_last_ended(tokens, streams, window):
    text = Encoded(torch.arange(10, 10 + tokens).int(), torch.arange(1, 1 + tokens).to(torch.int16))
    if tokens - 1 < streams:
        with pytest.raises(ConfigError, match=rf"{tokens - 1} tokens are too few for {streams} streams"):
            Windows(text, streams=streams, window=window)
        return
    data = Windows(text, streams=streams, window=window)
    batches = [data[index, 0] for index in range(len(data))]
    for b in range(streams):
        line = batches[0].tokens[b, 0].tolist()
        for before, batch in itertools.pairwise(batches):
            assert batch.tokens[b, 0, 0] == before.tokens[b, 0, -1]
            line += batch.tokens[b, 0, 1:].tolist()
        begin = int(batches[0].positions[b])
        real = [token for token in line if token != PAD]
        assert line == real + [PAD] * (len(line) - len(real))
        assert real == text.ids[begin : begin + len(real)].tolist()
    targets = torch.cat([batch.tokens[..., 1:].flatten() for batch in batches])
    assert sorted(targets[targets != PAD].tolist()) == list(range(11, 10 + tokens))
    assert sum(int(batch.characters) for batch in batches) == sum(range(2, 1 + tokens))
    assert [bool(batch.fresh.all()) for batch in batches] == [True] + [False] * (len(batches) - 1)
    assert all(batch.tokens.shape[-1] <= window + 1 for batch in batches)
    assert len({int(batch.positions[0]) for batch in batches}) == len(batches)


@given(st.text(max_size=50))
@settings(deadline=None)
def test_a_text_in_either_unit_is_the_text_again(text):
    for unit in ("characters", "words"):
        assert "".join(split_text(text, unit)) == text


def test_files_are_joined_by_ends():
    vocabulary = Vocabulary(["a", "b", " "])
    encoded = encode_texts([Text("one", "ab"), Text("two", "b é")], vocabulary, unit="characters")
    a, b, space = 4, 5, 6
    assert encoded.ids.tolist() == [END, a, b, END, b, space, UNKNOWN, END]
    words = Vocabulary(["two", "words", " "])
    encoded = encode_texts([Text("one", "two  words!")], words, unit="words")
    assert encoded.ids.tolist() == [END, 4, 6, 6, 5, UNKNOWN, END] and encoded.widths.tolist() == [1, 3, 1, 1, 5, 1, 1]
    with pytest.raises(ConfigError, match=r"data\.unit must be characters or words, not 'lines'"):
        split_text("a", "lines")


def test_whole_files_are_dealt_by_their_names(tmp_path):
    files = []
    for index in range(40):
        files.append(str(tmp_path / f"{index}.txt"))
        (tmp_path / f"{index}.txt").write_text(f"file {index:02}\n" * 10)
    splits = read_texts(files, val_share=0.1, test_share=0.2)
    names = {split: {text.name for text in texts} for split, texts in splits.items()}
    assert sorted(name for group in names.values() for name in group) == sorted(files)
    assert {split: len(group) for split, group in names.items()} == {"train": 28, "val": 4, "test": 8}
    again = read_texts(files[::-1], val_share=0.1, test_share=0.2)
    assert again == splits
    few = read_texts(files, characters=1000)
    assert 900 < sum(len(text) for texts in few.values() for _, text in texts) <= 1000
    (tmp_path / "one").write_text("0123456789")
    cut = read_texts(str(tmp_path / "one"), val_share=0.2, test_share=0.1)
    assert {split: text for split, ((_, text),) in cut.items()} == {"train": "0123456", "val": "78", "test": "9"}


def test_files_that_cannot_be_read_or_dealt_are_told(tmp_path):
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    (tmp_path / "empty").write_text("")
    faults = {
        ("nowhere",): "nowhere: there is no such file: correct data.files",
        ("latin",): "cannot read .*latin .it is not UTF-8 text.: correct data.files",
        ("a", "b"): "2 files are too few for training, validation and test: give three or more",
        ("a",): "1 characters are too few",
        ("empty",): "no file has text",
    }
    for names, told in faults.items():
        with pytest.raises(CaptioningError, match=told):
            read_texts([str(tmp_path / name) for name in names])
    with pytest.raises(ConfigError, match="val_share"):
        read_texts(val_share=0)
    with pytest.raises(DataError, match=r"at most data\.reader\.characters=1 characters"):
        read_texts([str(tmp_path / "latin"), str(tmp_path / "nowhere")][:0] or None, characters=1)


def test_the_standard_library_is_there_without_its_tests():
    names = standard_library()
    assert {"argparse.py", "json/decoder.py"} <= names.keys() and len(names) > 300
    assert not [name for name in names if "test" in name.split("/") or name.startswith("encodings/")]
    splits = read_texts(characters=200_000)
    assert 150_000 < sum(len(text) for texts in splits.values() for _, text in texts) <= 200_000
    assert all(splits.values())
