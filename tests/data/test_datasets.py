"""Batches and the order in which images come."""

import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from toys import (
    END,
    PAD,
    START,
)

from captioning.data import (
    CaptionDataset,
    ImageDataset,
    ImageSampler,
    Record,
    View,
    Vocabulary,
    collate,
    collate_images,
    encode_captions,
    may_be_mirrored,
    tokenize_captions,
)
from captioning.errors import ConfigError
from captioning.text import make_tokenizer

RECORDS = [
    Record(7, Path("a.png"), "train", ("a b.", "a b c d", "!")),
    Record(9, Path("b.png"), "train", ("c",)),
]


def words_of(records):
    return tokenize_captions(records, make_tokenizer("ptb"))


def ids_of(records, words, **options):
    return encode_captions(words_of(records), Vocabulary(words), **options)


def dataset(*, max_length=20, **arguments):
    return CaptionDataset(
        RECORDS,
        ids_of(RECORDS, ["a", "b", "c"], max_length=max_length),
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
        ids_of(records, ["a", "b"]),
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
        ids_of(records, ["a", "b"]),
        source=lambda record: torch.tensor([0]),
        views=views,
    )
    seen = [Counter(int(data[index, epoch][1]) for epoch in range(600)) for index in range(2)]
    assert set(seen[0]) == {0, -1, 3, -4, 5} and all(90 < times < 150 for times in seen[0].values())
    assert set(seen[1]) == {0, 3, 5} and all(165 < times < 235 for times in seen[1].values())


def test_captions_are_drawn_without_replacement_and_all_stay_in_order_where_the_limit_is_their_number():
    records = [Record(number, Path("a.png"), "train", ("a", "b", "c", "a b")) for number in (7, 8)]
    options = {"source": lambda record: torch.zeros(1)}
    ids = ids_of(records, ["a", "b", "c"])
    all_of_them = [[START, 4, END], [START, 5, END], [START, 6, END], [START, 4, 5, END]]
    for limit in (None, 4, 5):
        data = CaptionDataset(records, ids, captions_per_image=limit, seed=2, **options)
        assert all(data[0, epoch][2] == all_of_them for epoch in range(10))
    data = CaptionDataset(records, ids, captions_per_image=3, seed=2, **options)
    assert len(data) == 2
    for index, number in enumerate((7, 8)):
        for epoch in range(10):
            expected = random.Random(f"2/{epoch}/{number}").sample(all_of_them, 3)
            assert data[index, epoch][0] == number and data[index, epoch][2] == expected
    chosen = [CaptionDataset(records, ids, captions_per_image=2, **options)[0, 0][2]]
    assert chosen == [random.Random("0/0/7").sample(all_of_them, 2)]
    long = encode_captions([[["a"] * 30]] * 2, Vocabulary(["a"]))
    assert len(CaptionDataset(records, long, **options)[0, 0][2][0]) == 22  # cut to 20 words


@pytest.mark.parametrize("name", ["max_length", "captions_per_image"])
def test_limits_are_at_least_one(name):
    dataset(**{name: 1})
    with pytest.raises(ConfigError, match=rf"data\.{name} must be at least 1, not 0"):
        dataset(**{name: 0})


def test_the_view_of_an_epoch_is_drawn_from_seed_epoch_and_image():
    views = [View(lambda record, view=view: torch.tensor([view]), turned=False) for view in (1, 2)]
    data = CaptionDataset(
        RECORDS,
        ids_of(RECORDS, ["a"]),
        source=lambda record: torch.tensor([0]),
        views=views,
        seed=4,
    )
    for index, record in enumerate(RECORDS):
        for epoch in range(30):
            draw = random.Random(f"mirror/4/{epoch}/{record.image_id}").random()
            assert data[index, epoch][1].tolist() == [[1, 2, 0][int(3 * draw)]]


