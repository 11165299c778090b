"""Stand-ins, categories and probes: the tables are consistent, and numbers agree with computations by hand."""

import pytest
import torch
import yaml

import captioning
from captioning.tags import (
    Probe,
    borrowable,
    broader_than,
    category_of,
    coco_words,
    forms,
    imagenet_nouns,
    person_probe,
    plurals_of,
    stand_ins_of,
)
from captioning.tags.stand_ins import TABLE


def test_every_entry_of_the_table_is_a_noun_that_something_uses():
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    nouns = {row.noun for row in imagenet_nouns()} | set(coco_words())
    assert set(table["nouns"]) <= nouns
    assert set(table["broader"]) <= {row.broader for row in imagenet_nouns()}
    assert all(words and noun not in words for noun, words in table["nouns"].items())


def test_every_category_that_the_small_captioner_does_not_know_can_be_borrowed():
    vocabulary = set(captioning.load("flickr8k-small", device="cpu").vocabulary.words)
    unknown = [noun for noun in coco_words() if not any(form in vocabulary for form in forms(noun))]
    borrowed = borrowable(unknown, vocabulary)
    assert len(unknown) > 20 and set(unknown) <= set(borrowed)
    assert borrowed["zebra"] == "horse" and borrowed["zebras"] == "horses"
    assert set(borrowed.values()) <= vocabulary and not set(borrowed) & vocabulary


def test_own_stand_ins_come_first_and_unknown_ones_are_left_out():
    vocabulary = {"horse", "horses", "cow"}
    assert borrowable(["zebra"], vocabulary, {"zebra": "cow"}) == {"zebra": "cow"}
    assert borrowable(["zebra", "gizmo"], {"cow"}) == {"zebra": "cow"}
    assert borrowable(["horse"], vocabulary) == {}


def test_relations():
    assert category_of("taxi") == "car" and category_of("puppies") == "dog" and category_of("mountain") == ""
    assert broader_than("fox") == "animal" and broader_than("gizmo") == ""
    assert plurals_of("zebra") == ["zebras"] and stand_ins_of("gizmo") == []


def test_a_probe_by_hand():
    probe = Probe("thing", torch.tensor([1.0, -2.0]), torch.tensor([0.5]), slope=2.0, offset=-1.0)
    vectors = torch.tensor([[3.0, 1.0], [0.0, 0.25]])
    logits = torch.tensor([3.0 - 2.0 + 0.5, -0.5 + 0.5])
    torch.testing.assert_close(probe.probability(vectors), logits.sigmoid())
    torch.testing.assert_close(probe.confidence(logits.sigmoid()), (2 * logits - 1).sigmoid())


def test_the_person_probe_is_for_the_default_network():
    probe = person_probe()
    assert probe.weight.shape == (1280,) and probe.bias.shape == (1,) and probe.slope > 0


@pytest.mark.parametrize("noun", ["zebra", "fire hydrant", "knife"])
def test_a_noun_is_one_of_its_forms(noun):
    assert forms(noun)[0] == noun
