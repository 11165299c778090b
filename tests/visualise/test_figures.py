"""Figures: attention lies where the grid lay on the picture, and everything on a figure can be read."""

import gc
import os
import weakref
from math import floor

import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from captioning.data import Transform
from captioning.errors import ConfigError
from captioning.visualise import attention_figure, caption_figure, overlay, save_figure

CAPTION = "a man in a red jacket is standing on top of a snow-covered mountain next to his two small dogs"
BOXES = {  # box and size of a picture
    "squash": ((0, 0, 640, 400), (640, 400)),
    "crop": ((110.25, 29.5, 530.25, 449.5), (640, 480)),
    "pad": ((-150.4, 0, 249.6, 400), (100, 400)),
    "beside": ((-37.3, 55.1, 90.9, 401.7), (311, 299)),
}


def scatter(grid: tuple[int, int], *, smooth: bool = False) -> np.ndarray:
    """Random weights that sum to 1; smooth ones are a broad bump off the centre."""
    if not smooth:
        return np.random.default_rng(0).dirichlet(np.ones(grid[0] * grid[1])).astype(np.float32)
    row, column = np.mgrid[: grid[0], : grid[1]]
    bump = np.exp(-((row / grid[0] - 0.4) ** 2 + (column / grid[1] - 0.6) ** 2) / 0.08).ravel()
    return (bump / bump.sum()).astype(np.float32)


def one_hot(places: int, place: int) -> np.ndarray:
    return np.eye(places, dtype=np.float32)[place]


def cell(place: int, grid: tuple[int, int], box) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a cell, in pixels of the picture."""
    row, column = divmod(place, grid[1])
    across, down = (box[2] - box[0]) / grid[1], (box[3] - box[1]) / grid[0]
    return (
        box[0] + column * across,
        box[1] + row * down,
        box[0] + (column + 1) * across,
        box[1] + (row + 1) * down,
    )


def brightest(values: np.ndarray) -> tuple[float, float]:
    """(x, y) of the middle of the largest value's pixel."""
    row, column = np.unravel_index(values.argmax(), values.shape)
    return column + 0.5, row + 0.5


