"""The order of training by shards: enumerated for every process, and compared with a slow version."""

import random
from itertools import chain, pairwise

import numpy as np
import pytest

from captioning.data import ImageSampler, ShardSampler, check_order
from captioning.errors import ConfigError

# Shard and row of 11 images. Shard 3 has one image, shard 1 none, and the images of shard 0 are not in its order.
LOCATIONS = np.array([[0, 2], [0, 0], [4, 1], [2, 5], [0, 1], [2, 0], [4, 0], [3, 7], [2, 1], [4, 3], [2, 3]])
BUFFERS = (1, 5, 100)


def samplers(locations, world, *, buffer, seed=0):
    return [ShardSampler(locations, buffer=buffer, seed=seed, rank=rank, world=world) for rank in range(world)]


def order_of(sampler, epoch, start=None):
    sampler.set_epoch(epoch, start=start)
    pairs = list(sampler)
    assert all(type(index) is int and number == epoch for index, number in pairs)
    return [index for index, _ in pairs]


def slow_order(locations, epoch, *, buffer, seed, rank, world):
    """The same order, from a list of all images of the epoch."""
    places = [tuple(place) for place in locations.tolist()]
    shards = sorted({shard for shard, _ in places})
    random.Random(f"shards/{seed}/{epoch}").shuffle(shards)
    ordered = sorted(range(len(places)), key=lambda image: (shards.index(places[image][0]), places[image][1]))
    each = -(-len(places) // world)
    part = (ordered * (world + 1))[rank * each : (rank + 1) * each]
    draw, waiting, found = random.Random(f"buffer/{seed}/{epoch}/{rank}"), part[:buffer], []
    for image in part[buffer:]:
        chosen = int(draw.random() * len(waiting))
        found.append(waiting[chosen])
        waiting[chosen] = image
    draw.shuffle(waiting)
    return found + waiting


@pytest.mark.parametrize("world", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("buffer", BUFFERS)
@pytest.mark.parametrize("size", [11, 8, 1, 0])
def test_each_epoch_has_every_image_once_in_equal_parts(size, buffer, world):
    places = LOCATIONS[:size]
    for epoch in range(3):
        parts = [order_of(sampler, epoch) for sampler in samplers(places, world, buffer=buffer, seed=4)]
        each = -(-size // world)
        assert [len(part) for part in parts] == [each] * world
        together = list(chain(*parts))
        counts = [together.count(image) for image in range(size)]
        assert (
            sum(counts) == world * each and set(counts) <= {world * each // size, -(-world * each // size)}
            if size
            else not together
        )
        for rank, part in enumerate(parts):
            assert part == slow_order(places, epoch, buffer=buffer, seed=4, rank=rank, world=world)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("buffer", BUFFERS)
def test_a_start_at_any_position_leaves_out_exactly_what_came_before(buffer, world):
    for whole, resumed in zip(*(samplers(LOCATIONS, world, buffer=buffer) for _ in range(2)), strict=True):
        order = order_of(whole, 5)
        for start in range(len(order) + 1):
            assert order_of(resumed, 5, start) == order[start:]
            assert len(resumed) == len(order)  # of an epoch, for the trainer
        resumed.set_epoch(5, start=2)
        resumed.set_epoch(5)  # by the trainer
        assert [index for index, _ in resumed] == order[2:]
        assert order_of(resumed, 6) == order_of(whole, 6) != order


def test_a_buffer_of_one_reads_one_shard_after_the_other_in_the_order_of_its_rows():
    (sampler,) = samplers(LOCATIONS, 1, buffer=1)
    orders = [order_of(sampler, epoch) for epoch in range(30)]
    for order in orders:
        places = [tuple(LOCATIONS[image].tolist()) for image in order]
        shards = [shard for shard, _ in places]
        assert len([one for one, other in pairwise(shards) if one != other]) == 3
        assert all(one < other for one, other in pairwise(places) if one[0] == other[0])
    assert {LOCATIONS[order[0], 0] for order in orders} == {0, 2, 3, 4}


def test_processes_split_a_shard_at_their_border_and_no_other():
    places = np.stack([np.repeat(np.arange(6), 10), np.tile(np.arange(10), 6)], 1)
    for epoch in range(5):
        used = [
            {int(places[image, 0]) for image in order_of(sampler, epoch)} for sampler in samplers(places, 4, buffer=7)
        ]  # 15 images of each: a shard and a half
        assert [len(shards) for shards in used] == [2, 2, 2, 2]
        assert sorted(chain(*used)) == sorted(
            [*range(6), *(shard for shard in range(6) if sum(shard in u for u in used) == 2)]
        )


def test_an_image_waits_in_the_buffer_and_never_comes_earlier_than_the_buffer_allows():
    places = np.stack([np.zeros(500, int), np.arange(500)], 1)
    for buffer in (1, 10, 499):
        order = order_of(samplers(places, 1, buffer=buffer)[0], 0)
        assert all(row <= position + buffer for position, row in enumerate(order))
    shuffled = [order_of(samplers(places, 1, buffer=500)[0], epoch) for epoch in range(200)]
    first = np.mean([order.index(0) for order in shuffled])
    assert 190 < first < 310  # as often early as late: the standard error of the mean is 10


def test_the_order_depends_on_seed_epoch_rank_and_world():
    found = {
        tuple(order_of(ShardSampler(LOCATIONS[:8], buffer=3, seed=seed, rank=rank, world=world), epoch))
        for seed in (0, 1)
        for world, rank in ((1, 0), (2, 0), (2, 1))
        for epoch in (0, 1)
    }
    assert len(found) == 12


def test_the_order_of_all_images_is_that_of_a_list():
    for size, world in ((0, 1), (1, 3), (10, 1), (10, 3), (257, 4), (3, 8)):
        expected = list(range(size))
        random.Random("2/7").shuffle(expected)
        expected = (expected * world)[: -(-size // world) * world]
        for rank in range(world):
            sampler = ImageSampler(size, shuffle=True, seed=2, rank=rank, world=world)
            assert order_of(sampler, 7) == expected[rank::world]
            assert order_of(sampler, 7, 1) == expected[rank::world][1:]


def test_settings_that_cannot_work_are_refused():
    check_order("images", 1)
    check_order("shards", 1)
    with pytest.raises(ConfigError, match=r"loader\.order must be images or shards, not 'shard'"):
        check_order("shard", 1)
    with pytest.raises(ConfigError, match=r"loader\.shuffle_buffer must be at least 1, not 0"):
        check_order("shards", 0)
