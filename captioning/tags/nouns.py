"""Look up the nouns that people use for ImageNet's classes, and the forms of a noun.

`imagenet_nouns.csv` has one row per class. Its nouns are our own choice: the word that a caption of a photo would have.
"""

import csv
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from captioning.data import COCO_WORDS

NOUN_TABLE = Path(__file__).with_name("imagenet_nouns.csv")
# Nouns whose plural does not follow the rules of `_plural`; several plurals are all accepted.
IRREGULAR = {
    "bison": ["bison"], "buffalo": ["buffalo", "buffaloes", "buffalos"], "calf": ["calves"], "child": ["children"],
    "clothing": ["clothing", "clothes"], "deer": ["deer"], "elf": ["elves"], "fish": ["fish", "fishes"],
    "foot": ["feet"], "goose": ["geese"], "half": ["halves"], "hoof": ["hooves", "hoofs"], "knife": ["knives"],
    "leaf": ["leaves"], "life": ["lives"], "loaf": ["loaves"], "man": ["men"], "moose": ["moose"],
    "mouse": ["mice"], "ox": ["oxen"], "person": ["people", "persons"], "salmon": ["salmon"],
    "scarf": ["scarves", "scarfs"], "sheep": ["sheep"], "shelf": ["shelves"], "shrimp": ["shrimp", "shrimps"],
    "squid": ["squid"], "thief": ["thieves"], "tooth": ["teeth"], "wharf": ["wharves"], "wife": ["wives"],
    "wolf": ["wolves"], "woman": ["women"], "aircraft": ["aircraft"], "food": ["food", "foods"],
    "furniture": ["furniture"], "jewelry": ["jewelry"], "luggage": ["luggage"], "hay": ["hay"],
}  # fmt: skip
# Nouns that are used in the plural for one thing; their singular is accepted too.
PLURALS = {
    "binoculars": "binocular", "blinds": "blind", "glasses": "glass", "goggles": "goggle",
    "jeans": "jean", "pajamas": "pajama", "pants": "pant", "scissors": "scissor", "shorts": "short", "skis": "ski",
    "sunglasses": "sunglass", "tights": "tight", "trunks": "trunk",
}  # fmt: skip
# Plurals from which the rules of `_singular_of` would remove too much or too little.
ENDINGS = {
    "atlases": "atlas", "axes": "axe", "buses": "bus", "canvases": "canvas", "cookies": "cookie",
    "flamingoes": "flamingo", "gases": "gas", "lenses": "lens", "mangoes": "mango", "mantises": "mantis",
    "menus": "menu", "mosquitoes": "mosquito", "movies": "movie", "potatoes": "potato", "tennis": "tennis",
    "ties": "tie", "tomatoes": "tomato", "volcanoes": "volcano",
}  # fmt: skip
# Other words for nouns of the table that are no categories of COCO.
SYNONYMS = {
    "atm": ["cash machine"], "bathtub": ["tub", "bath"], "boa": ["feather boa"],
    "coffeemaker": ["coffee maker", "coffee machine"], "crib": ["cradle", "cot"], "drum": ["drum set"],
    "firetruck": ["fire truck", "fire engine"], "gun": ["rifle", "pistol"], "hamburger": ["burger"],
    "hippo": ["hippopotamus", "hippopotamuses"], "ipod": ["mp3 player"], "jet": ["fighter jet"],
    "kart": ["go-kart", "go kart"], "lawnmower": ["lawn mower", "mower"], "mat": ["doormat"],
    "pajamas": ["pyjamas"], "phone": ["cell phone", "cellphone", "telephone", "mobile phone"],
    "pizza": ["pizza pie"], "popsicle": ["ice pop"], "purse": ["handbag"], "rabbit": ["bunny", "hare"],
    "racket": ["racquet", "tennis racket", "tennis racquet"], "rug": ["carpet"], "saxophone": ["sax"],
    "sailboat": ["sail boat"], "scooter": ["moped"], "seal": ["sea lion"], "shirt": ["jersey", "t-shirt"],
    "sign": ["street sign"], "skirt": ["miniskirt"], "sled": ["sledge", "sleigh"],
    "swimsuit": ["bathing suit"], "taxi": ["cab", "taxicab"], "telephone": ["phone"], "toilet paper": ["toilet roll"],
    "tram": ["streetcar", "trolley"], "trashcan": ["trash can", "garbage can", "bin"], "sofa": ["couch"],
    "vest": ["waistcoat"], "wheelbarrow": ["barrow"], "beach": ["shore", "seashore"], "blanket": ["quilt"],
    "player": ["ballplayer", "baseball player"], "diver": ["scuba diver"],
}  # fmt: skip
# People whom the words for COCO's category "person" lack, because some of them are ambiguous ("a couple of dogs").
# CHAIR and grounding count by the words of COCO's category alone; captions without people should avoid these too.
MORE_PEOPLE = (
    "adult", "artist", "athlete", "audience", "backpacker", "ballerina", "band", "baseman", "batsman", "bicycler",
    "boyfriend", "bridesmaid", "brother", "bystander", "cameraman", "cheerleader", "climber", "clown", "cop", "couple",
    "cowgirl", "crew", "crowd", "dad", "dancer", "diver", "drummer", "family", "female", "fencer", "fighter",
    "firefighter", "fisherman", "footballer", "gal", "girlfriend", "goalie", "grandfather", "grandmother", "groomsman",
    "guitarist", "gymnast", "hiker", "human", "husband", "individual", "infant", "instructor", "jogger", "jumper",
    "kayaker", "lifeguard", "male", "member", "mom", "musician", "newborn", "onlooker", "opponent", "owner",
    "parent", "performer", "photographer", "quarterback", "racer", "rollerblader", "runner", "sibling", "singer",
    "sister", "skiier", "swimmer", "teammate", "team", "teen", "tourist", "trainer", "vendor", "wakeboarder", "waiter",
    "waitress", "waterskier", "wife", "windsurfer", "wrestler", "youngster", "youth",
)  # fmt: skip
# Words for COCO's categories that often mean something else in a caption: a color, an animal, food, a game, clothes,
# plants outdoors, or a verb ("he skateboards"). A detector that does not find the thing says nothing about them.
HOMONYMS = (
    "basketball", "bats", "bikes", "boats", "books", "bowls", "canoes", "chicken", "cups", "ducks", "football", "glove",
    "gloves", "jet", "kayaks", "meter", "mice", "mouse", "orange", "plant", "plants", "rafts", "remote", "ships",
    "sinks", "skateboards", "ski", "skis", "snowboards", "tie", "ties", "trains", "volleyball",
)  # fmt: skip


