"""Labels of Python source against texts marked by hand, and Python's tokenizer against a reader of its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning.analysis.python_labels import source_labels
from captioning.data import read_texts
from captioning.errors import DataError

SOURCE = (
    "def f(a, b='(#'):  # say (it)\n"
    '    """Two\n'
    "\n"
    '    lines."""\n'
    "    if a:\n"
    "        # then\n"
    "\n"
    "        return {b: [a,\n"
    "   1]}\n"
    "    return rb'\\''\n"
    "x = ()\n"
)
# A mark under each character after which the reader is inside.
STRING = (
    "           ^^^                \n"
    "    ^^^^^^^\n"
    "\n"
    "^^^^^^^^^^^^ \n"
    "          \n"
    "              \n"
    "\n"
    "                      \n"
    "      \n"
    "             ^^^ \n"
    "      \n"
)
COMMENT = (
    "                   ^^^^^^^^^^\n"
    "          \n"
    "\n"
    "             \n"
    "         \n"
    "        ^^^^^^\n"
    "\n"
    "                       \n"
    "      \n"
    "                  \n"
    "      \n"
)
DEPTH = (
    "     1111111111             \n"
    "          \n"
    "\n"
    "             \n"
    "         \n"
    "              \n"
    "\n"
    "               1111222\n"
    "22221 \n"
    "                  \n"
    "    1 \n"
)
LEVELS = [0, 1, 1, 1, 1, 1, 1, 2, 2, 1, 0]


def marked(marks: str, ends: list[bool]) -> list[float]:
    """Numbers under the characters of SOURCE; `ends`: whether the reader is inside after each line's end."""
    numbers = []
    for line, mark, end in zip(SOURCE.splitlines(), marks.splitlines(), ends, strict=True):
        numbers += [float({" ": 0, "^": 1}.get(m, m)) for m in mark.ljust(len(line))[: len(line)]] + [float(end)]
    return numbers


def test_a_text_marked_by_hand():
    labels = source_labels(SOURCE)
    assert labels["inside a string"].tolist() == marked(STRING, [0, 1, 1] + [0] * 8)
    assert labels["in a comment"].tolist() == marked(COMMENT, [0] * 11)
    depth = marked(DEPTH, [0] * 7 + [2] + [0] * 3)
    assert labels["bracket depth"].tolist() == depth
    assert labels["inside brackets"].tolist() == [min(each, 1) for each in depth]
    lines = SOURCE.splitlines(keepends=True)
    expected = [level for line, level in zip(lines, LEVELS, strict=True) for _ in line]
    assert labels["indentation depth"].tolist() == expected
    assert labels["line position"].tolist() == [p for line in lines for p in [*range(1, len(line)), 0]]


def test_texts_of_nothing_and_of_no_end():
    assert all(values.shape == (0,) for values in source_labels("").values())
    assert source_labels("# a")["in a comment"].tolist() == [1, 1, 1]
    assert source_labels("a = 'é' ")["inside a string"].tolist() == [0, 0, 0, 0, 1, 1, 0, 0]
    nested = source_labels("f'{a}' + 'b'")["inside a string"]
    assert nested.tolist() == [0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0]
    for bad in ("(", '"""', "if a:\n    b\n  c\n"):
        with pytest.raises(DataError, match="not valid Python source"):
            source_labels(bad)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from(["a = 1\n", "if a:\n    b = (\n1)\n", "# c\n", "'s'\n", "\n", "[{}]\n", "'''\nd\n'''\n"]))
)
def test_labels_of_statements_one_after_the_other_are_those_of_each(pieces):
    whole = source_labels("".join(pieces))
    for name in ("inside a string", "in a comment", "bracket depth", "line position"):
        parts = [source_labels(piece)[name] for piece in pieces]
        assert whole[name].tolist() == [number for part in parts for number in part]


def test_every_file_of_a_piece_of_the_standard_library_has_its_labels():
    for _, text in read_texts(characters=300_000)["train"]:
        labels = source_labels(text)
        assert all(values.shape == (len(text),) and values.min() >= 0 for values in labels.values())
        assert not (labels["inside a string"] * labels["in a comment"]).any()
        assert (labels["in a comment"][np.array([c == "\n" for c in text])] == 0).all()
