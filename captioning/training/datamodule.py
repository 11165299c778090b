"""Build the data loaders of the training and validation splits for Lightning."""

from collections.abc import Callable, Sized
from typing import cast

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from captioning.data import IMAGES, SHARDS, SHUFFLE_BUFFER, ImageSampler, ShardSampler, check_order, collate
from captioning.errors import must_be
from captioning.training.signals import ignore_in_worker


class CaptionModule(lightning.LightningDataModule):
    """Training and validation loaders over the same source.

    Args:
        train: training data set; its items are indexed by (index, epoch).
        val: validation data set, indexed in the same way.
        batch_size: training items per batch (images, each with all its captions).
        val_batch_size: validation items per batch.
        workers: number of loader processes. 0 reads in the training process, which suits stored features and a CPU.
        prefetch: batches that each worker loads in advance.
        seed: seed of the order of the training items.
        collate: function from a list of items to a batch.
        shuffle: whether training draws a new order each epoch.
        order: "images" for a random order of all training images, "shards" for that of `ShardSampler`.
        shuffle_buffer: number of images in the buffer of `ShardSampler`.
        locations: [N, 2] shard and row of each training image, for "shards".

    Raises:
        ConfigError: a batch size is below 1, or the order is unknown.
    """

    def __init__(
        self,
        train: Dataset,
        val: Dataset,
        *,
        batch_size: int,
        val_batch_size: int,
        workers: int = 0,
        prefetch: int = 2,
        seed: int = 0,
        collate: Callable = collate,
        shuffle: bool = True,
        order: str = IMAGES,
        shuffle_buffer: int = SHUFFLE_BUFFER,
        locations: np.ndarray | None = None,
    ):
        super().__init__()
        must_be("loader.batch_size", batch_size, least=1)
        must_be("loader.val_batch_size", val_batch_size, least=1)
        check_order(order, shuffle_buffer)
        self.train_data, self.val_data = train, val
        self.shuffle_buffer, self.locations = shuffle_buffer, locations if order == SHARDS else None
        self.batch_size, self.val_batch_size = batch_size, val_batch_size
        self.workers, self.prefetch, self.seed = workers, prefetch, seed
        self.collate, self.shuffle, self.start = collate, shuffle, (0, 0)

    def start_at(self, epoch: int, batches: int) -> None:
        """Make the training loader begin after the first `batches` batches of `epoch`, without reading these."""
        self.start = (epoch, batches)

    def train_dataloader(self) -> DataLoader:
        """Return the training loader; its order depends on seed and epoch, unless `shuffle` is false."""
        loader = self._loader(self.train_data, shuffle=self.shuffle, batch_size=self.batch_size)
        # Set before anything is fetched: loader processes read ahead as soon as there is an iterator.
        epoch, batches = self.start
        cast(ImageSampler, loader.sampler).set_epoch(epoch, start=batches * self.batch_size)
        return loader

    def val_dataloader(self) -> DataLoader:
        """Return the validation loader; it reads every item once, in order."""
        return self._loader(self.val_data, shuffle=False, batch_size=self.val_batch_size)

    def _loader(self, data: Dataset, *, shuffle: bool, batch_size: int) -> DataLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        own: dict[str, int] = {"seed": self.seed, "rank": rank, "world": world}
        if shuffle and self.locations is not None:
            sampler: ImageSampler = ShardSampler(self.locations, buffer=self.shuffle_buffer, **own)
        else:
            sampler = ImageSampler(len(cast(Sized, data)), shuffle=shuffle, **own)
        return DataLoader(
            data,
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=self.collate,
            num_workers=self.workers,
            prefetch_factor=self.prefetch if self.workers else None,
            persistent_workers=self.workers > 0,
            pin_memory=self._on_gpu(),
            worker_init_fn=ignore_in_worker,
            # A separate generator: creating an iterator must not draw from the generator that dropout uses.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _on_gpu(self) -> bool:
        """Return whether batches go to a GPU. Only then is memory pinned: a run may use the CPU of a GPU machine."""
        return self.trainer.strategy.root_device.type == "cuda" if self.trainer else torch.cuda.is_available()
