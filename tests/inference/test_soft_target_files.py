"""Soft targets of members in float64, word by word by hand; how they are sorted, written, read and checked."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from captioning.data import Record, Vocabulary
from captioning.errors import CheckpointError
from captioning.inference import distillation
from captioning.inference.distillation import read_teacher, soft_targets_of, write_soft_targets
from captioning.objectives import number_captions

VOCABULARY = Vocabulary(["dog", "cat", "runs"])
RECORDS = [Record(number, Path(f"{number}.png"), "train", ()) for number in (12, 5, 9)]
# Of several lengths, one twice, one that is cut, and an image without any.
TOKENS = [[["dog"], ["cat", "runs", "dog", "dog"], ["dog"]], [], [["runs", "zebra"]]]


class Scale(torch.nn.Module):
    def forward(self, images):
        return 2 * images


@pytest.fixture
def predictor(toy):
    """Two members whose features differ in number, the second's with a mask."""
    members = []
    for size in (6, 3):
        model = toy(vocabulary_size=7, feature_size=size)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
        members.append(SimpleNamespace(captioner=model))
    return SimpleNamespace(vocabulary=VOCABULARY, device=torch.device("cpu"), members=members)


@pytest.fixture
def sources():
    random = torch.Generator().manual_seed(3)
    pictures = [
        {each.image_id: torch.randn(4, 6, generator=random, dtype=torch.float64) for each in RECORDS},
        {
            each.image_id: torch.randn(rows, 3, generator=random, dtype=torch.float64)
            for rows, each in zip((2, 5, 3), RECORDS, strict=True)
        },
    ]
    return [SimpleNamespace(read=lambda record, own=own: own[record.image_id], encoder=Scale()) for own in pictures]


def by_hand(predictor, sources, record, ids) -> np.ndarray:
    """[T, V] the members' mean probabilities of a caption's words and <end>, one step at a time."""
    mean = 0.0
    for member, source in zip(predictor.members, sources, strict=True):
        (state, memory), rows = member.captioner.begin(2 * source.read(record)[None]), []
        for word in ids[:-1]:
            logits, state, _ = member.captioner.step(torch.tensor([[word]]), state, memory)
            scores = np.exp(logits[0, 0].detach().numpy())
            rows.append(scores / scores.sum())
        mean = mean + np.stack(rows) / len(sources)
    return mean


def captions_by_key():
    """(record, ids) of each caption that differs, by its number."""
    found = {}
    for record, group in zip(RECORDS, TOKENS, strict=True):
        for tokens in group:
            ids = VOCABULARY.encode(tokens, max_length=3)
            key = int(number_captions(torch.tensor([record.image_id]), torch.tensor([[ids]])))
            found[key] = record, ids
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("members", [1, 2])
def test_soft_targets_are_the_members_mean(predictor, sources, batch_size, members):
    predictor.members = predictor.members[:members]
    found = soft_targets_of(predictor, sources[:members], RECORDS, TOKENS, max_length=3, words=4, batch_size=batch_size)
    expected = captions_by_key()
    assert found["keys"].tolist() == sorted(expected) and len(expected) == 3
    lengths = [len(expected[key][1]) - 1 for key in sorted(expected)]
    assert sorted(lengths) == [2, 3, 4] and found["starts"].tolist() == np.cumsum([0, *lengths]).tolist()
    assert found["ids"].shape == found["probs"].shape == (9, 4)
    assert found["ids"].dtype == np.int32 and found["probs"].dtype == np.float16
    for key, start, end in zip(found["keys"], found["starts"][:-1], found["starts"][1:], strict=True):
        mean = by_hand(predictor, sources[:members], *expected[int(key)])
        order = np.argsort(-mean, axis=-1)[:, :4]
        likeliest = np.take_along_axis(mean, order, -1)
        assert found["ids"][start:end].tolist() == order.tolist()
        shares = likeliest / likeliest.sum(-1, keepdims=True)
        np.testing.assert_allclose(found["probs"][start:end], shares, rtol=1e-3)


def test_more_words_than_there_are_keeps_all(predictor, sources):
    found = soft_targets_of(predictor, sources, RECORDS, TOKENS, max_length=3, words=99, batch_size=3)
    assert found["ids"].shape == (9, 7) and np.sort(found["ids"], -1).tolist() == [list(range(7))] * 9


def test_sorting_keeps_a_captions_words_together_and_the_first_of_two():
    found = {
        "keys": np.array([5, -2, 5, 3]),
        "lengths": np.array([2, 1, 2, 3]),
        "ids": np.arange(8)[:, None],
        "probs": np.arange(8)[:, None] / 8,
    }
    ordered = distillation._sorted(found)
    assert ordered["keys"].tolist() == [-2, 3, 5] and ordered["starts"].tolist() == [0, 1, 4, 6]
    assert ordered["ids"].ravel().tolist() == [2, 5, 6, 7, 0, 1]
    assert ordered["probs"].ravel().tolist() == [value / 8 for value in (2, 5, 6, 7, 0, 1)]


