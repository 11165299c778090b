"""Label each character of a Python source file by its syntax: strings, comments, brackets, indentation, column.

A label describes the position after its character, like a recurrent state: an opening bracket is inside, and the
closing bracket is not.
"""

import io
import token
import tokenize

import numpy as np

from captioning.errors import DataError

# Since Python 3.12, an f-string is several tokens between a start and an end token; before, it is one string token.
F_STRING = {getattr(token, f"FSTRING_{end}", None): step for end, step in (("START", 1), ("END", -1))}


def source_labels(text: str) -> dict[str, np.ndarray]:
    """Label the N characters of a Python file.

    - "inside a string" (triple-quoted strings and docstrings included, the prefix excluded), "in a comment" and
      "inside brackets" are 1 or 0.
    - "bracket depth" and "indentation depth" are levels. All characters of a line have the same indentation depth; an
      empty line or a comment line has that of the line before.
    - "line position" is the number of characters since the beginning of the line, and 0 at its end.

    Args:
        text: the content of the file.

    Returns:
        {label: [N] float64}.

    Raises:
        DataError: the text is not valid Python source.
    """
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError) as error:
        reason = error.args[0]
        raise DataError(f"'text' is not valid Python source ({reason}). Use files that Python can parse") from error
    starts = [0, *(at + 1 for at, character in enumerate(text) if character == "\n")]
    strings, comments, depth = (np.zeros(len(text) + 1) for _ in range(3))  # changes from one character to the next
    for kind, string, begin, end, _ in tokens:
        first, after = (starts[row - 1] + column if row <= len(starts) else len(text) for row, column in (begin, end))
        if kind == token.STRING:
            strings[first + _prefix(string)] += 1
            strings[after - 1] -= 1  # the last quote is outside
        elif kind in F_STRING:
            strings[first + _prefix(string) if F_STRING[kind] > 0 else after - 1] += F_STRING[kind]
        elif kind == token.COMMENT:
            comments[first] += 1
            comments[after] -= 1
        elif kind == token.OP and string in "([{":
            depth[first] += 1
        elif kind == token.OP and string in ")]}":
            depth[first] -= 1
    strings, comments, depth = (np.cumsum(changes)[: len(text)] for changes in (strings, comments, depth))
    return {
        "inside a string": np.minimum(strings, 1),
        "in a comment": comments,
        "inside brackets": np.minimum(depth, 1),
        "bracket depth": depth,
        "indentation depth": _levels(tokens, starts, len(text)),
        "line position": _columns(text),
    }


def _prefix(string: str) -> int:
    """Return the number of letters before the first quote."""
    return len(string) - len(string.lstrip("rRbBuUfFtT"))


def _levels(tokens: list[tokenize.TokenInfo], starts: list[int], length: int) -> np.ndarray:
    """Return for each character the indentation level of the statement that its line belongs to."""
    levels, level, line = np.zeros(len(starts)), 0, 0
    for kind, _, (row, _), (last, _), _ in tokens:
        level += (kind == token.INDENT) - (kind == token.DEDENT)
        if kind in (token.INDENT, token.DEDENT, token.NL, token.COMMENT, token.NEWLINE, token.ENDMARKER):
            continue
        levels[line : row - 1] = levels[line - 1] if line else 0  # lines without a statement
        levels[row - 1 : last] = level
        line = max(line, last)
    levels[line:] = levels[line - 1] if line else 0
    ends = [*starts[1:], length]
    return np.repeat(levels, [end - start for start, end in zip(starts, ends, strict=True)])


def _columns(text: str) -> np.ndarray:
    positions = np.arange(len(text))
    ends = np.array([character == "\n" for character in text], dtype=bool)
    last = np.maximum.accumulate(np.where(ends, positions, -1)) if len(text) else positions
    return (positions - last).astype(np.float64)
