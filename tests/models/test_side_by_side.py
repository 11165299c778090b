"""Encoders side by side: equal to the parts computed alone and joined by hand, online and from their stores."""

from math import prod

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from captioning.config import build, check, compose
from captioning.config.schemas import TrainConfig
from captioning.data import Record, Transform
from captioning.data.several_inputs import SeveralInputs
from captioning.errors import ConfigError
from captioning.features import stored, verify
from captioning.models.encoder import Encoder
from captioning.models.side_by_side import SideBySide, resample, standardize, unpack


class Patches(nn.Module):
    """A network that returns the mean and the largest value of each patch of s pixels as a map."""

    def __init__(self, s: int):
        super().__init__()
        self.pool, self.most = nn.AvgPool2d(s), nn.MaxPool2d(s)
        self.register_buffer("s", torch.tensor(float(s)))  # a weight for the fingerprint

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat((self.pool(images), self.most(images)), 1)


def patches(size: int, patch: int, output: str = "grid") -> Encoder:
    return Encoder(Patches(patch), name=f"patches{patch}", output=output, image_size=size)


@pytest.fixture
def both() -> tuple[SideBySide, SeveralInputs]:
    """Grids of 4 × 4 at 32 pixels and of 6 × 6 at 60 pixels."""
    return SideBySide([patches(32, 8), patches(60, 10)]), SeveralInputs([Transform(32), Transform(60)])


@pytest.fixture
def pictures(tmp_path) -> list[Record]:
    """Five images of noise of different sizes."""
    records = []
    for number in range(5):
        generator = torch.Generator().manual_seed(number)
        noise = torch.randint(0, 256, (40 + 9 * number, 70 - 5 * number, 3), dtype=torch.uint8, generator=generator)
        path = tmp_path / f"{number}.png"
        Image.fromarray(noise.numpy()).save(path)
        records.append(Record(number, path, "train", ("a dog",)))
    return records


def by_hand(encoder: SideBySide, transform: SeveralInputs, path) -> Tensor:
    """Each part alone; standardized, enlarged by the formula of bilinear interpolation, and joined: [L, D]."""
    rows, columns = encoder.grid_shape
    joined = []
    with Image.open(path) as picture:
        grids = [part(its(picture)[None])[0] for part, its in zip(encoder.parts, transform.parts, strict=True)]
    for grid, (height, width) in zip(grids, encoder.grids, strict=True):
        values = (grid.double() - grid.double().mean()) / (grid.double().var(correction=0) + 1e-5).sqrt()
        maps = values.unflatten(0, (height, width))
        locations = []
        for row in range(rows):
            for column in range(columns):
                y = min(max((row + 0.5) * height / rows - 0.5, 0), height - 1)
                x = min(max((column + 0.5) * width / columns - 0.5, 0), width - 1)
                top, left = int(y), int(x)
                below, right = min(top + 1, height - 1), min(left + 1, width - 1)
                upper = maps[top, left] * (1 - x + left) + maps[top, right] * (x - left)
                lower = maps[below, left] * (1 - x + left) + maps[below, right] * (x - left)
                locations.append(upper * (1 - y + top) + lower * (y - top))
        joined.append(torch.stack(locations))
    return torch.cat(joined, 1)


def test_it_equals_the_parts_alone_joined_by_hand(both, pictures):
    encoder, transform = both
    assert (encoder.size, encoder.places, encoder.grid_shape) == (12, 36, (6, 6))
    for record in pictures:
        with Image.open(record.path) as picture:
            found = encoder(transform(picture)[None])[0]
        torch.testing.assert_close(found.double(), by_hand(encoder, transform, record.path), rtol=1e-4, atol=1e-5)


