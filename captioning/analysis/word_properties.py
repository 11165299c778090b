"""Label each word of a caption by rule: position, prepositional phrase, plural, color.

There is no tagger: the rules are word lists and the typical form of English captions. All results that use these labels
are results for these rules.
"""

from collections.abc import Sequence


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_COLORS = _set("""
    black white red green yellow blue brown orange pink purple gray magenta cyan gold golden silver tan beige maroon
    violet turquoise
""") | {"grey"}
PREPOSITIONS = _set("""
    about above across after against along alongside among amongst around at atop before behind below beneath beside
    between beyond by down during for from in inside into near of off on onto out outside over past through throughout
    to toward towards under underneath until up upon with within without
""")
# Their first words alone are not prepositions: "left of" describes a location, "left hand" does not.
PHRASES = (("next", "to"), ("close", "to"), ("left", "of"), ("right", "of"), ("front", "of"), ("top", "of"))
DETERMINERS = _set("""
    a an the this that these those his her its their my your our some any each every another
""")
# A conjunction or a verb ends a phrase. A participle ends it, too; see `_ends`.
CONJUNCTIONS = _set("and but or while as that who which when where because so than")
VERBS = _set("""
    is are was were be been being am has have had do does did can could will would may appears appear becomes carries
    carry catches catch chases chase climbs climb comes come eats eat flies fly gets get gives give goes go hangs hang
    holds hold jumps jump kicks kick leads lead leans lean leaps leap lies lie looks look makes make moves move plays
    play poses pose pulls pull rests rest rides ride runs run says shows show sits sit sleeps sleep smiles smile
    splashes splash stands stand swims swim swings swing takes take talks talk throws throw tries try uses use waits
    wait walks walk watches watch wears wear works work
""")
IRREGULAR_PLURALS = _set("people men women children feet teeth geese mice firemen policemen fishermen")
NOT_PLURAL = _set("its his this us yes always perhaps plus across less towards others' does")
NOT_PARTICIPLES = _set("""
    thing something anything nothing everything building ceiling clothing string ring king wing evening morning
    wedding painting spring railing during swing sling bring sing crossing landing opening
""")


def properties(words: Sequence[str]) -> dict[str, list[float]]:
    """Compute the properties of each word of a caption.

    "position" counts up from 1 and "words left" down to 0; all other properties are 1 or 0. "color word next" describes
    the following word: what a network should expect after reading this word.

    Args:
        words: the caption's words in lower case, without <start> and <end>.

    Returns:
        {property: one value per word}.
    """
    length = len(words)
    color = [float(word in _COLORS) for word in words]
    return {
        "position": [float(position) for position in range(1, length + 1)],
        "words left": [float(length - position) for position in range(1, length + 1)],
        "in a prepositional phrase": in_prepositional_phrase(words),
        "plural": [float(is_plural(word)) for word in words],
        "color word": color,
        "color word next": color[1:] + [0.0] * bool(words),
    }


def in_prepositional_phrase(words: Sequence[str]) -> list[float]:
    """Return 1 for each word from a preposition to the end of its noun phrase, and 0 for all other words.

    The phrase ends before a conjunction, a verb, or a determiner that follows a noun.
    """
    inside, filled, marks = False, False, []  # filled: the phrase has a word that is not a determiner
    for at, word in enumerate(words):
        if _begins(words, at):
            inside, filled = True, False
        elif inside and _ends(word, filled=filled):
            inside = False
        elif inside and word not in DETERMINERS:
            filled = True
        marks.append(float(inside))
    return marks


def is_plural(word: str) -> bool:
    """Return whether a word is a regular plural in -s that is not a listed verb, or a listed irregular plural."""
    if word in IRREGULAR_PLURALS:
        return True
    ends = word.endswith("s") and len(word) > 3 and not word.endswith(("ss", "us", "is", "'s"))
    return ends and word not in NOT_PLURAL | VERBS | PREPOSITIONS


def _begins(words: Sequence[str], at: int) -> bool:
    """Return whether a preposition of one or two words begins at a position; "to" before a verb does not count."""
    word, after = words[at], words[at + 1] if at + 1 < len(words) else ""
    return (word, after) in PHRASES or (word in PREPOSITIONS and not (word == "to" and after in VERBS))


def _ends(word: str, *, filled: bool) -> bool:
    participle = word.endswith("ing") and len(word) > 4 and word not in NOT_PARTICIPLES
    return word in CONJUNCTIONS or word in VERBS or (filled and (participle or word in DETERMINERS))
