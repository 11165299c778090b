"""An encoder and a transform of different sizes are refused before any image is opened."""

import pytest

from captioning.config import CaptionTrainConfig, build_encoder, check, compose
from captioning.errors import ConfigError, two_sides

SCENES = ["experiment=scenes_soft", "run_dir=r"]


def both(settings):
    return build_encoder(check(compose("train", [*SCENES, *settings]), CaptionTrainConfig))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["encoder.weights=null", "transform.size=160"],
            r"transform\.size=160 is not the size that efficientnet-lite0 takes \(encoder\.image_size=224\)",
        ),
        (
            ["encoder.weights=null", "transform.size=[224,160]"],
            r"transform\.size=\[224, 160\] .* set only encoder\.image_size",
        ),
        (
            ["encoder=timm", "encoder.name=resnet18", "encoder.weights=null", "transform.size=64"],
            r"transform\.size=64 is not the size that resnet18 takes \(encoder\.image_size=224\)",
        ),
        (
            [
                "encoder=side_by_side",
                "encoder.parts=[{encoder: efficientnet_lite0, weights: null},"
                "{encoder: efficientnet_lite2, weights: null, transform.size: 96}]",
            ],
            r"transform\.size=96 is not the size that efficientnet-lite2 takes \(encoder\.image_size=260\)",
        ),
    ],
)
def test_another_size_of_the_transform(settings, message):
    with pytest.raises(ConfigError, match=message):
        both(settings)


@pytest.mark.parametrize("size", ["96", "[64,96]"])
def test_the_transform_follows_the_encoder(size):
    encoder, transform = both(["encoder.weights=null", f"encoder.image_size={size}"])
    assert two_sides("one", encoder.image_size) == two_sides("other", transform.size)