def test_stored_features_equal_those_computed_online_and_the_stores_are_those_of_the_parts(both, pictures, tmp_path):
    encoder, transform = both
    arguments = {"name": "noise", "root": str(tmp_path / "f"), "extract_workers": 0}
    joint = stored(encoder, transform, pictures, **arguments, mirror=True, crops=0.8)
    alone = [
        stored(part, its, pictures, **arguments, mirror=True, crops=0.8)
        for part, its in zip(encoder.parts, transform.parts, strict=True)
    ]
    assert len(list((tmp_path / "f").glob("*/manifest.json"))) == 12  # 2 parts × (1 view + 1 mirrored + 4 corners)
    assert len(joint.views) == 5 and [view.turned for view in joint.views] == [view.turned for view in alone[0].views]
    for record in pictures:
        with Image.open(record.path) as picture:
            online = encoder(transform(picture)[None])
            turned = encoder(transform.mirrored()(picture)[None])
        packed = joint.read(record)
        assert torch.equal(packed, torch.cat([source.read(record).flatten() for source in alone]))
        torch.testing.assert_close(joint.encoder(packed[None]), online, rtol=0, atol=4e-3)
        torch.testing.assert_close(joint.encoder(joint.views[0].read(record)[None]), turned, rtol=0, atol=4e-3)
    assert not list(joint.encoder.parameters()) and joint.encoder.state_dict() == {}
    assert verify(encoder, transform, name="noise", root=arguments["root"]).count("no damage found") == 2


def test_an_image_that_one_part_cannot_read_is_left_out_of_all(both, pictures, tmp_path):
    encoder, transform = both
    pictures[2].path.write_bytes(b"no image")
    source = stored(
        encoder, transform, pictures, name="n", root=str(tmp_path / "f"), extract_workers=0, skip_unreadable=True
    )
    assert [record.image_id for record in source.records] == [0, 1, 3, 4] and len(source.unreadable) == 1
    assert source.encoder(source.read(source.records[-1])[None]).shape == (1, 36, 12)


@pytest.mark.parametrize(("wanted", "shape"), [((3, 3), (6, 6)), ((6, 4), (3, 2)), ((5, 7), (5, 7)), ((1, 1), (4, 4))])
def test_a_resampled_grid_covers_the_same_region(wanted, shape):
    """A ramp from edge to edge stays this ramp away from the border, and a constant stays the constant."""
    y = (torch.arange(shape[0], dtype=torch.float64) + 0.5) / shape[0]
    x = (torch.arange(shape[1], dtype=torch.float64) + 0.5) / shape[1]
    ramps = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flatten(0, 1)[None]
    found = resample(torch.cat((ramps, torch.ones_like(ramps)), -1), shape, wanted).unflatten(1, wanted)[0]
    for axis in (0, 1):
        mean = found[..., axis].mean(1 - axis)
        assert torch.allclose(mean + mean.flip(0), torch.ones(()).double(), atol=1e-12)  # symmetric about the center
        inner = (torch.arange(wanted[axis]).double() + 0.5) / wanted[axis]
        real = (inner * shape[axis] > 0.5 + 1e-9) & (inner * shape[axis] < shape[axis] - 0.5 - 1e-9)
        if wanted[axis] >= shape[axis]:
            assert torch.allclose(mean[real], inner[real], atol=1e-12)
    assert torch.allclose(found[..., 2:], torch.ones(()).double())


def test_a_coarser_grid_takes_every_location_into_account():
    grid = torch.zeros(1, 36, 1).double()
    for location in range(36):
        bright = grid.clone()
        bright[0, location] = 1
        assert resample(bright, (6, 6), (3, 3)).sum() > 0.15


def test_standardized_features_have_mean_0_and_variance_1_and_a_constant_image_is_0():
    features = torch.randn(3, 5, 7, dtype=torch.float64) * 9 + 4
    same = standardize(features)
    assert torch.allclose(same.mean((1, 2)), torch.zeros(3).double(), atol=1e-12)
    assert torch.allclose(same.var((1, 2), correction=0), torch.ones(3).double(), atol=1e-5)
    assert torch.equal(standardize(torch.full((1, 2, 3), 5.0)), torch.zeros(1, 2, 3))
    single = standardize(features[1:2])
    assert torch.equal(single[0], same[1])  # no other image of the batch matters


def test_vectors_are_joined_too():
    encoder = SideBySide([patches(32, 8, "fc"), patches(60, 10, "fc")])
    assert (encoder.output, encoder.size, encoder.places) == ("fc", 12, None)
    images = torch.randint(0, 256, (2, 3 * 32**2 + 3 * 60**2), dtype=torch.uint8)
    inputs = unpack(images, [(3, 32, 32), (3, 60, 60)])
    alone = [standardize(part(image)) for part, image in zip(encoder.parts, inputs, strict=True)]
    assert torch.equal(encoder(images), torch.cat(alone, 1))


