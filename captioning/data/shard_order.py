"""Order the images of an epoch by the shards of their feature store, through a shuffle buffer.

Of shards that do not fit into memory, few are read at a time instead of all, which should pay where a disk is slow at
random reads. On the one disk that was measured, two rounds differ more than the orders (docs/speed.md). WebDataset
(shards in random order, then `shuffle(N)`) and tf.data (`shuffle(buffer_size)`) order their data in the same way.
"""

import random
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from captioning.data.datasets import ImageSampler
from captioning.errors import ConfigError, must_be

IMAGES = "images"  # value of loader.order: a random order of all images
SHARDS = "shards"  # value of loader.order: shard by shard, through a shuffle buffer
SHUFFLE_BUFFER = 4096  # images


def check_order(order: str, shuffle_buffer: int) -> None:
    """Check the settings of the training order.

    Raises:
        ConfigError: there is no such order, or the buffer has no image.
    """
    if order not in (IMAGES, SHARDS):
        raise ConfigError(f"loader.order must be {IMAGES} or {SHARDS}, not {order!r}")
    must_be("loader.shuffle_buffer", shuffle_buffer, least=1)


class ShardSampler(ImageSampler):
    """Sampler of (index, epoch) for training, which uses few shards of a feature store at a time.

    In each epoch, the shards are put in a random order and divided into `world` parts with equally many images; a shard
    may be divided between two parts. The last part is extended from the beginning of the order, so that all processes
    take equally many steps. Process `rank` takes the images of its part, shard by shard, through a buffer: the buffer
    is filled, then each next image replaces a random one, which is sampled. At the end the buffer is emptied in random
    order.

    The order depends only on `locations`, the seed, the epoch, the rank and the number of processes. So a resumed run
    has the same order. It uses 4 bytes of memory per image.

    Args:
        locations: [N, 2] shard and row of each image.
        buffer: number of images in the buffer; 1 reads each shard in its own order.
        seed: seed of the order.
        rank: index of this process.
        world: number of processes.
    """

    def __init__(self, locations: np.ndarray, *, buffer: int, seed: int = 0, rank: int = 0, world: int = 1):
        super().__init__(len(locations), shuffle=True, seed=seed, rank=rank, world=world)
        self.buffer = buffer
        shards, rows = np.asarray(locations).reshape(-1, 2).T
        order = np.lexsort((rows, shards))
        shards = shards[order]
        self._images = order.astype(np.uint32)  # by shard and row
        self._starts = np.flatnonzero(np.diff(shards, prepend=shards[:1] - 1))  # of each shard in _images
        self._sizes = np.diff(self._starts, append=self.size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for index in islice(self._shuffled(self._part()), self.start, None):
            yield index, self.epoch

    def _part(self) -> Iterator[int]:
        """Yield the images of this process, shard by shard."""
        order = list(range(len(self._sizes)))
        random.Random(f"shards/{self.seed}/{self.epoch}").shuffle(order)
        ends = np.cumsum(self._sizes[order])
        at, left = self.rank * len(self), len(self)
        while left:
            at %= self.size
            number = int(np.searchsorted(ends, at, side="right"))
            images = min(int(ends[number]) - at, left)
            first = int(self._starts[order[number]] + self._sizes[order[number]] - ends[number]) + at
            yield from self._images[first : first + images].tolist()
            at, left = at + images, left - images

    def _shuffled(self, images: Iterable[int]) -> Iterator[int]:
        """Yield the images through the buffer."""
        draw = random.Random(f"buffer/{self.seed}/{self.epoch}/{self.rank}")
        images = iter(images)
        waiting = list(islice(images, self.buffer))
        for image in images:
            chosen = int(draw.random() * len(waiting))
            yield waiting[chosen]
            waiting[chosen] = image
        draw.shuffle(waiting)
        yield from waiting
