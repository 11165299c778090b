"""The feature store: what goes in comes out, whatever happens to the process, the files or the pictures."""

import copy
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from captioning.data import Record
from captioning.errors import DataError
from captioning.features import store as module
from captioning.features.store import FeatureStore, stamp_picture, store_folder

KEY = {"name": "small", "layer": "last", "mean": (0.5, 0.25), "fingerprint": "ab12", "transform": {"size": 8}}


@pytest.fixture
def records(tmp_path) -> list[Record]:
    """Eleven "pictures" (any bytes do), with ids that are not their order."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    made = []
    for number in range(11):
        path = folder / f"{number}.jpg"
        path.write_bytes(f"picture {number:02d}".encode())
        made.append(Record(1000 - 7 * number, path, "train", ()))
    return made


def values(record: Record) -> np.ndarray:
    return np.random.default_rng(record.image_id).normal(size=(3, 2)).astype(np.float32)


def fill(store: FeatureStore, records, change: float = 0.0) -> FeatureStore:
    for record in store.missing(records):
        store.append(record.image_id, stamp_picture(record.path), values(record) + change)
    store.flush()
    return store


def open_store(tmp_path, **changes) -> FeatureStore:
    return FeatureStore(tmp_path / "store", KEY | changes, shard_pictures=4)


def assert_holds(store: FeatureStore, records, change: float = 0.0) -> None:
    for record in records:
        stored = store[record.image_id]
        assert stored.dtype == np.float16 and np.array_equal(stored, (values(record) + change).astype(np.float16))


class Stored(Dataset):
    def __init__(self, store, records):
        self.store, self.records = store, records

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        return torch.from_numpy(self.store[self.records[index].image_id])


def test_what_is_stored_comes_back(tmp_path, records):
    store = fill(open_store(tmp_path), records)
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "claims.lock",
        "index-00001.npy",  # of the empty store: another machine may still have it open
        "index-00002.npy",
        "manifest.json",
        "shard-00000.npy",
        "shard-00001.npy",
        "shard-00002.npy",
    ]
    for opened in (store, open_store(tmp_path)):
        assert len(opened) == 11 and opened.shape == (3, 2) and records[3].image_id in opened and -1 not in opened
        assert_holds(opened, records)
        assert opened.missing(records) == []
        opened.check(records)
    with pytest.raises(KeyError):
        store[-1]


def test_locations_name_the_shard_and_the_row(tmp_path, records):
    store = fill(open_store(tmp_path), records)
    ids = [records[index].image_id for index in (0, 3, 4, 10)]
    wanted = np.array([[0, 0], [0, 3], [1, 0], [2, 2], [-1, -1]])
    for opened in (store, open_store(tmp_path)):
        for asked in ([*ids, 5], np.array([*ids, 5], np.int32)):
            found = opened.locations(asked)
            assert found.dtype == np.int64 and np.array_equal(found, wanted)
        assert opened.locations([]).shape == (0, 2)
    records[3].path.write_bytes(b"another one")
    store.missing(records)
    assert store.locations(ids)[1].tolist() == [-1, -1]


def test_nothing_is_on_disk_before_the_first_shard(tmp_path, records):
    store = open_store(tmp_path)
    store.append(records[0].image_id, stamp_picture(records[0].path), values(records[0]))
    assert not store.folder.exists() and records[0].image_id not in store
    store.flush()
    assert_holds(open_store(tmp_path), records[:1])


def test_vectors_are_stored_too(tmp_path, records):
    store = open_store(tmp_path)
    vector = np.arange(5, dtype=np.float32)
    store.append(records[0].image_id, stamp_picture(records[0].path), vector)
    store.flush()
    assert np.array_equal(open_store(tmp_path)[records[0].image_id], vector)


def test_a_kill_costs_at_most_one_shard(tmp_path, records):
    store = open_store(tmp_path)
    for record in records[:7]:  # no flush: the process is gone
        store.append(record.image_id, stamp_picture(record.path), values(record))
    again = open_store(tmp_path)
    assert len(again) == 4 and again.missing(records) == records[4:]
    assert_holds(fill(again, records), records)


def killing(monkeypatch, at: int):
    """A process that dies as it renames or syncs a file for the `at`-th time; the list of what it did until then."""
    calls = []
    for name, real in (("replace", os.replace), ("fsync", os.fsync)):

        def call(*arguments, name=name, real=real):
            calls.append(name)
            if len(calls) == at:
                raise KeyboardInterrupt
            return real(*arguments)

        monkeypatch.setattr(os, name, call)
    return calls


def test_a_kill_while_writing_leaves_a_good_store(tmp_path, records, monkeypatch):
    """At each moment in turn: in a shard, between a shard and its line in the journal, in the manifest."""
    killed, lengths = 0, []
    while killed == len(lengths):
        killed += 1
        folder, appended = tmp_path / str(killed), []
        store = FeatureStore(folder, KEY, shard_pictures=4)
        with monkeypatch.context() as patch:
            killing(patch, killed)
            try:
                for record in records:
                    appended.append(record)
                    store.append(record.image_id, stamp_picture(record.path), values(record))
                store.flush()
            except KeyboardInterrupt:
                lengths.append(len(FeatureStore(folder, KEY)))
                assert len(appended) - lengths[-1] <= 4
        again = FeatureStore(folder, KEY, shard_pictures=4)
        assert_holds(again, [record for record in records if record.image_id in again])
        assert_holds(fill(again, records), records)
        assert len(FeatureStore(folder, KEY)) == 11
        names = {path.name for path in folder.iterdir() if not path.name.startswith("index-")}
        assert len(names) == 2 + len(again._shards) and not list(folder.glob(".*")) and len(again._shards) <= 4
    assert lengths == sorted(lengths) and {0, 4, 8, 11} == set(lengths)


def test_a_journal_is_read_up_to_where_its_writer_was_killed(tmp_path, records):
    store = open_store(tmp_path)
    for record in records[:8]:  # no flush
        store.append(record.image_id, stamp_picture(record.path), values(record))
    (journal,) = (store.folder / "journals").iterdir()
    content = journal.read_bytes()
    assert json.loads((store.folder / "manifest.json").read_text())["shards"] == []
    first, second = content.splitlines(keepends=True)
    for length in range(len(content)):
        journal.write_bytes(content[:length])
        assert len(open_store(tmp_path)) == (4 if length >= len(first) else 0)
    for junk in (b"[]\n", b"null\n", b"{}\n", b"\xff\n", b"\n", json.dumps({"file": "../x.npy"}).encode() + b"\n"):
        journal.write_bytes(first + junk + second)
        assert len(open_store(tmp_path)) == 4
    again = fill(open_store(tmp_path), records)
    assert not journal.parent.exists() and len(open_store(tmp_path)) == 11
    assert_holds(again, records)


def test_what_a_shard_costs_does_not_grow_with_those_before_it(tmp_path, records, monkeypatch):
    store, written = FeatureStore(tmp_path / "store", KEY, shard_pictures=1), []
    real = module.manifest.write_manifest
    monkeypatch.setattr(module.manifest, "write_manifest", lambda *arguments: written.append(1) or real(*arguments))
    for record in records:
        store.append(record.image_id, stamp_picture(record.path), values(record))
    (journal,) = (store.folder / "journals").iterdir()
    lines = journal.read_bytes().splitlines()
    assert len(written) == 1 and len(lines) == 11 and max(map(len, lines)) < 200


def test_a_lost_shards_name_is_never_used_again(tmp_path, records):
    """Otherwise, an index that still lists the lost shard would find the features of other pictures in the new one."""
    fill(open_store(tmp_path), records[:4])
    (tmp_path / "store" / "shard-00000.npy").unlink()
    fill(open_store(tmp_path), records[4:8])
    (tmp_path / "store" / "shard-00001.npy").unlink()
    store = fill(open_store(tmp_path), records[8:])
    assert [path.name for path in store.folder.glob("shard-*")] == ["shard-00002.npy"] and len(store) == 3
    assert_holds(open_store(tmp_path), records[8:])


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: os.truncate(path, 140)])
def test_absent_and_truncated_shards_are_made_again(tmp_path, records, spoil):
    fill(open_store(tmp_path), records)
    spoil(tmp_path / "store" / "shard-00001.npy")
    store = open_store(tmp_path)
    assert store.missing(records) == records[4:8]
    with pytest.raises(DataError, match=r"no features of 4 of 11 images \(first: .*4\.jpg\): run captioning-prepare"):
        store.check(records)
    fill(store, records)
    again = open_store(tmp_path)
    again.check(records)
    assert_holds(again, records)
    assert len(list(again.folder.glob("shard-*"))) == 3


@pytest.mark.parametrize(
    "change, message",
    [
        ({"fingerprint": "cd34"}, 'key.fingerprint is "ab12" in the store, "cd34" in this run'),
        ({"transform": {"size": 16}}, "key.transform.size is 8 in the store, 16 in this run"),
        ({"mean": (0.5, 0.5)}, r"key.mean is \[0.5, 0.25\] in the store"),
        ({"std": 1.0}, "key.std is null in the store, 1.0 in this run"),
    ],
)
def test_a_store_of_another_key_is_refused(tmp_path, records, change, message):
    fill(open_store(tmp_path), records)
    with pytest.raises(DataError, match=f"{message}.*run captioning-prepare"):
        open_store(tmp_path, **change)


def test_other_formats_and_broken_manifests_are_refused(tmp_path, records):
    manifest = fill(open_store(tmp_path), records).folder / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"format": 0}))
    with pytest.raises(DataError, match="format is 0 in the store, 3 in this run"):
        open_store(tmp_path)
    for text in ("{", "[]", "{}", json.dumps(content | {"shards": [{}]})):
        manifest.write_text(text)
        with pytest.raises(DataError, match="cannot be read as the manifest of a feature store: delete the folder"):
            open_store(tmp_path)


def test_changed_pictures_are_found_and_replaced(tmp_path, records):
    store = fill(open_store(tmp_path), records)
    records[2].path.write_bytes(b"another one")  # of another size
    records[9].path.write_bytes(b"picture 99")  # of the same
    with pytest.raises(DataError, match=r"2\.jpg: the image is missing or has changed.*run captioning-prepare again"):
        store.check(records)
    assert store.missing(records) == [records[2], records[9]]
    assert records[2].image_id not in store and len(store) == 9
    for record in (records[2], records[9]):
        store.append(record.image_id, stamp_picture(record.path), values(record) + 1)
    store.flush()
    again = open_store(tmp_path)
    again.check(records)
    assert_holds(again, [records[2], records[9]], change=1)
    assert_holds(again, records[:2] + records[3:9] + records[10:])
    records[0].path.unlink()
    with pytest.raises(DataError, match=r"0\.jpg: the image is missing"):
        again.check(records)


def test_a_new_time_of_change_costs_a_digest_only_once(tmp_path, records, monkeypatch):
    fill(open_store(tmp_path), records)
    os.utime(records[5].path, ns=(1, 1))
    digested = []
    real = stamp_picture
    monkeypatch.setattr(module, "stamp_picture", lambda path: digested.append(path) or real(path))
    store = open_store(tmp_path)
    store.check(records)
    assert store.missing(records) == [] and digested == [records[5].path]
    store.flush()
    open_store(tmp_path).check(records)
    assert digested == [records[5].path]


@pytest.mark.parametrize("value", [np.nan, np.inf, 7e4])
def test_values_that_float16_cannot_hold_are_refused(tmp_path, records, value):
    store = open_store(tmp_path)
    with pytest.raises(DataError, match=r"0\.jpg \(image 1000\): its features are not finite"):
        store.append(1000, stamp_picture(records[0].path), np.array([1.0, value]))
    assert len(fill(store, records)) == 11


@pytest.mark.parametrize("context, workers", [("fork", 2), ("spawn", 1)])
def test_loader_processes_read_the_store(tmp_path, records, context, workers):
    store = fill(open_store(tmp_path), records)
    assert_holds(store, records)  # its shards are open as it is handed on
    loader = DataLoader(Stored(store, records), batch_size=3, num_workers=workers, multiprocessing_context=context)
    expected = np.stack([values(record).astype(np.float16) for record in records])
    assert np.array_equal(torch.cat(list(loader)).numpy(), expected)


def test_a_copy_carries_no_features(tmp_path, records):
    store = FeatureStore(tmp_path / "store", KEY)
    for record in records:
        store.append(record.image_id, stamp_picture(record.path), np.ones((100, 100)))
    store.flush()
    assert store[records[0].image_id].sum() == 1e4
    pickled = pickle.dumps(store)
    assert len(pickled) < 5000
    assert pickle.loads(pickled)[records[1].image_id].sum() == 1e4
    assert copy.copy(store)[records[2].image_id].flags.writeable


def test_no_file_stays_open(tmp_path, records):
    """Thousands of shards are read in any order, with as many file descriptors as one needs."""
    store = fill(FeatureStore(tmp_path / "store", KEY, shard_pictures=1), records)
    open_files = Path("/proc/self/fd")
    if not open_files.is_dir():
        pytest.skip("this system does not tell which files are open")
    before = len(list(open_files.iterdir()))
    assert_holds(store, records)
    assert len(list(open_files.iterdir())) == before


def test_a_shard_that_is_cut_or_gone_while_it_is_in_use_is_named(tmp_path, records):
    store = fill(open_store(tmp_path), records)
    assert_holds(store, records)
    os.truncate(tmp_path / "store" / "shard-00001.npy", 140)
    (tmp_path / "store" / "shard-00002.npy").unlink()
    with pytest.raises(DataError, match=r"shard-00001\.npy: is truncated: run captioning-prepare verify=true"):
        store[records[7].image_id]
    with pytest.raises(DataError, match=r"shard-00002\.npy: cannot be read \(No such file"):
        store[records[8].image_id]
    assert_holds(store, records[:4])


def test_large_items_make_small_shards(tmp_path, records, monkeypatch):
    monkeypatch.setattr(module, "SHARD_BYTES", 30)  # two items of 12 bytes
    store = fill(FeatureStore(tmp_path / "store", KEY), records)
    assert len(list(store.folder.glob("shard-*"))) == 6


def test_a_folder_that_cannot_be_written_is_named(tmp_path, records):
    (tmp_path / "file").write_text("")
    store = FeatureStore(tmp_path / "file" / "store", KEY)
    with pytest.raises(DataError, match=r"cannot create the folder '.*store' .*: set features\.root"):
        fill(store, records)


def test_folders_differ_by_key_and_tell_data_set_and_encoder(tmp_path):
    first, second = (store_folder(tmp_path, "flickr8k", KEY | {"layer": layer}) for layer in ("a", "b"))
    assert first.parent == tmp_path and first.name.startswith("flickr8k-small-") and len(first.name) == 15 + 8
    assert first != second and first == store_folder(str(tmp_path), "flickr8k", KEY | {"layer": "a"})
    assert store_folder(tmp_path, "my/data", KEY).parent == tmp_path


def test_infinities_and_nan_are_told_by_their_bits():
    assert module._finite(np.array([65504, -65504, 0, -0.0, 6e-8], np.float16))
    for value in (np.inf, -np.inf, np.nan, -np.nan):
        assert not module._finite(np.array([1, value, -1], np.float16))
