"""Stores of older formats are read as they are, and the next change writes today's format."""

import json

import numpy as np
import pytest
from old_stores import make_old

from captioning.data import Record
from captioning.features.store import FeatureStore, stamp_picture

KEY = {"name": "old"}


@pytest.fixture
def records(tmp_path) -> list[Record]:
    made = []
    for number in range(7):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(b"picture %d" % number)
        made.append(Record(50 - 7 * number, path, "train", ()))
    return made


def values(record: Record) -> np.ndarray:
    return np.full((2, 3), record.image_id)


def fill(store: FeatureStore, records) -> FeatureStore:
    for record in store.missing(records):
        store.append(record.image_id, stamp_picture(record.path), values(record))
    store.flush()
    return store


def assert_holds(store: FeatureStore, records) -> None:
    store.check(records)
    assert len(store) == len(records)
    for record in records:
        assert np.array_equal(store[record.image_id], values(record))


def open_store(tmp_path) -> FeatureStore:
    return FeatureStore(tmp_path / "store", KEY, shard_pictures=2)


@pytest.mark.parametrize("format, in_journal", [(1, 0), (2, 0), (2, 1), (2, 3)])
def test_old_stores_are_read_and_the_next_change_writes_the_current_format(tmp_path, records, format, in_journal):
    store = fill(open_store(tmp_path), records[:6])
    make_old(store, records[:6], format=format, in_journal=in_journal)
    manifest = store.folder / "manifest.json"
    before = manifest.read_bytes()
    again = fill(open_store(tmp_path), records[:6])
    assert_holds(again, records[:6])
    assert manifest.read_bytes() == before  # nothing has changed
    assert_holds(fill(again, records), records)
    assert json.loads(manifest.read_text())["format"] == 3 and not (store.folder / "journal.jsonl").exists()
    assert_holds(open_store(tmp_path), records)
    names = sorted(path.name for path in store.folder.glob("shard-*"))
    assert names == [f"shard-{number:05d}.npy" for number in range(4)]


def test_a_changed_picture_of_an_old_store_is_found(tmp_path, records):
    store = fill(open_store(tmp_path), records)
    make_old(store, records, format=2)
    records[3].path.write_bytes(b"picture X")
    assert open_store(tmp_path).missing(records) == [records[3]]


def test_verify_adds_checksums_to_the_first_format(tmp_path, records):
    store = fill(open_store(tmp_path), records)
    checksums = [shard.checksum for shard in store._shards]
    make_old(store, records, format=1)
    opened = open_store(tmp_path)
    assert [shard.checksum for shard in opened._shards] == [None] * 4 and opened.verify() == []
    assert [shard.checksum for shard in open_store(tmp_path)._shards] == checksums
    assert_holds(open_store(tmp_path), records)
