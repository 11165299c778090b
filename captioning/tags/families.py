"""Relate nouns to others: the broader noun, the category of COCO, and the plurals."""

from functools import cache

from captioning.tags.nouns import _plurals, _singular, coco_words, forms, imagenet_nouns


@cache
def _broader() -> dict[str, str]:
    return {row.noun: row.broader for row in imagenet_nouns() if row.noun}


@cache
def _categories() -> dict[str, str]:
    """Return {word: category of COCO}, for all words that name a category and all nouns of the table."""
    named = {form: category for category in coco_words() for form in forms(category)}
    return named | {row.noun: row.category for row in imagenet_nouns() if row.noun and row.category}


def broader_than(noun: str) -> str:
    """Return the more general noun of a noun of the table, such as "animal" for "fox"; "" if there is none."""
    return _broader().get(noun, "")


def category_of(noun: str) -> str:
    """Return the category of COCO that a noun belongs to, such as "car" for "taxi"; "" if there is none."""
    return _categories().get(noun, "")


def singular_of(noun: str) -> str:
    """Return a noun in lower case and in the singular: "Zebras" -> "zebra"."""
    return _singular(" ".join(noun.lower().split()))


def plurals_of(noun: str) -> list[str]:
    """Return the plurals of a noun in the singular, the most common first; none for words such as "jeans"."""
    return _plurals(noun)
