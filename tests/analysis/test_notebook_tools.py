"""What notebooks are made of: data sets by name, counts, cards, boxes of what words name; small pictures of figures."""

import io
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from captioning.analysis import boxes_by_word, differing, open_data, ranked
from captioning.analysis.notebook import DataSet, caption_counts, image_entries
from captioning.data import Record
from captioning.errors import ConfigError, DataError
from captioning.evaluation import aligned, compared, differences
from captioning.metrics import ScoreTable
from captioning.visualise import Entry, bars_figure, caption_sheet, thumbnail

Mention = namedtuple("Mention", "start stop category")
Grounded = namedtuple("Grounded", "mention measures")
Thing = namedtuple("Thing", "category box")


@pytest.fixture
def records(tmp_path) -> list[Record]:
    made = []
    for number, captions in enumerate([("A dog.", "A big dog runs."), ("Two cats.",)]):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (30, 20), (number, 0, 0)).save(path)
        made.append(Record(number, path, "val", captions))
    return made


def test_a_data_set_by_the_words_of_a_command(tmp_path):
    small = ["data.reader.train=3", "data.reader.val=2", "data.reader.test=1"]
    data = open_data(["data=scenes", f"data.root={tmp_path}/scenes", *small])
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [3, 2, 1]
    instances = data.instances(data.split("val"))
    assert instances.pictures.keys() == {record.image_id for record in data.split("val")}
    with pytest.raises(DataError, match="no images with captions in split 'dev'"):
        data.split("dev")
    with pytest.raises(ConfigError, match="data=x has no annotated objects"):
        DataSet({"name": "x", "instances": None}, []).instances([])


def test_counts_of_lengths_and_words(records):
    assert caption_counts(records, words=2) == {
        "words per caption": {2: 2, 4: 1},
        "most frequent words": {"a": 2, "dog": 2},
    }
    figure = bars_figure(caption_counts(records))
    lengths, words = figure.axes
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in lengths.patches] == [(2, 2), (4, 1)]
    assert [label.get_text() for label in words.get_xticklabels()] == ["a", "dog", "big", "runs", "two", "cats"]
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    for label in [*lengths.get_xticklabels(), *words.get_xticklabels()]:
        box = label.get_window_extent(renderer)
        assert box.y0 >= 0 and box.x1 <= figure.bbox.width


def test_cards_of_records(records):
    first, second = image_entries(records)
    assert first.captions == "A dog." and first.references == ("A big dog runs.",) and second.references == ()
    (card,) = image_entries(records[1:], {"A": {1: "cats"}}, {"CIDEr": {1: 0.5}})
    assert card.captions == {"A": "cats"} and card.references == ("Two cats.",) and card.scores == {"CIDEr": 0.5}
    assert card.picture.getpixel((0, 0)) == (1, 0, 0) and card.title == "1.png"


def table(ids, captions, values) -> ScoreTable:
    return ScoreTable(ids, captions, {"CIDEr": np.array(values, float)}, {})


def test_where_two_runs_differ(records):
    tables = aligned(
        {"a": [table([0, 1], ["a dog", "cats"], [3, 1])], "b": [table([1, 0], ["two cats", "a cat"], [2, 0.5])]},
        {"a": ["A"], "b": ["B"]},
    )
    rows = differences(tables, "CIDEr")
    assert [(row["image_id"], row["difference"]) for row in rows] == [(0, -2.5), (1, 1.0)]
    assert rows[1]["caption_a"] == "cats" and rows[1]["caption_b"] == "two cats"
    assert compared(tables, resamples=10)["CIDEr"][:2] == (2.0, 1.25)
    first, _ = differing(DataSet({}, records), rows, "CIDEr", labels=("soft", "hard"))
    assert first.captions == {"soft": "a dog", "hard": "a cat"}
    assert first.scores == {"CIDEr soft": 3.0, "CIDEr hard": 0.5}
    with pytest.raises(DataError, match=r"'A' and 'B' have scores of different images: image ids 1"):
        aligned({"a": [table([0], ["x"], [1])], "b": [table([0, 1], ["x", "y"], [1, 2])]}, {"a": ["A"], "b": ["B"]})


def test_boxes_of_what_words_name():
    mentions = [Grounded(Mention(1, 3, "hot dog"), None), Grounded(Mention(4, 5, "cat"), None)]
    things = [Thing("cat", (1, 2, 3, 4)), Thing("cat", (0, 0, 5, 5)), Thing("dog", (9, 9, 1, 1))]
    boxes = boxes_by_word(["a", "hot", "dog", "and", "cats"], mentions, things)
    assert boxes == [[], [], [], [], [(1, 2, 4, 6), (0, 0, 5, 5)]]


def test_images_by_how_much_their_words_look_at_what_they_name():
    def said(*values):
        return [Grounded(None, None if value is None else {"attention mass box": value}) for value in values]

    assert ranked({1: said(0.2, 0.4), 2: said(None), 3: said(0.9, None), 4: said()}) == [3, 1]


def test_a_thumbnail_is_small_and_keeps_small_bright_things():
    picture = Image.effect_noise((300, 300), 90).convert("RGB")
    picture.paste((255, 0, 255), (140, 140, 152, 152))
    figure = caption_sheet([Entry(picture, "a magenta square")], columns=1)
    small = thumbnail(figure, 300, colors=64)
    assert small.width == 300 and len(small.getcolors()) <= 64
    pixels = np.asarray(small.convert("RGB")).astype(int)
    assert (np.abs(pixels - [255, 0, 255]).max(2) < 40).sum() > 20
    file = io.BytesIO()
    small.save(file, "PNG")
    assert len(file.getvalue()) < 120_000
