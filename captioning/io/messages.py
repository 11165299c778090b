"""Write parts of messages: why a file cannot be opened, and a count with its noun."""

from pathlib import Path


def unopened(path: Path | str, error: BaseException, *, advice: str = "", folder_advice: str = "check the path") -> str:
    """Return a message for a file that is missing or a folder; "" if `error` is of another kind.

    Args:
        path: the file.
        error: the error that opening it raised.
        advice: what to do if the file is missing from its folder; by default, to check the path.
        folder_advice: what to do if the folder itself is missing.
    """
    path = Path(path)
    if isinstance(error, IsADirectoryError):
        return f"{path}: this is a folder: give a file"
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        return ""
    missing = [folder for folder in path.parents if not folder.is_dir()]
    if missing:  # the last one is the highest
        return f"{path}: there is no folder {missing[-1]}: {folder_advice}"
    return f"{path}: there is no such file: {advice or 'check the path'}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 image" or "1,000 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
