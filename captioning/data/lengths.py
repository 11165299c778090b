"""Say how many captions training cuts, and which limit would keep them whole."""

from collections.abc import Sequence

MOST = 99  # percent of the captions, which the proposed limit holds where a few are far longer than the others


def needed_length(lengths: Sequence[int]) -> tuple[int, bool]:
    """(a limit in words, whether it holds all): the longest caption, or 99 % where that is more than twice as long."""
    ordered = sorted(lengths) or [0]
    most = ordered[-(-MOST * len(ordered) // 100) - 1]
    return (ordered[-1], True) if ordered[-1] <= 2 * most else (most, False)


def cut_warning(lengths: Sequence[int], max_length: int, *, decoding_length: int | None = None) -> str | None:
    """One line on captions of these lengths in words; None where none is longer than max_length.

    Args:
        decoding_length: words that decoding writes at most, where it has a limit of its own.
    """
    cut = sum(length > max_length for length in lengths)
    if not cut:
        return None
    needed, all_of_them = needed_length(lengths)
    if needed <= max_length:
        needed, all_of_them = max(lengths), True
    share = "all" if all_of_them else f"{MOST}%; the longest has {max(lengths)} words"
    line = (
        f"{cut} of {len(lengths)} training captions are longer than data.max_length={max_length} words and are cut: "
        f"set data.max_length={needed} (holds {share})"
    )
    if decoding_length is None:
        return line
    if decoding_length > max_length:
        return (
            f"{line}. decoding.max_length={decoding_length} does not help by itself: the model never sees a caption of "
            f"more than {max_length} words"
        )
    return f"{line} and decoding.max_length={needed}, so that captions as long can be written"
