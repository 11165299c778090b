"""Define the package's errors; each message names the file or key at fault and says what to do.

The entry points print them as one line and exit with status 1; any other exception is a bug and keeps its traceback.
"""


class CaptioningError(Exception):
    """Base of every error that a user can mend."""


class ConfigError(CaptioningError):
    """A configuration key, value or combination that cannot work."""


class DataError(CaptioningError):
    """A data set, picture, annotation file or feature store that is missing, unreadable or inconsistent."""


class CheckpointError(CaptioningError):
    """A checkpoint or weights file that cannot be loaded or does not fit."""


class TrainingError(CaptioningError):
    """A run that went wrong by itself: a loss or gradient that is not finite."""


class ToolError(CaptioningError):
    """A program or file outside this package that is not there, or fails: Java, or what SPICE wants beside it."""


def must_be(
    key: str,
    value: float | None,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Refuses a number outside of its range, and what is not a number; None passes.

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
    if not all(held for *_, held in bounds):
        told = " and ".join(f"{words} {bound}" for words, bound, _ in bounds if bound is not None)
        raise ConfigError(f"{key} must be {told}, not {value}")
