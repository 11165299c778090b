"""Attention lies on the pixels that its place saw, for every fit, size and shape of picture: by numbers, not by eye."""

from math import ceil

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import captioning
from captioning.data import Transform
from captioning.models import build_captioner, efficientnet_lite_encoder
from captioning.visualise import cell_overlay, overlay, region_overlay, scale
from captioning.visualise.geometry import cell

TRANSFORMS = {
    "squash": Transform(224),
    "crop": Transform(224, fit="crop"),
    "resize and crop": Transform(224, fit="crop", resize=256),
    "pad": Transform(224, fit="pad"),
}
SIZES = [(640, 427), (301, 500), (333, 333), (97, 351), (611, 224)]  # landscape, portrait, square, odd, long
SIDE = 7


def one_hot(place: int) -> np.ndarray:
    return np.eye(SIDE * SIDE, dtype=np.float32)[place]


def blocks(picture: np.ndarray, transform: Transform) -> np.ndarray:
    """[SIDE, SIDE] mean grey of what each place of the input shows."""
    seen = transform(Image.fromarray(np.repeat(picture[..., None], 3, 2)))[0].double()
    return seen.reshape(SIDE, 224 // SIDE, SIDE, 224 // SIDE).mean((1, 3)).numpy()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("fit", TRANSFORMS)
def test_attention_on_one_place_lands_on_the_pixels_that_the_place_saw(fit, size):
    """The pixels that are drawn for a place are lit, and go through the encoder's transform: that place alone sees it.

    The transform knows nothing of figures, and figures nothing of the transform but its box.
    """
    transform = TRANSFORMS[fit]
    box, dark, checked = transform.box(*size), np.zeros(size[::-1], np.uint8), 0
    base = blocks(dark, transform)
    for place in range(SIDE * SIDE):
        drawn = cell_overlay(one_hot(place), (SIDE, SIDE), box=box, size=size)
        left, top, right, bottom = cell(place, (SIDE, SIDE), box)
        # The share of the cell that lies in the picture; padding shows no pixel of it.
        width, height = min(right, size[0]) - max(left, 0), min(bottom, size[1]) - max(top, 0)
        share = max(width, 0) * max(height, 0) / ((right - left) * (bottom - top))
        lit = (blocks((255 * drawn).astype(np.uint8), transform) - base) / 255
        row, column = divmod(place, SIDE)
        # Pixels are drawn whole, at most half of one too many or too few at each edge; the kernel softens edges.
        slack = 0.03 + 1 / (right - left) + 1 / (bottom - top)
        assert lit[row, column] == pytest.approx(share, abs=slack)
        around = np.zeros((SIDE, SIDE), bool)
        around[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
        assert np.abs(lit[~around]).max() < 1e-3  # others see nothing of it,
        lit[row, column] = 0
        assert np.abs(lit).max() < slack  # neighbours no more than that
        checked += share > 0.9
    assert checked >= 3


def test_the_pixels_of_a_place_worked_out_by_hand():
    # 641 × 427, short side to 256, centre 224: a square of 224 · 427 / 256 = 373.625 from 133.6875 and 26.6875 on;
    # a seventh is 53.375. Place 0 covers 133.6875 … 187.0625 across: the centres of pixels 134 … 186.
    box = Transform(224, fit="crop", resize=256).box(641, 427)
    first = np.argwhere(cell_overlay(one_hot(0), (7, 7), box=box, size=(641, 427)))
    assert first.min(0).tolist() == [27, 134] and first.max(0).tolist() == [79, 186]
    # Place 48 ends at 507.3125 and 400.3125, and begins at 453.9375 and 346.9375.
    last = np.argwhere(cell_overlay(one_hot(48), (7, 7), box=box, size=(641, 427)))
    assert last.min(0).tolist() == [347, 454] and last.max(0).tolist() == [399, 506]
    # 301 × 500 padded to 224: 135 pixels wide from 44 on, so that 301 / 135 picture pixels are one of the input. Place
    # 23 = (3, 2) covers input columns 64 … 96 and rows 96 … 128: 44.59 … 115.94 and 214.29 … 285.71 of the picture.
    box = Transform(224, fit="pad").box(301, 500)
    seen = np.argwhere(cell_overlay(one_hot(23), (7, 7), box=box, size=(301, 500)))
    assert seen.min(0).tolist() == [214, 45] and seen.max(0).tolist() == [285, 115]
    # Squashed 333 × 100: place 8 = (1, 1) covers 47.57 … 95.14 and 14.29 … 28.57.
    seen = np.argwhere(cell_overlay(one_hot(8), (7, 7), box=Transform(224).box(333, 100), size=(333, 100)))
    assert seen.min(0).tolist() == [14, 48] and seen.max(0).tolist() == [28, 94]


@pytest.mark.parametrize("fit", TRANSFORMS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_smooth_map_peaks_where_the_cells_are(fit, size):
    box = TRANSFORMS[fit].box(*size)
    for place in range(3, SIDE * SIDE, 7):
        cells = cell_overlay(one_hot(place), (SIDE, SIDE), box=box, size=size)
        left, top, right, bottom = cell(place, (SIDE, SIDE), box)
        if cells.sum() < 0.9 * (right - left) * (bottom - top):
            continue
        smooth = overlay(one_hot(place), (SIDE, SIDE), box=box, size=size)
        assert cells[np.unravel_index(smooth.argmax(), smooth.shape)] == 1
        assert (smooth * cells).sum() > 0.55 * smooth.sum()


@pytest.mark.parametrize("box", [(-6.4, 3.3, 33.7, 35.2), (-6.8, 3.7, 33.3, 35.6)])
def test_cells_pixel_by_pixel(box):
    """Against a loop over the pixels, of a grid that is no square and a box that reaches beyond the picture."""
    random = np.random.default_rng(0)
    weights, grid, size = random.random((3, 5)), (3, 5), (41, 29)
    expected = np.zeros(size[::-1])
    for y in range(size[1]):
        for x in range(size[0]):
            across, down = (x + 0.5 - box[0]) / (box[2] - box[0]), (y + 0.5 - box[1]) / (box[3] - box[1])
            if 0 <= across < 1 and 0 <= down < 1:
                expected[y, x] = weights[int(down * 3), int(across * 5)]
    np.testing.assert_allclose(cell_overlay(weights, grid, box=box, size=size), expected, rtol=1e-6)


def test_regions_pixel_by_pixel():
    random = np.random.default_rng(0)
    corners = np.sort(random.uniform(-4, 36, (6, 2, 2)), axis=1)
    regions, weights = [(*first, *last) for first, last in corners], random.dirichlet(np.ones(6))
    expected = np.zeros((30, 34))
    for weight, (left, top, right, bottom) in zip(weights, regions, strict=True):
        for y in range(30):
            for x in range(34):
                expected[y, x] += weight * (left <= x + 0.5 < right and top <= y + 0.5 < bottom)
    np.testing.assert_allclose(region_overlay(weights, regions, size=(34, 30)), expected, atol=1e-6)
    assert region_overlay([1.0], [(5, 5, 5, 9)], size=(10, 10)).sum() == 0  # a region of no width


# What models look at

COLORS = {"red": (248, 8, 8), "yellow": (250, 222, 40), "green": (4, 104, 38), "blue": (40, 80, 215)}
QUADRANTS = ("top left", "top right", "bottom left", "bottom right")


def square(size: tuple[int, int], quadrant: int, colour: tuple[int, int, int], picture=None) -> Image.Image:
    """A bright square (as wide and high as the picture is, in shares) in the middle of a quadrant, on grey."""
    picture = picture or Image.new("RGB", size, (110, 110, 110))
    x, y = (0.25 + 0.5 * (quadrant % 2)) * size[0], (0.25 + 0.5 * (quadrant // 2)) * size[1]
    reach = 0.15 * size[0], 0.15 * size[1]
    ImageDraw.Draw(picture).rectangle([x - reach[0], y - reach[1], x + reach[0], y + reach[1]], fill=colour)
    return picture


def quadrant_of(weights: np.ndarray, box, size: tuple[int, int]) -> int:
    drawn = overlay(weights, (SIDE, SIDE), box=box, size=size)
    row, column = np.unravel_index(drawn.argmax(), drawn.shape)
    return int(column + 0.5 > size[0] / 2) + 2 * int(row + 0.5 > size[1] / 2)


@pytest.mark.parametrize("size", [(224, 224), (320, 240), (240, 320)], ids=str)
def test_the_trained_scenes_model_peaks_in_the_right_quadrant(size, pytestconfig):
    checkpoint = pytestconfig.rootpath / "runs" / "scenes_soft" / "checkpoints" / "best.ckpt"
    if not checkpoint.is_file():
        pytest.skip(f"no {checkpoint}: `make train` leaves it")
    captioner = captioning.load(checkpoint)
    wanted = [(name, quadrant) for name in COLORS for quadrant in range(4)]
    pictures = [square(size, quadrant, COLORS[name]) for name, quadrant in wanted]
    captions = captioner.caption(pictures, beam_size=3)
    peaks = [
        quadrant_of(caption.attention[caption.tokens.index("square")], caption.box, size) == quadrant
        for caption, (_, quadrant) in zip(captions, wanted, strict=True)
        if "square" in caption.tokens
    ]
    assert len(peaks) >= 14 and sum(peaks) >= 0.9 * len(peaks)


def learnt(features, tokens, seed: int):
    """A small captioner after 400 steps on the first 220 pictures: what it makes of the others, and its share of right
    words."""
    torch.manual_seed(seed)
    captioner = build_captioner(
        feature_size=features.shape[-1], grid=True, vocabulary_size=8, width=48, embedding_size=16, feature_width=64,
        dropout=0.0,
    )  # fmt: skip
    optimizer = torch.optim.Adam(captioner.parameters(), lr=5e-3)
    captioner.train()
    for step in range(400):
        batch = torch.from_numpy(np.random.default_rng(step).integers(0, 220, 32))
        decoded = captioner(features[batch], tokens[batch])
        loss = torch.nn.functional.cross_entropy(decoded.logits, tokens[batch][..., 1:].flatten()[decoded.index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    captioner.eval()
    with torch.inference_mode():
        decoded = captioner(features[220:], tokens[220:])
        words = decoded.logits.argmax(-1)
    right = words == tokens[220:][..., 1:].flatten()[decoded.index]
    return decoded, float(right.float().mean())


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_a_model_that_must_look_into_each_quadrant_is_drawn_looking_there(fit):
    """Four squares of random colours, named from the top left to the bottom right: word t is known in quadrant t only.

    A small soft-attention captioner learns that on frozen features; its peaks are then drawn over pictures of another
    size and shape than the encoder's input.
    """
    size = {"squash": (300, 200), "crop": (300, 260), "pad": (260, 300)}[fit]
    transform, random = Transform(224, fit=fit), np.random.default_rng(0)
    names = random.integers(0, 4, (260, 4))
    encoder = efficientnet_lite_encoder(weights="package", output="grid")
    features = []
    for line in names:
        picture = Image.new("RGB", size, (110, 110, 110))
        for quadrant, name in enumerate(line):
            square(size, quadrant, list(COLORS.values())[name], picture)
        with torch.inference_mode():
            features.append(encoder(transform(picture)[None])[0].clone())
    features = torch.stack(features)
    # ids: pad, start, end, unknown, then the colours.
    start, end = (torch.full((len(names), 1), token) for token in (1, 2))
    tokens = torch.cat((start, torch.from_numpy(names) + 4, end), 1)[:, None]
    for seed in range(6):  # some so small a model never learn to look, and rounding has a say in which
        decoded, right = learnt(features, tokens, seed)
        if right > 0.9:
            break
    assert right > 0.9  # else nothing could be said of where it looks
    box, weights = transform.box(*size), decoded.glimpse.weights[:, 0].numpy()
    peaks = [[quadrant_of(row[t], box, size) == t for t in range(4)] for row in weights]
    assert np.mean(peaks) > 0.9


def test_scaling_a_region():
    assert scale((1, 2, 3, 4), 2, 0.5) == (2, 1, 6, 2) and ceil(cell(5, (2, 4), (0, 0, 8, 2))[2]) == 4
