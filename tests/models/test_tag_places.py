"""Test tags as further locations: the nouns by hand, the appended vectors, and the model that attends to them."""

from functools import partial

import pytest
import torch
from torch import nn

from captioning.decoding import forced_decoding
from captioning.errors import ConfigError
from captioning.models import (
    HardAttention,
    InitialState,
    LookAfter,
    MultiCrop,
    NoAttention,
    NoTags,
    TagPlaces,
    build_captioner,
)

PAD, START, END = 0, 1, 2
NOUNS = ["dog", "cat", "animal", "ball"]
# Five classes over three features: terrier, poodle, tabby, ball, and one without a noun.
WEIGHT = torch.tensor([[2.0, 0, 0], [1, 1, 0], [0, 2, 0], [0, 0, 2], [0, 0, 0]])
BIAS = torch.tensor([0.0, 0.25, -0.5, 0.125, 1])
CLASSES = torch.tensor([[1, 0, 1, 0], [1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]).bool()


def tags_of(*, width=3, most=2, **options):
    tags = TagPlaces(3, width, grid=(2, 3), nouns=NOUNS, most=most, classes=5, **options).double().eval()
    tags.fill(WEIGHT, BIAS, CLASSES)
    nn.init.normal_(tags.embedding.weight)
    nn.init.normal_(tags.confidence)
    return tags


def captioner(*, tags=True, **options):
    parts = {"feature_size": 3, "grid": (2, 3), "vocabulary_size": 7, "width": 4, "embedding_size": 5} | options
    if tags:
        parts["tags"] = partial(TagPlaces, nouns=NOUNS, most=2, classes=5)
    model = build_captioner(**parts).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    if tags:
        model.tags.fill(WEIGHT, BIAS, CLASSES)
    return model


def grids(*shape):
    return torch.randn(*shape, 6, 3, dtype=torch.float64)


def by_hand(features):
    """The two best nouns of one image [L, 3], and their probabilities."""
    mean = [sum(column) / len(column) for column in features.T.tolist()]
    scores = [sum(w * x for w, x in zip(row, mean, strict=True)) for row in WEIGHT.tolist()]
    exps = [torch.tensor(s + b, dtype=torch.float64).exp().item() for s, b in zip(scores, BIAS.tolist(), strict=True)]
    p = [each / sum(exps) for each in exps]
    nouns = {"dog": p[0] + p[1], "cat": p[2], "animal": p[0] + p[1] + p[2], "ball": p[3]}
    return sorted(nouns.items(), key=lambda item: -item[1])[:2]


def test_nouns_and_confidences_by_hand():
    tags, features = tags_of(), grids(20)
    numbers, log_p = tags.find(features)
    for image, (row, logs, named) in zip(features, zip(numbers, log_p, tags.name(features), strict=True), strict=True):
        expected = by_hand(image)
        assert named == [noun for noun, _ in expected] == [NOUNS[number] for number in row]
        assert logs.exp().tolist() == pytest.approx([p for _, p in expected], rel=1e-12)
    assert len({tuple(named) for named in tags.name(features)}) >= 3  # otherwise any nouns would do


def test_the_vectors_follow_the_grid():
    tags, features, adapted = tags_of(width=4), grids(5), torch.randn(5, 6, 4, dtype=torch.float64)
    found = tags(features, adapted)
    assert torch.equal(found[:, :6], adapted)
    for image, vectors in zip(features, found[:, 6:], strict=True):
        for vector, (noun, p) in zip(vectors, by_hand(image), strict=True):
            torch.testing.assert_close(
                vector, tags.embedding.weight[NOUNS.index(noun)] + tags.confidence * torch.tensor(p).double().log()
            )


def test_a_noun_that_is_never_found_has_a_finite_confidence():
    tags = tags_of(most=4)
    tags.bias[3] = -1e4
    _, log_p = tags.find(grids(3))
    assert torch.equal(log_p[:, -1], torch.full((3,), 1e-6, dtype=torch.float64).log())


def test_an_untrained_confidence_changes_nothing_and_vectors_are_small():
    tags = TagPlaces(3, 64, grid=(2, 3), nouns=[str(number) for number in range(500)], most=2)
    assert not tags.confidence.any() and tags.embedding.weight.std().item() == pytest.approx(0.1, rel=0.02)


def test_in_training_the_vectors_have_dropout():
    tags = tags_of(width=1000, dropout=0.5).train()
    vectors = tags(grids(1), torch.zeros(1, 6, 1000).double())[:, 6:]
    assert (vectors == 0).double().mean().item() == pytest.approx(0.5, abs=0.06)


def test_the_classifier_is_rounded_so_that_an_export_finds_the_same_nouns():
    tags = TagPlaces(3, 3, grid=(2, 3), nouns=NOUNS, most=2, classes=5)
    weight, bias = torch.randn(5, 3), torch.randn(5)
    tags.fill(weight, bias, CLASSES)
    assert torch.equal(tags.weight, weight.half().float()) and torch.equal(tags.bias, bias.half().float())
    assert torch.equal(tags.weight, tags.weight.half().float())
    assert {"tags.weight", "tags.bias", "tags.noun_classes"} < captioner().state_dict().keys()
    assert not any(parameter is tags.weight for parameter in tags.parameters())


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_nouns_do_not_depend_on_the_precision_of_training(precision):
    tags, features = tags_of(most=4).float(), grids(200).float()
    with torch.autocast("cpu", dtype=precision):
        inside = tags.find(features)
    assert torch.equal(inside[0], tags.find(features)[0]) and torch.equal(inside[1], tags.find(features)[1])


@pytest.mark.parametrize("width", [None, 4])
def test_the_image_vector_is_that_of_the_grid_alone(width):
    """The model with tags begins as the model without them, if both have the same other weights."""
    model, features = captioner(feature_width=width), grids(4)
    plain = captioner(tags=False, feature_width=width)
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("tags.")})
    (state, memory), (other, its) = model.begin(features), plain.begin(features)
    torch.testing.assert_close(state.hidden, other.hidden)
    torch.testing.assert_close(memory.grid, torch.cat((its.grid, model.encode(features)[0][:, 6:]), 1))
    assert memory.grid.shape == (4, 8, width or 3) and memory.keys.places.shape[1] == 8
    assert model.tag_places == 2 and plain.tag_places == 0


