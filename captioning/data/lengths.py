"""Count the captions that training cuts, and propose a limit that keeps them complete."""

import math
from collections.abc import Sequence

_SHARE = 0.995  # share of the captions that the default limit keeps complete
_LEAST = 20  # smallest default limit
MOST = 99  # percent of the captions that the proposed limit keeps complete, if a few captions are far longer


def default_length(lengths: Sequence[int]) -> int:
    """Return the default of `data.max_length`: the 99.5th percentile of the caption lengths, at least 20.

    Args:
        lengths: lengths of the training captions in words, or in pieces for `bpe`.
    """
    ascending = sorted(lengths) or [0]
    return max(_LEAST, ascending[math.ceil(_SHARE * len(ascending)) - 1])


def needed_length(lengths: Sequence[int]) -> tuple[int, bool]:
    """Propose a limit for captions of these lengths.

    Returns:
        The limit in words, and whether it keeps all captions complete. The limit is the length of the longest caption;
        if that is more than twice the length that 99 % of the captions do not exceed, it is the latter.
    """
    ordered = sorted(lengths) or [0]
    most = ordered[-(-MOST * len(ordered) // 100) - 1]
    return (ordered[-1], True) if ordered[-1] <= 2 * most else (most, False)


def cut_warning(
    lengths: Sequence[int], max_length: int, *, decoding_length: int | None = None, unit: str = "words"
) -> str | None:
    """Return a one-line warning about captions longer than max_length; None if there are none.

    Args:
        lengths: lengths of the training captions.
        max_length: the limit `data.max_length`.
        decoding_length: the limit of decoding, if it has its own limit.
        unit: what all of them count: "words", or "pieces" for `bpe`.
    """
    cut = sum(length > max_length for length in lengths)
    if not cut:
        return None
    needed, all_of_them = needed_length(lengths)
    if needed <= max_length:
        needed, all_of_them = max(lengths), True
    share = "all" if all_of_them else f"{MOST}%; the longest has {max(lengths)} {unit}"
    line = (
        f"{cut} of {len(lengths)} training captions are longer than data.max_length={max_length} {unit} and are cut: "
        f"set data.max_length={needed} (keeps {share})"
    )
    if decoding_length is None:
        return line
    if decoding_length > max_length:
        return (
            f"{line}. decoding.max_length={decoding_length} does not help by itself: the model never sees a caption of "
            f"more than {max_length} {unit}"
        )
    return f"{line} and decoding.max_length={needed} to generate captions of that length"
