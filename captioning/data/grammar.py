"""Describe a drawn scene in a small grammar of one language, and parse captions of that grammar back into claims.

`captioning.data.grammars` has the languages. This file decides, for all of them, what a caption says and whether it is
true. Large things are named before small ones, and things of one size from the top left to the bottom right.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import permutations
from random import Random
from typing import Any, NamedTuple, TypeVar

from captioning.data.grammars import ENGLISH, Language

# Networks trained with mirrored images, such as those for ImageNet, hardly distinguish left from right: EfficientNet's
# features of a mirrored scene are nearly the mirrored features. So most captions do not name the side.
BESIDE = 0.6  # share of the captions that do not name the side, of those that could
FORMS = ("related", "related", "is", "with", "list")  # constructions for two or three objects, equally frequent
DOMINANCE = 1.5  # a relation is clear if the distance along one axis is more than this many times that along the other
# Group of a pattern that names a relation -> from which noun to which, counted from the noun of the match.
RELATED = {"forward": (-1, 0), "backward": (0, -1), "ahead": (1, 0)}

Template = TypeVar("Template")


class Thing(NamedTuple):
    """One object: its shape, color and size as meanings, and its box (x, y, width, height) in pixels."""

    shape: str
    color: str
    size: str
    box: tuple[float, float, float, float]


class Scene(NamedTuple):
    """One image: 1 to 3 things on a background. No two things have the same color and shape."""

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


def describe_scene(scene: Scene, random: Random, *, number: int = 5, language: Language = ENGLISH) -> tuple[str, ...]:
    """Return `number` different true captions whose lengths are in the language's range, drawn from `random`."""
    captions: dict[str, None] = {}  # a set that keeps its order
    while len(captions) < number:
        text = _sentence(scene, random, language)
        if language.measure(text) in language.lengths:
            captions[text[0].upper() + text[1:] + language.stop] = None
    return tuple(captions)


def _sentence(scene: Scene, random: Random, language: Language) -> str:
    things = sorted(scene.things, key=_salience)
    if len(things) == 3 and random.random() < 0.15:
        things.pop()  # sometimes one of three objects is not mentioned
    complete = len(things) == len(scene.things)
    form, body = _body(things, scene, random, language, counted=complete and random.random() < 0.3)
    frame = _choose(random, language.frames[form])
    if random.random() < (0.7 if len(scene.things) == 1 else 0.25):
        background = random.choice(language.backgrounds[scene.background])
        return _choose(random, frame.grounded).format(body=body, background=background)
    return frame.text.format(body=body)


def _salience(thing: Thing) -> tuple[bool, float]:
    """Return a sort key: people name large things first, then things from the top left."""
    x, y, width, height = thing.box
    return thing.size != "large", x + width / 2 + y + height / 2


def _body(
    things: Sequence[Thing], scene: Scene, random: Random, language: Language, *, counted: bool
) -> tuple[str, str]:
    """Return the construction, a key of the language's frames, and the text about the things."""
    nouns = [_noun(thing, random, language) for thing in things]
    if len(nouns) == 1:
        return "one", nouns[0]
    form = random.choice(FORMS)
    fields = {}
    if form == "list":
        form = "counted" if counted else "list"
        fields["count"] = language.counts[len(nouns)][0]
    else:
        pair = (things[1], things[0]) if form == "with" else (things[0], things[1])
        beside = random.random() < BESIDE and _related(*pair, "beside", scene)
        where = "beside" if beside else relation(*pair)
        assert where is not None  # scenes are drawn with clear relations
        fields["where"] = random.choice(language.relations[where])
    return form, _choose(random, language.bodies[form][len(nouns)]).format(*nouns, **fields)


def _noun(thing: Thing, random: Random, language: Language) -> str:
    size = random.choice(language.sizes[thing.size]) if random.random() < 0.5 else None
    color, shape = random.choice(language.colors[thing.color]), random.choice(language.shapes[thing.shape])
    template = _choose(random, language.sized_nouns if size else language.nouns)
    return template.format(size=size, color=color, shape=shape, classifier=language.classifiers.get(shape))


def _choose(random: Random, templates: Sequence[Template]) -> Template:
    """Return one of the templates. A single one does not change the state of `random`."""
    return random.choice(templates) if len(templates) > 1 else templates[0]


def parse(caption: str, language: Language = ENGLISH) -> Claims | None:
    """Parse a caption, in upper or lower case, with or without punctuation.

    In languages without spaces between words, spaces make no difference.

    Returns:
        The caption's claims; None if the grammar does not have such a sentence.
    """
    text = language.normalize(caption)
    start = language.start.match(text)
    assert start is not None  # every part of it is optional
    position = start.end()
    steps: list[dict[str, str]] = []
    while step := language.step.match(text, position):
        steps.append(_groups(step))
        position = step.end()
    end = language.end.fullmatch(text, position)
    if not end or not language.order.fullmatch(_constructions(_groups(start), steps, _groups(end))):
        return None
    said = _groups(start) | _groups(end)
    if len(said) < len(_groups(start)) + len(_groups(end)):  # the background twice
        return None
    count, background = (_meaning(getattr(language, f"{key}s"), said.get(key)) for key in ("count", "background"))
    return Claims(tuple(_mention(step, language) for step in steps), _relations(steps, language), count, background)


def _groups(match: re.Match[str]) -> dict[str, str]:
    """Return name -> text of the groups that took part in a match; a digit at the end of a name is dropped."""
    return {name.rstrip("0123456789"): text for name, text in match.groupdict().items() if text is not None}


def _constructions(start: Mapping[str, str], steps: Sequence[Mapping[str, str]], end: Mapping[str, str]) -> str:
    """Return the text that a language's `order` describes."""
    first, *letters, last = ("".join(name for name in groups if len(name) == 1) for groups in (start, *steps, end))
    return first + "".join("n" + found for found in letters) + last


def _relations(steps: Sequence[Mapping[str, str]], language: Language) -> tuple[tuple[int, str, int], ...]:
    return tuple(
        (at + RELATED[name][0], _meaning(language.relations, step[name]), at + RELATED[name][1])
        for name in RELATED
        for at, step in enumerate(steps)
        if name in step
    )


def _mention(step: Mapping[str, str], language: Language) -> Phrase:
    tables = {"shape": language.shapes, "color": language.colors, "size": language.sizes}
    return Phrase(*(_meaning(table, step.get(name)) for name, table in tables.items()))


def _meaning(table: Mapping[Any, tuple[str, ...]], phrase: str | None) -> Any:
    return next((meaning for meaning, phrases in table.items() if phrase in phrases), None)


def is_true(caption: str, scene: Scene, language: Language = ENGLISH) -> bool:
    """Return whether the mentions can be assigned to different things of the scene so that all claims are true.

    A caption that is not in the language's grammar is false.
    """
    claims = parse(caption, language)
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
    """Return whether the first thing is in a relation, such as "beside", to the second."""
    seen = relation(first, second)
    if where != "beside":
        return seen == where
    # Without the two themselves: because of rounding, a thing may be to the left or right of its own center.
    others = [other for other in scene.things if other not in (first, second)]
    between = any(relation(first, other) == seen == relation(other, second) for other in others)
    return seen in ("left", "right") and not between