def test_without_tags_the_model_has_the_same_weights_in_the_same_order():
    torch.manual_seed(3)
    own = build_captioner(feature_size=3, grid=(2, 3), vocabulary_size=7, width=4, embedding_size=5)
    torch.manual_seed(3)
    none = build_captioner(feature_size=3, grid=(2, 3), vocabulary_size=7, width=4, embedding_size=5, tags=NoTags)
    assert list(own.state_dict()) == list(none.state_dict())
    assert not any("tags" in name for name in none.state_dict())
    assert all(torch.equal(value, none.state_dict()[name]) for name, value in own.state_dict().items())
    assert none.name_tags(torch.zeros(2, 6, 3)) == [[], []]


@pytest.mark.parametrize(
    "options",
    [{}, {"recurrence": partial(LookAfter, sentinel=True), "feature_width": 4}, {"recurrence": LookAfter}],
    ids=["look_first", "adaptive", "look_after"],
)
def test_steps_and_teacher_forcing_agree(options):
    model, features = captioner(**options), grids(3)
    tokens = torch.tensor([[[START, 3, 4, 5, END], [START, 6, END, PAD, PAD]]] * 3)
    forced = model(features, tokens)
    state, memory = model.begin(features)
    state = state.repeat(2)
    for position in range(4):
        step = model.step(tokens[..., position], state, memory)
        state = step.state
        for row in range(2):
            if tokens[0, row, position + 1] != PAD:
                torch.testing.assert_close(forced.glimpse.weights[:, row, position], step.glimpse.weights[:, row])
                at = forced.index == row * 4 + position
                torch.testing.assert_close(forced.logits[at], step.logits[:1, row])
    shares = forced.glimpse.weights[:, 0].sum(-1)
    assert forced.glimpse.weights.shape == (3, 2, 4, 8)
    if "feature_width" in options:
        assert (shares < 1).all()  # the rest is the sentinel's
    else:
        torch.testing.assert_close(shares, torch.ones_like(shares))


