"""Captioning a split: which features and names meet which image, and whose sources read what."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from captioning.data import Record
from captioning.evaluation import sources_of, write_captions
from captioning.features import Source

RECORDS = [Record(number, Path(f"{number}.jpg"), "val", ()) for number in (5, 3, 9, 7, 2)]


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, images):
        assert torch.is_inference_mode_enabled() and images.dim() == 3  # of one view at a time
        return images * self.factor


def read(record, *, rows=None, plus=0.0):
    """The image's number in each of its rows, of which there may be as many as the number says."""
    return torch.full((rows or record.image_id, 2), record.image_id + plus, dtype=torch.float64)


def source(factor, **how):
    return Source(partial(read, **how), Scale(factor), RECORDS, [], 0)


@pytest.fixture
def asked(monkeypatch):
    """What the captions were asked for, batch by batch; each caption is its name, and none is of its own."""
    batches = []

    def search_features(features, search, *, mask, names, tags):
        batches.append((features, mask, search, names, tags))
        return [[f"caption of {name}", "second best"] for name in names]

    monkeypatch.setattr(PREDICTOR, "search_features", search_features, raising=False)
    return batches


PREDICTOR = SimpleNamespace(device="cpu", guide=None, text_of=str)


def test_every_image_gets_its_own_caption_in_order(asked):
    found = write_captions(PREDICTOR, [source(10, rows=4)], RECORDS, search="search", batch_size=2)
    assert list(found.items()) == [(number, f"caption of image {number}") for number in (5, 3, 9, 7, 2)]
    assert [len(batch[0]) for batch in asked] == [2, 2, 1]
    features = torch.cat([batch[0] for batch in asked])
    assert features.shape == (5, 4, 2) and features[:, 0, 0].tolist() == [50, 30, 90, 70, 20]
    for _, masks, search, _, tags in asked:
        assert (masks, search, tags) == (None, "search", None)


def test_features_of_several_lengths_come_with_their_mask(asked):
    write_captions(PREDICTOR, [source(1)], RECORDS[:2], search=None, batch_size=2)
    ((features, mask, *_),) = asked
    assert features.shape == (2, 5, 2) and mask.tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    assert features[1, 3:].abs().sum() == 0


def test_each_member_of_an_ensemble_reads_its_own_source(asked):
    write_captions(PREDICTOR, [source(1, rows=2), source(3, plus=1.0)], RECORDS, search=None, batch_size=4)
    ((first, second), masks, *_), ((third, fourth), others, *_) = asked
    assert first[:, 0, 0].tolist() == [5, 3, 9, 7] and second[:, 0, 0].tolist() == [18, 12, 30, 24]
    assert third[:, 0, 0].tolist() == [2] and fourth[:, 0, 0].tolist() == [9]
    assert masks[0] is None and masks[1].sum(1).tolist() == [5, 3, 9, 7] and others == (None, None)


def test_the_records_that_all_views_of_all_members_can_read():
    """Each view is given what those before it can read; only the first of a member is asked to leave out the others."""
    calls = []

    def features(encoder, view, records, *, name, skip_unreadable):
        calls.append((encoder, view, [record.image_id for record in records], name, skip_unreadable))
        kept = [record for record in records if record.image_id != {"a": 3, "b": 2, "z": 5, "c": 9}.get(view)]
        return Source(partial(read, rows=1, plus=ord(view) / 1000), Scale(2), kept, [], 1)

    members = [SimpleNamespace(encoder="first", views=["a", "b", "z"]), SimpleNamespace(encoder="second", views=["c"])]
    sources, records = sources_of(
        SimpleNamespace(members=members), features, RECORDS, name="coco", skip_unreadable=True
    )
    assert calls == [
        ("first", "a", [5, 3, 9, 7, 2], "coco", True),
        ("first", "b", [5, 9, 7, 2], "coco", False),
        ("first", "z", [5, 9, 7], "coco", False),
        ("second", "c", [9, 7], "coco", True),
    ]
    assert [record.image_id for record in records] == [7]
    assert [[record.image_id for record in source.records] for source in sources] == [[9, 7], [7]]
    views = sources[0].read(RECORDS[0])
    assert views.shape == (3, 1, 2) and views[:, 0, 0].tolist() == pytest.approx([5.097, 5.098, 5.122])
    with torch.inference_mode():
        assert torch.equal(sources[0].encoder(views[None]), 2 * views[None])
    assert sources[1].read(RECORDS[0]).shape == (1, 2) and isinstance(sources[1].encoder, Scale)
    calls.clear()
    sources_of(SimpleNamespace(members=members), features, RECORDS, name="coco", skip_unreadable=False)
    assert not any(skip for *_, skip in calls)


def test_pictures_that_cannot_be_read_are_reported(capsys):
    def features(encoder, view, records, *, name, skip_unreadable):
        return Source(read, Scale(1), records[1:], [(records[0].path, f"{records[0].path} is broken")], 0)

    member = SimpleNamespace(encoder=None, views=["a", "b"])
    _, records = sources_of(SimpleNamespace(members=[member]), features, RECORDS, name="x", skip_unreadable=True)
    assert [record.image_id for record in records] == [9, 7, 2]
    told = capsys.readouterr().err
    assert told.count("5.jpg is broken") == told.count("3.jpg is broken") == 1