# Broader nouns, and nouns without one, whose kind is not "other".
KINDS_OF_BROADER = {
    **dict.fromkeys(("water", "mountain", "rock", "building", "store", "beach", "valley", "field"), "scene"),
    **dict.fromkeys(("food", "fruit", "bread", "dessert", "vegetable", "drink"), "food"),
    "clothing": "clothing",
}


class ImageNetNoun(NamedTuple):
    """One row of the table.

    Attributes:
        number: index of the class, 0…999.
        class_name: name of the class.
        noun: noun that people use in a caption of a photo; "" if nobody would name it.
        broader: a more general noun that people also use; "" if there is none.
        category: the category of COCO that it belongs to; "" if there is none.
    """

    number: int
    class_name: str
    noun: str
    broader: str
    category: str


@cache
def imagenet_nouns() -> tuple[ImageNetNoun, ...]:
    """Return the table: one row for each of ImageNet's 1000 classes, in their order."""
    with NOUN_TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(ImageNetNoun(int(number), *rest) for number, *rest in list(csv.reader(file))[1:])


@cache
def coco_words() -> dict[str, list[str]]:
    """Return {category of COCO: the words that name it}, in the order of COCO's ids."""
    words = yaml.safe_load(COCO_WORDS.read_text(encoding="utf-8"))
    return {category: ways for category, ways in words.items() if category != "nothing"}


@cache
def _by_noun() -> dict[str, ImageNetNoun]:
    """Return {noun: a row with it}; rows with one noun also have one broader noun and category."""
    return {row.noun: row for row in imagenet_nouns() if row.noun}


def summed_nouns(row: ImageNetNoun) -> list[str]:
    """Return the nouns to whose probability a class adds: its own, and the broader one if that is a noun of the table.

    So "bird" also has the probability of "owl". It is not added to a noun of another category of COCO: "flower" is not
    added to "plant", which stands for potted plants.
    """
    own = [row.noun] if row.noun else []
    broader = _by_noun().get(row.broader)
    return own + ([row.broader] if broader and broader.category in ("", row.category) else [])


