"""Grounding of a split: which caption, size and instances meet which picture, read or from a source of features."""

from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from captioning.data import Instances, Record
from captioning.data.instances import Annotated, Instance
from captioning.errors import CheckpointError, DataError
from captioning.evaluation import caption_and_ground

SIZES = {5: (8, 4), 3: (4, 8), 9: (6, 6), 7: (8, 8), 2: (4, 4)}  # width, height; image 9 cannot be read


class Made(NamedTuple):
    tokens: list[str]
    attention: np.ndarray | None
    box: tuple
    places: list[int] | None
    grid: tuple[int, int] | None = None


def made(number: int, size, places=None) -> Made:
    """A caption with as many words as the image's number, of which the last is a thing: it looks at the first cell."""
    weights = np.full((number, 4), 0.25)
    weights[-1] = [0.7, 0.1, 0.1, 0.1]
    return Made(["a"] * (number - 1) + [f"thing{number}"], weights, (0, 0, *size), places)


class Predictor:
    path, device = "a.ckpt", "cpu"

    def __init__(self, **changes):
        self.changes, self.batches, self.asked = changes, [], []

    def search_features(self, features, search, *, names):
        assert torch.is_inference_mode_enabled()
        self.asked.append((search, names))
        return [[int(row[0, 0]), "second best"] for row in features]

    def caption_pictures(self, pictures, search):
        self.batches.append(([picture.size for picture in pictures], search))
        numbers = {size: number for number, size in SIZES.items()}
        return [made(numbers[picture.size], picture.size)._replace(**self.changes) for picture in pictures]

    captioner = SimpleNamespace(name_tags=lambda features: [[] for _ in features])

    def as_caption(self, best, size, *, nouns):
        return made(best, size)


@pytest.fixture
def split(tmp_path):
    """Records, and instances in the upper half of each picture, whose masks are the upper quarter."""
    records, pictures = [], {}
    for number, (width, height) in SIZES.items():
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (width, height)).save(path)
        if number == 9:
            path.write_bytes(b"")
        records.append(Record(number, path, "val", ()))
        box = (0, 0, width, height / 2)
        mask = [[0, 0, width, 0, width, height / 4, 0, height / 4]]
        pictures[number] = Annotated(width, height, [Instance(f"thing{number}", box, mask)])
    return records, Instances(pictures, {f"thing{number}": (f"thing{number}",) for number in SIZES})


def test_every_picture_meets_its_own_caption_and_instances(split, capsys):
    records, instances = split
    predictor = Predictor()
    found = caption_and_ground(predictor, records, instances, search="beam", batch_size=2, skip_unreadable=True)
    assert list(found) == [5, 3, 7, 2]  # in order, without the one that cannot be read
    assert predictor.batches == [([(8, 4), (4, 8)], "beam"), ([(8, 8)], "beam"), ([(4, 4)], "beam")]
    for number, (only,) in found.items():
        assert (only.mention.start, only.phrase) == (number - 1, f"thing{number}")
        assert only.measures["attention mass box"] == pytest.approx(0.8)
        assert only.measures["attention mass mask"] == pytest.approx(0.4)
        assert only.measures["chance mask"] == pytest.approx(0.25)
        assert only.measures["chance box"] == pytest.approx(0.5)
    printed = capsys.readouterr()
    assert "9.png" in printed.err and printed.err.count("left out: ") == 1 and "left out" not in printed.out


def test_what_stops_it(split):
    records, instances = split
    settings = {"search": None, "batch_size": 5}
    with pytest.raises(DataError, match=r"9\.png"):
        caption_and_ground(Predictor(), records, instances, **settings, skip_unreadable=False)
    with pytest.raises(CheckpointError, match=r"^a\.ckpt has no attention.*map=gradient_input, or a checkpoint"):
        caption_and_ground(Predictor(attention=None), records, instances, **settings, skip_unreadable=True)
    for width, height in ((9, 4), (8, 5), (4, 8)):
        instances.pictures[5] = instances.pictures[5]._replace(width=width, height=height)
        with pytest.raises(DataError, match=rf"5\.png has 8 × 4 pixels, .* for {width} × {height}"):
            caption_and_ground(Predictor(), records, instances, **settings, skip_unreadable=True)
    assert caption_and_ground(Predictor(), [], instances, **settings, skip_unreadable=True) == {}
    assert caption_and_ground(Predictor(), records[2:3], instances, **settings, skip_unreadable=True) == {}


def test_hard_attention_and_the_box_that_it_looks_at(split):
    records, instances = split
    predictor = Predictor(places=[3] * 5, box=(0, 0, 16, 4))
    (only,) = caption_and_ground(predictor, records[:1], instances, search=None, batch_size=1, skip_unreadable=False)[5]
    assert only.measures["attention mass box"] == 0.0  # cell 3 of four, though the weights are on the first
    predictor = Predictor(box=(0, 0, 16, 4))  # twice as wide as the picture: its cells are 8 × 2
    (only,) = caption_and_ground(predictor, records[:1], instances, search=None, batch_size=1, skip_unreadable=False)[5]
    assert only.measures["attention mass box"] == pytest.approx(0.7)
    for grid, mass in (((4, 1), 0.8), ((1, 4), 0.5)):  # two whole rows are in the upper half, or half of all columns
        settings = {"search": None, "batch_size": 1, "skip_unreadable": False}
        (only,) = caption_and_ground(Predictor(grid=grid), records[:1], instances, **settings)[5]
        assert only.measures["attention mass box"] == pytest.approx(mass)


@pytest.mark.parametrize("batch_size", [2, 5])
def test_features_of_a_source_are_captioned_instead_of_pictures(split, batch_size):
    records, instances = split
    source = SimpleNamespace(
        read=lambda record: torch.full((2, 3), float(record.image_id) / 2), encoder=torch.nn.Identity()
    )
    source.encoder.forward = lambda images: 2 * images
    predictor = Predictor()
    found = caption_and_ground(
        predictor, records, instances, search="beam", batch_size=batch_size, skip_unreadable=True, source=source
    )
    assert predictor.batches == []
    for number, (only,) in found.items():
        assert only.phrase == f"thing{number}" and only.measures["attention mass box"] == pytest.approx(0.8)
    assert list(found) == [5, 3, 7, 2]
    assert {search for search, _ in predictor.asked} == {"beam"}
    assert [path for _, names in predictor.asked for path in names] == [records[at].path for at in (0, 1, 3, 4)]
    assert all(isinstance(path, Path) for _, names in predictor.asked for path in names)
