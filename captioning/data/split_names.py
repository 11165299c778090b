"""Define what a split is called in data sets: every reader asks this file what a written split means."""

from captioning.data.places import caseless
from captioning.errors import DataError

# Karpathy's "restval" images are those of COCO's val2014 that are in none of his val and test: papers train on them.
_MEANINGS = {
    "train": ("train", "training", "restval"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {name: split for split, names in _MEANINGS.items() for name in names}
SPLIT_NAMES = ", ".join(f"{split} (or {', '.join(names[1:])})" for split, names in _MEANINGS.items())


def known_split(written: str) -> str | None:
    """Return "train", "val" or "test" for a name of a split in any case; None for any other text."""
    return _SPLIT_OF.get(caseless(written.strip()))


def split_named(written: object, where: str) -> str:
    """Return "train", "val" or "test" for a split as it is written in a file.

    Args:
        written: the text of the file; any other value is refused.
        where: location in the file, for error messages.

    Raises:
        DataError: it is no name of a split.
    """
    split = known_split(written) if isinstance(written, str) else None
    if split is None:
        shown = "null" if written is None else f"{written!r:.60}"
        raise DataError(f"{where}: 'split' must be one of {SPLIT_NAMES}, not {shown}: correct it")
    return split