def test_the_fingerprint_and_the_key_name_every_part(both):
    encoder, transform = both
    other = SideBySide([encoder.parts[1], encoder.parts[0]])
    assert encoder.fingerprint() != other.fingerprint() and len(encoder.fingerprint()) == 16
    assert encoder.describe()["parts"] == [part.describe() for part in encoder.parts]
    assert encoder.name == "patches8+patches10" and transform.describe()["parts"][1] == Transform(60).describe()


def test_settings_that_do_not_fit_together(both):
    parts = list(both[0].parts)
    with pytest.raises(ConfigError, match="fewer than two"):
        SideBySide(parts[:1])
    with pytest.raises(ConfigError, match=r"patches8 grid, patches10 fc: set encoder\.output"):
        SideBySide([parts[0], patches(60, 10, "fc")])
    with pytest.raises(ConfigError, match=r"encoder\.grid"):
        SideBySide(parts, grid=0)
    with pytest.raises(ConfigError, match=r"encoder\.grid must be a side"):
        SideBySide(parts, grid=[3])
    with pytest.raises(ConfigError, match=r"encoder\.grid=null"):
        SideBySide([patches(32, 8, "fc"), patches(60, 10, "fc")], grid=4)
    with pytest.raises(ConfigError, match=r"different regions.*transform\.fit=squash"):
        SeveralInputs([Transform(32), Transform(60, fit="crop")])
    SeveralInputs([Transform(224, fit="pad"), Transform(260, fit="pad")])
    SeveralInputs([Transform(224, fit="crop", resize=256), Transform(448, fit="crop", resize=512)])
    with pytest.raises(ValueError, match="packed uint8"):
        both[0](torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert SideBySide(parts, grid=[3, 5]).places == 15


def settings(*overrides: str) -> dict:
    return check(compose("train", ["encoder=side_by_side", "data=scenes", "run_dir=x", *overrides]), TrainConfig)


def test_parts_are_named_by_their_files():
    found = settings()
    assert [part["name"] for part in found["encoder"]["parts"]] == ["efficientnet-lite0", "efficientnet-lite2"]
    assert [part["size"] for part in found["transform"]["parts"]] == [224, 260]
    found = settings(
        "encoder.parts=[vgg16_fc7,{encoder: efficientnet_lite2, weights: null, image_size: 64}]",
        "encoder.output=fc",
        "transform.fit=squash",
        "transform.resize=null",
    )
    vgg, lite = found["encoder"]["parts"]
    assert (vgg["layer"], vgg["output"], lite["output"]) == ("classifier.4", "fc", "fc")
    assert (lite["weights"], lite["image_size"], found["transform"]["parts"][1]["size"]) == (None, 64, 64)
    assert settings() == check(compose("train", ["encoder=side_by_side", "data=scenes", "run_dir=x"]), TrainConfig)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("[efficientnet_lite0,efficientnet_lite3]", "no encoder 'efficientnet_lite3': did you mean efficientnet_lite2"),
        ("[side_by_side,efficientnet_lite0]", "no encoder 'side_by_side'"),
        ("[{encoder: 3},efficientnet_lite0]", "encoder.: 3} names no file"),
        ("[{encoder: efficientnet_lite0, laier: x},efficientnet_lite0]", "encoder.laier.*efficientnet_lite0.yaml"),
        ("[{layer: x},efficientnet_lite0]", "layer.: .x.} names no file"),
    ],
)
def test_a_wrong_part_gets_one_line(given, told):
    with pytest.raises(ConfigError, match=told) as found:
        settings(f"encoder.parts={given}")
    assert "\n" not in str(found.value)


def test_several_layers_of_one_encoder():
    layers = (
        "[{encoder: efficientnet_lite0, weights: null},{encoder: efficientnet_lite0, weights: null, layer: blocks.10}]"
    )
    found = settings(f"encoder.parts={layers}")
    encoder = build(found["encoder"])
    assert encoder.grids == [(7, 7), (14, 14)] and (encoder.size, encoder.places) == (1280 + 112, 196)
    image = build(found["transform"])(Image.new("RGB", (90, 50), "red"))
    assert image.shape == (2 * prod((3, 224, 224)),) and encoder(image[None]).isfinite().all()
