"""VQA's accuracy and its normal form of answers: an enumeration, and a table of every rule."""

import itertools

import pytest

from captioning.errors import DataError
from captioning.metrics import Truth, vqa_accuracy
from captioning.metrics.vqa import answer_accuracy
from captioning.text import normalize, without_punctuation
from captioning.text.answer_normalizer import CONTRACTIONS


def by_enumeration(answer, annotators):
    """The definition: over all subsets of all but one annotator."""
    subsets = list(itertools.combinations(range(len(annotators)), len(annotators) - 1))
    agreeing = [sum(annotators[index] == answer for index in subset) for subset in subsets]
    return sum(min(count / 3, 1) for count in agreeing) / len(subsets)


@pytest.mark.parametrize("annotators", [10, 7, 3])
def test_accuracy_is_the_mean_over_the_leave_one_out_subsets(annotators):
    for agreeing in range(annotators + 1):
        answers = ["red"] * agreeing + [f"colour {index}" for index in range(annotators - agreeing)]
        assert answer_accuracy("red", answers) == pytest.approx(by_enumeration("red", answers), abs=1e-15)


def test_accuracy_of_ten_annotators_by_hand():
    """n who agree: 0, 0.3, 0.6, 0.9, and 1 from four on."""
    table = {0: 0.0, 1: 0.3, 2: 0.6, 3: 0.9, 4: 1.0, 10: 1.0}
    for agreeing, accuracy in table.items():
        assert answer_accuracy("2", ["2"] * agreeing + ["3"] * (10 - agreeing)) == pytest.approx(accuracy, abs=1e-15)


RULES = {
    "Yes": "yes",
    " a  dog\n": "dog",
    "The cat and an owl": "cat and owl",
    "none": "0",
    "zero": "0",
    "one two three four five six seven eight nine ten": "1 2 3 4 5 6 7 8 9 10",
    "eleven": "eleven",
    "dont": "don't",
    "Dont": "don't",
    "don't": "don't",
    "couldntve": "couldntve",  # both apostrophes missing is no case of the table
    "couldnt've": "couldn't've",
    "couldn'tve": "couldn't've",
    "y'allll": "y'all'll",
    "yall'd've": "y'all'd've",
    "somebody'd": "somebodyd",
    "ow's'at": "'ow's'at",
    "twas": "'twas",
    "oclock": "o'clock",
    "black/white": "black white",  # a mark with nothing beside it becomes a space,
    "black / white": "black white",
    "black, white": "black white",  # one with a space beside it goes,
    "black,white": "black white",
    "x-ray - old": "xray old",  # wherever else it stands,
    "1,000": "1000",  # and all go where a comma stands between digits,
    "1,000-2": "10002",
    "no.": "no",
    "u.s.a.": "usa",
    "1.5": "1.5",  # but for a stop before a digit,
    "at .5": "at .5",
    "5. floor": "5 floor",
    "10:30": "10:30",  # and for colon and apostrophe
    "john's": "john's",
    'he said "hi!"?': "he said hi",
    "[{(<=+_@`>)}];\\": "",
    "a": "",
    "it's": "it's",
}


@pytest.mark.parametrize("answer", RULES)
def test_every_rule_of_the_normal_form(answer):
    assert normalize(answer) == RULES[answer]


def test_punctuation_is_judged_on_the_answer_as_it_was():
    assert without_punctuation("a-b -c") == "ab c"
    assert without_punctuation("a-b/c") == "a b c"
    assert without_punctuation("Dog, The.") == "Dog The"  # and nothing else is done to it
    assert without_punctuation("." * 40) == "." * 8  # the original stops at 32


def test_contractions_are_those_of_the_official_program():
    """Which lists 120; four of them begin with a capital and two say nothing new, so that they never apply."""
    assert len(CONTRACTIONS) == 120 - 4 - 2
    assert all(right in ("somebodyd", f"'{wrong}") or "'" in right for wrong, right in CONTRACTIONS.items())
    assert {"shed", "wed", "well", "were", "hell", "ill", "id", "its"}.isdisjoint(CONTRACTIONS)


def test_annotators_who_differ_lose_their_punctuation_alone():
    mixed = ["dog."] * 2 + ["dog"] * 2 + ["the dog"] * 6
    assert answer_accuracy("A dog!", mixed) == 1.0  # four of "dog"
    assert answer_accuracy("the dog", mixed[2:]) == pytest.approx(by_enumeration("dog", mixed[2:]), abs=1e-15)
    assert answer_accuracy("dog", ["dog."] * 8 + ["dog"] * 2) == 1.0  # two spellings differ already
    assert answer_accuracy("dog", ["dog."] * 10) == 0.0  # of one mind: held against what they wrote
    assert answer_accuracy("two", ["2"] * 10) == answer_accuracy("2", ["2"] * 10) == 1.0
    with pytest.raises(ValueError, match="has no answers of annotators"):
        answer_accuracy("dog", [])


def test_accuracy_by_answer_and_question_type():
    truths = {
        1: Truth(["yes"] * 10, "yes/no", "is the"),
        2: Truth(["no"] * 10, "yes/no", "is the"),
        3: Truth(["red"] * 2 + ["blue"] * 8, "other", "what color"),
        4: Truth(["4"] * 10, "number", "is the"),
    }
    found = vqa_accuracy(truths, {1: "yes", 2: "yes", 3: "red", 4: "four"})
    assert found.questions == pytest.approx({1: 1, 2: 0, 3: 0.6, 4: 1})
    assert found.overall == pytest.approx(2.6 / 4)
    assert found.answer_types == pytest.approx({"number": 1, "other": 0.6, "yes/no": 0.5})
    assert found.question_types == pytest.approx({"is the": 2 / 3, "what color": 0.6})
    assert found.flat() == pytest.approx(
        {"accuracy": 0.65, "accuracy/number": 1, "accuracy/other": 0.6, "accuracy/yes/no": 0.5}
    )


def test_questions_and_answers_must_match():
    truth = Truth(["yes"] * 10, "yes/no", "is")
    with pytest.raises(DataError, match=r"1 questions without an answer: question ids 2; 1 answers to unknown .* 9"):
        vqa_accuracy({1: truth, 2: truth}, {1: "yes", 9: "no"})
    with pytest.raises(DataError, match="no annotator answered: question ids 1"):
        vqa_accuracy({1: Truth([], "", "")}, {1: "yes"})
    with pytest.raises(DataError, match="there are no questions"):
        vqa_accuracy({}, {})
