"""How many captions training cuts, and the limit that would keep them."""

from collections import Counter

import pytest

from captioning.data import cut_warning
from captioning.data.lengths import default_length, needed_length


def test_all_are_cut():
    assert cut_warning(Counter([35] * 100 + [40] * 20), 20) == (
        "120 of 120 training captions are longer than data.max_length=20 words and are cut: set data.max_length=40 "
        "(keeps all)"
    )


def test_none_is_cut():
    assert cut_warning(Counter([20, 3]), 20) is None
    assert cut_warning(Counter([]), 20) is None


def test_a_limit_for_99_percent_where_a_few_are_far_longer():
    lengths = [25] * 990 + [300] * 10
    assert needed_length(Counter(lengths)) == (25, False)
    assert "set data.max_length=25 (keeps 99%; the longest has 300 words)" in cut_warning(Counter(lengths), 20)
    assert "10 of 1000" in cut_warning(Counter(lengths), 30) and "set data.max_length=300 (keeps all)" in cut_warning(
        Counter(lengths), 30
    )


@pytest.mark.parametrize(
    ("decoding", "end"),
    [
        (
            20,
            "set data.max_length=35 (keeps all) and decoding.max_length=35 to generate captions of that length",
        ),
        (35, "decoding.max_length=35 does not help by itself: the model never sees a caption of more than 20 words"),
    ],
)
def test_decoding_has_a_limit_of_its_own(decoding, end):
    assert cut_warning(Counter([35]), 20, decoding_length=decoding).endswith(end)


@pytest.mark.parametrize("count", [*range(1, 120), 199, 200, 201, 1000, 20_000])
def test_99_percent_is_the_least_limit_that_holds_so_many(count):
    """The caption lengths 1, 2, … and one that is far longer than all of them, counted one by one."""
    lengths = [*range(1, count), 10**6]
    limit = next(length for place, length in enumerate(lengths, 1) if 100 * place >= 99 * count)
    assert needed_length(Counter(lengths[::-1])) == ((10**6, True) if limit == 10**6 else (limit, False))


def test_all_are_held_up_to_twice_as_many_words():
    assert needed_length(Counter([10] * 99 + [20])) == (20, True)
    assert needed_length(Counter([10] * 99 + [21])) == (10, False)
    assert needed_length(Counter([10] * 99 + [11])) == (11, True)
    assert needed_length(Counter([])) == (0, True)


def test_a_limit_that_holds_99_percent_already_leaves_only_all():
    lengths = [20] * 990 + [300] * 10
    assert cut_warning(Counter(lengths), 20) == (
        "10 of 1000 training captions are longer than data.max_length=20 words and are cut: set data.max_length=300 "
        "(keeps all)"
    )
    assert cut_warning(Counter(lengths), 300) is None
    assert cut_warning(Counter(lengths), 19).endswith("set data.max_length=20 (keeps 99%; the longest has 300 words)")
    assert cut_warning(Counter(lengths), 19, decoding_length=19).endswith(
        "(keeps 99%; the longest has 300 words) and decoding.max_length=20 to generate captions of that length"
    )


def test_the_default_keeps_995_of_1000_captions():
    assert default_length(Counter([])) == default_length(Counter([3, 20])) == 20
    assert default_length(Counter([30])) == 30
    assert default_length(Counter([25] * 995 + [90] * 5)) == 25
    assert default_length(Counter([25] * 994 + [90] * 6)) == 90
    assert default_length(Counter([90, 26, *[25] * 198])) == 26  # the 199th of 200