@pytest.mark.parametrize(
    ("captions", "mirrored"),
    [
        (("a bright copyright", "an upright dog"), True),
        (("a dog", "to its LEFT"), False),
        (("leftmost",), False),
        (("right",), False),
        ((), True),
    ],
)
def test_only_words_that_tell_left_from_right_forbid_the_mirror(captions, mirrored):
    assert may_be_mirrored(Record(1, Path("a.png"), "train", captions)) is mirrored


def test_a_batch_of_images_without_captions_has_one_empty_slot_each():
    batch = collate([(3, torch.ones(2), []), (5, torch.zeros(2), [])])
    assert batch.tokens.tolist() == [[[PAD, PAD]], [[PAD, PAD]]] and batch.mask is None
    captions = [[START, 4, END], [START, END], [START, 5, END], [START, 4, 5, END]]
    batch = collate([(3, torch.ones(2), captions)])
    assert batch.tokens.tolist() == [
        [[START, 4, 5, END], [START, 4, END, PAD], [START, 5, END, PAD], [START, END, PAD, PAD]]
    ]
    assert batch.tokens.dtype == batch.image_ids.dtype == torch.int64


def test_images_of_several_lengths_are_filled_up_and_masked():
    images = [torch.full((rows, 2), float(rows)) for rows in (1, 3, 2, 3)]
    ids, padded, mask = collate_images([(number, image) for number, image in enumerate(images)])
    assert ids.tolist() == [0, 1, 2, 3]
    assert mask.tolist() == [[True, False, False], [True, True, True], [True, True, False], [True] * 3]
    assert padded[..., 0].tolist() == [[1, 0, 0], [3, 3, 3], [2, 2, 0], [3, 3, 3]] and padded.shape == (4, 3, 2)
    assert torch.equal(collate([(1, image, []) for image in images]).mask, mask)
    _, padded, mask = collate_images([(0, images[0]), (1, images[2])])
    assert padded.shape == (2, 2, 2) and mask.tolist() == [[True, False], [True, True]]
    _, same, none = collate_images([(0, images[1]), (1, images[1])])
    assert none is None and same.shape == (2, 3, 2)
    data = ImageDataset(RECORDS, lambda record: torch.tensor([record.image_id + 0.5]))
    assert len(data) == 2 and data[1][0] == 9 and data[1][1].tolist() == [9.5]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("shuffle", [True, False])
def test_each_process_takes_its_share_of_one_order(size, world, shuffle):
    samplers = [ImageSampler(size, shuffle=shuffle, seed=6, rank=rank, world=world) for rank in range(world)]
    for epoch in (0, 3):
        order = list(range(size))
        if shuffle:
            random.Random(f"6/{epoch}").shuffle(order)
            order = (order * world)[: -(-size // world) * world]
        for rank, sampler in enumerate(samplers):
            sampler.set_epoch(epoch)
            assert list(sampler) == [(index, epoch) for index in order[rank::world]]
            assert len(sampler) == len(order[rank::world])


def test_the_first_images_are_left_out_in_one_epoch_only():
    sampler = ImageSampler(5, shuffle=False)
    assert [index for index, _ in sampler] == [0, 1, 2, 3, 4]
    sampler.set_epoch(0, start=2)
    sampler.set_epoch(0)  # by the trainer, before the epoch
    assert list(sampler) == [(2, 0), (3, 0), (4, 0)]
    sampler.set_epoch(1)
    assert [index for index, _ in sampler] == [0, 1, 2, 3, 4]
    sampler.set_epoch(1, start=4)
    assert list(sampler) == [(4, 1)]
    sampler.set_epoch(1, start=0)
    assert len(list(sampler)) == len(sampler) == 5
    sampler.set_epoch(3, start=1)
    assert [index for index, _ in sampler] == [1, 2, 3, 4]
    sampler = ImageSampler(7, shuffle=False, rank=1, world=2)
    sampler.set_epoch(0, start=1)  # of this process's images
    assert [index for index, _ in sampler] == [3, 5]
    assert [index for index, _ in ImageSampler(5, shuffle=True)] != [0, 1, 2, 3, 4]
    assert list(ImageSampler(5, shuffle=True)) == list(ImageSampler(5, shuffle=True, seed=0, rank=0, world=1))
