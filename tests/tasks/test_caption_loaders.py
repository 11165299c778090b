"""What the loaders of a captioning run read: how many captions of an image, and which views."""

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from captioning.data import Record, Vocabulary, encode_captions
from captioning.features import Source
from captioning.tasks.image_captioning import _loaders

TOKENS = {1: [["a", "dog"], ["two", "dogs"], ["dogs", "run"]], 2: [["a", "cat"], ["cats"]]}


def loaders(**settings):
    records = [Record(number, Path(f"{number}.png"), "train", ("a dog",) * len(TOKENS[number])) for number in TOKENS]
    view = SimpleNamespace(read=lambda record: torch.full((3,), 10.0 * record.image_id), turned=False)
    source = Source(
        lambda record: torch.full((3,), float(record.image_id)), nn.Identity(), records, [], workers=0, views=(view,)
    )
    config = {
        "data": {"captions_per_image": 1, "max_length": 20} | settings,
        "seed": 0,
        "loader": {"batch_size": 2, "val_batch_size": 2, "order": "images", "shuffle_buffer": 1},
    }
    vocabulary = Vocabulary(["a", "dog", "dogs", "two", "cat", "cats", "run"])
    ids = encode_captions(list(TOKENS.values()), vocabulary)
    return _loaders(config, {"train": records, "val": records}, lambda given: ids[: len(given)], source)


def test_training_takes_some_captions_of_an_image_and_validation_all():
    module = loaders()
    assert [len(module.train_data[index, 0][2]) for index in (0, 1)] == [1, 1]
    assert [len(module.val_data[index, 0][2]) for index in (0, 1)] == [3, 2]
    assert len({tuple(module.train_data[0, epoch][2][0]) for epoch in range(20)}) == 3  # another one each epoch


def test_training_has_the_views_and_validation_the_images_alone():
    module = loaders()
    assert {float(module.train_data[0, epoch][1][0]) for epoch in range(20)} == {1.0, 10.0}
    assert {float(module.val_data[0, epoch][1][0]) for epoch in range(20)} == {1.0}
