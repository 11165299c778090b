"""Figures beside the grid of panels: marks, strips, gazes, curves and sheets; and all from a trained checkpoint."""

import csv
import json
import os
import shutil
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle
from matplotlib.testing.compare import compare_images
from matplotlib.transforms import Bbox
from PIL import Image

import captioning
from captioning.caption import caption
from captioning.config import CaptionConfig, check, compose
from captioning.config.schemas import TrainConfig
from captioning.decoding import beam_search, forced_decoding, score_tokens
from captioning.errors import ConfigError, DataError, ToolError
from captioning.inference import figures
from captioning.train import train
from captioning.visualise import (
    Entry,
    Maps,
    attention_figure,
    caption_sheet,
    curves_figure,
    read_curves,
    save_figure,
    save_gaze,
    strip_figure,
)
from captioning.visualise.animation import RATE, gaze_frames
from captioning.visualise.maps import light

CAPTION = "a man in a red jacket is standing on top of a snow-covered mountain next to his two small dogs"
REFERENCES = Path(__file__).parent / "references"


def drawing(width: int, height: int) -> Image.Image:
    """A picture with something everywhere, the same each time."""
    rows, columns = np.mgrid[:height, :width] / [[[height]], [[width]]]
    waves = [np.sin(7 * columns + phase) * np.cos(5 * rows - phase) for phase in (0, 1, 2)]
    return Image.fromarray((127.5 + 120 * np.stack(waves, 2)).astype(np.uint8))


def weights(words: int, places: int = 49) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.full(places, 0.3), words).astype(np.float32)


def frames(axes) -> list[tuple[float, float, float, float]]:
    """Left, top, right, bottom of the white frames that were drawn over a panel."""
    drawn = [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_edgecolor()[:3] == (1, 1, 1)]
    return [(r.get_x(), r.get_y(), r.get_x() + r.get_width(), r.get_y() + r.get_height()) for r in drawn]


# Marks


def test_the_place_that_hard_attention_chose_is_framed():
    box, places = (-20, 10, 120, 150), [24, 0, 49, 44, 10]  # 20 pixels a place; 49 is the sentinel
    figure = attention_figure(drawing(100, 150), list("abcde"), weights(5), box=box, places=places)
    found = [frames(axes) for axes in figure.axes]
    assert found[0] == []  # the picture itself
    assert found[1] == [(40, 70, 60, 90)]  # row 3, column 3
    assert found[2] == [] and found[3] == []  # beyond the picture; at no place
    assert found[4] == [(20, 130, 40, 150)]
    assert found[5] == [(40, 30, 60, 50)]
    legend = " ".join(text.get_text() for text in figure.texts)
    assert "Frame: the location that hard attention chose" in " ".join(legend.split())


def test_a_frame_ends_at_the_edge_of_the_picture():
    figure = attention_figure(drawing(90, 100), ["x"], weights(1, 4), box=(-10, 0, 90, 100), places=[0])
    assert frames(figure.axes[1]) == [(0, 0, 40, 50)]


def test_the_region_of_largest_weight_is_framed_and_overlaps_add_up():
    regions = np.array([[0, 0, 50, 50], [25, 25, 75, 75], [60, 60, 100, 100]], float)
    shares = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    figure = attention_figure(drawing(100, 100), ["one", "two"], shares, regions=regions)
    assert [frames(axes) for axes in figure.axes[1:]] == [[(0, 0, 50, 50)], [(60, 60, 100, 100)]]
    texts = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    assert (
        "Sum of" in texts and "region with the largest weight" in texts and "0.9" in texts
    )  # the scale's end, .2 + .7
    # Another size of the same picture: the regions go along.
    small, scale = Maps(["one", "two"], shares, regions=regions).panels(drawing(20, 20), (100, 100))
    assert scale == pytest.approx(0.9)
    alike = light(drawing(20, 20), np.full((20, 20), 0.8 / 0.9), np.ones((20, 20), bool))
    np.testing.assert_array_equal(small[0].pixels[7, 7], alike[7, 7])  # in the first two: .5 + .3


