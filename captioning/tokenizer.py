"""The one tokeniser, shared by the vocabulary (training) and the scorers (evaluation).

Penn-Treebank tokens as coco-caption's PTBTokenizer makes them: lower case, punctuation dropped. nltk's Treebank
rules need no downloaded corpora. They split a full stop from its word only at the end of a text, so stops inside a
caption ("a plate. there is") are set apart first. Java's tokeniser remains the reference for published scores.
"""

import re
from functools import cache

# What coco-caption drops after tokenising. Its drop list is upper case while the text is lower case by then, so a
# bracket ("-lrb-") survives there; so it does here.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
# A stop after at least two letters, then space or the end: not an initial ("u.s.") and not a decimal point.
SENTENCE_STOP = re.compile(r"(?<=[a-z]{2})\.+(?=\s|$)")


# Words that keep their stop wherever they stand, as in the Java tokeniser ("12th ave.", "t.v.").
ABBREVIATION = re.compile(
    r"(st|ave|blvd|rd|mr|mrs|ms|dr|ft|mt|jr|sr|prof|gen|col|sgt|lt|vs|inc|ltd|corp|[a-z](\.[a-z])+)"
)


def tokenize(caption: str) -> list[str]:
    """Splits one caption into Penn-Treebank tokens, lower case, without punctuation.

    An empty or punctuation-only caption gives an empty list. White space of any kind separates words.
    """
    tokens: list[str] = []
    for token in _treebank().tokenize(SENTENCE_STOP.sub(" . ", caption.lower())):
        if token == "." and tokens and ABBREVIATION.fullmatch(tokens[-1]):
            tokens[-1] += "."
        elif token not in PUNCTUATION:
            tokens.append(BRACKETS.get(token, token))
    return tokens


@cache
def _treebank():
    # Imported at first use: nltk takes half a second to import, and many commands never tokenise.
    from nltk.tokenize.destructive import NLTKWordTokenizer

    return NLTKWordTokenizer()
