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
    """B pictures with up to K questions each; the same fields in every split.

    image_ids: [B] int64. images, mask: as in a CaptionBatch.
    questions: [B, K, T] int64, words <end> <pad>…; a missing question is all <pad>.
    question_ids: [B, K] int64, NOTHING where there is none.
    answers, shares: [B, K, M], ids of the answers to learn and what each should have of the probability: shares of a
    question add up to 1, or to 0 where no known answer is right.
    """

    image_ids: Tensor
    images: Tensor
    mask: Tensor | None
    questions: Tensor
    question_ids: Tensor
    answers: Tensor
    shares: Tensor


class Item(NamedTuple):
    """One picture of a batch; questions: (id, words, {answer id: share}) each."""

    image_id: int
    image: Tensor
    questions: list[tuple[int, list[int], dict[int, float]]]


def encode_question(text: str, vocabulary: Vocabulary, *, max_length: int) -> list[int]:
    """Words and <end>, on which a model answers; a question that is cut keeps it, one without words is it alone."""
    return vocabulary.encode(tokenize(text), max_length=max_length)[1:]


class QuestionDataset(Dataset):
    """Item (index, epoch), as `ImageSampler` gives them -> the picture with its questions; all of them, every epoch.

    Args:
        records: pictures of one split.
        vocabulary: of the questions of the training split.
        answers: those to choose from.
        targets: an annotation's answers -> {answer: share}, see `data.vqa`.
        source: record -> picture or feature tensor.
        max_length: words that a question is cut to.
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
    """Stacks pictures; their questions, and those questions' words and answers, are filled up."""
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