def test_a_sentinels_share_is_a_bar_of_its_length():
    shares = [0.25, 1.0, 0.0]
    figure = attention_figure(drawing(90, 90), ["a", "b", "c"], weights(3), box=(0, 0, 90, 90), sentinel=shares)
    bars = [artist for artist in figure.artists if isinstance(artist, Rectangle)]
    lengths = [filled.get_width() / whole.get_width() for whole, filled in zip(bars[::2], bars[1::2], strict=True)]
    np.testing.assert_allclose(lengths, shares)
    told = [text.get_text() for text in figure.texts if text.get_text().startswith("β")]
    assert told == ["β 0.25", "β 1.00", "β 0.00"]
    for axes, whole in zip(figure.axes[1:], bars[::2], strict=True):  # above its own panel, below the word
        place = axes.get_position()
        assert whole.get_x() == pytest.approx(place.x0) and whole.get_y() > place.y1


@pytest.mark.parametrize("count", [3, 20])
@pytest.mark.parametrize("ratio", [0.25, 1, 4])
def test_shares_marks_and_long_notes_leave_all_legible(count, ratio):
    size = (round(240 * ratio**0.5), round(240 / ratio**0.5))
    figure = attention_figure(
        drawing(*size), f"{CAPTION} extraordinarily".split()[-count:], weights(count), box=(5, 5, size[0] - 5, size[1]),
        sentinel=np.linspace(0, 1, count), places=[24] * count, log_prob=-123.45,
    )  # fmt: skip
    figure.canvas.draw()
    assert_apart(figure)


def assert_apart(figure, margin: float = 0) -> None:
    """No text cut off, nor over another or over a picture."""
    renderer = figure.canvas.get_renderer()
    titles = [axes.title for axes in figure.axes if axes.get_title()]
    boxes = [text.get_window_extent(renderer) for text in titles + figure.texts if text.get_text()]
    boxes += [axes.get_window_extent(renderer) for axes in figure.axes]
    for index, box in enumerate(boxes):
        assert box.x0 >= margin - 0.5 and box.y0 >= margin - 0.5
        assert box.x1 <= figure.bbox.width - margin + 0.5 and box.y1 <= figure.bbox.height - margin + 0.5
        shrunk = Bbox.from_extents(box.x0 + 1, box.y0 + 1, box.x1 - 1, box.y1 - 1)
        assert not any(shrunk.overlaps(other) for other in boxes[:index])


def test_what_does_not_match_is_refused():
    with pytest.raises(ValueError, match=r"give box=.*or regions"):
        Maps(["a"], np.ones((1, 4)))
    with pytest.raises(ValueError, match=r"4 locations, but regions of shape \(3, 4\)"):
        Maps(["a"], np.ones((1, 4)), regions=np.ones((3, 4)))
    with pytest.raises(ValueError, match="1 words, but 2 places"):
        Maps(["a"], np.ones((1, 4)), box=(0, 0, 1, 1), places=[1, 2])
    with pytest.raises(ValueError, match="1 words, but 3 β"):
        Maps(["a"], np.ones((1, 4)), box=(0, 0, 1, 1), sentinel=[0, 0, 0])


def test_cells_are_even_inside_and_the_scale_is_the_same():
    rough = attention_figure(Image.new("RGB", (70, 70)), ["x"], weights(1), box=(0, 0, 70, 70), smooth=False)
    panel = rough.axes[1].images[0].get_array()
    side = panel.shape[0] / 7
    for row in range(7):
        for column in range(7):
            inner = panel[
                round(row * side) + 1 : round((row + 1) * side) - 1,
                round(column * side) + 1 : round((column + 1) * side) - 1,
            ]
            assert np.ptp(inner.reshape(-1, 3), axis=0).max() == 0


# Strips


@pytest.mark.parametrize("ratio", [0.25, 0.7, 1, 1.5, 4])
@pytest.mark.parametrize("count", [3, 9, 20])
def test_a_strip_fits_a_page(count, ratio):
    size = (round(240 * ratio**0.5), round(240 / ratio**0.5))
    words = f"{CAPTION} extraordinarily".split()[-count:]
    figure = strip_figure(drawing(*size), words, weights(count), box=(0, 0, *size), sentinel=np.full(count, 0.5))
    figure.canvas.draw()
    assert figure.get_figwidth() <= 6.75 and figure.get_figheight() < 9
    assert len(figure.axes) == count + 1
    assert [text.get_text() for text in figure.texts if not text.get_text().startswith("β")] == words
    assert_apart(figure)
    for axes in figure.axes:
        window = axes.get_window_extent()
        assert window.width / window.height == pytest.approx(ratio, rel=0.02)
        assert window.width * window.height > (0.35 * 300) ** 2