GOOD = {
    "keys": np.array([-3, 4, 9], dtype=np.int64),
    "starts": np.array([0, 2, 3, 4], dtype=np.int64),
    "ids": np.array([[0, 1], [6, 2], [3, 4], [5, 0]], dtype=np.int32),
    "probs": np.array([[0.5, 0.5], [0.75, 0.25], [1, 0], [0.5, 0.5]], dtype=np.float16),
}


def test_a_file_goes_round(tmp_path):
    path = tmp_path / "teacher.npz"
    assert write_soft_targets(path, GOOD, VOCABULARY) == path.stat().st_size
    teacher = read_teacher(path, vocabulary=VOCABULARY)
    for name, values in GOOD.items():
        found = getattr(teacher, name).numpy()
        assert found.dtype == values.dtype and found.tolist() == values.tolist()
    more = {**GOOD, "ids": np.concatenate((GOOD["ids"], GOOD["ids"])), "probs": np.tile(GOOD["probs"], (2, 1))}
    write_soft_targets(path, more, VOCABULARY)
    read_teacher(path, vocabulary=VOCABULARY)


def test_files_of_earlier_versions_are_known_by_the_same_number():
    """The vocabulary's digest, by BLAKE2b of 16 bytes over its words, a line each."""
    lines = b"<pad>\n<start>\n<end>\n<unk>\ndog\ncat\nruns"
    assert str(distillation._digest(VOCABULARY)) == hashlib.blake2b(lines, digest_size=16).hexdigest()


@pytest.mark.parametrize("words", [["dog", "cat"], ["cat", "dog", "runs"], ["dog", "cat", "runs", "sits"]])
def test_another_vocabulary_is_told(tmp_path, words):
    write_soft_targets(tmp_path / "t.npz", GOOD, Vocabulary(words))
    with pytest.raises(CheckpointError, match="is from a teacher with another vocabulary"):
        read_teacher(tmp_path / "t.npz", vocabulary=VOCABULARY)
    write_soft_targets(tmp_path / "t.npz", GOOD | {"ids": GOOD["ids"] + 100}, Vocabulary(words))
    with pytest.raises(CheckpointError, match="is from a teacher with another vocabulary"):
        read_teacher(tmp_path / "t.npz", vocabulary=VOCABULARY)


@pytest.mark.parametrize(
    "change",
    [
        {"starts": np.array([0, 2, 3])},
        {"starts": np.array([0, 1, 2, 3, 4])},
        {"starts": np.array([1, 2, 3, 4])},
        {"starts": np.array([0, 2, 2, 4])},
        {"starts": np.array([0, 3, 2, 4])},
        {"starts": np.array([0, 2, 4, 3])},
        {"starts": np.array([0, 2, 3, 5])},
        {"keys": np.array([9, 4, -3])},
        {"keys": np.array([4, 4, 9])},
        {"keys": np.array([-3, 9, 4])},
        {"keys": np.array([4, -3, 9])},
        {"keys": np.array([], dtype=np.int64), "starts": np.array([0])},
        {"ids": np.array([[0, 1], [7, 2], [3, 4], [5, 0]])},
        {"ids": np.array([[0, 1], [-1, 2], [3, 4], [5, 0]])},
        {"ids": GOOD["ids"][:3]},
        {"ids": GOOD["ids"].ravel(), "probs": GOOD["probs"].ravel()},
        {"ids": GOOD["ids"][..., None], "probs": GOOD["probs"][..., None]},
        {"probs": GOOD["probs"][:, :1]},
        {"probs": np.array([[0.5, 0.5], [np.nan, 0.25], [1, 0], [1, 0]])},
        {"probs": np.array([[0.5, 0.5], [np.inf, 0.25], [1, 0], [1, 0]])},
    ],
)
def test_a_lookup_that_would_go_astray_is_refused(tmp_path, change):
    write_soft_targets(tmp_path / "t.npz", GOOD | change, VOCABULARY)
    with pytest.raises(CheckpointError, match=r"t\.npz is not a file of soft targets.* captioning-distill"):
        read_teacher(tmp_path / "t.npz", vocabulary=VOCABULARY)


class Code:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_code_of_a_file_is_run(tmp_path):
    ran = tmp_path / "ran"
    np.savez(tmp_path / "t.npz", **GOOD | {"keys": np.array([Code(ran)] * 3)}, vocabulary="x")
    with pytest.raises(CheckpointError, match=r"t\.npz is not a file of soft targets.* captioning-distill"):
        read_teacher(tmp_path / "t.npz", vocabulary=VOCABULARY)
    assert not ran.exists()


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(
        CheckpointError,
        match=r"none\.npz does not exist\. Run: captioning-distill checkpoint=TEACHER\.ckpt output=.*none",
    ):
        read_teacher(tmp_path / "none.npz", vocabulary=VOCABULARY)
