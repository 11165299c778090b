"""Encoders of images that are not square, and grids of other proportions than the image: each cell sees its part."""

import pytest
import timm
import torch
from PIL import Image
from test_timm_encoders import center_kernels
from torch import Tensor, nn

from captioning.config import check, compose
from captioning.config.schemas import TrainConfig
from captioning.data import SeveralInputs, Transform
from captioning.errors import ConfigError
from captioning.models import SideBySide, efficientnet_lite_encoder, timm_encoder, torchvision_encoder
from captioning.models.encoder import Encoder, proportional_grid

VIT = "vit_tiny_patch16_224"


class Patches(nn.Module):
    """Return the mean color of each patch as a map [B, 3, R, C]."""

    def __init__(self, *patch: int):
        super().__init__()
        self.pool = nn.AvgPool2d(patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.pool(images)


def lite(size, layer="blocks.4"):
    return efficientnet_lite_encoder(weights=None, image_size=size, layer=layer)


def boxed(size, patch=(8, 8)):
    return Encoder(Patches(*patch), name="patches", output="grid", image_size=size)


# encoder, (height, width) of its input, grid, whether its kernels are centered: others see beyond their cell
ENCODERS = {
    "vit": (lambda: timm_encoder(VIT, weights=None, image_size=[64, 96]), (64, 96), (4, 6), False),
    "tall vit": (lambda: timm_encoder(VIT, weights=None, image_size=[96, 64]), (96, 64), (6, 4), False),
    "registers": (
        lambda: timm_encoder("vit_small_patch14_reg4_dinov2", weights=None, image_size=[28, 56]),
        (28, 56),
        (2, 4),
        False,
    ),
    "resnet": (lambda: timm_encoder("test_resnet", weights=None, image_size=[64, 128]), (64, 128), (2, 4), True),
    "swin": (
        lambda: timm_encoder("swin_tiny_patch4_window7_224", weights=None, image_size=[96, 192]),
        (96, 192),
        (3, 6),
        True,
    ),
    "lite": (lambda: lite([64, 96]), (64, 96), (8, 12), True),
    "tall lite": (lambda: lite([96, 64]), (96, 64), (12, 8), True),
    "torchvision": (
        lambda: torchvision_encoder("resnet18", weights=None, output="grid", layer="layer2", image_size=[64, 96]),
        (64, 96),
        (8, 12),
        True,
    ),
    "wide cells": (lambda: boxed(64, (16, 4)), (64, 64), (4, 16), False),
    "high cells": (lambda: boxed([48, 64], (4, 16)), (48, 64), (12, 4), False),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_bright_patch_changes_its_own_cell_most(name):
    """All cells in turn, in row-major order, as in test_timm_encoders.py."""
    make, (height, width), (rows, columns), centered = ENCODERS[name]
    encoder = make()
    assert (encoder.grid_shape, encoder.places) == ((rows, columns), rows * columns)
    assert encoder.image_size == (height if height == width else (height, width))
    if centered:
        center_kernels(encoder.network)
    images = torch.tensor([round(255 * mean) for mean in encoder.mean], dtype=torch.uint8)[:, None, None]
    images = images.expand(1 + encoder.places, 3, height, width).clone()
    down, across = height // rows, width // columns
    for cell in range(encoder.places):
        row, column = divmod(cell, columns)
        images[1 + cell, :, row * down : (row + 1) * down, column * across : (column + 1) * across] = 255
    grids = torch.cat([encoder(part) for part in images.split(32)])
    changes = (grids[1:] - grids[0]).norm(dim=2)
    assert changes.isfinite().all() and changes.argmax(1).tolist() == list(range(encoder.places))


@pytest.mark.parametrize("grid", [None, [2, 5], [5, 2], [4, 9]])
def test_side_by_side_puts_a_patch_where_it_is(grid):
    """One part has an oblong input, the other oblong cells."""
    encoder = SideBySide([boxed([40, 80]), boxed(40, (8, 4))], grid=grid)
    rows, columns = grid or (5, 10)
    assert encoder.grid_shape == (rows, columns) and encoder.places == rows * columns
    transform = SeveralInputs([Transform([40, 80]), Transform(40)])
    for cell in range(encoder.places):
        row, column = divmod(cell, columns)
        picture = Image.new("RGB", (720, 360))
        edges = (720 * column // columns, 360 * row // rows, 720 * (column + 1) // columns, 360 * (row + 1) // rows)
        picture.paste((255, 255, 255), edges)
        features = encoder(transform(picture)[None])[0]
        assert features[:, :3].sum(1).argmax() == cell and features[:, 3:].sum(1).argmax() == cell


def test_vectors_of_oblong_images_are_means_over_their_grid():
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    vector = timm_encoder("test_resnet", weights=None, image_size=[64, 96], output="fc", layer="layer4")
    grid = timm_encoder("test_resnet", weights=None, image_size=[64, 96], layer="layer4")
    assert vector.grid_shape is vector.places is None
    torch.testing.assert_close(vector(images), grid(images).mean(1))


def test_position_embeddings_of_square_weights_are_resampled(tmp_path):
    """Equal to what timm itself makes of the same file for this size."""
    torch.manual_seed(0)
    square = timm.create_model(VIT)
    nn.init.normal_(square.pos_embed)
    torch.save(square.state_dict(), tmp_path / "square.pth")
    encoder = timm_encoder(VIT, weights=str(tmp_path / "square.pth"), image_size=[64, 96])
    overlay = {"file": str(tmp_path / "square.pth")}
    theirs = timm.create_model(VIT, img_size=(64, 96), pretrained=True, pretrained_cfg_overlay=overlay).eval()
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected = theirs.forward_features((images / 255 - 0.5) / 0.5)[:, 1:]
    torch.testing.assert_close(encoder(images), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "near"),
    [
        (VIT, 60, r"48 or 64"),
        (VIT, [64, 90], r"\[64,80\] or \[64,96\]"),
        (VIT, [10, 90], r"\[16,80\] or \[16,96\]"),
        ("vit_small_patch14_reg4_dinov2", 224 + 1, r"224 or 238"),
        ("vit_small_patch14_reg4_dinov2", [29, 56], r"\[28,56\] or \[42,56\]"),
    ],
)
def test_a_size_that_is_no_multiple_of_the_patches_names_the_nearest(name, size, near):
    with pytest.raises(ConfigError, match=rf"encoder\.image_size: .*not a multiple of them\. Set it to {near}$"):
        timm_encoder(name, weights=None, image_size=size)


@pytest.mark.parametrize("name", ["pvt_v2_b0", "convnext_atto"])
def test_networks_whose_patches_overlap_or_that_are_none_take_other_sizes(name):
    assert timm_encoder(name, weights=None, image_size=[64, 128]).grid_shape == (2, 4)


def test_transformers_of_torchvision_take_only_their_own_size():
    with pytest.raises(ConfigError, match=r"^encoder\.image_size: .* cannot take images of 224×256: [^\n]*$"):
        torchvision_encoder("vit_b_32", weights=None, output="grid", image_size=[224, 256])


@pytest.mark.parametrize("size", [[64], [64, 96, 3], "large", 1.5, [64, 0], [64, 5000], True, None])
def test_sizes_that_are_none(size):
    with pytest.raises(ConfigError, match=r"^encoder\.image_size must be"):
        boxed(size)


def test_images_turned_by_a_quarter_are_refused():
    with pytest.raises(ValueError, match=r"\[B, 3, 16, 24\]"):
        boxed([16, 24])(torch.zeros(1, 3, 24, 16, dtype=torch.uint8))


class Shaped(nn.Module):
    def __init__(self, *shape: int):
        super().__init__()
        self.shape = shape

    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), *self.shape)