def test_hard_attention_chooses_tags_too():
    model = captioner(attention=partial(HardAttention, decode="sample"))
    state, memory = model.begin(grids(2))
    torch.manual_seed(0)
    step = model.step(torch.full((2, 500), 3), state.repeat(500), memory)
    shares = torch.nn.functional.one_hot(step.glimpse.places, 8).double().mean(1)
    torch.testing.assert_close(shares, step.glimpse.weights[:, 0], atol=0.08, rtol=0)
    assert step.glimpse.places.max() >= 6


def test_the_gradient_reaches_embeddings_and_confidence_but_no_classifier():
    model = captioner()
    model(grids(2), torch.tensor([[[START, 3, END]]] * 2)).logits.logsumexp(-1).sum().backward()
    assert model.tags.embedding.weight.grad.abs().sum() > 0 and model.tags.confidence.grad.abs().sum() > 0


def test_several_crops_have_all_grids_first_and_their_own_tags_after():
    model, views = captioner(), grids(2, 5)
    crops = MultiCrop(model, 5)
    joined = [model.encode(views[:, v])[0] for v in range(5)]
    _, memory = crops.begin(views)
    expected = torch.cat([*(each[:, :6] for each in joined), *(each[:, 6:] for each in joined)], 1)
    assert torch.equal(memory.grid, expected) and crops.tag_places == 10
    named = [model.name_tags(views[:, v]) for v in range(5)]
    assert crops.name_tags(views) == [[noun for nouns in named for noun in nouns[image]] for image in range(2)]


def test_the_same_crop_five_times_tells_what_it_tells_once():
    model, images = captioner(), grids(3)
    often = images[:, None].expand(-1, 5, -1, -1)
    found = []
    for each, seen in ((model, images), (MultiCrop(model, 5), often)):
        state, memory = each.begin(seen)
        step = partial(each.step, memory=memory)
        found.append(forced_decoding(step, state, batch=3, start=START, end=END, tokens=[[3, 4, END]] * 3))
    for (once,), (five,) in zip(*found, strict=True):
        assert five.log_prob == pytest.approx(once.log_prob, rel=1e-12)
        torch.testing.assert_close(five.weights[:, :30].unflatten(1, (5, 6)).sum(1), once.weights[:, :6])
        torch.testing.assert_close(five.weights[:, 30:].unflatten(1, (5, 2)).sum(1), once.weights[:, 6:])


def test_unfit_settings_are_refused():
    make = partial(TagPlaces, 3, 3, nouns=NOUNS)
    with pytest.raises(
        ConfigError, match=r"this one has a detector's regions\. Set encoder\.output=grid or model/tags"
    ):
        make(grid=True, regions=True)
    with pytest.raises(ConfigError, match=r"this one has no grid\. Set encoder\.output=grid or model/tags=none"):
        make(grid=False)
    with pytest.raises(ConfigError, match="this one has a grid of unknown shape"):
        make(grid=True)
    with pytest.raises(ConfigError, match=r"model\.tags\.most must be at least 1 and at most 4, not 5"):
        make(grid=(2, 3), most=5)
    with pytest.raises(ConfigError, match=r"model\.tags\.nouns is empty: list one noun"):
        make(grid=(2, 3), nouns=[])
    with pytest.raises(ConfigError, match=r"model\.tags\.nouns contains 'dog' twice"):
        make(grid=(2, 3), nouns=["dog", "cat", "dog"])
    with pytest.raises(ConfigError, match="model/tags=places needs attention"):
        captioner(attention=NoAttention, conditioning=InitialState)
    with pytest.raises(ConfigError, match="needs full grids, without a mask"):
        captioner().begin(grids(1), torch.ones(1, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"weight must be \[5, 3\], not \[4, 3\]"):
        captioner().tags.fill(WEIGHT[:4], BIAS, CLASSES)
