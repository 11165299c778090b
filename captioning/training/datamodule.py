"""Give Lightning the loaders of the training and validation splits."""

from collections.abc import Callable

import lightning
import torch
from torch.utils.data import DataLoader, Dataset

from captioning.data import ImageSampler, collate
from captioning.errors import must_be
from captioning.training.signals import ignore_in_worker


class CaptionModule(lightning.LightningDataModule):
    """Training and validation loaders over the same source.

    Args:
        train, val: what the two loaders read: items by (index, epoch).
        batch_size: items a batch (images, each with all its captions).
        workers: loader processes; 0 reads in the training process, which suits stored features and a CPU.
        prefetch: batches that each worker holds ready.
        collate: items -> batch.
        shuffle: whether training draws a new order each epoch.
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
    ):
        super().__init__()
        must_be("loader.batch_size", batch_size, least=1)
        must_be("loader.val_batch_size", val_batch_size, least=1)
        self.train_data, self.val_data = train, val
        self.batch_size, self.val_batch_size = batch_size, val_batch_size
        self.workers, self.prefetch, self.seed = workers, prefetch, seed
        self.collate, self.shuffle, self.start = collate, shuffle, (0, 0)

    def start_at(self, epoch: int, batches: int) -> None:
        """The training loader begins after that many batches of that epoch, and reads none of those before."""
        self.start = (epoch, batches)

    def train_dataloader(self) -> DataLoader:
        """Shuffled by seed and epoch, unless in order."""
        loader = self._loader(self.train_data, shuffle=self.shuffle, batch_size=self.batch_size)
        # Before anything is fetched: loader processes read ahead as soon as there is an iterator.
        epoch, batches = self.start
        loader.sampler.set_epoch(epoch, start=batches * self.batch_size)
        return loader

    def val_dataloader(self) -> DataLoader:
        """Every item once, in order."""
        return self._loader(self.val_data, shuffle=False, batch_size=self.val_batch_size)

    def _loader(self, data: Dataset, *, shuffle: bool, batch_size: int) -> DataLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return DataLoader(
            data,
            batch_size=batch_size,
            sampler=ImageSampler(len(data), shuffle=shuffle, seed=self.seed, rank=rank, world=world),
            collate_fn=self.collate,
            num_workers=self.workers,
            prefetch_factor=self.prefetch if self.workers else None,
            persistent_workers=self.workers > 0,
            pin_memory=self._on_gpu(),
            worker_init_fn=ignore_in_worker,
            # Its own generator: making an iterator must not draw from the one that dropout uses.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _on_gpu(self) -> bool:
        """Whether batches go to one; memory is pinned for that alone, as a machine's GPU need not be what trains."""
        return self.trainer.strategy.root_device.type == "cuda" if self.trainer else torch.cuda.is_available()
