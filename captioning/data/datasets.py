"""Batch images, or their stored features, with all their captions: one item per image, one batch for every split."""

import random
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from captioning.data.records import Record
from captioning.data.vocabulary import PAD, Vocabulary
from captioning.errors import must_be
from captioning.text import Tokenizer

# "left" and "right" in English, German, French, Spanish, Czech, Russian, Chinese and Japanese, Thai, and Arabic.
SIDES = re.compile(
    r"\b(?:left|right|links|rechts|linke|rechte|gauche|droite?\b|izquierd|derech|vlevo|vpravo|слев|справ)"
    r"|左|右|ซ้าย|ขวา|يسار|يمين",
    re.IGNORECASE,
)


class CaptionBatch(NamedTuple):
    """B images with up to K captions each; the same fields in every split.

    Attributes:
        image_ids: [B] int64.
        images: pixels [B, 3, S, S] uint8, or stored features [B, L, D] or [B, D].
        mask: [B, L] bool, True at real locations, if the images have different numbers of locations; None if all
            have L.
        tokens: [B, K, 1 + T] int64: `<start>`, words, `<end>`, `<pad>`…; an image's longest caption first. A missing
            caption is all `<pad>`.
    """

    image_ids: Tensor
    images: Tensor
    mask: Tensor | None
    tokens: Tensor


class View(NamedTuple):
    """A further view of training images.

    Attributes:
        read: function from a record to its pixels or features.
        turned: whether the view is mirrored, so that captions with "left" or "right" would be wrong.
    """

    read: Callable[[Record], Tensor]
    turned: bool


def tokenize_captions(records: Sequence[Record], tokenizer: Tokenizer) -> list[list[list[str]]]:
    """Return the words of each record's captions, without captions that have no word (only punctuation)."""
    return [[words for caption in record.captions if (words := tokenizer(caption))] for record in records]


def encode_captions(
    captions: Sequence[Sequence[Sequence[str]]], vocabulary: Vocabulary, *, max_length: int | None = 20
) -> list[list[list[int]]]:
    """Return the captions of images, given as words by `tokenize_captions`, as ids.

    Args:
        captions: the words of each caption of each image.
        vocabulary: vocabulary of the training split.
        max_length: longer captions are cut to this number of words (pieces for `bpe`), followed by `<end>`.
    """
    must_be("data.max_length", max_length, least=1)
    return [[vocabulary.encode(words, max_length=max_length) for words in group] for group in captions]


def may_be_mirrored(record: Record) -> bool:
    """Return whether the captions also describe the mirror image: none contains "left" or "right"."""
    return not any(SIDES.search(caption) for caption in record.captions)


class CaptionDataset(Dataset):
    """Images with captions: the item of the key (index, epoch) is (image id, image, captions as lists of word ids).

    Args:
        records: images of one split.
        captions: the ids of their captions, from `encode_captions` or `TokenTable.encoded`.
        source: function from a record to its pixels or features.
        views: further views. In each epoch `source` or one of them is drawn per image, with equal probability. Mirrored
            views are used only for images without "left" or "right" in their captions.
        captions_per_image: number of captions to draw per image in each epoch; None uses all.
        augment: random change of the pixels that were read, called with the pixels, a text that seeds it, and whether
            the image may be mirrored; None for none. The text has the seed, the epoch and the image id.
        seed: seed of all draws; they also depend on the epoch and the image id.
    """

    def __init__(
        self,
        records: Sequence[Record],
        captions: Sequence[Sequence[list[int]]],
        *,
        source: Callable[[Record], Tensor],
        views: Sequence[View] = (),
        captions_per_image: int | None = None,
        augment: Callable[..., Tensor] | None = None,
        seed: int = 0,
    ):
        must_be("data.captions_per_image", captions_per_image, least=1)
        self.records, self.captions, self.source, self.views = records, captions, source, views
        self.seed, self.captions_per_image, self.augment = seed, captions_per_image, augment

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Tensor, list[list[int]]]:
        index, epoch = key
        record, captions, limit = self.records[index], self.captions[index], self.captions_per_image
        if limit is not None and limit < len(captions):
            captions = random.Random(f"{self.seed}/{epoch}/{record.image_id}").sample(captions, limit)
        return record.image_id, self._read(record, epoch), list(captions)

    def _read(self, record: Record, epoch: int) -> Tensor:
        reads = [view.read for view in self.views if not view.turned or may_be_mirrored(record)] + [self.source]
        draw = random.Random(f"mirror/{self.seed}/{epoch}/{record.image_id}").random()
        image = reads[int(draw * len(reads))](record)
        if self.augment is None:
            return image
        return self.augment(image, f"augment/{self.seed}/{epoch}/{record.image_id}", may_be_mirrored(record))


