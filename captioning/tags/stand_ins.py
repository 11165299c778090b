"""Choose the stand-in of a noun that a captioner does not know: a word that it knows, for a thing of a similar kind."""

from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path

import yaml

from captioning.tags.nouns import broader_than, forms, plurals_of

TABLE = Path(__file__).with_name("stand_ins.yaml")


@cache
def _table() -> dict[str, dict[str, list[str]]]:
    return yaml.safe_load(TABLE.read_text(encoding="utf-8"))


def stand_ins_of(noun: str) -> list[str]:
    """Return the words that may stand in for a noun in the singular, the best first."""
    table = _table()
    return [*table["nouns"].get(noun, []), *table["broader"].get(broader_than(noun), [])]


def borrowable(
    nouns: Iterable[str], vocabulary: Collection[str], stand_ins: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return {new word: its stand-in} for nouns of which a vocabulary has no form: singular and plural.

    A noun whose stand-ins the vocabulary lacks too is left out; so is a plural whose stand-in has no plural there.

    Args:
        nouns: the nouns.
        vocabulary: the words that a captioner knows.
        stand_ins: {noun: word}, used before the package's own table.
    """
    found: dict[str, str] = {}
    for noun in nouns:
        if any(form in vocabulary for form in forms(noun)):
            continue
        choices = [(stand_ins or {}).get(noun, ""), *stand_ins_of(noun)]
        stand_in = next((word for word in choices if word in vocabulary), None)
        if stand_in is None:
            continue
        found[noun] = stand_in
        several = next((word for word in plurals_of(stand_in) if word in vocabulary and word != stand_in), None)
        if several and (new := next(iter(plurals_of(noun)), None)):
            found.setdefault(new, several)
    return found
