"""Batch images, or their stored features, with all their questions: one item per image, one batch for every split."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from captioning.data.datasets import stack_images
from captioning.data.vocabulary import PAD, Vocabulary
from captioning.data.vqa import Answers, Asked, Targets
from captioning.errors import must_be
from captioning.text import tokenize

NOTHING = -1  # question id of a slot without a question


class QuestionBatch(NamedTuple):
    """B images with up to K questions each; the same fields in every split.

    Attributes:
        image_ids: [B] int64.
        images: as in a `CaptionBatch`.
        mask: as in a `CaptionBatch`.
        questions: [B, K, T] int64: words, `<end>`, `<pad>`…; a missing question is all `<pad>`.
        question_ids: [B, K] int64; NOTHING for a missing question.
        answers: [B, K, M] int64, ids of the target answers.
        shares: [B, K, M], target probability of each; they add up to 1 per question, or to 0 if no known answer is
            right.
    """

    image_ids: Tensor
    images: Tensor
    mask: Tensor | None
    questions: Tensor
    question_ids: Tensor
    answers: Tensor
    shares: Tensor


class Item(NamedTuple):
    """One image of a batch.

    Attributes:
        image_id: the image's id.
        image: its features or pixels.
        questions: (question id, word ids, {answer id: share}) per question.
    """

    image_id: int
    image: Tensor
    questions: list[tuple[int, list[int], dict[int, float]]]


def encode_question(text: str, vocabulary: Vocabulary, *, max_length: int) -> list[int]:
    """Return the ids of at most `max_length` words and of `<end>`, after which a model answers."""
    return vocabulary.encode(tokenize(text), max_length=max_length)[1:]


class QuestionDataset(Dataset):
    """Images with all their questions, in every epoch. The key of an item is (index, epoch), from `ImageSampler`.

    Args:
        records: images of one split.
        vocabulary: vocabulary of the questions of the training split.
        answers: the answers to choose from.
        targets: function from the annotators' answers to {answer: share}: `annotators` or `most_frequent`.
        source: function from a record to its pixels or features.
        max_length: longer questions are cut to this number of words.
    """

    def __init__(
        self,
        records: Sequence[Asked],
        *,
        vocabulary: Vocabulary,
        answers: Answers,
        targets: Targets,
        source: Callable[[Asked], Tensor],
        max_length: int,
    ):
        must_be("data.max_length", max_length, least=1)
        self.records, self.source = records, source
        self.questions = [
            [
                (
                    question.question_id,
                    encode_question(question.text, vocabulary, max_length=max_length),
                    answers.encode(targets(question.answers)),
                )
                for question in record.questions
            ]
            for record in records
        ]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        index, _ = key
        return Item(self.records[index].image_id, self.source(self.records[index]), self.questions[index])


def collate_questions(items: Sequence[Item]) -> QuestionBatch:
    """Stack items into a batch; pad the questions, their words and their answers."""
    image_ids, images, groups = zip(*items, strict=True)
    slots = max(1, *map(len, groups))
    everything = [question for group in groups for question in group]
    length = max((len(words) for _, words, _ in everything), default=1)
    most = max((len(targets) for *_, targets in everything), default=1) or 1
    words = torch.full((len(items), slots, length), PAD)
    question_ids = torch.full((len(items), slots), NOTHING)
    answers = torch.zeros(len(items), slots, most, dtype=torch.int64)
    shares = torch.zeros(len(items), slots, most)
    for row, group in enumerate(groups):
        for slot, (number, ids, targets) in enumerate(group):
            question_ids[row, slot] = number
            words[row, slot, : len(ids)] = torch.tensor(ids)
            if targets:
                answers[row, slot, : len(targets)] = torch.tensor(list(targets))
                shares[row, slot, : len(targets)] = torch.tensor(list(targets.values()))
    return QuestionBatch(torch.tensor(image_ids), *stack_images(images), words, question_ids, answers, shares)
