"""The package's own errors: each names the file or key at fault and says what to do.

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
