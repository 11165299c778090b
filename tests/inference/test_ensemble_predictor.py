"""What an ensemble says of its members, and one step of it with every number by hand."""

from types import SimpleNamespace

import pytest
import torch

from captioning.data import Vocabulary
from captioning.errors import CheckpointError
from captioning.inference import ensemble
from captioning.inference.ensemble import Ensemble, EnsemblePredictor, States, load_all
from captioning.models import CaptionModel, Glimpse, Step


class Member(CaptionModel):
    """Says the same at every step."""

    def __init__(self, probabilities, weights):
        super().__init__()
        self.log_probs = torch.tensor(probabilities, dtype=torch.float64).log()
        self.weights = torch.tensor(weights, dtype=torch.float64)

    def begin(self, images, mask=None):
        return ("state", images), ("memory", mask)

    def step(self, token, state, *, memory):
        self.seen = token, state, memory
        return Step(self.log_probs + 3.0, state, Glimpse(None, self.weights))  # logits are not normalized


def test_a_step_is_the_mean_of_probabilities_and_of_weights():
    one = Member([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]], [[[0.25, 0.75], [1.0, 0.0]]])
    two = Member([[[0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]], [[[0.75, 0.25], [0.5, 0.5]]])
    three = Member([[[0.6, 0.3, 0.1], [0.2, 0.1, 0.7]]], [[[0.5, 0.5], [0.0, 1.0]]])
    both = Ensemble([one, two, three], one_grid=True)
    states, memory = both.begin((1, 2, 3), ("a", None, "c"))
    assert states == States((("state", 1), ("state", 2), ("state", 3)))
    assert memory == (("memory", "a"), ("memory", None), ("memory", "c"))
    assert both.begin((1, 2, 3))[1] == (("memory", None),) * 3
    step = both.step("token", states, memory)
    assert [member.seen for member in both.members] == [
        ("token", ("state", image), ("memory", mask)) for image, mask in ((1, "a"), (2, None), (3, "c"))
    ]
    expected = torch.tensor([[[1.2, 1.35, 0.45], [0.6, 0.6, 1.8]]], dtype=torch.float64) / 3
    torch.testing.assert_close(step.logits, expected.log(), rtol=1e-14, atol=1e-14)
    weights = torch.tensor([[[1.5, 1.5], [1.5, 1.5]]], dtype=torch.float64) / 3
    torch.testing.assert_close(step.glimpse.weights, weights)
    assert step.state == states
    assert Ensemble([one, two]).step("token", States(states.members[:2]), memory[:2]).glimpse.weights.shape == (1, 2, 0)
    other = Member([[[0.5, 0.25, 0.25]] * 2], [[[0.2, 0.3, 0.5]] * 2])
    shown = Ensemble([one, other], one_grid=True).step("token", States(states.members[:2]), memory[:2])
    assert shown.glimpse.weights.shape == (1, 2, 0)


def test_states_are_selected_alike():
    class Picked(SimpleNamespace):
        def select(self, index):
            return self.name, index

    assert States((Picked(name="a"), Picked(name="b"))).select([1, 0]) == States((("a", [1, 0]), ("b", [1, 0])))


class Trained(CaptionModel):
    """A model with a weight."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)


def predictor(words=("dog", "cat"), *, path="a.ckpt", view="whole", shape=None, **options):
    described = [SimpleNamespace(describe=lambda each=each: each) for each in (view, "corner")]
    facts = {"hard_attention": None, "attends": True, "has_sentinel": False} | options
    member = SimpleNamespace(
        vocabulary=Vocabulary(words),
        path=path,
        max_length=20,
        metadata={"of": path, "features": {"shape": shape}},
        transform=f"transform of {path}",
        views=described,
        captioner=Trained().train(),
        **facts,
    )
    member.encode = lambda pictures: (path, pictures)
    return member


def test_what_an_ensemble_is_of_its_members():
    members = [predictor(), predictor(path="b.ckpt"), predictor(path="c.ckpt")]
    found = EnsemblePredictor(members)
    assert found.members == tuple(members)
    assert (found.path, found.metadata["of"], found.transform) == ("a.ckpt", "a.ckpt", "transform of a.ckpt")
    assert found.vocabulary is members[0].vocabulary and found.views is members[0].views
    assert found.captioner.one_grid and list(found.captioner.members) == [each.captioner for each in members]
    assert not found.captioner.training and not members[1].captioner.training
    assert found.encode("x") == (("a.ckpt", "x"), ("b.ckpt", "x"), ("c.ckpt", "x"))
    assert (found.hard_attention, found.attends, found.has_sentinel) == (None, True, False)
    other = EnsemblePredictor([predictor(), predictor(), predictor(view="cropped")])
    assert not other.captioner.one_grid


@pytest.mark.parametrize(
    ("shapes", "one"),
    [
        ([[2, 3], [2, 3]], True),
        ([[2, 3], [3, 2]], False),
        ([[2, 8], [4, 4]], False),
        ([[4, 4], None], True),  # a checkpoint of before there were shapes is square
        ([[2, 8], None], False),
    ],
)
def test_maps_are_averaged_only_over_grids_of_one_shape(shapes, one):
    assert EnsemblePredictor([predictor(shape=shape) for shape in shapes]).captioner.one_grid is one


def test_one_with_a_sentinel_and_one_without_attention_decide():
    found = EnsemblePredictor([predictor(), predictor(has_sentinel=True)])
    assert found.has_sentinel and found.attends
    found = EnsemblePredictor([predictor(), predictor(attends=False)])
    assert not found.attends and not found.has_sentinel
    found = EnsemblePredictor([predictor(hard_attention="sample"), predictor(), predictor(hard_attention="argmax")])
    assert found.hard_attention == "argmax and sample"


@pytest.mark.parametrize(
    ("words", "count"), [(("dog", "cow"), 2), (("dog", "cat", "cow"), 1), (("cat", "dog"), 0), (("dog",), 1)]
)
def test_other_vocabularies_are_refused(words, count):
    with pytest.raises(CheckpointError, match=rf"c\.ckpt has another vocabulary than a\.ckpt \({count} words differ\)"):
        EnsemblePredictor([predictor(), predictor(path="b.ckpt"), predictor(words, path="c.ckpt")])
    with pytest.raises(CheckpointError, match=r"c\.ckpt has another vocabulary than a\.ckpt"):
        EnsemblePredictor([predictor(), predictor(words, path="c.ckpt")])


def test_one_checkpoint_is_no_ensemble(monkeypatch):
    loaded = []

    def load(path, **options):
        loaded.append((path, options))
        return predictor(path=path)

    monkeypatch.setattr(ensemble, "load", load)
    assert load_all("a.ckpt", device="cpu").path == "a.ckpt"
    assert not isinstance(load_all("a.ckpt"), EnsemblePredictor)
    found = load_all("a.ckpt", ["b.ckpt"], device="cpu")
    assert isinstance(found, EnsemblePredictor) and [each.path for each in found.members] == ["a.ckpt", "b.ckpt"]
    assert loaded[-2:] == [("a.ckpt", {"device": "cpu"}), ("b.ckpt", {"device": "cpu"})]
