"""Batch images, or their stored features, with all their captions: one item per image, one batch for every split."""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from captioning.data.records import Record
from captioning.data.vocabulary import PAD, Vocabulary
from captioning.errors import must_be
from captioning.text import tokenize

SIDES = re.compile(r"\b(?:left|right)", re.IGNORECASE)


class CaptionBatch(NamedTuple):
    """B images with up to K captions each; the same fields in every split.

    image_ids: [B] int64. images: uint8 pictures [B, 3, S, S], or stored features [B, P, D] or [B, D].
    mask: [B, P] bool, True at real places, where pictures have more and fewer of them; None where all have P.
    tokens: [B, K, 1 + T] int64, <start> words <end> <pad>…, an image's longest caption first; a missing caption is
    all <pad>.
    """

    image_ids: Tensor
    images: Tensor
    mask: Tensor | None
    tokens: Tensor


class View(NamedTuple):
    """Another view of training pictures. read: record -> picture or feature tensor. turned: whether left is right in
    it, which does not suit every caption."""

    read: Callable[[Record], Tensor]
    turned: bool


def tokenize_captions(records: Sequence[Record]) -> list[list[list[str]]]:
    """Each record's captions as tokens; captions of punctuation only are left out, they have no word to learn."""
    return [[tokens for caption in record.captions if (tokens := tokenize(caption))] for record in records]


def may_be_mirrored(record: Record) -> bool:
    """Whether the captions are as true of the mirror image: none of them tells left from right."""
    return not any(SIDES.search(caption) for caption in record.captions)


class CaptionDataset(Dataset):
    """Item (index, epoch) -> (image id, image, its captions as id lists).

    Args:
        records: pictures of one split.
        captions: their tokens, from `tokenize_captions`.
        vocabulary: of the training split.
        source: record -> picture or feature tensor.
        views: other views of them. In each epoch one of them or `source` is drawn, from `seed`, all alike; those that
            are turned only of pictures of which no caption tells left from right.
        max_length: words a caption is cut to; its <end> stays.
        captions_per_image: at most so many captions, drawn anew each epoch from `seed`; None takes all.
    """

    def __init__(
        self,
        records: Sequence[Record],
        captions: Sequence[Sequence[Sequence[str]]],
        *,
        vocabulary: Vocabulary,
        source: Callable[[Record], Tensor],
        views: Sequence[View] = (),
        max_length: int = 20,
        captions_per_image: int | None = None,
        seed: int = 0,
    ):
        must_be("data.max_length", max_length, least=1)
        must_be("data.captions_per_image", captions_per_image, least=1)
        self.records, self.source, self.views = records, source, views
        self.seed, self.captions_per_image = seed, captions_per_image
        self.captions = [[vocabulary.encode(tokens, max_length=max_length) for tokens in group] for group in captions]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Tensor, list[list[int]]]:
        index, epoch = key
        record, captions, limit = self.records[index], self.captions[index], self.captions_per_image
        if limit is not None and limit < len(captions):
            captions = random.Random(f"{self.seed}/{epoch}/{record.image_id}").sample(captions, limit)
        return record.image_id, self._read(record, epoch), captions

    def _read(self, record: Record, epoch: int) -> Tensor:
        reads = [view.read for view in self.views if not view.turned or may_be_mirrored(record)] + [self.source]
        draw = random.Random(f"mirror/{self.seed}/{epoch}/{record.image_id}").random()
        return reads[int(draw * len(reads))](record)


class ImageDataset(Dataset):
    """Item index -> (image id, picture or feature tensor): for writing captions where there are none to learn from."""

    def __init__(self, records: Sequence[Record], source: Callable[[Record], Tensor]):
        self.records, self.source = records, source

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return self.records[index].image_id, self.source(self.records[index])


def collate(items: Sequence[tuple[int, Tensor, list[list[int]]]]) -> CaptionBatch:
    """Stacks items. An image's captions are sorted longest first, so that late time steps concern few slots."""
    image_ids, images, captions = zip(*items, strict=True)
    slots = max(1, max(map(len, captions)))
    length = max((len(caption) for group in captions for caption in group), default=2)
    tokens = torch.full((len(items), slots, length), PAD, dtype=torch.int64)
    for row, group in zip(tokens, captions, strict=True):
        for slot, caption in zip(row, sorted(group, key=len, reverse=True), strict=False):
            slot[: len(caption)] = torch.tensor(caption)
    return CaptionBatch(torch.tensor(image_ids), *stack_images(images), tokens)


def collate_images(items: Sequence[tuple[int, Tensor]]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Image ids [B], images and mask, as in a CaptionBatch."""
    image_ids, images = zip(*items, strict=True)
    return torch.tensor(image_ids), *stack_images(images)


def stack_images(images: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Images of one shape as [B, …] and no mask; [P_b, D] of several P_b filled up with zeros to [B, P, D], and the
    mask [B, P] of what is real."""
    sizes = [len(image) for image in images]
    if len(set(sizes)) == 1:
        return torch.stack(tuple(images)), None
    padded = torch.nn.utils.rnn.pad_sequence(list(images), batch_first=True)
    return padded, torch.arange(padded.shape[1]) < torch.tensor(sizes)[:, None]


class ImageSampler(Sampler):
    """Yields (index, epoch). The order is a function of seed and epoch alone, so a resumed run sees the same one.

    With several processes, process `rank` of `world` takes every `world`-th image. Shuffled (training) order is
    filled up by wrapping round, so that all processes make equally many steps; otherwise every image comes once.
    """

    def __init__(self, size: int, *, shuffle: bool, seed: int = 0, rank: int = 0, world: int = 1):
        self.size, self.shuffle, self.seed, self.rank, self.world = size, shuffle, seed, rank, world
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int, *, start: int | None = None) -> None:
        """Called by the trainer before each epoch. The first `start` images are left out, in that epoch only."""
        if start is not None or epoch != self.epoch:
            self.start = start or 0
        self.epoch = epoch

    def __len__(self) -> int:
        if self.shuffle:
            return -(-self.size // self.world)
        return len(range(self.rank, self.size, self.world))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = list(range(self.size))
        if self.shuffle:
            random.Random(f"{self.seed}/{self.epoch}").shuffle(order)
            order = list(islice(cycle(order), len(self) * self.world))
        return ((index, self.epoch) for index in order[self.rank :: self.world][self.start :])
