"""Compute VQA accuracy, over all questions and by type (Antol et al. 2015, and its published code).

2015, and its published code)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from captioning.errors import DataError
from captioning.metrics.scores import name_ids
from captioning.text import clean, normalize, without_punctuation


class Truth(NamedTuple):
    """What is known of a question: the annotators' answers as they wrote them, and its types."""

    answers: Sequence[str]
    answer_type: str
    question_type: str


class Accuracy(NamedTuple):
    """Shares of 1: over all questions, {answer type: …}, {question type: …}, and {question id: …} of each."""

    overall: float
    answer_types: dict[str, float]
    question_types: dict[str, float]
    questions: dict[int, float]

    def flat(self) -> dict[str, float]:
        """{"accuracy": …, "accuracy/yes/no": …, …}: over all and by answer type."""
        return {"accuracy": self.overall} | {f"accuracy/{kind}": value for kind, value in self.answer_types.items()}


def answer_accuracy(answer: str, annotators: Sequence[str]) -> float:
    """min(n / 3, 1), n of the other annotators agreeing, averaged over leaving each annotator out once.

    The answer is normalized whole. The annotators' answers are held against it as they are where all are the same,
    and without their punctuation where they differ: so does the official program, whose files come in lower case, with
    digits for number words and without articles.

    Raises:
        ValueError: there are no annotators.
    """
    given = [clean(theirs) for theirs in annotators]
    if not given:
        raise ValueError("an answer is held against those of annotators, of which there are none")
    if len(set(given)) > 1:
        given = [without_punctuation(theirs) for theirs in given]
    agreeing = given.count(normalize(answer))
    others = len(given) - agreeing
    # Without one who disagrees all n are left; without one who agrees, n − 1.
    return (others * min(agreeing / 3, 1) + agreeing * min((agreeing - 1) / 3, 1)) / len(given)


def vqa_accuracy(truths: Mapping[int, Truth], answers: Mapping[int, str]) -> Accuracy:
    """Accuracy of one answer for every question.

    Raises:
        DataError: a question without an answer, an answer without a question, a question that annotators left
            unanswered, or none at all.
    """
    faults = {
        "questions without an answer": truths.keys() - answers.keys(),
        "answers to unknown questions": answers.keys() - truths.keys(),
        "questions that no annotator answered": [key for key, truth in truths.items() if not truth.answers],
    }
    found = [f"{len(ids)} {fault}: question ids {name_ids(ids)}" for fault, ids in faults.items() if ids]
    if found or not truths:
        raise DataError(f"answers cannot be scored: {'; '.join(found) or 'there are no questions'}")
    scores = {key: answer_accuracy(answers[key], truth.answers) for key, truth in truths.items()}
    by_kind, by_question = defaultdict(list), defaultdict(list)
    for key, truth in truths.items():
        by_kind[truth.answer_type].append(scores[key])
        by_question[truth.question_type].append(scores[key])
    return Accuracy(_mean(list(scores.values())), _means(by_kind), _means(by_question), scores)


def _means(groups: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {kind: _mean(groups[kind]) for kind in sorted(groups)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
