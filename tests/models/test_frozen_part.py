"""Compare a split encoder with the encoder itself: values, gradients, names of weights, and what identifies a store."""

import copy

import pytest
import torch
from remembered import remember_networks
from torch import nn
from torchvision import models

from captioning.errors import ConfigError
from captioning.models import efficientnet_lite_encoder, torchvision_encoder
from captioning.models.encoder import Encoder

remember_networks(models, "get_model")


def lite(unfreeze_from: str, **changes) -> Encoder:
    return efficientnet_lite_encoder(
        **{"weights": None, "image_size": 64, "output": "grid", "unfreeze_from": unfreeze_from} | changes
    )


def of_torchvision(name: str, unfreeze_from: str, output: str = "grid") -> Encoder:
    return torchvision_encoder(name, weights=None, output=output, image_size=64, unfreeze_from=unfreeze_from)


ENCODERS = {
    "a chain": (lambda: lite("blocks.13"), "before blocks.13", (2, 2, 192)),
    "inside a block": (lambda: lite("blocks.13._depthwise_conv"), "before blocks.13", (2, 2, 192)),
    "a vector": (lambda: lite("head", output="fc"), "before head.conv", (2, 2, 320)),
    "a graph": (lambda: of_torchvision("resnet18", "layer4"), "after layer3_1_relu_1", (4, 4, 256)),
    "inside a residual block": (
        lambda: of_torchvision("resnet18", "layer4.1.conv2"),
        "after layer4_0_relu_1",
        (2, 2, 512),
    ),
    "inside a dense block": (
        lambda: of_torchvision("densenet121", "features.denseblock4.denselayer5"),
        "after features_transition3_pool",
        (2, 2, 512),
    ),
    "flattened": (lambda: of_torchvision("vgg11", "classifier.0", "fc"), "after flatten", (25088,)),
}  # fmt: skip


@pytest.fixture(params=ENCODERS)
def case(request):
    make, name, shape = ENCODERS[request.param]
    return make(), name, shape


def gradients(encoder: Encoder, features: torch.Tensor) -> list[torch.Tensor]:
    encoder.zero_grad()
    (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
    found = [parameter.grad for parameter in encoder.trainable_parameters()]
    assert found and all(gradient.abs().max() > 0 for gradient in found[:1])
    return [gradient.clone() for gradient in found]


def test_both_parts_together_are_the_encoder(case):
    encoder, name, shape = case
    frozen, rest = encoder.split()
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    values = frozen(images)
    assert tuple(values.shape) == (3, *shape) and not values.requires_grad
    assert frozen.describe()["layer"] == name
    whole, joined = encoder(images), rest(values.contiguous())
    assert torch.equal(whole, joined) and joined.requires_grad
    for expected, found in zip(gradients(encoder, whole), gradients(encoder, joined), strict=True):
        assert torch.equal(expected, found)
    assert torch.equal(copy.deepcopy(rest)(values), joined)
    stored = values.half()
    assert torch.equal(rest(stored), rest(stored.float()))


def test_half_precision_in_the_store_changes_trained_features_little():
    encoder = lite("blocks.13", weights="package")
    frozen, rest = encoder.split()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    whole = encoder(images)
    assert 0 < (rest(frozen(images).half()) - whole).abs().max() < 5e-3 * whole.abs().max()


def test_the_trained_part_has_all_weights_under_the_encoders_names(case):
    encoder = case[0]
    rest = encoder.split()[1].train()
    assert {name: id(value) for name, value in rest.named_parameters()} == {
        name: id(value) for name, value in encoder.named_parameters()
    }
    assert rest.state_dict().keys() == encoder.state_dict().keys()
    assert rest.training and not any(module.training for module in rest.network.modules())


def test_a_store_is_of_the_frozen_part_alone():
    encoder = lite("blocks.13")
    frozen = encoder.split()[0]
    described, whole = frozen.describe(), encoder.describe()
    with torch.no_grad():
        encoder.network.head.conv.weight.add_(1)
    assert frozen.describe() == described and encoder.describe() != whole
    others = [lite("blocks.13", output="fc"), lite("blocks.13._depthwise_conv")]
    assert all(other.split()[0].describe() == described for other in others)
    assert lite("blocks.14").split()[0].describe() != described != whole
    with torch.no_grad():
        encoder.network.blocks[0]._bn1.running_mean.add_(1)
    assert frozen.describe()["fingerprint"] != described["fingerprint"]


@pytest.mark.parametrize("make", [lambda: lite("stem"), lambda: of_torchvision("resnet18", "conv1")])
def test_nothing_frozen_is_one_clear_error(make):
    with pytest.raises(
        ConfigError, match=r"leaves no frozen layers whose output could be stored\. Set features=online"
    ):
        make().split()


class Twice(nn.Module):
    """A network whose code torch cannot see: two convolutions in a forward of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)

    def forward(self, images):
        return self.second(self.first(images))


def test_a_network_that_cannot_be_split_is_one_clear_error():
    encoder = Encoder(Twice(), name="twice", output="grid", image_size=8, unfreeze_from="second")
    with pytest.raises(ConfigError, match=r"unfreeze_from=second: twice cannot be split there.*Set features=online"):
        encoder.split()
