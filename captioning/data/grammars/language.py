"""What the captions of drawn scenes need to know of a language."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# Meanings, the same in all languages. Their order decides what is drawn.
SHAPES = ("square", "triangle", "star", "heart", "circle")
COLOR_NAMES = ("red", "yellow", "green", "blue", "magenta", "white")
BACKGROUNDS = ("plain", "striped", "dotted", "checked", "noisy", "shaded")

PhraseTable = Mapping[Any, tuple[str, ...]]  # meaning -> phrases for it


class Frame(NamedTuple):
    """Templates of a whole caption around its body.

    Attributes:
        text: the template without a background; its field is {body}.
        grounded: templates with a background; their fields are {body} and {background}.
    """

    text: str
    grounded: tuple[str, ...]


class Language(NamedTuple):
    """How one language describes drawn scenes.

    A caption is written from templates. If there are several templates, one is drawn at random.

    A caption is read from left to right: one match of `start`, matches of `step`, each with one noun, and one match of
    `end`. These named groups have a meaning; a digit may follow a name:

        shape, color, size    what the noun says
        forward               relation of the noun before to this one
        backward              relation of this noun to the one before
        ahead                 relation of the noun after to this one
        count, background     what `start` or `end` says; not both
        one letter            which construction this is

    `order` is a pattern of the allowed sequences of constructions: an "n" per noun with the letters of its step, and
    the letters of `start` and `end` around them.

    Attributes:
        code: ISO 639-1 code.
        name: English name.
        shapes: phrases for each of SHAPES.
        colors: phrases for each of COLOR_NAMES.
        sizes: phrases for "small" and "large".
        relations: phrases for "left", "right", "above", "below" and "beside" (left or right, with nothing between).
        backgrounds: phrases for each of BACKGROUNDS.
        counts: phrases for 2 and 3.
        classifiers: the measure word of each phrase of `shapes`, if the language has such words.
        nouns: templates of an object, with {shape}, {color} and {classifier}.
        sized_nouns: the same with {size}.
        bodies: construction -> number of objects -> templates. {0}, {1} and {2} are the objects. "related" and "is"
            have {where}, the relation of {0} to {1}; in "with" it is that of {1} to {0}. "list" has none; "counted" has
            {count}.
        frames: construction, or "one" for one object -> the frames that fit it.
        stop: what ends a caption.
        lengths: allowed lengths of a caption, in the units that `measure` counts.
        measure: returns the length of a caption.
        normalize: brings a caption into the form that the patterns expect.
        start: pattern of the beginning.
        step: pattern of one noun, and what connects it.
        end: pattern of the end.
        order: pattern of the constructions.
    """

    code: str
    name: str
    shapes: PhraseTable
    colors: PhraseTable
    sizes: PhraseTable
    relations: PhraseTable
    backgrounds: PhraseTable
    counts: PhraseTable
    classifiers: Mapping[str, str]
    nouns: tuple[str, ...]
    sized_nouns: tuple[str, ...]
    bodies: Mapping[str, Mapping[int, tuple[str, ...]]]
    frames: Mapping[str, tuple[Frame, ...]]
    stop: str
    lengths: range
    measure: Callable[[str], int]
    normalize: Callable[[str], str]
    start: re.Pattern[str]
    step: re.Pattern[str]
    end: re.Pattern[str]
    order: re.Pattern[str]


def either(table: PhraseTable) -> str:
    """Return a pattern that matches every phrase of the table, the longest one that fits."""
    phrases = [phrase for phrases in table.values() for phrase in phrases]
    return "|".join(sorted(phrases, key=len, reverse=True))


def letters(caption: str) -> str:
    """Return the letters, marks and digits of a caption in NFC, without spaces and punctuation."""
    return "".join(sign for sign in unicodedata.normalize("NFC", caption) if unicodedata.category(sign)[0] in "LMN")


def count_letters(caption: str) -> int:
    """Return the number of letters and digits of a caption; a letter with its marks counts as one."""
    return sum(unicodedata.category(sign)[0] in "LN" for sign in caption)
