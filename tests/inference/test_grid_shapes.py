"""Grids that are not square, from a run to its captions, maps, grounding, report, demo and export."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import PICTURES, save_checkpoint

import captioning
from captioning.config import ExportConfig, check, compose
from captioning.data import Vocabulary
from captioning.errors import CheckpointError
from captioning.export import export
from captioning.inference import Predictor, load_all
from captioning.inference.figures import _where
from captioning.models import CaptionModel, Glimpse, RecurrentState, Step
from captioning.models.encoder import Encoder
from captioning.visualise import Maps, overlay
from captioning.web.demo.work import DemoRequest, caption_picture
from captioning.web.report.examples import maps_of

LITE = "{encoder: efficientnet_lite0, image_size: 64, layer: blocks.2}"
SIDE = ["encoder=side_by_side", f"encoder.parts=[{LITE},{LITE}]", "transform.fit=squash"]
GREEDY = {"method": "greedy", "max_length": 3}


def checkpoint(path: Path, *overrides: str, size=PICTURES) -> Path:
    save_checkpoint(path, *overrides, size=size)
    return path


@pytest.fixture(scope="module")
def oblong(tmp_path_factory) -> Path:
    """A captioner with a grid of 4 × 9, whose number of locations is a square number."""
    path = tmp_path_factory.mktemp("oblong") / "run" / "checkpoints" / "best.ckpt"
    return checkpoint(path, *SIDE, "encoder.grid=[4,9]", "model/positions=coordinates", size=[])


def rewritten(path: Path, to: Path, **features) -> Path:
    """The same checkpoint with other entries about its features; None removes one."""
    content = torch.load(path, weights_only=True)
    kept = content["captioning"]["features"] | features
    content["captioning"]["features"] = {key: value for key, value in kept.items() if value != "removed"}
    torch.save(content, to)
    return to


def noise(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(width)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


def test_rows_and_columns_reach_everything_that_draws(oblong):
    picture = noise(90, 40)
    predictor = captioning.load(oblong)
    caption = predictor.caption(picture, **GREEDY)[0]
    assert caption.grid == (4, 9) and caption.attention.shape[1] == 36
    assert predictor.captioner.adapter[0].grid == (4, 9)
    (caption,) = predictor.forced_captions(picture, "a dog")
    assert caption.grid == (4, 9) and caption.tokens == ["a", "dog"]
    assert Maps(caption.tokens, caption.attention, **_where(caption)).grid == (4, 9)
    assert maps_of(caption).grid == (4, 9)
    (model,) = caption_picture({"one": predictor}, picture, DemoRequest())["models"]
    assert [made["grid"] for found in model["searches"].values() for made in found] == [[4, 9]] * 7
    assert load_all(oblong, [oblong]).caption(picture, **GREEDY)[0].grid == (4, 9)


def test_maps_of_crops_have_the_shape_of_the_grid(oblong):
    caption = captioning.load(oblong, crops=0.75).caption(noise(90, 40), **GREEDY)[0]
    assert caption.grid == (4, 9) and caption.attention.shape[1] == 36
    np.testing.assert_allclose(caption.attention.sum(1), 1, rtol=1e-5)


def test_an_export_keeps_the_shape_and_the_captions(oblong, tmp_path):
    export(check(compose("export", [f"checkpoint={oblong}", f"output={tmp_path / 'small'}"]), ExportConfig))
    assert json.loads((tmp_path / "small.json").read_text())["features"]["shape"] == [4, 9]
    first, again = (captioning.load(path).caption(noise(50, 70), **GREEDY)[0] for path in (oblong, tmp_path / "small"))
    assert again.grid == first.grid == (4, 9) and again.text == first.text
    np.testing.assert_allclose(again.attention, first.attention, atol=1e-3)


def test_checkpoints_of_before_are_square(oblong, tmp_path):
    old = rewritten(checkpoint(tmp_path / "run/checkpoints/best.ckpt"), tmp_path / "old.ckpt", shape="removed")
    assert captioning.load(old).caption(noise(50, 70), **GREEDY)[0].grid == (3, 3)
    odd = rewritten(oblong, tmp_path / "odd.ckpt", shape=None)
    assert captioning.load(odd).caption(noise(50, 70), **GREEDY)[0].grid == (6, 6)
    assert captioning.load("flickr8k-small").caption(noise(50, 70), **GREEDY)[0].grid == (7, 7)


@pytest.mark.parametrize("shape", [[4], [4, 0], [4, -9], [4.0, 9], "4x9", 6, [True, 36], {"4": 9}, [4, 9, 1]])
def test_damaged_shapes_are_refused(oblong, tmp_path, shape):
    with pytest.raises(CheckpointError, match=r"damaged\.ckpt: its metadata has no valid features: use a checkpoint"):
        captioning.load(rewritten(oblong, tmp_path / "damaged.ckpt", shape=shape))


def test_a_shape_without_a_grid_or_of_another_grid_is_refused(oblong, tmp_path):
    with pytest.raises(CheckpointError, match="no valid features"):
        captioning.load(rewritten(oblong, tmp_path / "fc.ckpt", grid=False))
    # Without a position code, nothing but the attention weights shows how many locations there are.
    square = checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    other = captioning.load(rewritten(square, tmp_path / "other.ckpt", shape=[2, 8]))
    with pytest.raises(CheckpointError, match=r"other\.ckpt: .*grid of 2×8, but the model attends to 9 locations"):
        other.caption(noise(50, 70), **GREEDY)


class Bright(CaptionModel):
    """Attends to bright locations, and writes the same word again and again."""

    attends, pad = True, 0

    def __init__(self):
        super().__init__()
        self.encoder, self.scores = torch.nn.Identity(), torch.nn.Parameter(torch.eye(8)[4])

    def encode(self, images, mask=None):
        return images, mask

    def begin_from(self, grid, mask=None):
        zeros = grid.new_zeros(1, len(grid), 1, 1)
        return RecurrentState(zeros, zeros), (8 * grid.mean(-1)).softmax(-1)

    def begin(self, images, mask=None):
        return self.begin_from(*self.encode(images, mask))

    def step(self, token, state, memory):
        weights = memory[:, None].expand(-1, token.shape[1], -1)
        return Step(self.scores.expand(*token.shape, -1), state, Glimpse(weights[..., :0], weights))


class Average(torch.nn.Module):
    def __init__(self, *patch: int):
        super().__init__()
        self.pool = torch.nn.AvgPool2d(patch)

    def forward(self, images):
        return self.pool(images)


@pytest.mark.parametrize("crops", [(), (0.75,)])
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("extent", [(300, 120), (120, 300), (200, 200)], ids=str)
@pytest.mark.parametrize(("size", "patch"), [([48, 96], (8, 8)), ([96, 48], (8, 8)), (64, (8, 4)), ([48, 96], (4, 12))])
def test_the_map_is_brightest_where_the_image_is(size, patch, extent, fit, crops):
    encoder = Encoder(Average(*patch), name="average", output="grid", image_size=size)
    metadata = {
        "vocabulary": Vocabulary(["dog", "cat", "a", "the"]).state_dict(),
        "config": {"transform": {"_target_": "captioning.data.Transform", "size": size, "fit": fit}},
        "features": {"size": 3, "grid": True, "shape": list(encoder.grid_shape)},
    }
    predictor = Predictor(Bright(), metadata, encoder_weights=None, path=Path("x.ckpt"), crops=crops)
    predictor.__dict__["encoder"] = encoder
    for at in ((0.5, 0.5), (0.42, 0.58), (0.6, 0.44)):  # within what every fit shows
        box, center = predictor.transform.box(*extent), np.array(extent) * at
        half = [0.1 * (box.right - box.left), 0.1 * (box.bottom - box.top)]
        picture = Image.new("RGB", extent, (20, 20, 20))
        edges = [int(v) for v in (*(center - half), *(center + half))]
        picture.paste((255, 255, 255), tuple(edges))
        (caption,) = predictor.caption(picture, "greedy", max_length=2)
        maps = Maps(caption.tokens, caption.attention, **_where(caption))
        assert maps.grid == caption.grid == encoder.grid_shape
        strength = overlay(caption.attention[0], caption.grid, box=caption.box, size=extent)
        assert strength.shape == extent[::-1]
        y, x = np.unravel_index(strength.argmax(), strength.shape)
        left, top, right, bottom = caption.box
        cell = ((right - left) / maps.grid[1], (bottom - top) / maps.grid[0])
        slack = [half[0] + cell[0], half[1] + cell[1]]
        assert abs(x + 0.5 - center[0]) <= slack[0] and abs(y + 0.5 - center[1]) <= slack[1]
        if not crops:  # also exactly: most of the weight is in the cells that the white rectangle touches
            rows, columns = np.divmod(np.arange(caption.attention.shape[1]), maps.grid[1])
            lefts, tops = left + columns * cell[0], top + rows * cell[1]
            inside = (lefts < edges[2]) & (lefts + cell[0] > edges[0]) & (tops < edges[3]) & (tops + cell[1] > edges[1])
            assert caption.attention[0][inside].sum() > 0.85 > 2 * inside.mean()
