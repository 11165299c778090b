"""Encoder and head together compute the logits of the whole classifier, and other networks are refused."""

import pytest
import timm
import torch
from remembered import remember_networks
from torchvision import models

from captioning.errors import ConfigError
from captioning.models import VectorHead, efficientnet_lite_classifier, timm_classifier, torchvision_classifier
from captioning.models.weights import fixed_seed

remember_networks(models, "get_model")


@torch.no_grad()
def logits_of(classifier, size):
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    inputs = classifier.encoder.as_input(images)
    return inputs, classifier.head(classifier.encoder(images).mean(1))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "convnext_tiny"])
def test_logits_are_torchvisions(name):
    inputs, found = logits_of(torchvision_classifier(name, weights=None, image_size=64), 64)
    with fixed_seed(), torch.no_grad():
        wanted = models.get_model(name, weights=None).eval()(inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_logits_are_timms():
    inputs, found = logits_of(timm_classifier("test_resnet", weights=None, image_size=64), 64)
    with fixed_seed(), torch.no_grad():
        wanted = timm.create_model("test_resnet").eval()(inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_a_head_takes_vectors_of_any_shape():
    head = VectorHead(torch.nn.Linear(3, 1000))
    vectors = torch.randn(2, 4, 5, 3)
    torch.testing.assert_close(head(vectors)[1, 2, 3], head.layers(vectors[1, 2, 3]))
    assert not head.layers.weight.requires_grad


@pytest.mark.parametrize("name", ["vgg11", "squeezenet1_1"])
def test_networks_that_do_not_classify_the_mean_are_refused(name):
    with pytest.raises(ConfigError, match=f"{name} does not "):
        torchvision_classifier(name, weights=None, image_size=64)


def test_tokens_with_a_class_token_are_refused():
    with pytest.raises(ConfigError, match="test_vit does not classify the mean over the locations"):
        timm_classifier("test_vit", weights=None)


def test_other_classes_than_imagenets_are_refused(monkeypatch):
    from captioning.models import timm_networks

    build = timm_networks.build_timm

    def build_small(*arguments, **options):
        model = build(*arguments, **options)
        model.reset_classifier(7)
        return model.eval()

    monkeypatch.setattr(timm_networks, "build_timm", build_small)
    with pytest.raises(ConfigError, match="the classifier of test_resnet must have ImageNet's 1000 classes, not 7"):
        timm_classifier("test_resnet", weights=None, image_size=64)


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="efficientnet-lite0, efficientnet-lite1, efficientnet-lite2"):
        efficientnet_lite_classifier("efficientnet-b0")
