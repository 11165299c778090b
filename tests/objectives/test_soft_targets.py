"""Test how a teacher's soft targets of a caption are found, and the numbers that identify captions."""

import itertools

import pytest
import torch
from toys import END, PAD, START

from captioning.objectives import Teacher, number_captions

FACTOR = 0x9E3779B97F4A7C15


def number(image_id, words):
    """Compute the documented number in Python's unbounded integers: image · F + Σ_t word_t F^(t + 1), modulo 2⁶⁴.

    The signed number is then mixed by a shift.
    """
    total = image_id * FACTOR + sum(word * FACTOR ** (t + 2) for t, word in enumerate(words))
    total %= 2**64
    signed = total - 2**64 if total >= 2**63 else total
    return signed ^ (signed >> 31)


def rows(*captions, length=5):
    tokens = torch.full((1, len(captions), 1 + length), PAD)
    for row, words in zip(tokens[0], captions, strict=True):
        row[: len(words) + 1] = torch.tensor([START, *words])
    return tokens


def test_a_caption_is_known_by_its_image_and_its_words():
    captions = [[5, END], [4, 5, 6, END], [], [END], [2**31 - 1, 7, 9, 11, END]]
    for image_id, length in itertools.product([0, 7, 2**40 + 3], (5, 9)):
        found = number_captions(torch.tensor([image_id]), rows(*captions, length=length))
        assert found.tolist() == [[number(image_id, words) for words in captions]]


def test_few_captions_share_a_number():
    words = torch.tensor(list(itertools.product(range(4, 24), repeat=3)))
    tokens = torch.cat((torch.full((len(words), 1), START), words, torch.full((len(words), 1), END)), 1)
    found = number_captions(torch.arange(3), tokens.expand(3, -1, -1))
    assert len(found.unique()) == found.numel() == 24_000


@pytest.fixture
def teacher():
    """Build a teacher of three captions with keys set by hand, and two most likely words per position."""
    known = [(7, [4, 5, END]), (7, [END]), (9, [5, END])]
    known.sort(key=lambda each: number(*each))
    lengths = [len(words) for _, words in known]
    starts = [sum(lengths[:index]) for index in range(4)]
    ids = torch.arange(2 * 6, dtype=torch.int32).view(6, 2)
    probs = (torch.arange(12.0) + 1).view(6, 2) / 16
    keys = torch.tensor([number(*each) for each in known])
    return Teacher(keys=keys, starts=torch.tensor(starts), ids=ids, probs=probs), known, starts


def test_each_word_of_a_known_caption_has_its_own_distribution_and_others_have_none(teacher):
    teacher, known, starts = teacher
    asked = [[4, 5, END], [END], [5, END], [4, END], []]
    unknown = 0
    for image_id in (7, 9, 1, 2, 3):
        ids, probs = teacher(torch.tensor([image_id]), rows(*asked))
        knows = teacher.knows(torch.tensor([image_id]), rows(*asked))
        assert ids.dtype == torch.int64 and ids.shape == probs.shape == (1, 5, 5, 2)
        for slot, words in enumerate(asked):
            found = (image_id, words) in known
            unknown += not found
            assert knows[0, slot].item() == found
            start = starts[known.index((image_id, words))] if found else None
            for t in range(5):
                if found and t < len(words):
                    assert ids[0, slot, t].tolist() == [2 * (start + t), 2 * (start + t) + 1]
                    assert probs[0, slot, t].tolist() == [(2 * (start + t) + 1) / 16, (2 * (start + t) + 2) / 16]
                else:
                    assert probs[0, slot, t].tolist() == [0.0, 0.0]
    assert unknown == 22


@pytest.mark.parametrize("key", [-(2**63), 2**63 - 1])
def test_a_caption_beyond_all_known_ones_is_unknown(key, monkeypatch):
    """A key smaller or larger than all others would be inserted at the front or after the end."""
    teacher = Teacher(
        keys=torch.tensor([5, 6]), starts=torch.tensor([0, 1, 2]), ids=torch.ones(2, 1), probs=torch.ones(2, 1)
    )
    numbers = lambda image_ids, tokens: torch.tensor([[key, 6]])  # noqa: E731
    monkeypatch.setattr("captioning.objectives.soft_targets.number_captions", numbers)
    _, probs = teacher(torch.tensor([0]), rows([END], [END]))
    assert probs[0, :, :, 0].tolist() == [[0.0] * 5, [1.0, 0.0, 0.0, 0.0, 0.0]]


def test_what_a_teacher_said_is_in_no_checkpoint():
    none = torch.zeros(1, dtype=torch.int64)
    assert not Teacher(keys=none, starts=none.expand(2), ids=none[:, None], probs=torch.ones(1, 1)).state_dict()


def test_a_teacher_of_one_word_may_be_asked_about_others():
    keys = torch.tensor([number(7, [END])])
    teacher = Teacher(keys=keys, starts=torch.tensor([0, 1]), ids=torch.ones(1, 1), probs=torch.ones(1, 1))
    _, probs = teacher(torch.tensor([7]), rows([END], [4, END], []))
    assert probs[0, :, :, 0].tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0], [0.0] * 5, [0.0] * 5]
