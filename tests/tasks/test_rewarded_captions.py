"""What a reward gets of sampled captions, and what a validation gets of searched ones."""

from types import SimpleNamespace

import pytest
import torch

from captioning.data import Vocabulary
from captioning.tasks import image_captioning
from captioning.tasks.image_captioning import _no_cider, _objective, _predict, _score

VOCABULARY = Vocabulary(["dog", "cat"])


def test_a_sample_without_an_end_is_rewarded_as_unended(monkeypatch):
    built, asked = {}, []
    monkeypatch.setattr(image_captioning, "build", lambda node, **options: built.update(node=node, **options))

    def reward(*arguments):
        asked.append(arguments)
        return [1.0, 2.0, 3.0]

    _objective({"objective": {"samples": 2}}, reward, None, VOCABULARY)
    assert built["node"] == {"samples": 2} and (built["start"], built["end"], built["forbidden"]) == (1, 2, (0, 1, 3))
    assert built["reward"]([7, 7, 8], [[4, 5, 2], [5, 4, 4], [2]]) == [1.0, 2.0, 3.0]
    assert asked == [([7, 7, 8], [["dog", "cat"], ["cat", "dog", "dog"], []], [True, False, True])]


def test_without_a_reward_an_objective_gets_its_teacher(monkeypatch):
    monkeypatch.setattr(image_captioning, "build", lambda node, **options: (node, options))
    assert _objective({"objective": "node"}, None, None, VOCABULARY) == ("node", {})
    assert _objective({"objective": "node"}, None, "teacher", VOCABULARY) == ("node", {"teacher": "teacher"})


def test_validation_captions_go_by_image(monkeypatch):
    monkeypatch.setattr(
        image_captioning, "generate_texts", lambda captioner, images, mask, **options: [captioner, images, mask]
    )
    batch = SimpleNamespace(image_ids=torch.tensor([5, 3, 9]), images="images", mask="mask")
    assert _predict("captioner", batch, None, search=None, vocabulary=VOCABULARY) == {
        5: "captioner",
        3: "images",
        9: "mask",
    }


def test_scores_are_of_the_captions_that_were_written(monkeypatch):
    monkeypatch.setattr(
        image_captioning, "score", lambda references, captions, tokenizer: {"CIDEr": (references, captions, tokenizer)}
    )
    references = {1: ["a"], 2: ["b"], 3: ["c"]}
    captions = {3: "x", 1: "y"}
    own = ({3: ["c"], 1: ["a"]}, captions, "split")
    assert _score(references, None, "val/beam3/", "split", captions) == {"val/beam3/CIDEr": own}
    extra = lambda captions, split: {"truth": (captions, split)}  # noqa: E731
    assert _score(references, extra, "p/", "split", captions) == {"p/CIDEr": own, "p/truth": (captions, "val")}


@pytest.mark.parametrize(("same", "told"), [(20, "All validation images have the same references"), (19, ""), (1, "")])
def test_cider_of_images_whose_references_differ_in_one(same, told):
    records = [SimpleNamespace(image_id=number) for number in range(20)]
    tokens = {number: [["a"], ["b" if number < same else "c"]] for number in range(20)}
    tokens[5].reverse()
    config = {"trainer": {}, "loader": {"val_batch_size": 8}}
    found = _no_cider(records, tokens, None, config)
    assert found.startswith(told) and bool(found) is bool(told)
    assert _no_cider(records, tokens, {"val": 19}, config).startswith("Only 19 validation images: ")
