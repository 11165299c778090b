"""Batches and the order in which images come."""

from collections import Counter
from pathlib import Path

import torch
from toys import (
    END,
    PAD,
    START,
)

from captioning.data import CaptionDataset, ImageSampler, Record, View, Vocabulary, collate, tokenize_captions

RECORDS = [
    Record(7, Path("a.png"), "train", ("a b.", "a b c d", "!")),
    Record(9, Path("b.png"), "train", ("c",)),
]


def dataset(**arguments):
    captions = tokenize_captions(RECORDS)
    return CaptionDataset(
        RECORDS,
        captions,
        vocabulary=Vocabulary(["a", "b", "c"]),
        source=lambda record: torch.full((2,), record.image_id),
        **arguments,
    )


def test_a_batch_longest_caption_first_padded_apart_from_end():
    data = dataset(max_length=3)
    batch = collate([data[0, 0], data[1, 0]])
    assert batch.image_ids.tolist() == [7, 9]
    assert batch.images.tolist() == [[7, 7], [9, 9]]
    assert batch.tokens.tolist() == [
        [[START, 4, 5, 6, END], [START, 4, 5, END, PAD]],  # cut to three words, and <end>
        [[START, 6, END, PAD, PAD], [PAD] * 5],
    ]


def test_some_captions_are_drawn_by_seed_and_epoch():
    data = dataset(max_length=9, captions_per_image=1, seed=3)
    drawn = [data[0, epoch][2] for epoch in range(20)]
    assert all(len(captions) == 1 for captions in drawn)
    assert len({tuple(captions[0]) for captions in drawn}) == 2
    assert [data[0, epoch][2] for epoch in range(20)] == drawn


def test_the_order_is_a_function_of_seed_and_epoch():
    sampler, again = (ImageSampler(50, shuffle=True, seed=1) for _ in range(2))
    first = list(sampler)
    sampler.set_epoch(1)
    again.set_epoch(1)
    assert sorted(index for index, _ in first) == list(range(50))
    assert list(sampler) == list(again) != first
    assert {epoch for _, epoch in sampler} == {1}


def test_processes_share_the_images():
    for size, world in ((10, 3), (2, 4)):
        parts = [list(ImageSampler(size, shuffle=False, rank=rank, world=world)) for rank in range(world)]
        assert sorted(index for part in parts for index, _ in part) == list(range(size))
        parts = [list(ImageSampler(size, shuffle=True, rank=rank, world=world)) for rank in range(world)]
        assert {len(part) for part in parts} == {-(-size // world)}
        assert {index for part in parts for index, _ in part} == set(range(size))


def test_half_of_the_epochs_see_the_mirror_image_unless_a_caption_tells_left_from_right():
    records = [
        Record(1, Path("a.png"), "train", ("a b", "the bright b")),
        Record(2, Path("b.png"), "train", ("a", "b on the Left", "c")),
        Record(3, Path("c.png"), "train", ("right-hand b",)),
    ]
    data = CaptionDataset(
        records,
        tokenize_captions(records),
        vocabulary=Vocabulary(["a", "b"]),
        source=lambda record: torch.tensor([record.image_id]),
        views=[View(lambda record: torch.tensor([-record.image_id]), turned=True)],
        seed=5,
    )
    seen = [[int(data[index, epoch][1]) for epoch in range(400)] for index in range(3)]
    assert 160 < seen[0].count(-1) < 240 and seen[0].count(1) == 400 - seen[0].count(-1)
    assert set(seen[1]) == {2} and set(seen[2]) == {3}
    assert seen[0] == [int(data[0, epoch][1]) for epoch in range(400)]  # a function of seed and epoch


def test_each_epoch_sees_one_of_the_views_all_alike():
    records = [
        Record(1, Path("a.png"), "train", ("a b",)),
        Record(2, Path("b.png"), "train", ("b on the left",)),
    ]
    views = [View(lambda record, view=view: torch.tensor([view]), turned=view < 0) for view in (-1, 3, -4, 5)]
    data = CaptionDataset(
        records,
        tokenize_captions(records),
        vocabulary=Vocabulary(["a", "b"]),
        source=lambda record: torch.tensor([0]),
        views=views,
    )
    seen = [Counter(int(data[index, epoch][1]) for epoch in range(600)) for index in range(2)]
    assert set(seen[0]) == {0, -1, 3, -4, 5} and all(90 < times < 150 for times in seen[0].values())
    assert set(seen[1]) == {0, 3, 5} and all(165 < times < 235 for times in seen[1].values())
