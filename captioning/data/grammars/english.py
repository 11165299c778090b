"""English captions of drawn scenes.

caption  = [opening] body [ground] "."
opening  = "there is" | "there are" | article kind "of"    (kind: a key of _KINDS)
body     = noun | list | pair ["and" noun]
pair     = noun ["is"] relation noun | noun "with" noun relation "it"
list     = [("two" | "three") "shapes"] noun ["," noun] "and" noun
noun     = article [size] color shape
ground   = "on a" background "background"

In "A above B and C", the relation is between A and B; C is only claimed to exist.
"""

import re

from captioning.data.grammars.language import COLOR_NAMES, Frame, Language, either
from captioning.text import tokenize

_SHAPES = {name: (name,) for name in ("square", "triangle", "star", "heart")} | {"circle": ("circle", "disc")}
_COLORS = {name: (name,) for name in COLOR_NAMES}
_SIZES = {"small": ("small", "little", "tiny"), "large": ("large", "big")}
_RELATIONS = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
    "beside": ("beside", "next to"),
}
_BACKGROUNDS = {
    "plain": ("plain",),
    "striped": ("striped",),
    "dotted": ("dotted", "spotted"),
    "checked": ("checked", "checkered"),
    "noisy": ("noisy", "speckled"),
    "shaded": ("shaded",),
}
_COUNTS = {2: ("two",), 3: ("three",)}
_KINDS = {"picture": "a", "image": "an", "drawing": "a"}  # with their articles
_OPENINGS = ("", "", "", *(f"{article} {kind} of " for kind, article in _KINDS.items()))


def _frames(*openings: str) -> tuple[Frame, ...]:
    return tuple(Frame(f"{text}{{body}}", (f"{text}{{body}} on a {{background}} background",)) for text in openings)


def _spaced(caption: str) -> str:
    """Return the words of a caption in lower case, each followed by a space, without punctuation."""
    return "".join(word + " " for word in tokenize(caption))


_PHRASE = _frames(*_OPENINGS, "there is ")
# The parser accepts a little more than the grammar produces: any article, a missing color, "shape" for any shape.
ENGLISH = Language(
    code="en",
    name="English",
    shapes=_SHAPES,
    colors=_COLORS,
    sizes=_SIZES,
    relations=_RELATIONS,
    backgrounds=_BACKGROUNDS,
    counts=_COUNTS,
    classifiers={},
    nouns=("a {color} {shape}",),  # never "an": no size and no color begins with a vowel
    sized_nouns=("a {size} {color} {shape}",),
    bodies={
        "related": {2: ("{0} {where} {1}",), 3: ("{0} {where} {1} and {2}",)},
        "is": {2: ("{0} is {where} {1}",), 3: ("{0} is {where} {1} and {2}",)},
        "with": {2: ("{0} with {1} {where} it",), 3: ("{0} with {1} {where} it and {2}",)},
        "list": {2: ("{0} and {1}",), 3: ("{0}, {1} and {2}",)},
        "counted": {2: ("{count} shapes, {0} and {1}",), 3: ("{count} shapes, {0}, {1} and {2}",)},
    },
    frames=dict.fromkeys(("one", "related", "with", "list"), _PHRASE)
    | {"counted": _frames(*_OPENINGS, "there are "), "is": _frames("")},
    stop=".",
    lengths=range(6, 17),
    measure=lambda caption: len(caption.split()),
    normalize=_spaced,
    start=re.compile(
        rf"(?:there (?:is|are) |an? (?:{'|'.join(_KINDS)}) of )?(?:(?P<count>{either(_COUNTS)}) shapes )?"
    ),
    step=re.compile(
        rf"(?:(?:(?P<a>and)|(?P<w>with)|(?P<r>(?:is )?(?P<forward>{either(_RELATIONS)}))) )?"
        rf"(?:an?|the) (?:(?P<size>{either(_SIZES)}) )?(?:(?P<color>{either(_COLORS)}) )?"
        rf"(?P<shape>{either(_SHAPES)}|shape) (?P<i>(?P<backward>{either(_RELATIONS)}) it )?"
    ),
    end=re.compile(rf"(?:on (?:an?|the) (?P<background>{either(_BACKGROUNDS)}) background )?"),
    # a: after "and"; w: after "with"; r: after a relation; i: before "above it" etc.
    order=re.compile(r"n(?:n*na|nr|nwi?)*"),
)
