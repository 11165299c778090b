"""Make the rules about phrases of guided captions in English.

The lists are of words that occur in the captions of Flickr8k and COCO. A word that is often a noun itself, such as
"orange" and "blonde", is no modifier here: a rule must not forbid a correct phrase.
"""

from collections.abc import Sequence

from captioning.decoding import PhraseRules
from captioning.inference.borrowed_words import ExtendedVocabulary
from captioning.tags import plurals_of

# "of" and numbers open a phrase too: "a group of young …", "two young …".
OPENERS = ("a", "an", "the", "another", "of", "two", "three", "four", "five", "several", "many", "some")
MODIFIERS = (
    "and", ",", "very", "brightly",
    "beige", "black", "blue", "bright", "brown", "colorful", "dark", "gray", "green", "grey", "multicolored", "pink",
    "plaid", "purple", "red", "silver", "spotted", "striped", "tan", "white", "yellow",
    "big", "elderly", "huge", "large", "little", "long", "old", "older", "short", "small", "tall", "tiny", "young",
    "younger",
    "busy", "crowded", "dirty", "fluffy", "furry", "grassy", "haired", "hairy", "muddy", "rocky", "sandy", "shaggy",
    "snowy", "wet", "wooden",
)  # fmt: skip
CLOSERS = (
    "<end>", ".",
    "are", "has", "have", "is", "was", "were",
    "a", "an", "the", "her", "his", "its", "their", "it", "that", "which", "who",
    "across", "against", "along", "around", "as", "at", "behind", "beneath", "by", "down", "from", "in", "into", "near",
    "of", "off", "on", "onto", "out", "over", "through", "to", "under", "up", "while", "with",
    "lays", "lies", "looks", "play", "run", "runs", "sit", "sits", "stand", "stands", "walk", "walks", "wearing",
)  # fmt: skip
FORBIDDEN_PHRASES = ("group of a", "group of an", "group of the", "couple of a", "couple of the", "pile of a")
ONE, SEVERAL = ("a", "an", "another"), ("group of", "couple of", "pile of")
DISTANCE = 2  # "white and white"


def english_phrases(words: ExtendedVocabulary, things: Sequence[str]) -> PhraseRules:
    """Return the rules about phrases: complete noun phrases, nothing named twice, "a dog", "a group of dogs".

    Args:
        words: The vocabulary.
        things: Words that occur at most once in a caption, singular and plural.
    """

    def ids(listed: Sequence[str]) -> tuple[int, ...]:
        return tuple(words.ids[word] for word in listed if word in words.ids)

    named = {thing: plurals_of(thing) for thing in things}
    unchanging = {thing for thing, plurals in named.items() if thing in plurals}  # sheep
    plurals = {plural for each in named.values() for plural in each} & set(things) - unchanging
    singulars = [thing for thing, own in named.items() if own and thing not in plurals | unchanging]
    phrases = [
        *FORBIDDEN_PHRASES,
        *(f"{first} {thing}" for first in ONE for thing in plurals),
        *(f"{first} {thing}" for first in SEVERAL for thing in singulars),
    ]
    never = [ids(split) for split in map(str.split, phrases) if all(word in words.ids for word in split)]
    return PhraseRules(ids(OPENERS), ids(MODIFIERS), ids(CLOSERS), ids(things), DISTANCE, tuple(never))