def kind_of(noun: str) -> str:
    """Return the kind of a noun of the table, for calibration.

    "category" is a category of COCO, "scene" a part of a landscape or a building, "food", "clothing", or "other".
    People mention the first ones more often than a classifier expects.
    """
    row = _by_noun()[noun]
    return "category" if row.category else KINDS_OF_BROADER.get(row.broader, KINDS_OF_BROADER.get(noun, "other"))


@cache
def _categories() -> dict[str, str]:
    """Return {word: category of COCO}, for all words that name a category and all nouns of the table."""
    named = {form: category for category in coco_words() for form in forms(category)}
    return named | {row.noun: row.category for row in imagenet_nouns() if row.noun and row.category}


def category_of(noun: str) -> str:
    """Return the category of COCO that a noun belongs to, such as "car" for "taxi"; "" if there is none."""
    return _categories().get(noun, "")


def broader_than(noun: str) -> str:
    """Return the more general noun of a noun of the table, such as "animal" for "fox"; "" if there is none."""
    return _by_noun()[noun].broader if noun in _by_noun() else ""


def canonical_noun(noun: str) -> str:
    """Return a noun as the table and the categories of COCO have it: "Zebras" -> "zebra", but "glasses" and "skis".

    A noun that they do not have is returned in lower case and in the singular.
    """
    noun = " ".join(noun.lower().split())
    return noun if noun in _by_noun() or noun in coco_words() else _singular(noun)


def forms(noun: str) -> list[str]:
    """Return the words and phrases that name a noun in a caption: singular, plural and synonyms, itself first.

    The name of a category of COCO has all words that name the category, also narrower ones: "dog" has "puppies", and
    "person" has "women". Other nouns have only their own forms and true synonyms. All are in lower case.

    Args:
        noun: a word or phrase such as "knife", "knives" or "fire hydrant".
    """
    noun = " ".join(noun.lower().split())
    singular = _singular(noun)
    ways = [noun, singular, *coco_words().get(singular, []), *coco_words().get(noun, [])]
    ways += SYNONYMS.get(singular, []) + SYNONYMS.get(noun, [])
    return list(dict.fromkeys(_withplurals_of(ways)))


def _withplurals_of(ways: Iterable[str]) -> Iterable[str]:
    for way in ways:
        yield way
        yield from plurals_of(way)


def plurals_of(phrase: str) -> list[str]:
    """Return the plurals of a noun, the most common first; none if it is a plural already, such as "jeans"."""
    *first, last = phrase.split()
    return [] if _singular(last) != last else [" ".join([*first, each]) for each in _plural_of(last)]


def _plural_of(word: str) -> list[str]:
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word in PLURALS.values():
        return [word + "s" if word != "glass" and word != "sunglass" else word + "es"]
    for ending in ("woman", "man", "person", "child"):  # policeman, fireman, salesperson; not human
        if word.endswith(ending) and not word.endswith(("human", "german", "roman")):
            return [word.removesuffix(ending) + each for each in IRREGULAR[ending]]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return [word + "es"]
    if word.endswith("y") and word[-2:-1] not in tuple("aeiou"):
        return [word[:-1] + "ies"]
    if word in ("potato", "tomato", "hero", "mango", "volcano", "mosquito", "flamingo"):
        return [word + "es", word + "s"]
    return [word + "s"]


@cache
def _irregular_singulars() -> dict[str, str]:
    listed = {plural: noun for noun, plurals in IRREGULAR.items() for plural in plurals if plural != noun}
    return PLURALS | ENDINGS | listed


def _singular(phrase: str) -> str:
    """Return a phrase with its last word in the singular."""
    *first, last = phrase.split() or [""]
    return " ".join([*first, _singular_of(last)])


def _singular_of(word: str) -> str:
    if word in IRREGULAR:
        return word
    if word in _irregular_singulars():
        return _irregular_singulars()[word]
    for plural, noun in (("women", "woman"), ("men", "man"), ("people", "person"), ("children", "child")):
        if word.endswith(plural):
            return word.removesuffix(plural) + noun
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zzes")) or (word.endswith("uses") and word[-5:-4] != "o"):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us")) and word not in ENDINGS.values():
        return word[:-1]
    return word
