"""How many captions training cuts, and the limit that would keep them."""

import pytest

from captioning.data import cut_warning
from captioning.data.lengths import needed_length


def test_all_are_cut():
    assert cut_warning([35] * 100 + [40] * 20, 20) == (
        "120 of 120 training captions are longer than data.max_length=20 words and are cut: set data.max_length=40 "
        "(holds all)"
    )


def test_none_is_cut():
    assert cut_warning([20, 3], 20) is None
    assert cut_warning([], 20) is None


def test_a_limit_for_99_percent_where_a_few_are_far_longer():
    lengths = [25] * 990 + [300] * 10
    assert needed_length(lengths) == (25, False)
    assert "set data.max_length=25 (holds 99%; the longest has 300 words)" in cut_warning(lengths, 20)
    assert "10 of 1000" in cut_warning(lengths, 30) and "set data.max_length=300 (holds all)" in cut_warning(
        lengths, 30
    )


@pytest.mark.parametrize(
    ("decoding", "end"),
    [
        (
            20,
            "set data.max_length=35 (holds all) and decoding.max_length=35, so that captions as long can be written",
        ),
        (35, "decoding.max_length=35 does not help by itself: the model never sees a caption of more than 20 words"),
    ],
)
def test_decoding_has_a_limit_of_its_own(decoding, end):
    assert cut_warning([35], 20, decoding_length=decoding).endswith(end)
