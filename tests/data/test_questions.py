"""Batches of questions, and the answers that a model chooses from: every number by hand."""

from pathlib import Path

import pytest
import torch

from captioning.data import Answers, QuestionDataset, Vocabulary, collate_questions, most_frequent, prior_answers
from captioning.data.questions import encode_question
from captioning.data.vqa import Asked, Question, annotators
from captioning.errors import CheckpointError, ConfigError, DataError

VOCABULARY = Vocabulary(["is", "it", "red"])
END = 2


def question(number, text, *answers):
    return Question(number, text, answers, "", "")


RECORDS = [
    Asked(7, Path("a.png"), "train", (question(1, "Is it red?", "yes", "Yes.", "no"), question(2, "is it?", "red"))),
    Asked(9, Path("b.png"), "train", (question(3, "What is it", "teal", "no"),)),
    Asked(8, Path("c.png"), "train", ()),
]
ANSWERS = Answers(["no", "yes", "red"])


def dataset(**options):
    return QuestionDataset(
        RECORDS,
        vocabulary=VOCABULARY,
        answers=ANSWERS,
        targets=annotators,
        source=lambda record: torch.full((2,), float(record.image_id)),
        **{"max_length": 9} | options,
    )


def test_a_batch_of_questions():
    data = dataset()
    batch = collate_questions([data[index, 0] for index in range(3)])
    assert len(data) == 3
    assert batch.image_ids.tolist() == [7, 9, 8] and batch.images[:, 0].tolist() == [7, 9, 8] and batch.mask is None
    assert batch.questions.tolist() == [
        [[4, 5, 6, END], [4, 5, END, 0]],
        [[3, 4, 5, END], [0] * 4],
        [[0] * 4, [0] * 4],
    ]
    assert batch.question_ids.tolist() == [[1, 2], [3, -1], [-1, -1]]
    assert batch.answers.tolist() == [[[1, 0], [2, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]
    torch.testing.assert_close(
        batch.shares, torch.tensor([[[2 / 3, 1 / 3], [1, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 0]]])
    )
    empty = collate_questions([data[2, 5]])
    assert empty.questions.tolist() == [[[0]]] and empty.answers.tolist() == [[[0]]] == empty.shares.tolist()
    unknown = collate_questions([(1, torch.zeros(2), [(4, [END], {})])])
    assert unknown.shares.tolist() == [[[0.0]]] and unknown.questions.tolist() == [[[END]]]


def test_a_question_that_is_cut_keeps_its_end():
    assert encode_question("Is it red?", VOCABULARY, max_length=2) == [4, 5, END]
    assert encode_question("Is it red?", VOCABULARY, max_length=3) == [4, 5, 6, END]
    assert encode_question("?", VOCABULARY, max_length=3) == [END]
    assert dataset(max_length=1)[0, 0].questions[0] == (1, [4, END], {1: 2 / 3, 0: 1 / 3})
    with pytest.raises(ConfigError, match=r"data\.max_length must be at least 1, not 0"):
        dataset(max_length=0)


def test_targets_of_annotators():
    assert annotators(["A dog!", "dog", "two", "2"]) == {"dog": 0.5, "2": 0.5}
    assert annotators([]) == most_frequent([]) == {}
    assert most_frequent(["cat", "dog", "dog", "cat", "ox"]) == {"cat": 1.0}
    assert most_frequent(["cat", "a dog", "dog."]) == {"dog": 1.0}


def test_answers_are_the_most_frequent_ones():
    asked = [question(0, "", *group.split()) for group in ("b", "b aa", "c", "c", "aa", "d e e", "the", "d")]
    asked += [question(0, "")]
    assert Answers.build(asked, most=9).texts == ("b", "c", "aa", "d", "e")
    assert Answers.build(asked, most=2).texts == ("b", "c") and len(Answers.build(asked, most=3)) == 3
    with pytest.raises(ConfigError, match=r"data\.answers must be at least 1, not 0"):
        Answers.build(asked, most=0)
    with pytest.raises(DataError, match="split 'train' has no answers: add the annotations"):
        Answers.build([question(0, ""), question(0, "", "the")], most=1)
    for wrong in ([], ["a", "b", "a"]):
        with pytest.raises(CheckpointError, match="one or more answers, each only once"):
            Answers(wrong)
    assert Answers(["b", "a"]).state_dict() == ["b", "a"]


def test_shares_of_known_answers_add_up_to_one():
    assert ANSWERS.encode({"red": 0.5, "teal": 0.3, "no": 0.2}) == pytest.approx({2: 5 / 7, 0: 2 / 7})
    assert ANSWERS.encode({"teal": 1.0}) == ANSWERS.encode({}) == {}
    asked = [question(0, "", "no"), question(0, "", "teal", "no"), question(0, "", "yes"), question(0, "")]
    assert ANSWERS.coverage(asked) == pytest.approx(2 / 3) and ANSWERS.coverage([]) == 1.0


def test_guesses_without_a_picture():
    training = [
        question(2, "x", "c"),
        question(1, "x", "a", "b", "b"),
        question(3, "x", "c"),
        question(4, "y", "b"),
        question(5, "y", "b"),
        question(6, "z"),
    ]
    asked = [question(10, "x", "?"), question(11, "y"), question(12, "z"), question(13, "new")]
    best, same = prior_answers(iter(training), iter(asked))
    assert best == dict.fromkeys((10, 11, 12, 13), "b")
    assert same == {10: "c", 11: "b", 12: "b", 13: "b"}
    with pytest.raises(DataError, match="split 'train' has no answers"):
        prior_answers([question(6, "z")], asked)
