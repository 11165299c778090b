"""Compute VQA accuracy, over all questions and by type (Antol et al. 2015, and its published code)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from captioning.errors import DataError
from captioning.metrics.scores import name_ids
from captioning.text import clean, normalize, without_punctuation


class Truth(NamedTuple):
    """The correct answers to a question, and its types.

    Attributes:
        answers: the annotators' answers, as they wrote them.
        answer_type: type of the answer, such as "yes/no".
        question_type: type of the question.
    """

    answers: Sequence[str]
    answer_type: str
    question_type: str


class Accuracy(NamedTuple):
    """VQA accuracies, as fractions.

    Attributes:
        overall: mean over all questions.
        answer_types: {answer type: mean}.
        question_types: {question type: mean}.
        questions: {question id: accuracy of its answer}.
    """

    overall: float
    answer_types: dict[str, float]
    question_types: dict[str, float]
    questions: dict[int, float]

    def flat(self) -> dict[str, float]:
        """Return {"accuracy": …, "accuracy/yes/no": …, …}: over all questions and by answer type."""
        return {"accuracy": self.overall} | {f"accuracy/{kind}": value for kind, value in self.answer_types.items()}


def answer_accuracy(answer: str, annotators: Sequence[str]) -> float:
    """Compute the accuracy of one answer.

    Each annotator is left out once, and min(n / 3, 1) is averaged over these cases, where n is the number of remaining
    annotators who gave this answer. The answer is fully normalized. As in the official program, the annotators' answers
    are used as they are if all are equal, and without punctuation if they differ. In the official files they are
    already in lower case, without articles, and with digits for number words.

    Args:
        answer: the answer of the model.
        annotators: the annotators' answers.

    Raises:
        ValueError: there are no annotators.
    """
    given = [clean(theirs) for theirs in annotators]
    if not given:
        raise ValueError("the question has no answers of annotators to compare with")
    if len(set(given)) > 1:
        given = [without_punctuation(theirs) for theirs in given]
    agreeing = given.count(normalize(answer))
    others = len(given) - agreeing
    # If a disagreeing annotator is left out, n annotators agree; if an agreeing one is, n − 1.
    return (others * min(agreeing / 3, 1) + agreeing * min((agreeing - 1) / 3, 1)) / len(given)


def vqa_accuracy(truths: Mapping[int, Truth], answers: Mapping[int, str]) -> Accuracy:
    """Compute the accuracy of one answer per question.

    Args:
        truths: question id -> correct answers.
        answers: question id -> answer of the model.

    Raises:
        DataError: a question has no answer, an answer has no question, no annotator answered a question, or there are
            no questions.
    """
    faults = {
        "questions without an answer": truths.keys() - answers.keys(),
        "answers to unknown questions": answers.keys() - truths.keys(),
        "questions that no annotator answered": [key for key, truth in truths.items() if not truth.answers],
    }
    found = [f"{len(ids)} {fault}: question ids {name_ids(ids)}" for fault, ids in faults.items() if ids]
    if found or not truths:
        reason = "; ".join(found) or "there are no questions"
        raise DataError(f"answers cannot be scored: {reason}. Give exactly one answer per `question_id` of the split")
    scores = {key: answer_accuracy(answers[key], truth.answers) for key, truth in truths.items()}
    by_kind: dict[str, list[float]] = defaultdict(list)
    by_question: dict[str, list[float]] = defaultdict(list)
    for key, truth in truths.items():
        by_kind[truth.answer_type].append(scores[key])
        by_question[truth.question_type].append(scores[key])
    return Accuracy(_mean(list(scores.values())), _means(by_kind), _means(by_question), scores)


def _means(groups: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {kind: _mean(groups[kind]) for kind in sorted(groups)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
