"""Describe a drawn scene in a small English grammar, and parse captions of that grammar back into claims.

    caption  = [opening] body [ground] "."
    opening  = "there is" | "there are" | article kind "of"    (kind: a key of IMAGE_KINDS)
    body     = noun | list | pair ["and" noun]
    pair     = noun ["is"] relation noun | noun "with" noun relation "it"
    list     = [("two" | "three") "shapes"] noun ["," noun] "and" noun
    noun     = article [size] color shape
    ground   = "on a" background "background"

Large things are named before small ones, and things of one size from the top left to the bottom right. In "A above B
and C", the relation is between A and B; C is only claimed to exist.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import permutations
from random import Random
from typing import Any, NamedTuple

from captioning.text import tokenize

# Meaning -> phrases for it.
COLOR_WORDS = {name: (name,) for name in ("red", "yellow", "green", "blue", "magenta", "white")}
SHAPES = {name: (name,) for name in ("square", "triangle", "star", "heart")} | {"circle": ("circle", "disc")}
SIZES = {"small": ("small", "little", "tiny"), "large": ("large", "big")}
RELATIONS = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
    "beside": ("beside", "next to"),  # left or right, with nothing between
}
BACKGROUNDS = {
    "plain": ("plain",),
    "striped": ("striped",),
    "dotted": ("dotted", "spotted"),
    "checked": ("checked", "checkered"),
    "noisy": ("noisy", "speckled"),
    "shaded": ("shaded",),
}
COUNTS = {2: ("two",), 3: ("three",)}
# Networks trained with mirrored images, such as those for ImageNet, hardly distinguish left from right: EfficientNet's
# features of a mirrored scene are nearly the mirrored features. So most captions do not name the side.
BESIDE = 0.6  # share of the captions that do not name the side, of those that could
IMAGE_KINDS = {"picture": "a", "image": "an", "drawing": "a"}  # with their articles
OPENINGS = ("", "", "", *(f"{article} {kind} of " for kind, article in IMAGE_KINDS.items()))
WORDS = range(6, 17)  # lengths of captions in words; other captions are drawn again
DOMINANCE = 1.5  # a relation is clear if the distance along one axis is more than this many times that along the other


class Thing(NamedTuple):
    """One object: meanings from SHAPES, COLOR_WORDS and SIZES, and its box (x, y, width, height) in pixels."""

    shape: str
    color: str
    size: str
    box: tuple[float, float, float, float]


class Scene(NamedTuple):
    """One image: 1 to 3 things on a background of BACKGROUNDS. No two things have the same color and shape."""

    things: tuple[Thing, ...]
    background: str


class Phrase(NamedTuple):
    """What a caption says about one object; None for properties that it does not mention."""

    shape: str | None
    color: str | None
    size: str | None


class Claims(NamedTuple):
    """The claims of a caption.

    Attributes:
        mentions: the objects that it mentions.
        relations: (i, r, j): mention i is in relation r to mention j, such as "above".
        count: the number of objects that it states; None if it states none.
        background: the background that it states; None if it states none.
    """

    mentions: tuple[Phrase, ...]
    relations: tuple[tuple[int, str, int], ...] = ()
    count: int | None = None  # type: ignore[assignment]  # hides tuple.count, which nothing calls
    background: str | None = None


def relation(first: Thing, second: Thing) -> str | None:
    """Return the position of the first thing relative to the second, by the centers of their boxes.

    Returns:
        "left", "right", "above" or "below"; None if it is unclear.
    """
    (x, y, width, height), (x2, y2, width2, height2) = first.box, second.box
    dx, dy = x + width / 2 - x2 - width2 / 2, y + height / 2 - y2 - height2 / 2
    if max(abs(dx), abs(dy)) <= DOMINANCE * min(abs(dx), abs(dy)):
        return None
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


def describe_scene(scene: Scene, random: Random, *, number: int = 5) -> tuple[str, ...]:
    """Return `number` different true captions of 6 to 16 words, drawn from `random`."""
    captions: dict[str, None] = {}  # a set that keeps its order
    while len(captions) < number:
        text = _sentence(scene, random)
        if len(text.split()) in WORDS:
            captions[text[0].upper() + text[1:] + "."] = None
    return tuple(captions)


def _sentence(scene: Scene, random: Random) -> str:
    things = sorted(scene.things, key=_salience)
    if len(things) == 3 and random.random() < 0.15:
        things.pop()  # sometimes one of three objects is not mentioned
    complete = len(things) == len(scene.things)
    text = _body(things, scene, random, counted=complete and random.random() < 0.3)
    if " is " not in text:
        there = "there are " if " shapes, " in text else "there is "
        text = random.choice((*OPENINGS, there)) + text
    if random.random() < (0.7 if len(scene.things) == 1 else 0.25):
        text += f" on a {random.choice(BACKGROUNDS[scene.background])} background"
    return text


def _salience(thing: Thing) -> tuple[bool, float]:
    """Return a sort key: people name large things first, then things from the top left."""
    x, y, width, height = thing.box
    return thing.size != "large", x + width / 2 + y + height / 2


def _body(things: Sequence[Thing], scene: Scene, random: Random, *, counted: bool) -> str:
    nouns = [_noun(thing, random) for thing in things]
    if len(nouns) == 1:
        return nouns[0]
    form = random.choice(("related", "related", "is", "with", "list"))
    if form == "list":
        count = f"{COUNTS[len(nouns)][0]} shapes, " if counted else ""
        return f"{count}{', '.join(nouns[:-1])} and {nouns[-1]}"
    first, second, *third = nouns
    pair = (things[1], things[0]) if form == "with" else (things[0], things[1])
    beside = random.random() < BESIDE and _related(*pair, "beside", scene)
    where = "beside" if beside else relation(*pair)
    assert where is not None  # scenes are drawn with clear relations
    phrase = random.choice(RELATIONS[where])
    related = {
        "related": f"{first} {phrase} {second}",
        "is": f"{first} is {phrase} {second}",
        "with": f"{first} with {second} {phrase} it",
    }
    return " and ".join([related[form], *third])


def _noun(thing: Thing, random: Random) -> str:
    size = random.choice(SIZES[thing.size]) + " " if random.random() < 0.5 else ""
    # Never "an": no size and no color begins with a vowel.
    return f"a {size}{random.choice(COLOR_WORDS[thing.color])} {random.choice(SHAPES[thing.shape])}"


def _either(table: Mapping[Any, tuple[str, ...]]) -> str:
    """Return a pattern that matches every phrase of the table."""
    return "|".join(phrase for phrases in table.values() for phrase in phrases)


def _meaning(table: Mapping[Any, tuple[str, ...]], phrase: str | None) -> Any:
    return next((meaning for meaning, phrases in table.items() if phrase in phrases), None)


# The parser accepts a little more than the grammar produces: any article, a missing color, "shape" for any shape.
START = re.compile(rf"(?:there (?:is|are) |an? (?:{'|'.join(IMAGE_KINDS)}) of )?(?:({_either(COUNTS)}) shapes )?")
_STEP = re.compile(
    rf"(?:(?P<lead>and|with|(?:is )?(?P<where>{_either(RELATIONS)})) )?"
    rf"(?:an?|the) (?:(?P<size>{_either(SIZES)}) )?(?:(?P<color>{_either(COLOR_WORDS)}) )?"
    rf"(?P<shape>{_either(SHAPES)}|shape) (?:(?P<it>{_either(RELATIONS)}) it )?"
)
GROUND = re.compile(rf"(?:on (?:an?|the) ({_either(BACKGROUNDS)}) background )?")
# Allowed sequences of nouns, with one or two letters per noun (see _letter); the text has no commas any more.
ORDER = re.compile(r"n(?:n*a|r|wi?)*")


def parse(caption: str) -> Claims | None:
    """Parse a caption, in upper or lower case, with or without punctuation.

    A relation is between an object and the one mentioned before it, in "A above B" and in "B with A above it".

    Returns:
        The caption's claims; None if the grammar does not have such a sentence.
    """
    text = "".join(word + " " for word in tokenize(caption))
    start = START.match(text)
    assert start is not None  # every part of START is optional
    position = start.end()
    steps: list[re.Match[str]] = []
    while step := _STEP.match(text, position):
        steps.append(step)
        position = step.end()
    ground = GROUND.fullmatch(text, position)
    if not ground or not ORDER.fullmatch("".join(map(_letter, steps))):
        return None
    relations = [(i - 1, _meaning(RELATIONS, step["where"]), i) for i, step in enumerate(steps) if step["where"]]
    relations += [(i, _meaning(RELATIONS, step["it"]), i - 1) for i, step in enumerate(steps) if step["it"]]
    count, background = _meaning(COUNTS, start[1]), _meaning(BACKGROUNDS, ground[1])
    return Claims(tuple(map(_mention, steps)), tuple(relations), count, background)


def _letter(step: re.Match) -> str:
    """Return n for a noun alone, a after "and", w after "with", r after a relation; with i for "above it" etc."""
    lead = "r" if step["where"] else (step["lead"] or "noun")[0]
    return lead + ("i" if step["it"] else "")


def _mention(step: re.Match) -> Phrase:
    return Phrase(_meaning(SHAPES, step["shape"]), _meaning(COLOR_WORDS, step["color"]), _meaning(SIZES, step["size"]))


def is_true(caption: str, scene: Scene) -> bool:
    """Return whether the mentions can be assigned to different things of the scene so that all claims are true.

    A caption that is not in the grammar is false.
    """
    claims = parse(caption)
    if claims is None or claims.count not in (None, len(scene.things)):
        return False
    if claims.background not in (None, scene.background):
        return False
    return any(_holds(claims, things, scene) for things in permutations(scene.things, len(claims.mentions)))


def _holds(claims: Claims, things: Sequence[Thing], scene: Scene) -> bool:
    described = all(
        claimed in (None, seen)
        for mention, thing in zip(claims.mentions, things, strict=True)
        for claimed, seen in zip(mention, thing, strict=False)  # a thing's fourth field, its box, is never mentioned
    )
    return described and all(_related(things[i], things[j], where, scene) for i, where, j in claims.relations)


def _related(first: Thing, second: Thing, where: str, scene: Scene) -> bool:
    """Return whether the first thing is in a relation, a key of RELATIONS, to the second."""
    seen = relation(first, second)
    if where != "beside":
        return seen == where
    # Without the two themselves: because of rounding, a thing may be to the left or right of its own center.
    others = [other for other in scene.things if other not in (first, second)]
    between = any(relation(first, other) == seen == relation(other, second) for other in others)
    return seen in ("left", "right") and not between