def test_a_strip_of_some_words_keeps_the_scale_of_all():
    shares = np.full((3, 4), 0.1, np.float32)
    shares[1, 2] = 0.7
    whole = strip_figure(drawing(60, 60), ["a", "b", "c"], shares, box=(0, 0, 60, 60))
    part = strip_figure(drawing(60, 60), ["a", "b", "c"], shares, box=(0, 0, 60, 60), only=[2])
    assert [text.get_text() for text in part.texts] == ["c"]
    middle = [figure.axes[-1].images[0].get_array() for figure in (whole, part)]
    assert middle[0][5, 5].tolist() == middle[1][5, 5].tolist()
    with pytest.raises(ValueError, match=r"only=\[3\]: the caption has words 0 … 2"):
        strip_figure(drawing(60, 60), ["a", "b", "c"], shares, box=(0, 0, 60, 60), only=[3])


def test_text_stays_text_and_files_repeat(tmp_path):
    def draw(name: str) -> bytes:
        figure = strip_figure(drawing(60, 40), ["two", "naïve", "$5"], weights(3), box=(0, 0, 60, 40), places=[3, 4, 5])
        save_figure(figure, tmp_path / name)
        return (tmp_path / name).read_bytes()

    drawn = draw("strip.svg")
    assert all(f">{word}</text>" in drawn.decode() for word in ("two", "naïve", "$5"))
    assert b"FontFile2" in draw("strip.pdf")  # a font, not outlines
    assert draw("again.svg") == drawn and draw("a.pdf") == draw("b.pdf")


def test_a_pdf_is_written_in_silence(tmp_path, caplog):
    caplog.set_level("INFO")  # of the root logger, as commands set it
    figure = strip_figure(drawing(60, 40), ["two", "dogs"], weights(2), box=(0, 0, 60, 40))
    save_figure(figure, tmp_path / "strip.pdf")
    assert caplog.messages == []


# Gazes


def test_a_frame_a_word_between_the_picture_and_the_picture(tmp_path):
    words, size = CAPTION.split()[:5], (90, 61)
    made = gaze_frames(drawing(*size), words, weights(5), box=(0, 0, *size), places=[0, 8, 16, 24, 49])
    assert len(made) == 7 and len({frame.size for frame in made}) == 1
    assert all(side % 2 == 0 for side in made[0].size)
    pixels = [np.asarray(frame).astype(int) for frame in made]
    assert min(np.abs(a - b).max() for a, b in pairwise(pixels)) > 60
    top = round(0.6 * pixels[0].shape[0])
    np.testing.assert_array_equal(pixels[0][:top], pixels[-1][:top])  # the picture, before and after
    save_gaze(tmp_path / "gaze.gif", drawing(*size), words, weights(5), box=(0, 0, *size), seconds=0.5)
    with Image.open(tmp_path / "gaze.gif") as gif:
        assert gif.n_frames == 7 and gif.info["loop"] == 0 and gif.size == made[0].size
        durations = []
        for index in range(gif.n_frames):
            gif.seek(index)
            durations.append(gif.info["duration"])
    assert durations == [500] * 6 + [2000] and os.listdir(tmp_path) == ["gaze.gif"]


@pytest.mark.parametrize(("count", "ratio"), [(3, 1), (20, 0.25), (20, 4), (1, 1.5)])
def test_the_words_of_a_gaze_are_legible(count, ratio, monkeypatch):
    seen = []

    def keep(shown, extent, maps, *, stage):
        seen.append(stage(shown, extent, maps))
        return seen[-1]

    from captioning.visualise import animation as gaze

    monkeypatch.setattr(gaze, "_stage", partial(keep, stage=gaze._stage))
    size = (round(240 * ratio**0.5), round(240 / ratio**0.5))
    words = f"{CAPTION} floccinaucinihilipilification".split()[-count:]
    made = gaze_frames(drawing(*size), words, weights(count), box=(0, 0, *size), sentinel=np.full(count, 0.3))
    assert_apart(seen[0][0])
    assert 0.2 < made[0].width / made[0].height < 4.2


