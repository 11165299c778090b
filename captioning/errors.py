"""Define the package's errors. Each message names the file or key at fault, and says what to type.

The commands print these errors as one line and exit with status 1. Any other exception is a bug and keeps its
traceback.
"""

from collections.abc import Sequence


class CaptioningError(Exception):
    """Base class of every error that a user can fix."""


class ConfigError(CaptioningError):
    """A configuration key, value or combination that cannot work."""


class DataError(CaptioningError):
    """A data set, image, annotation file or feature store that is missing, unreadable or inconsistent."""


class CheckpointError(CaptioningError):
    """A checkpoint or weights file that cannot be loaded, or does not fit the model."""


class TrainingError(CaptioningError):
    """A run that diverged: a loss or gradient that is not finite."""


class ToolError(CaptioningError):
    """An external program or file that is missing or fails: Java, or the libraries that SPICE needs."""


def must_be(
    key: str,
    value: float | None,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Check that a setting is in its range: at least `least`, above `above`, at most `most` and below `below`.

    None is accepted; nan is not.

    Raises:
        ConfigError: names the key, its range and the value.
    """
    if value is None:
        return
    bounds = [
        ("at least", least, least is None or value >= least),
        ("above", above, above is None or value > above),
        ("at most", most, most is None or value <= most),
        ("below", below, below is None or value < below),
    ]
    if not all(inside for *_, inside in bounds):
        allowed = " and ".join(f"{words} {bound}" for words, bound, _ in bounds if bound is not None)
        raise ConfigError(f"{key} must be {allowed}, not {value}")


def two_sides(
    key: str, size: int | Sequence[int], *, most: int = 4096, names: str = "[HEIGHT, WIDTH]"
) -> tuple[int, int]:
    """Return the two sides of a setting that is one side, for a square, or a list of two.

    Raises:
        ConfigError: the setting is neither, or a side is not in 1…`most`; names the key and what to type.
    """
    sides = tuple(size) if isinstance(size, Sequence) and not isinstance(size, str) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in sides):
        given = list(size) if isinstance(size, tuple) else size
        raise ConfigError(f"{key} must be a side or {names}, not {'null' if size is None else repr(given):.60}")
    for side in sides:
        must_be(key, side, least=1, most=most)
    return sides