class ImageDataset(Dataset):
    """Images without captions, for captioning: the item of an index is (image id, pixels or features)."""

    def __init__(self, records: Sequence[Record], source: Callable[[Record], Tensor]):
        self.records, self.source = records, source

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return self.records[index].image_id, self.source(self.records[index])


def collate(items: Sequence[tuple[int, Tensor, list[list[int]]]]) -> CaptionBatch:
    """Stack items into a batch. An image's captions are sorted longest first, so that late steps have few captions."""
    image_ids, images, captions = zip(*items, strict=True)
    slots = max(1, max(map(len, captions)))
    length = max((len(caption) for group in captions for caption in group), default=2)
    tokens = torch.full((len(items), slots, length), PAD, dtype=torch.int64)
    for row, group in zip(tokens, captions, strict=True):
        for slot, caption in zip(row, sorted(group, key=len, reverse=True), strict=False):
            slot[: len(caption)] = torch.tensor(caption)
    return CaptionBatch(torch.tensor(image_ids), *stack_images(images), tokens)


def collate_images(items: Sequence[tuple[int, Tensor]]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the image ids [B], images and mask, as in a `CaptionBatch`."""
    image_ids, images = zip(*items, strict=True)
    return torch.tensor(image_ids), *stack_images(images)


def stack_images(images: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Stack images or features.

    Args:
        images: tensors of one shape, or features [L_b, D] with different numbers of locations.

    Returns:
        For one shape: [B, …] and None. Otherwise features padded with zeros, [B, L, D], and the mask [B, L] of real
        locations.
    """
    sizes = [len(image) for image in images]
    if len(set(sizes)) == 1:
        return torch.stack(tuple(images)), None
    padded = torch.nn.utils.rnn.pad_sequence(list(images), batch_first=True)
    return padded, torch.arange(padded.shape[1]) < torch.tensor(sizes)[:, None]


class ImageSampler(Sampler):
    """Sampler of (index, epoch). The order depends only on seed and epoch, so a resumed run has the same order.

    With several processes, process `rank` of `world` takes every `world`-th image. If shuffled, the order is extended
    from its beginning so that all processes take equally many steps; otherwise every image is sampled exactly once.

    Args:
        size: number of images.
        shuffle: whether to shuffle (training).
        seed: seed of the order.
        rank: index of this process.
        world: number of processes.
    """

    def __init__(self, size: int, *, shuffle: bool, seed: int = 0, rank: int = 0, world: int = 1):
        self.size, self.shuffle, self.seed, self.rank, self.world = size, shuffle, seed, rank, world
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int, *, start: int | None = None) -> None:
        """Set the epoch; the trainer calls this before each epoch.

        Args:
            epoch: index of the epoch.
            start: number of images to skip at its beginning, in this epoch only (for resuming).
        """
        if start is not None or epoch != self.epoch:
            self.start = start or 0
        self.epoch = epoch

    def __len__(self) -> int:
        if self.shuffle:
            return -(-self.size // self.world)
        return len(range(self.rank, self.size, self.world))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if not self.shuffle:
            return ((index, self.epoch) for index in range(self.rank, self.size, self.world)[self.start :])
        order = array("I", range(self.size))  # 4 bytes per image; an int object in a list takes 36
        random.Random(f"{self.seed}/{self.epoch}").shuffle(order)
        order.extend(islice(cycle(order[: self.world]), len(self) * self.world - self.size))
        return ((index, self.epoch) for index in order[self.rank :: self.world][self.start :])
