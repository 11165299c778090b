"""A tagger's numbers agree with computations by hand, and it names what is in clear photographs."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captioning.data import open_picture
from captioning.errors import ConfigError
from captioning.models import Classifier, Encoder, VectorHead, efficientnet_lite_classifier
from captioning.tags import Calibration, Tagger, imagenet_nouns, load_tagger

PLAIN = Calibration()
WIDTH = 6


@pytest.fixture
def classifier():
    """A random network with a grid of 2 × 3 locations, and a head whose probabilities are far from uniform."""
    network = nn.Sequential(nn.Conv2d(3, WIDTH, 8, stride=8), nn.ReLU())
    encoder = Encoder(network, name="small", output="grid", image_size=[16, 24])
    head = nn.Linear(WIDTH, 1000)
    nn.init.normal_(head.weight, std=4)
    return Classifier(encoder, VectorHead(head))


@pytest.fixture
def photo():
    values = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    return Image.fromarray(values)


def columns_of(noun):
    return [row.number for row in imagenet_nouns() if row.noun == noun]


def test_probabilities_are_sums_over_classes_by_hand(classifier, photo):
    tagger = Tagger(classifier, calibration=PLAIN._replace(temperature=2.0), crops=())
    found = tagger.evidence(photo)
    grid = classifier.encoder(tagger.transform(photo)[None])[0]
    linear = classifier.head.layers
    logits = grid.double().numpy().mean(0) @ linear.weight.double().numpy().T + linear.bias.double().numpy()
    powers = np.exp(logits / 2 - (logits / 2).max())
    probabilities = powers / powers.sum()
    for noun in ("dog", "cat", "hammer"):
        wanted = sum(probabilities[index] for index in columns_of(noun))
        assert found.probabilities[0, tagger.nouns.index(noun)].item() == pytest.approx(wanted, rel=1e-4)
    birds = sum(probabilities[row.number] for row in imagenet_nouns() if "bird" in (row.noun, row.broader))
    assert found.probabilities[0, tagger.nouns.index("bird")].item() == pytest.approx(birds, rel=1e-4)
    assert found.boxes == [(0, 0, 60, 40)]


def test_mean_of_the_activation_map_is_the_logit(classifier, photo):
    grid = classifier.encoder(Tagger(classifier, crops=()).transform(photo)[None])
    torch.testing.assert_close(classifier.head(grid).mean(1), classifier.head(grid.mean(1)), rtol=1e-4, atol=1e-4)
    assert classifier.head(grid).shape == (1, 6, 1000)


def test_maps_are_the_probabilities_at_each_location(classifier, photo):
    tagger = Tagger(classifier, calibration=PLAIN, crops=())
    tags = {tag.noun: tag for tag in tagger.tag(photo, min_confidence=0)}
    logits = classifier.head(classifier.encoder(tagger.transform(photo)[None])[0])
    wanted = logits.softmax(-1)[:, columns_of("cat")].sum(-1).reshape(2, 3)
    assert tags["cat"].map.dtype == np.float32
    np.testing.assert_allclose(tags["cat"].map, wanted.numpy(), rtol=1e-4)


def test_windows_are_means_over_parts_of_the_grid(classifier, photo):
    tagger = Tagger(classifier, calibration=PLAIN, crops=(), windows=(0.67,))  # 1 row, 2 columns
    found = tagger.evidence(photo)
    assert found.probabilities.shape == (5, len(tagger.nouns))
    assert found.boxes[1:] == [(0, 0, 40, 20), (20, 0, 60, 20), (0, 20, 40, 40), (20, 20, 60, 40)]
    grid = classifier.encoder(tagger.transform(photo)[None])[0]  # locations 0, 1, 2 above 3, 4, 5
    logits = classifier.head(torch.stack([grid[[0, 1]], grid[[1, 2]], grid[[3, 4]], grid[[4, 5]]]).mean(1))
    wanted = logits.softmax(-1)[:, columns_of("dog")].sum(-1)
    torch.testing.assert_close(found.probabilities[1:, tagger.nouns.index("dog")], wanted, rtol=1e-4, atol=1e-7)


def test_crops_are_photos_of_their_own(classifier, photo):
    tagger = Tagger(classifier, calibration=PLAIN, crops=(0.5,))
    found, alone = tagger.evidence(photo), Tagger(classifier, calibration=PLAIN, crops=())
    assert found.boxes == [(0, 0, 60, 40), (0, 0, 30, 20), (30, 0, 60, 20), (0, 20, 30, 40), (30, 20, 60, 40)]
    last = alone.evidence(photo.crop((30, 20, 60, 40))).probabilities[0]
    torch.testing.assert_close(found.probabilities[4], last)
    tag = tagger.tag(photo)[0]
    noun = tagger.nouns.index(tag.noun)
    assert tag.box == found.boxes[found.probabilities[:, noun].argmax()]
    assert tag.confidence == pytest.approx(found.probabilities[:, noun].mean().item(), rel=1e-4)


def test_tags_are_sorted_and_limited(classifier, photo):
    tagger = Tagger(classifier)
    tags = tagger.tag(photo, min_confidence=0.05)
    values = [tag.confidence for tag in tags]
    assert values == sorted(values, reverse=True) and min(values) >= 0.05
    assert [tag.noun for tag in tagger.tag(photo, min_confidence=0.05, most=2)] == [tag.noun for tag in tags[:2]]
    assert [[tag.noun for tag in each] for each in tagger.tag_all([photo, photo], min_confidence=0.05)] == [
        [tag.noun for tag in tags]
    ] * 2


def test_a_known_grid_gives_the_tags_of_the_entire_photo(classifier, photo):
    tagger = Tagger(classifier, crops=(), windows=(0.67,))
    grid = classifier.encoder(tagger.transform(photo)[None])[0]
    wanted, found = tagger.tag(photo), tagger.tag_grid(grid, photo.size)
    assert [(tag.noun, tag.box) for tag in found] == [(tag.noun, tag.box) for tag in wanted]
    with pytest.raises(ValueError, match=r"grid must be \[6, 6\], not \[5, 6\]"):
        tagger.tag_grid(grid[1:], photo.size)


def test_confidence_by_hand():
    calibration = Calibration(slope=0.5, offset=-1.0, offsets={"category": 2.0})
    found = calibration.confidence(torch.tensor([0.2, 0.2, 0.0]), ["category", "other", "other"])
    score = 0.5 * np.log(0.2 / 0.8)
    wanted = [1 / (1 + np.exp(-score - 1)), 1 / (1 + np.exp(-score + 1)), 0]
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-3)
    assert found[2] > 0  # never certain


@pytest.mark.parametrize("shares", [(0.0,), (1.0,), (0.5, 2)])
@pytest.mark.parametrize("name", ["crops", "windows"])
def test_shares_out_of_range_are_refused(classifier, shares, name):
    with pytest.raises(ConfigError, match=f"tags.{name} must be above 0 and below 1"):
        Tagger(classifier, **{name: shares})


def test_unknown_families_are_refused():
    with pytest.raises(ConfigError, match=r"tags\.family must be one of efficientnet_lite, .*not 'keras'"):
        load_tagger(family="keras")


def test_lite_logits_are_those_of_the_whole_network():
    classifier = efficientnet_lite_classifier()
    from captioning.models.efficientnet_lite import lite_network

    network = lite_network("efficientnet-lite0", weights="package", image_size=224).eval()
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    encoder, head = classifier
    with torch.inference_mode():
        pooled = network.extract_features(encoder.as_input(images)).mean((2, 3))
        wanted = network.get_submodule("_fc")(pooled)
        torch.testing.assert_close(head(encoder(images).mean(1)), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "noun"),
    [("000000054718", "elephant"), ("000000089232", "toilet"), ("000000063217", "boat")],
)
def test_clear_photographs_are_named(shared_dir, name, noun):
    photo = open_picture(shared_dir / "coco-sample" / "train2017" / f"{name}.jpg")
    tags = load_tagger().tag(photo)
    assert tags[0].noun == noun and tags[0].confidence > 0.7
    assert tags[0].map.shape == (7, 7) and tags[0].map.min() >= 0 and tags[0].map.max() <= 1
