"""Answers on one line; tests/metrics/test_vqa_accuracy.py has the other rules."""

import pytest

from captioning.text import clean, normalize, without_punctuation


@pytest.mark.parametrize(
    ("answer", "line"), [(" a dog ", "a dog"), ("\ta\ndog\n", "a dog"), ("a \n dog", "a   dog"), ("A.", "A."), ("", "")]
)
def test_white_space_around_an_answer_goes(answer, line):
    assert clean(answer) == line


def test_a_mark_at_the_end_has_no_space_beside_it():
    """White space goes first: "x-" has a mark with a space beside it only where the space is within the answer."""
    assert without_punctuation(clean("x-y- ")) == "x y "
    assert without_punctuation("x-y- ") == "xy "
    assert normalize("x-y- ") == "x y" and normalize("x-y- z") == "xy z"
