"""The table of nouns is complete and consistent, and the forms of a noun are those of English."""

import re
from collections import defaultdict

import pytest
from torchvision.models._meta import _IMAGENET_CATEGORIES

from captioning.tags import canonical_noun, category_of, forms, imagenet_nouns, kind_of, summed_nouns
from captioning.tags.nouns import IRREGULAR, PLURALS, SYNONYMS, coco_words


def test_there_is_one_row_for_each_class_of_imagenet():
    rows = imagenet_nouns()
    assert [row.number for row in rows] == list(range(1000))
    assert [row.class_name for row in rows] == _IMAGENET_CATEGORIES


def test_nouns_are_short_words_in_lower_case():
    for row in imagenet_nouns():
        for word in (row.noun, row.broader):
            assert re.fullmatch(r"(?:[a-z]+(?: [a-z]+)?)?", word), row
        assert row.noun or not (row.broader or row.category), row
        assert row.noun != row.broader or not row.noun, row


def test_categories_are_those_of_coco():
    assert {row.category for row in imagenet_nouns()} - {""} <= set(coco_words())
    assert len(coco_words()) == 80
    wanted = {"racket": "tennis racket", "person": "person", "motorcycle": "motorcycle", "flower": "", "shirt": ""}
    assert {noun: category_of(noun) for noun in wanted} == wanted


def test_a_noun_that_the_tables_have_stays_as_it_is():
    """ "glasses" are not a wine glass, and "skis" are a category of COCO."""
    for noun in {row.noun for row in imagenet_nouns()} - {""} | set(coco_words()):
        assert canonical_noun(noun) == noun
    for noun, wanted in (("Zebras", "zebra"), (" Fire  Hydrants", "fire hydrant"), ("gizmos", "gizmo")):
        assert canonical_noun(noun) == wanted


def test_a_noun_has_one_broader_noun_and_one_category():
    found = defaultdict(set)
    for row in imagenet_nouns():
        found[row.noun].add((row.broader, row.category))
    assert not {noun: each for noun, each in found.items() if len(each) > 1}


def test_the_118_breeds_are_dogs():
    assert {row.noun for row in imagenet_nouns()[151:269]} == {"dog"}
    assert imagenet_nouns()[281][1:] == ("tabby", "cat", "animal", "cat")
    assert imagenet_nouns()[339].noun == "horse" and imagenet_nouns()[671].noun == "bicycle"
    worn = [
        row for row in imagenet_nouns() if row.class_name in ("jersey", "swimming trunks", "sunglasses", "seat belt")
    ]
    assert [(row.noun, row.category) for row in worn] == [
        ("shirt", ""), ("seatbelt", ""), ("sunglasses", ""), ("shorts", "")
    ]  # fmt: skip


def test_probabilities_are_added_to_broader_nouns_but_not_across_categories():
    by_class = {row.class_name: summed_nouns(row) for row in imagenet_nouns()}
    assert by_class["great grey owl"] == ["owl", "bird"]
    assert by_class["robin"] == ["bird"]  # "animal" is not a noun of the table
    assert by_class["daisy"] == ["flower"]  # "plant" is COCO's potted plant
    assert by_class["velvet"] == []


def test_kinds_of_nouns():
    assert [kind_of(noun) for noun in ("dog", "lake", "beach", "candy", "shirt", "hammer")] == [
        "category", "scene", "scene", "food", "clothing", "other"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("noun", "some"),
    [
        ("man", ["men"]),
        ("fireman", ["firemen"]),
        ("person", ["people", "persons", "woman", "women", "children"]),
        ("people", ["person"]),
        ("sheep", ["lamb", "lambs"]),
        ("knife", ["knives"]),
        ("Knives", ["knife"]),
        ("scarf", ["scarves", "scarfs"]),
        ("wolf", ["wolves"]),
        ("mouse", ["mice", "computer mice"]),
        ("bus", ["buses"]),
        ("buses", ["bus"]),
        ("canoes", ["canoe"]),
        ("church", ["churches"]),
        ("puppies", ["puppy"]),
        ("toy", ["toys"]),
        ("skis", ["ski", "pair of skis"]),
        ("jeans", ["jean"]),
        ("racket", ["racquet", "racquets", "tennis racket"]),
        ("fire  hydrant", ["fire hydrants", "hydrant"]),
        ("dog", ["dogs", "puppy", "puppies"]),
        ("pie", ["pies"]),
        ("glass", ["glasses"]),
        ("lens", ["lenses"]),
    ],
)
def test_forms_of_a_noun(noun, some):
    found = forms(noun)
    assert found[0] == " ".join(noun.lower().split())
    assert set(some) <= set(found) and len(found) == len(set(found))


def test_unchanged_and_plural_nouns_get_no_second_plural():
    assert forms("deer") == ["deer"]
    assert forms("jeans") == ["jeans", "jean"]
    assert forms("sunglasses") == ["sunglasses", "sunglass"]
    assert forms("gorilla") == ["gorilla", "gorillas"]


def test_singular_and_plural_of_every_noun_lead_to_each_other():
    for noun in {row.noun for row in imagenet_nouns()} - {""}:
        other = [*forms(noun), noun][1]
        if noun != "sheep":  # whose next form is "lamb"
            assert noun in forms(other), (noun, other)


def test_lists_of_forms_are_in_lower_case_and_complete():
    for lists in (IRREGULAR, SYNONYMS):
        for noun, words in lists.items():
            assert words and all(word == word.lower() for word in [noun, *words])
    assert all(noun not in IRREGULAR for noun in PLURALS)