@pytest.mark.parametrize(("shape", "size"), [((7, 7, 96), 224), ((7, 10, 96), [224, 320]), ((3, 6, 4), [96, 192])])
def test_maps_with_the_channels_last_are_refused(shape, size):
    with pytest.raises(ConfigError, match=r"neither a vector nor a map \[D, ROWS, COLUMNS\]"):
        Encoder(Shaped(*shape), name="last", output="grid", image_size=size)


def test_tokens_have_the_proportions_of_the_image():
    found = Encoder(Shaped(25, 8), name="tokens", output="grid", image_size=[64, 96])
    assert (found.class_tokens, found.grid_shape, found.size) == (1, (4, 6), 8)
    with pytest.raises(ConfigError, match="27 tokens, which are not a grid in the proportions of the image"):
        Encoder(Shaped(27, 8), name="tokens", output="grid", image_size=[64, 96])
    assert (
        proportional_grid(24, (64, 96)) == (4, 6)
        and proportional_grid(24, (96, 64)) == (6, 4)
        and proportional_grid(49, (9, 9)) == (7, 7)
    )
    assert proportional_grid(0, (9, 9)) is proportional_grid(24, (9, 9)) is proportional_grid(48, (64, 96)) is None


def test_the_key_of_square_encoders_is_that_of_before():
    """Stores that were filled before stay valid: nothing was added to the key, and a side is still a number."""
    encoder = boxed(16)
    assert encoder.describe() == {
        "name": "patches",
        "layer": None,
        "output": "grid",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "fingerprint": "e3b0c44298fc1c14",  # of no weights
    }
    square = {"size": 16, "fit": "squash", "resize": 16, "interpolation": "bicubic"}
    assert Transform(16).describe() == Transform([16, 16]).describe() == square
    assert Transform([16, 24]).describe() == square | {"size": [16, 24]}


def test_settings_take_a_side_or_height_and_width(tmp_path):
    def settings(encoder: str, size: str):
        return check(compose("train", [f"encoder={encoder}", size, "run_dir=x", "data=scenes"]), TrainConfig)

    for encoder in ("efficientnet_lite0", "convnext_tiny", "resnet101"):
        found = settings(encoder, "encoder.image_size=[64,96]")
        assert found["encoder"]["image_size"] == found["transform"]["size"] == [64, 96]
    with pytest.raises(ConfigError, match=r"encoder\.image_size must be int or list, not 'wide'"):
        settings("efficientnet_lite0", "encoder.image_size=wide")
    with pytest.raises(ConfigError, match=r"encoder\.image_size\[1\] must be int, not 'b'"):
        settings("efficientnet_lite0", "encoder.image_size=[64,b]")
