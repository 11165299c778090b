"""The loaders of a run: which items are in which batch, for every process, and after a start inside an epoch."""

import random
from types import SimpleNamespace

import pytest
import torch

from captioning.errors import ConfigError
from captioning.training import CaptionModule


class Items(torch.utils.data.Dataset):
    def __init__(self, size: int):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key):
        return key


def module(train=7, val=5, **options):
    return CaptionModule(
        Items(train), Items(val), **{"batch_size": 3, "val_batch_size": 2, "collate": list, "seed": 4} | options
    )


def shuffled(epoch: int, size: int = 7) -> list[int]:
    order = list(range(size))
    random.Random(f"4/{epoch}").shuffle(order)
    return order


def batches(loader) -> list[list[int]]:
    return [[index for index, _ in batch] for batch in loader]


def test_training_is_shuffled_by_seed_and_validation_in_order():
    data = module()
    order = shuffled(0)
    assert batches(data.train_dataloader()) == [order[:3], order[3:6], order[6:]]
    assert batches(data.val_dataloader()) == [[0, 1], [2, 3], [4]]
    assert batches(module(shuffle=False).train_dataloader()) == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_start_leaves_whole_batches_out():
    data = module()
    data.start_at(2, 2)
    loader = data.train_dataloader()
    assert list(loader) == [[(shuffled(2)[6], 2)]]
    assert batches(data.val_dataloader()) == [[0, 1], [2, 3], [4]]
    loader.sampler.set_epoch(3)
    assert batches(loader) == [shuffled(3)[:3], shuffled(3)[3:6], shuffled(3)[6:]]
    data.start_at(1, 0)
    assert batches(data.train_dataloader())[0] == shuffled(1)[:3]


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_have_every_other_item(rank):
    data = module()
    data.trainer = SimpleNamespace(
        global_rank=rank, world_size=2, strategy=SimpleNamespace(root_device=torch.device("cpu"))
    )
    order = [*shuffled(0), shuffled(0)[0]]
    own = order[rank::2]
    assert batches(data.train_dataloader()) == [own[:3], own[3:]]
    assert batches(data.val_dataloader()) == [[[0, 2], [4]], [[1, 3]]][rank]
    data.start_at(0, 1)
    assert batches(data.train_dataloader()) == [own[3:]]
    assert data.train_dataloader().pin_memory is False
    data.trainer.strategy.root_device = torch.device("cuda")
    assert data.train_dataloader().pin_memory is True


def test_loader_processes_only_where_they_are_asked_for():
    loader = module().train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (0, None, False)
    loader = module(workers=2, prefetch=3).val_dataloader()
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (2, 3, True)
    assert module(workers=1).val_dataloader().prefetch_factor == 2


def test_an_iterator_draws_nothing_from_the_runs_own_generator():
    before = torch.get_rng_state()
    loader = module().train_dataloader()
    assert loader.generator.initial_seed() == 4
    list(loader)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["batch_size", "val_batch_size"])
def test_batches_have_at_least_one_item(name):
    module(**{name: 1})
    with pytest.raises(ConfigError, match=rf"loader\.{name} must be at least 1, not 0"):
        module(**{name: 0})