def test_an_mp4_needs_ffmpeg(tmp_path, monkeypatch):
    arguments = (drawing(64, 64), ["a", "dog"], weights(2))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ToolError, match=r"need the program 'ffmpeg'.*figures=\[gaze\]"):
        save_gaze(tmp_path / "gaze.mp4", *arguments, box=(0, 0, 64, 64))
    with pytest.raises(ValueError, match=r"gaze\.avi: an animation is saved as \.gif or \.mp4"):
        save_gaze(tmp_path / "gaze.avi", *arguments, box=(0, 0, 64, 64))
    assert not os.listdir(tmp_path)


def test_ffmpeg_gets_every_frame_as_long_as_it_lasts(tmp_path, monkeypatch):
    """A stand-in that writes what it was told and how much it got."""
    program = tmp_path / "ffmpeg"
    program.write_text(
        f"#!{sys.executable}\nimport sys\ndata = sys.stdin.buffer.read()\nprint(len(data), *sys.argv[1:])\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    save_gaze(tmp_path / "gaze.mp4", drawing(64, 64), ["a", "dog"], weights(2), box=(0, 0, 64, 64), seconds=0.5)
    size = gaze_frames(drawing(64, 64), ["a", "dog"], weights(2), box=(0, 0, 64, 64))[0].size
    length, *told = (tmp_path / "gaze.mp4").read_text().split()
    assert int(length) == size[0] * size[1] * 3 * RATE * (3 * 0.5 + 2)
    assert f"{size[0]}x{size[1]}" in told and told[told.index("-r") + 1] == str(RATE)
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no such encoder')\n")
    with pytest.raises(ToolError, match=r"'ffmpeg' could not write the MP4.*no such encoder"):
        save_gaze(tmp_path / "other.mp4", drawing(64, 64), ["a"], weights(1), box=(0, 0, 64, 64))
    assert sorted(os.listdir(tmp_path)) == ["ffmpeg", "gaze.mp4"]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_ffmpeg_makes_an_mp4(tmp_path):
    save_gaze(tmp_path / "gaze.mp4", drawing(65, 43), ["a", "dog"], weights(2), box=(0, 0, 65, 43))
    assert (tmp_path / "gaze.mp4").read_bytes()[4:8] == b"ftyp"


# Curves


@pytest.fixture
def run_dir(tmp_path):
    def make(name: str, shift: float = 0.0) -> Path:
        folder = tmp_path / name
        (folder / "val").mkdir(parents=True)
        with (folder / "metrics.csv").open("w", newline="") as file:
            table = csv.writer(file)
            parts, scores = ["train/loss", "train/part", "train/rest"], ["val/greedy/BLEU-1", "val/greedy/CIDEr"]
            table.writerow(["step", "epoch", *parts, *scores, "val/loss"])
            for step in range(9, 100, 10):
                loss = 50 / (step + shift + 1)
                validated = [0.5, 0.01 * step, loss + 1] if step % 50 == 49 else ["", "", ""]
                table.writerow([step, step // 50, loss, loss / 3, 2 * loss / 3, *validated])
        (folder / "val" / "scores.json").write_text(json.dumps({"CIDEr": 0.8, "truth": 0.5}))
        (folder / "val" / "statistics.json").write_text(json.dumps({"intervals": {"CIDEr": [0.7, 0.95]}}))
        return folder

    return make


def test_curves_are_the_numbers_of_the_run(run_dir):
    figure = curves_figure(run_dir("a"))
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == ["loss", "greedy/CIDEr", "train/part", "train/rest"]
    train, val = panels["loss"].lines
    np.testing.assert_allclose(train.get_ydata(), [50 / (step + 1) for step in range(9, 100, 10)])
    assert val.get_xdata().tolist() == [49, 99] and val.get_ydata().tolist() == [2.0, 1.5]
    scored, measured, *_ = panels["greedy/CIDEr"].lines
    np.testing.assert_allclose(scored.get_ydata(), [0.49, 0.99])
    assert measured.get_ydata().tolist() == [0.8] and measured.get_xdata()[0] > 99
    ((x, low), (_, high)) = panels["greedy/CIDEr"].collections[0].get_segments()[0]
    assert (low, high) == pytest.approx((0.7, 0.95)) and x == measured.get_xdata()[0]
    figure.canvas.draw()


def test_several_runs_by_name(run_dir):
    runs = {"soft": run_dir("a"), "hard": read_curves(run_dir("b", shift=20))}
    figure = curves_figure(runs, ["loss", "val/greedy/CIDEr"])
    assert len(figure.axes) == 2
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["soft", "hard", "train", "evaluated, 95 % interval"]
    styles = {(line.get_linestyle(), line.get_color()) for line in figure.axes[0].lines}
    assert len(styles) == 2 and len({style for style, _ in styles}) == 2  # told apart in grey, too
    with pytest.raises(ValueError, match="no run has any of the columns val/none"):
        curves_figure(runs, ["val/none"])
    with pytest.raises(ValueError, match="no runs"):
        curves_figure({})


def test_what_is_no_run_is_told(tmp_path, run_dir):
    with pytest.raises(DataError, match=r"metrics\.csv: there is no such file: give the folder of a run"):
        curves_figure(tmp_path)
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="cannot read"):
        curves_figure(tmp_path)
    (tmp_path / "metrics.csv").write_text("step,loss\n")
    with pytest.raises(DataError, match="has no numbers yet"):
        curves_figure(tmp_path)
    folder = run_dir("a")
    (folder / "val" / "scores.json").write_text("[]")
    with pytest.raises(DataError, match=r"cannot read the scores in .*val"):
        curves_figure(folder)


# Sheets


def test_a_sheet_of_captions():
    references = [
        "A man in the snow.",
        "Two dogs and somebody who has climbed a mountain together.",
        "Third.",
        "Fourth.",
    ]
    entries = [
        Entry(drawing(60, 40), CAPTION, references, {"CIDEr": 1.234, "BLEU-4": 0}, "one.jpg"),
        Entry(drawing(40, 90), {"A": "a dog", "B": ""}, references[:1]),
        Entry(
            drawing(300, 20), "", [], {}, "a very long title of a picture that does not fit on a single line of a card"
        ),
    ]
    figure = caption_sheet(entries, columns=2, title="Some captions", most_references=3)
    figure.canvas.draw()
    assert_apart(figure, margin=20)
    texts = [" ".join(text.get_text().split()) for text in figure.texts]
    assert texts[:4] == ["Some captions", "one.jpg", CAPTION, "CIDEr 1.23 · BLEU-4 0.00"]
    assert texts[4:7] == [f"– {text}" for text in references[:3]] and "A: a dog" in texts and "(empty)" in texts
    lefts = [axes.get_position().x0 for axes in figure.axes]
    assert lefts[0] == lefts[2] < lefts[1]
    for entry, axes in zip(entries, figure.axes, strict=True):
        window = axes.get_window_extent()
        assert window.width / window.height == pytest.approx(entry.picture.width / entry.picture.height, rel=0.05)
    with pytest.raises(ValueError, match="at least one of each"):
        caption_sheet([])


# Against figures that were looked at


def references() -> dict:
    picture, box = drawing(150, 100), (25, 0, 125, 100)
    words, shares = ["two", "red", "dogs"], weights(3)
    where = {"places": [24, 3, 49], "sentinel": [0.2, 0.5, 0.9]}
    regions = {"regions": [[10, 10, 80, 60], [60, 30, 140, 90], [0, 70, 40, 100]]}
    return {
        "grid": lambda: attention_figure(picture, words, shares, box=box, log_prob=-3.2, **where),
        "regions": lambda: attention_figure(picture, words, weights(3, 3), **regions),
        "strip": lambda: strip_figure(picture, words, shares, box=box, smooth=False, width=3.25),
        "sheet": lambda: caption_sheet([Entry(picture, "two red dogs", ["Dogs."], {"CIDEr": 0.5}, "1.png")] * 2),
    }


DRAWN_BY = "3.11"  # matplotlib: others set text otherwise


@pytest.mark.skipif(
    not matplotlib.__version__.startswith(f"{DRAWN_BY}."), reason=f"the references are by matplotlib {DRAWN_BY}"
)
@pytest.mark.parametrize("name", references())
def test_figures_look_as_they_did(name, tmp_path):
    """At a quarter of the size. A figure that is meant to change is looked at, then stored: delete its reference and
    run this once."""
    made = references()[name]()
    save_figure(made, tmp_path / "whole.png")
    with Image.open(tmp_path / "whole.png") as whole:
        whole.convert("RGB").reduce(4).save(tmp_path / f"{name}.png")
    stored = REFERENCES / f"{name}.png"
    if not stored.is_file():
        shutil.copy(tmp_path / f"{name}.png", stored)
        pytest.fail(f"{stored} was not there and is stored now: look at it")
    shutil.copy(stored, tmp_path / "reference.png")
    assert compare_images(str(tmp_path / "reference.png"), str(tmp_path / f"{name}.png"), tol=3) is None


# From a model


@pytest.mark.parametrize(
    ("attention", "recurrence"),
    [("soft", "look_first"), ("hard", "look_after"), ("soft", "adaptive"), ("none", "look_first")],
)
def test_following_a_caption_is_what_the_search_saw(toy, attention, recurrence):
    """Led along the captions that a search wrote, the model looks and scores as it did when it wrote them."""
    captioner = toy(attention=attention, recurrence=recurrence)
    images, ends = torch.randn(3, 4, 6, dtype=torch.float64), {"start": 1, "end": 2, "batch": 3}
    state, memory = captioner.begin(images)
    step = partial(captioner.step, memory=memory)
    written = beam_search(step, state, **ends, beam_size=3, max_length=6, n_best=2, forbidden=(0, 1, 3))
    for rank in range(min(map(len, written))):
        tokens = [group[rank].tokens for group in written]
        led = forced_decoding(step, captioner.begin(images)[0], **ends, tokens=tokens)
        table = torch.zeros(3, 1, 8, dtype=torch.int64)
        for row, line in zip(table, tokens, strict=True):
            row[0, : len(line) + 1] = torch.tensor([1, *line])
        scored = score_tokens(step, captioner.begin(images)[0], table, pad=0)
        for image, (group, (own,)) in enumerate(zip(written, led, strict=True)):
            assert own.tokens == group[rank].tokens
            assert own.log_prob == pytest.approx(group[rank].log_prob, abs=1e-5)
            assert own.log_prob == pytest.approx(scored[image, 0].sum().item(), abs=1e-5)
            for mine, theirs in zip(own[3:], group[rank][3:], strict=True):
                assert (mine is None) == (theirs is None)
                assert mine is None or torch.allclose(mine.double(), theirs.double())


SMALL = ["model.width=16", "model.embedding_size=8", "loader.batch_size=4", "data.min_count=1"]
SMALL += ["trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    with (root / "captions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption", "split"])
        for index in range(6):
            drawing(60 + 8 * index, 64).save(root / f"p{index}.png")
            table.writerow(
                [f"p{index}.png", f"a {('red', 'blue', 'dark')[index % 3]} dog runs", "train" if index < 4 else "val"]
            )
    return root


def fit(root: Path, *overrides: str) -> Path:
    chosen = ["data=csv", f"data.root={root}", *SMALL, *overrides]
    train(check(compose("train", chosen), TrainConfig))
    return (
        next(Path(item.removeprefix("run_dir=")) for item in overrides if item.startswith("run_dir="))
        / "checkpoints/best.ckpt"
    )


@pytest.fixture(scope="module")
def adaptive(world, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("adaptive")
    features = [f"features.root={world}/features", "encoder.image_size=64", "model.feature_width=16"]
    return fit(world, *features, "model/recurrence=adaptive", f"run_dir={run_dir}")


def run_caption(*overrides: str) -> None:
    caption(check(compose("caption", list(overrides)), CaptionConfig))


def test_the_sentinels_share_is_the_softmaxs_last_place(adaptive, world, monkeypatch):
    from captioning.models import attention

    scored = []
    original = attention._scores

    def keep(*arguments):
        scored.append(original(*arguments))
        return scored[-1]

    monkeypatch.setattr(attention, "_scores", keep)
    captioner = captioning.load(adaptive)
    (made,) = captioner.forced_captions(world / "p1.png", "a blue dog")
    expected = [scores.softmax(-1)[0, 0, -1].item() for scores in scored][:3]
    assert made.tokens == ["a", "blue", "dog"]
    np.testing.assert_allclose(made.sentinel, expected, atol=1e-6)
    np.testing.assert_allclose(made.attention.sum(1) + made.sentinel, 1, atol=1e-6)
    assert made.sentinel.min() > 0.001


@pytest.mark.slow
def test_every_kind_of_figure_by_the_command(adaptive, world, tmp_path):
    run_caption(
        f"checkpoint={adaptive}", f"images=[{world}/p0.png,{world}/p5.png]", f"output={tmp_path}", "format=svg",
        "figures=[grid,cells,strip,gaze]", "decoding.min_length=2", "decoding.max_length=4",
    )  # fmt: skip
    names = [f"{stem}{end}" for stem in ("p0", "p5") for end in (".svg", "_cells.svg", "_strip.svg", "_gaze.gif")]
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "captions.json"])
    assert "β" in (tmp_path / "p0.svg").read_text() and "β" in (tmp_path / "p5_strip.svg").read_text()
    run_caption(f"checkpoint={adaptive}", f"images={world}/p0.png", f"output={tmp_path / 'none'}", "figures=[]")
    assert os.listdir(tmp_path / "none") == ["captions.json"]


def test_figures_that_there_are_not(adaptive, world, tmp_path):
    given = [f"checkpoint={adaptive}", f"images={world}/p0.png", f"output={tmp_path}/o"]
    with pytest.raises(
        ConfigError, match=r"figures=\[film_strip\] does not exist\. Choose from grid, cells, strip, gaze, film"
    ):
        run_caption(*given, "figures=[film_strip]")
    with pytest.raises(ConfigError, match=r"format=jpg is not supported. Choose one of png, svg, pdf"):
        run_caption(*given, "format=jpg")
    assert not (tmp_path / "o").exists()


@pytest.fixture(scope="module")
def blind(world, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("blind")
    features = [f"features.root={world}/features", "encoder.image_size=64"]
    return fit(world, *features, "model/attention=none", f"run_dir={run_dir}")


def test_a_gaze_of_a_checkpoint_without_attention_is_refused_before_any_caption(
    blind, adaptive, world, tmp_path, capsys
):
    given = [f"images={world}/p0.png", f"output={tmp_path}/o"]
    ensemble = [f"checkpoint={adaptive}", f"decoding.checkpoints=[{blind}]"]
    for checkpoints in ([f"checkpoint={blind}"], ensemble):
        with pytest.raises(ConfigError, match=rf"figures=\[gaze,film\] .* {blind} has no attention.*figures=\[grid\]"):
            run_caption(*given, *checkpoints, "figures=[grid,gaze,film]")
    assert not (tmp_path / "o").exists() and "p0.png" not in capsys.readouterr().out
    run_caption(*given, f"checkpoint={blind}", "figures=[grid,cells,strip]")
    assert len(os.listdir(tmp_path / "o")) == 4


def test_a_film_without_ffmpeg_is_refused_before_any_caption(adaptive, world, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolError, match="need the program 'ffmpeg'"):
        run_caption(f"checkpoint={adaptive}", f"images={world}/p0.png", f"output={tmp_path}/o", "figures=[film]")
    assert not (tmp_path / "o").exists()


def test_captions_outlive_a_figure_that_cannot_be_written(adaptive, world, tmp_path, monkeypatch):
    def fail(*arguments):
        raise ConfigError("no space left")

    monkeypatch.setattr(captioning.inference, "save_caption_figure", fail)
    with pytest.raises(ConfigError, match="no space left"):
        run_caption(f"checkpoint={adaptive}", f"images=[{world}/p0.png,{world}/p5.png]", f"output={tmp_path}/o")
    kept = json.loads((tmp_path / "o" / "captions.json").read_text())
    assert [Path(each["file_name"]).name for each in kept] == ["p0.png", "p5.png"]
    assert [each["image_id"] for each in kept] == [0, 1]


def test_in_one_call(adaptive, world, tmp_path):
    captioner = captioning.load(adaptive)
    figure = captioner.figure(
        world / "p0.png", "strip", "greedy", path=tmp_path / "strip.pdf", min_length=3, max_length=5
    )
    assert len(figure.axes) >= 4 and (tmp_path / "strip.pdf").read_bytes().startswith(b"%PDF")
    assert captioner.figure(world / "p0.png", "gaze", path=tmp_path / "gaze.gif", min_length=3, max_length=4) is None
    assert (tmp_path / "gaze.gif").read_bytes().startswith(b"GIF89a")
    with pytest.raises(DataError, match=r"1 images, but 2 captions\. Give one caption per image"):
        captioner.forced_captions(world / "p0.png", ["a dog", "a dog"])


def test_a_captioner_without_attention_has_its_caption_drawn(adaptive, world, tmp_path):
    made = captioning.load(adaptive).caption(world / "p0.png", min_length=2)[0]._replace(attention=None, sentinel=None)
    for kind in figures.STILL:
        assert len(figures.draw_figure(drawing(60, 64), made, kind).axes) == 1
    with pytest.raises(ConfigError, match=r"no attention\. Use figures=\[grid\]"):
        figures.save_caption_figure(drawing(60, 64), made, tmp_path / "gaze.gif", "gaze")


def test_the_title_is_the_caption_as_its_language_writes_it(adaptive, world):
    made = captioning.load(adaptive).caption(world / "p0.png", min_length=2, max_length=4)[0]
    chinese = made._replace(text="".join(made.tokens))
    for kind in ("grid", "cells"):
        titles = [axes.get_title() for axes in figures.draw_figure(drawing(60, 64), chinese, kind).axes]
        assert chinese.text in titles and " ".join(chinese.tokens) not in titles


def test_regions_of_a_detector_go_through_the_command_onto_the_figure(world, adaptive, tmp_path):
    folder, random = tmp_path / "regions", np.random.default_rng(0)
    folder.mkdir()
    boxes = {}
    for index in range(6):
        count, width = 3 + index, 60 + 8 * index
        corners = np.sort(random.uniform(0, 1, (count, 2, 2)), axis=1) * [width, 64]
        boxes[index] = corners.reshape(count, 4).astype(np.float32)
        np.savez(folder / f"p{index}.npz", x=random.standard_normal((count, 12)).astype(np.float32), bbox=boxes[index])
    checkpoint = fit(
        world, "encoder=regions", "encoder.size=12", "features=regions", f"features.root={folder}",
        "model/recurrence=up_down", f"run_dir={tmp_path}/run",
    )  # fmt: skip
    pictures = f"images=[{world}/p0.png,{world}/p5.png]"
    run_caption(
        f"checkpoint={checkpoint}", pictures, f"regions={folder}", f"output={tmp_path}/out", "figures=[grid,strip]"
    )
    assert (tmp_path / "out" / "p5_strip.png").is_file()

    from captioning.data import Record
    from captioning.features import RegionFolder

    captioner = captioning.load(checkpoint)
    read = RegionFolder(folder, size=12)
    regions = [read[Record(-1, world / f"p{index}.png", "", ())] for index in (0, 5)]
    search = partial(beam_search, beam_size=2, min_length=2, max_length=4)
    together = captioner.caption_regions(regions, search)
    for index, (made, *_), own in zip((0, 5), together, regions, strict=True):
        np.testing.assert_array_equal(made.regions, boxes[index])
        assert made.attention.shape == (len(made.tokens), len(boxes[index])) and made.box is None
        np.testing.assert_allclose(made.attention.sum(1), 1, atol=1e-5)  # no weight went to padding
        (alone,) = captioner.caption_regions([own], search)[0]
        assert alone.tokens == made.tokens
        np.testing.assert_allclose(alone.attention, made.attention, atol=1e-5)
        assert len(figures.draw_figure(drawing(60, 64), made).axes) == 1 + len(made.tokens)
    with pytest.raises(ConfigError, match="caption with regions=DIR"):
        captioner.caption(world / "p0.png")
    with pytest.raises(
        ConfigError, match=r"crops=0\.75 needs a model with a grid, but .*best\.ckpt looks at a detector's"
    ):
        captioning.load(checkpoint, crops=0.75)
    with pytest.raises(ConfigError, match="was not trained on region features"):
        run_caption(f"checkpoint={adaptive}", pictures, f"regions={folder}", f"output={tmp_path}/o")
