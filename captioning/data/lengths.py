"""Count the captions that training cuts, and propose a limit that keeps them complete.

All functions take {length: number of captions of this length}, which has few entries for any number of captions.
"""

import math
from collections.abc import Mapping

_SHARE = 0.995  # share of the captions that the default limit keeps complete
_LEAST = 20  # smallest default limit
MOST = 99  # percent of the captions that the proposed limit keeps complete, if a few captions are far longer


def default_length(lengths: Mapping[int, int]) -> int:
    """Return the default of `data.max_length`: the 99.5th percentile of the caption lengths, at least 20.

    Args:
        lengths: lengths of the training captions in words, or in pieces for `bpe`.
    """
    return max(_LEAST, _shortest(lengths, math.ceil(_SHARE * sum(lengths.values()))))


def needed_length(lengths: Mapping[int, int]) -> tuple[int, bool]:
    """Propose a limit for captions of these lengths.

    Returns:
        The limit in words, and whether it keeps all captions complete. The limit is the length of the longest caption;
        if that is more than twice the length that 99 % of the captions do not exceed, it is the latter.
    """
    longest = max(lengths, default=0)
    most = _shortest(lengths, -(-MOST * sum(lengths.values()) // 100))
    return (longest, True) if longest <= 2 * most else (most, False)


def _shortest(lengths: Mapping[int, int], count: int) -> int:
    """Return the length of the last of the `count` shortest captions; 0 without captions."""
    for length in sorted(lengths):
        count -= lengths[length]
        if count <= 0:
            return length
    return 0


def cut_captions(lengths: Mapping[int, int], max_length: int) -> int:
    """Return the number of captions that are longer than max_length."""
    return sum(count for length, count in lengths.items() if length > max_length)


def cut_warning(
    lengths: Mapping[int, int], max_length: int, *, decoding_length: int | None = None, unit: str = "words"
) -> str | None:
    """Return a one-line warning about captions longer than max_length; None if there are none.

    Args:
        lengths: lengths of the training captions.
        max_length: the limit `data.max_length`.
        decoding_length: the limit of decoding, if it has its own limit.
        unit: what all of them count: "words", or "pieces" for `bpe`.
    """
    cut = cut_captions(lengths, max_length)
    if not cut:
        return None
    needed, all_of_them = needed_length(lengths)
    if needed <= max_length:
        needed, all_of_them = max(lengths), True
    share = "all" if all_of_them else f"{MOST}%; the longest has {max(lengths)} {unit}"
    line = (
        f"{cut} of {sum(lengths.values())} training captions are longer than data.max_length={max_length} {unit} and "
        f"are cut: set data.max_length={needed} (keeps {share})"
    )
    if decoding_length is None:
        return line
    if decoding_length > max_length:
        return (
            f"{line}. decoding.max_length={decoding_length} does not help by itself: the model never sees a caption of "
            f"more than {max_length} {unit}"
        )
    return f"{line} and decoding.max_length={needed} to generate captions of that length"