def keys_kernel(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution with a = −1/2."""
    d = np.abs(distance)
    return np.where(d < 1, 1.5 * d**3 - 2.5 * d**2 + 1, np.where(d < 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0))


def reference(weights: np.ndarray, grid: tuple[int, int], box, size: tuple[int, int]) -> np.ndarray:
    """The overlay by its definition, pixel by pixel: cubic convolution of the cells, mirrored at the rim."""
    mixes, inside = [], []
    for axis in (0, 1):  # x, y
        count, start, end = grid[1 - axis], box[axis], box[axis + 2]
        centres = np.arange(size[axis]) + 0.5
        place = (centres - start) / (end - start) * count - 0.5  # 0 at the middle of the first cell
        mix = np.zeros((size[axis], count))
        for index in range(-2, count + 2):
            source = -1 - index if index < 0 else 2 * count - 1 - index if index >= count else index
            mix[:, source] += keys_kernel(place - index)
        mixes.append(mix)
        inside.append((centres >= start) & (centres < end))
    drawn = np.maximum(mixes[1] @ weights.reshape(grid) @ mixes[0].T, 0)
    return drawn * inside[1][:, None] * inside[0]


@pytest.mark.parametrize("grid", [(7, 7), (14, 14), (3, 5), (8, 2)], ids=str)
@pytest.mark.parametrize("geometry", BOXES)
def test_overlay_is_the_bicubic_interpolation_of_the_cells(geometry, grid):
    box, size = BOXES[geometry]
    weights = scatter(grid)
    drawn = overlay(weights, grid, box=box, size=size)
    assert drawn.shape == size[::-1] and drawn.dtype == np.float32
    np.testing.assert_allclose(drawn, reference(weights, grid, box, size), atol=2e-3 * weights.max())


def test_overlay_passes_through_the_weights():
    """Cells of 9 × 5 pixels: the middle of a cell is the middle of a pixel."""
    weights = scatter((4, 6))
    drawn = overlay(weights, (4, 6), box=(0, 0, 54, 20), size=(54, 20))
    np.testing.assert_allclose(drawn[2::5, 4::9].ravel(), weights, atol=1e-6)
    shifted = overlay(weights, (4, 6), box=(7, 3, 61, 23), size=(90, 40))
    np.testing.assert_array_equal(shifted[3:23, 7:61], drawn)
    assert shifted.sum() == pytest.approx(drawn.sum())


@pytest.mark.parametrize("geometry", BOXES)
def test_the_peak_lies_in_its_cell(geometry):
    (box, size), checked = BOXES[geometry], 0
    for place in range(49):
        left, top, right, bottom = cell(place, (7, 7), box)
        if left < 0 or top < 0 or right > size[0] or bottom > size[1]:
            continue
        drawn = overlay(one_hot(49, place), (7, 7), box=box, size=size)
        x, y = brightest(drawn)
        assert left <= x <= right and top <= y <= bottom
        if 0 < place % 7 < 6 and 7 < place < 42:  # at the rim the kernel is mirrored, and the peak is there
            assert abs(x - (left + right) / 2) <= 1 and abs(y - (top + bottom) / 2) <= 1
            assert drawn.max() == pytest.approx(1, abs=0.01)
        checked += 1
    assert checked >= 7


@pytest.mark.parametrize("geometry", ["squash", "crop"])
def test_mass_is_kept(geometry):
    box, size = BOXES[geometry]

    def mass(weights: np.ndarray) -> float:
        return overlay(weights, (7, 7), box=box, size=size).sum() / ((box[2] - box[0]) * (box[3] - box[1]) / 49)

    assert mass(scatter((7, 7), smooth=True)) == pytest.approx(1, abs=0.005)
    assert mass(np.full(49, 1 / 49)) == pytest.approx(1, abs=0.005)
    for place in (0, 3, 24):
        assert 1 <= mass(one_hot(49, place)) < 1.2  # the kernel's negative part is clipped


def test_nothing_outside_the_box():
    box, size = BOXES["crop"]
    drawn = overlay(np.full(49, 1 / 49), (7, 7), box=box, size=size)
    inside = np.zeros(size[::-1], dtype=bool)
    inside[29:449, 110:530] = True  # pixels whose middle lies in 110.25…530.25 and 29.5…449.5
    assert (drawn[~inside] == 0).all()
    np.testing.assert_allclose(drawn[inside], 1 / 49, rtol=1e-5)
    assert not overlay(np.ones(4), (2, 2), box=(50, 0, 60, 10), size=(50, 10)).any()


def test_only_the_picture_part_of_a_padded_grid_is_drawn():
    """A picture of 100 × 400 in the middle of a square: half of a uniform attention's columns miss it."""
    weights = np.zeros((4, 4), dtype=np.float32)
    weights[:, 0], weights[2, 1], weights[2, 2] = 5, 1, 2
    box = (-150, 0, 250, 400)  # cells of 100: the picture is half of column 1 and half of column 2
    drawn = overlay(weights, (4, 4), box=box, size=(100, 400))
    x, y = brightest(drawn)
    assert x > 50 and 200 < y < 300


def test_overlay_mirrors_with_its_weights():
    box, size = BOXES["squash"]
    weights = scatter((7, 7)).reshape(7, 7)
    drawn = overlay(weights, (7, 7), box=box, size=size)
    for axis in (0, 1):
        np.testing.assert_allclose(
            overlay(np.flip(weights, axis), (7, 7), box=box, size=size), np.flip(drawn, axis), atol=1e-6
        )


@pytest.mark.parametrize("box", [(10, 0, 10, 5), (0, 5, 10, 4)])
def test_an_empty_box_is_refused(box):
    with pytest.raises(ValueError, match="an empty box"):
        overlay(np.ones(4), (2, 2), box=box, size=(20, 20))


@pytest.mark.parametrize(
    "transform",
    [Transform(224), Transform(224, fit="crop", resize=256), Transform(224, fit="pad")],
    ids=lambda transform: transform.fit,
)
@pytest.mark.parametrize("size", [(640, 427), (301, 500), (333, 333)], ids=str)
def test_attention_on_a_thing_is_drawn_on_that_thing(transform, size):
    """A light square goes through the transform; the place that sees it is drawn where it is in the picture."""
    for x, y in ((0.4, 0.7), (0.62, 0.33)):
        centre = (floor(x * size[0]), floor(y * size[1]))
        pixels = np.full((size[1], size[0], 3), 127, dtype=np.uint8)
        pixels[centre[1] - 12 : centre[1] + 12, centre[0] - 12 : centre[0] + 12] = 255
        seen = transform(Image.fromarray(pixels))[0].float()
        places = (seen - 127).clip(min=0).reshape(14, 16, 14, 16).mean((1, 3))
        weights = (places / places.sum()).numpy()
        box = transform.box(*size)
        drawn = overlay(weights, (14, 14), box=box, size=size)
        found = [(drawn.sum(axis) @ (np.arange(length) + 0.5)) / drawn.sum() for axis, length in enumerate(size)]
        for got, wanted, reach in zip(found, centre, ((box[2] - box[0]) / 14, (box[3] - box[1]) / 14), strict=True):
            assert abs(got - wanted) < 0.35 * reach  # a third of a cell


def picture(width: int, height: int, colour: int = 128) -> Image.Image:
    return Image.new("RGB", (width, height), (colour, colour, colour))


def lightness(axes) -> np.ndarray:
    """Of a panel's pixels, as grey print shows them."""
    return axes.images[0].get_array().astype(float) @ [0.299, 0.587, 0.114]


def rendered(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float)


def test_a_panel_a_word_in_order():
    words = ["two", "dogs", "run", "after", "two", "dogs"]
    figure = attention_figure(picture(300, 200), words, np.full((6, 49), 1 / 49), box=(0, 0, 300, 200))
    assert len(figure.axes) == 7
    assert figure.axes[0].get_title() == "two dogs run after two dogs"
    assert [axes.get_title() for axes in figure.axes[1:]] == words
    for axes in figure.axes:
        assert axes.images[0].get_extent() == [0, 300, 200, 0] and axes.get_xlim() == (0, 300)
    titled = attention_figure(picture(300, 200), words, np.ones((6, 4)), box=(0, 0, 300, 200), title="photo.jpg")
    assert titled.axes[0].get_title() == "photo.jpg"


@pytest.mark.parametrize(("box", "size"), [BOXES["squash"], BOXES["crop"]])
def test_a_rendered_panel_is_lightest_in_its_cell(box, size):
    """Through the whole figure, down to the pixels of the file."""
    places = [9, 24, 39]
    weights = np.stack([one_hot(49, place) for place in places])
    figure = attention_figure(picture(*size, colour=60), ["x", "y", "z"], weights, box=box)
    pixels = rendered(figure).mean(2)
    for axes, place in zip(figure.axes[1:], places, strict=True):
        window = axes.get_window_extent()
        rows = slice(round(pixels.shape[0] - window.y1), round(pixels.shape[0] - window.y0))
        panel = pixels[rows, round(window.x0) : round(window.x1)]
        scale = np.tile([panel.shape[1] / size[0], panel.shape[0] / size[1]], 2)  # of the picture on the figure
        left, top, right, bottom = np.round(cell(place, (7, 7), box) * scale).astype(int)
        inside = panel[top:bottom, left:right]
        left, top, right, bottom = np.round(box * scale).astype(int)
        seen = panel[top + 2 : bottom - 2, left + 2 : right - 2]
        assert inside.max() == seen.max() and inside.mean() > 2 * np.median(seen)


@pytest.mark.parametrize("colour", [0, 90, 180, 255])
def test_more_weight_is_lighter_in_grey_print(colour):
    ramp = np.tile(np.arange(1, 8), (7, 1)).ravel() / 196
    figure = attention_figure(picture(350, 350, colour), ["up"], ramp[None], box=(0, 0, 350, 350))
    row = lightness(figure.axes[1])[100]
    assert np.diff(row).min() >= -0.6 and row[-1] - row[0] > 80  # 0.6: rounding


def test_all_words_share_one_scale():
    weights = np.stack([one_hot(49, 24), 0.5 * one_hot(49, 24), np.full(49, 1 / 49)])
    figure = attention_figure(picture(350, 350), ["much", "less", "even"], weights, box=(0, 0, 350, 350))
    much, less, even = (lightness(axes).max() for axes in figure.axes[1:])
    assert much > less + 20 > even + 40
    texts = " ".join(text.get_text() for text in figure.texts)
    assert (
        "same scale for all words" in texts and "1/49 = 0.02" in texts and "1" in {t.get_text() for t in figure.texts}
    )


def test_the_legend_says_what_there_is():
    def legend(**options) -> str:
        figure = attention_figure(picture(300, 200), ["dog"], np.full((1, 4), 1 / 4), **options)
        return " ".join(" ".join(text.get_text() for text in figure.texts).split())

    whole, part = (0, 0, 300, 200), (50, 0, 250, 200)
    assert "Hatched" not in legend(box=whole) and "Hatched" in legend(box=part)
    assert "Hatched" not in legend(box=(-10, -50, 310, 250))
    assert "robability" not in legend(box=whole) and "-3.14" in legend(box=whole, log_prob=-3.14159)


def test_what_the_grid_does_not_cover_is_hatched():
    figure = attention_figure(picture(400, 200), ["dog"], np.full((1, 4), 1 / 4), box=(100, 0, 300, 200))
    panel = lightness(figure.axes[1])
    quarter = panel.shape[1] // 4
    inside, outside = panel[:, quarter + 1 : 3 * quarter - 1], np.delete(panel, np.s_[quarter - 1 : 3 * quarter + 1], 1)
    assert np.ptp(inside) == 0 and np.ptp(outside) > 20
    assert np.allclose(figure.axes[0].images[0].get_array(), 128)  # the first panel is the picture itself


@pytest.mark.parametrize(("count", "ratio"), [(1, 0.25), (1, 4), (2, 1), (7, 1.33), (13, 0.56), (20, 0.25), (20, 4)])
def test_figures_are_legible(count, ratio):
    """No text cut off, or over another or a panel; panels sharp and undistorted; neither a strip nor a tower."""
    size = (round(240 * ratio**0.5), round(240 / ratio**0.5))
    words = f"{CAPTION} extraordinarily".split()[-count:]
    figure = attention_figure(
        picture(*size), words, np.full((count, 49), 1 / 49), box=(5, 5, size[0] - 5, size[1] - 5), log_prob=-123.45
    )
    renderer = figure.canvas.get_renderer()
    figure.canvas.draw()
    whole = Bbox([[0, 0], figure.bbox.size])
    panels = [axes.get_window_extent(renderer) for axes in figure.axes]
    texts = [text.get_window_extent(renderer) for text in [axes.title for axes in figure.axes] + figure.texts]
    for index, box in enumerate(texts + panels):
        assert box.x0 >= 20 and box.y0 >= 20 and box.x1 <= whole.x1 - 20 and box.y1 <= whole.y1 - 20
        assert not any(box.overlaps(other) for other in (texts + panels)[:index])
    for panel in panels:
        assert min(panel.width, panel.height) >= 299.5
        assert panel.width / panel.height == pytest.approx(ratio, rel=0.02)
    assert 0.5 < whole.width / whole.height < 3
    assert sum(panel.width * panel.height for panel in panels) > 0.4 * whole.width * whole.height


def test_the_figure_is_as_sharp_as_its_panels():
    """A panel's pixels are the file's pixels: nothing is interpolated a second time."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    figure = attention_figure(noise, CAPTION.split()[:6], np.full((6, 4), 1 / 4), box=(0, 0, 400, 300))
    pixels = rendered(figure)
    for axes in figure.axes:
        window, panel = axes.get_window_extent(), axes.images[0].get_array()
        top, left = round(pixels.shape[0] - window.y1), round(window.x0)
        assert np.abs(pixels[top : top + panel.shape[0], left : left + panel.shape[1]] - panel).max() <= 1


def test_long_words_and_odd_signs():
    words = ["floccinaucinihilipilification" * 2, "$5", "^$", r"\frac$", "", "naïve", "<unk>"]
    figure = attention_figure(picture(60, 240), words, np.full((7, 4), 1 / 4), box=(0, 0, 60, 240))
    figure.canvas.draw()  # "$5 ^$" would be mathematics, and an error
    titles = [axes.title for axes in figure.axes]
    assert [title.get_text() for title in titles[1:]] == words
    renderer = figure.canvas.get_renderer()
    boxes = [title.get_window_extent(renderer) for title in titles]
    assert all(box.x0 > 0 and box.x1 < figure.bbox.width for box in boxes)
    assert boxes[1].x1 < boxes[2].x0


def test_a_caption_alone():
    figure = caption_figure(picture(200, 300), CAPTION)
    assert len(figure.axes) == 1 and not figure.texts
    title = figure.axes[0].get_title()
    assert "\n" in title and " ".join(title.split()) == CAPTION
    figure.canvas.draw()
    box = figure.axes[0].title.get_window_extent()
    assert box.x0 > 0 and box.x1 < figure.bbox.width and box.y1 < figure.bbox.height
    assert box.y0 >= figure.axes[0].get_window_extent().y1


def test_an_empty_caption():
    for figure in (
        caption_figure(picture(30, 20), ""),
        attention_figure(picture(30, 20), [], np.zeros((0, 49)), box=(0, 0, 30, 20)),
    ):
        assert [axes.get_title() for axes in figure.axes] == [""]
        figure.canvas.draw()


def test_what_does_not_match_is_refused():
    box = (0, 0, 30, 20)
    with pytest.raises(ValueError, match=r"3 words.*\(2, 49\)"):
        attention_figure(picture(30, 20), ["a", "red", "dog"], np.ones((2, 49)), box=box)
    with pytest.raises(ValueError, match=r"2 words.*\(98,\)"):
        attention_figure(picture(30, 20), ["a", "dog"], np.ones(98), box=box)
    with pytest.raises(ValueError, match=r"12 locations.*3×3.*grid=\(H, W\)"):
        attention_figure(picture(30, 20), ["dog"], np.ones((1, 12)), box=box)
    assert len(attention_figure(picture(30, 20), ["dog"], np.ones((1, 12)), box=box, grid=(3, 4)).axes) == 2


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")])
def test_figures_are_saved_whole(tmp_path, suffix, magic):
    figure = attention_figure(picture(30, 20), ["dog"], np.ones((1, 4)), box=(0, 0, 30, 20))
    path = tmp_path / f"figure{suffix}"
    save_figure(figure, str(path))
    assert path.read_bytes().startswith(magic) and os.listdir(tmp_path) == [path.name]
    if suffix == ".png":
        with Image.open(path) as saved:
            assert saved.size == figure.canvas.get_width_height()


def test_a_failure_keeps_the_old_file(tmp_path, monkeypatch):
    figure, path = caption_figure(picture(30, 20), "a dog"), tmp_path / "figure.png"
    path.write_bytes(b"old")

    def fail(target, **options):
        target.write(b"half a fig")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(ConfigError, match="disk full"):
        save_figure(figure, path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["figure.png"]
    with pytest.raises(ValueError, match=r"figure\.bmp: .*\.png, \.svg, \.pdf"):
        save_figure(figure, tmp_path / "figure.bmp")


def test_figures_leave_nothing_behind(tmp_path):
    seen = []
    for _ in range(3):
        figure = attention_figure(picture(30, 20), ["dog"], np.ones((1, 4)), box=(0, 0, 30, 20))
        save_figure(figure, tmp_path / "figure.png")
        seen.append(weakref.ref(figure))
    del figure
    gc.collect()
    assert [ref() for ref in seen] == [None] * 3 and not Gcf.get_all_fig_managers()
