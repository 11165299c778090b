"""Stores that several processes fill together: nothing is lost or done twice, whoever dies at whatever moment."""

import os
import pickle
import random
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from old_stores import make_old
from PIL import Image
from small_world import run
from torch import nn

from captioning.data import Record, Transform
from captioning.errors import ConfigError, DataError
from captioning.features import claims as locks
from captioning.features import extraction, journals, launched_rank, manifest, sources
from captioning.features import store as store_module
from captioning.features.claims import ALL, Ids, ImageClaims
from captioning.features.extraction import extract
from captioning.features.ranks import ONLY, Rank
from captioning.features.store import FeatureStore

KEY = {"name": "shared"}
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="these tests fork")


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """What dies here are processes, not the machine, so nothing needs to reach the disk, which may be slow."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class Convolving(nn.Module):
    """A convolution, whose last bits may depend on the batch; each batch takes a while, so that kills find it."""

    def __init__(self, seconds: float = 0.0):
        super().__init__()
        self.network, self.seconds = nn.Conv2d(3, 5, 3).requires_grad_(False), seconds

    def forward(self, images):
        time.sleep(self.seconds)
        return self.network(images / 255).mean(2).transpose(1, 2)


def make_records(folder: Path, count: int) -> list[Record]:
    """Small images, with ids that are neither dense nor in order."""
    folder.mkdir()
    drawn = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    order = np.random.default_rng(1).permutation(count).tolist()
    for number, pixels in enumerate(drawn):
        Image.fromarray(pixels).save(folder / f"{number}.bmp")
    return [Record(3 * order[number] + 5, folder / f"{number}.bmp", "train", ()) for number in range(count)]


def encoder(seconds: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return Convolving(seconds)


def open_store(folder: Path) -> FeatureStore:
    return FeatureStore(folder, KEY, shard_pictures=8)


def fill(folder: Path, records, *, seconds: float = 0.0, **options):
    """Fill a store in batches of four."""
    options = {"workers": 0, "batch_size": 4, "progress": False} | options
    return extract(encoder(seconds), Transform(8), records, open_store(folder), **options)


def in_fork(job) -> int:
    """Run a function in a fork of this process, and return its process id; its exit status is 0 if it returns."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    status = 1
    try:
        job()
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def status_of(child: int) -> int:
    """Wait for a process and return its exit status; −9 if SIGKILL ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """Forty images, and the features that one process computes of them."""
    folder = tmp_path_factory.mktemp("wanted")
    records = make_records(folder / "images", 40)
    fill(folder / "store", records)
    store = open_store(folder / "store")
    return records, {record.image_id: store[record.image_id] for record in records}


def assert_whole(folder: Path, records, features) -> None:
    """Every image exactly once, every checksum right, every bit that of one process, and nothing left behind."""
    store = open_store(folder)
    assert sum(shard.images for shard in store._shards) == len(records) == len(store)
    for record in records:
        assert np.array_equal(store[record.image_id], features[record.image_id])
    assert store.verify() == [] and not store.unmerged
    shards = {shard.file for shard in store._shards}
    indices = {path.name for path in folder.glob("index-*")}
    assert len(indices) == 2
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "claims.lock"} | shards | indices


def kill_while_filling(folder: Path, records, features, *, kills: int, seed: int, seconds: float) -> None:
    """Fill a store with four processes, and kill a random one again and again; a reader looks on."""
    print(f"seed {seed}")
    chances, killed, most = random.Random(seed), 0, 0
    start = {n: (lambda n=n: fill(folder, records, seconds=seconds, rank=Rank(n, 4, n, 4))) for n in range(4)}
    running = {in_fork(start[number]): number for number in start}
    while running:
        time.sleep(chances.uniform(0, 8 * seconds))
        reader = open_store(folder)
        there = [record for record in records if record.image_id in reader]
        assert len(there) >= most
        most = len(there)
        for record in chances.sample(there, min(len(there), 3)):
            assert np.array_equal(reader[record.image_id], features[record.image_id])
        if killed < kills:
            child = chances.choice(list(running))
            os.kill(child, signal.SIGKILL)
            if status_of(child) == -signal.SIGKILL:
                killed += 1
            number = running.pop(child)
            running[in_fork(start[number])] = number
            continue
        for child in list(running):
            assert status_of(child) == 0
            running.pop(child)
    assert killed == kills
    fill(folder, records)  # also updates the manifest if the last process was killed before it did
    open_store(folder).flush()
    assert_whole(folder, records, features)


def test_four_processes_with_three_kills(tmp_path, wanted):
    kill_while_filling(tmp_path / "store", *wanted, kills=3, seed=0, seconds=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_four_processes_with_ten_kills(tmp_path, seed):
    records = make_records(tmp_path / "images", 400)
    fill(tmp_path / "one", records)
    one = open_store(tmp_path / "one")
    features = {record.image_id: one[record.image_id] for record in records}
    kill_while_filling(tmp_path / "store", records, features, kills=10, seed=seed, seconds=0.03)


@contextmanager
def dying(at: int):
    """End the process with SIGKILL at the `at`-th change that it makes to the disk, before or after it."""
    calls, open_file = [], os.open

    def count() -> None:
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(original):
        def call(*arguments, **named):
            count()
            result = original(*arguments, **named)
            count()
            return result

        return call

    def opening(path, flags, *more, **named):
        return (around(open_file) if flags & os.O_EXCL else open_file)(path, flags, *more, **named)

    os.replace, os.fsync, os.open = around(os.replace), around(os.fsync), opening
    os.unlink, os.rmdir, os.mkdir = around(os.unlink), around(os.rmdir), around(os.mkdir)
    yield


def test_a_kill_at_every_step(tmp_path, wanted):
    """Between a name and its content, a shard and its line, an index and its manifest, a manifest and the journals …"""
    records, features = wanted[0][:12], wanted[1]
    deaths = 0
    while True:
        folder = tmp_path / str(deaths)

        def job(folder=folder, at=deaths + 1):
            with dying(at):
                fill(folder, records)

        if status_of(in_fork(job)) == 0:
            break
        deaths += 1
        found = FeatureStore(folder, KEY)
        for record in records:
            assert record.image_id not in found or np.array_equal(found[record.image_id], features[record.image_id])
        fill(folder, records)
        open_store(folder).flush()
        store = open_store(folder)
        assert sum(shard.images for shard in store._shards) == 12 and not store.unmerged
        for record in records:
            assert np.array_equal(store[record.image_id], features[record.image_id])
    assert deaths > 30


def test_runs_with_different_images_share_a_store(tmp_path, wanted):
    """Their portions overlap without being the same."""
    records, features = wanted
    lists = [records, records[::-1][:25], records[7:30], records[::3]]
    children = [in_fork(lambda some=some: fill(tmp_path / "store", some, seconds=0.01)) for some in lists]
    assert [status_of(child) for child in children] == [0] * 4
    store = open_store(tmp_path / "store")
    assert sum(shard.images for shard in store._shards) == 40 == len(store)
    # The last bits may differ between batches of other images.
    for record in records:
        np.testing.assert_allclose(store[record.image_id], features[record.image_id], atol=1e-3)


def test_what_a_dead_process_had_claimed_is_taken_over(tmp_path, wanted):
    records, features = wanted
    store = open_store(tmp_path / "store")
    store.create()
    ready = tmp_path / "ready"

    def hang():
        with ImageClaims(store.folder) as claims:
            assert claims.take(Ids(0, 60))
            ready.touch()
            time.sleep(60)

    hanging = in_fork(hang)
    while not ready.exists():
        time.sleep(0.01)
    waiting = in_fork(lambda: fill(store.folder, records))
    deadline = time.monotonic() + 20
    while len(open_store(store.folder)) < 16 and time.monotonic() < deadline:  # all that is not claimed
        time.sleep(0.01)
    assert os.waitpid(waiting, os.WNOHANG) == (0, 0)
    assert not any(record.image_id <= 60 and record.image_id in open_store(store.folder) for record in records)
    os.kill(hanging, signal.SIGKILL)
    assert (status_of(hanging), status_of(waiting)) == (-9, 0)
    assert_whole(store.folder, records, features)


def rows_and_images(folder: Path) -> tuple[int, int]:
    store = open_store(folder)
    return sum(shard.images for shard in store._shards), len(store)


def verify_damaged(folder: Path, key: dict) -> None:
    """Damage the first shard, and let another process remove it from the store."""
    content = bytearray((folder / "shard-00000.npy").read_bytes())
    content[-1] ^= 1
    (folder / "shard-00000.npy").write_bytes(content)
    assert status_of(in_fork(lambda: FeatureStore(folder, key).verify())) == 0


def test_what_another_process_removes_during_a_run_is_encoded_again(tmp_path, wanted, monkeypatch):
    records, features = wanted
    fill(tmp_path / "store", sorted(records)[:8])
    loaded, removed = extraction._Portions.loaded, []

    def loading(self, loader):
        yield from loaded(self, loader)
        if not removed:
            removed.append(1)
            verify_damaged(tmp_path / "store", KEY)

    monkeypatch.setattr(extraction._Portions, "loaded", loading)
    done = fill(tmp_path / "store", records)
    assert removed and done[:2] == (40, 8)
    assert_whole(tmp_path / "store", records, features)


def test_what_another_process_removes_before_training_is_encoded_again(tmp_path, monkeypatch):
    """Nothing is missing when the store is opened, but the manifest has to be updated."""
    records, flush = make_records(tmp_path / "images", 8), FeatureStore.flush
    network = encoder()
    network.describe = lambda: {"name": "described"}
    folder, key = sources._folder_and_key(network, Transform(8), name="some", root=str(tmp_path))
    options = {"workers": 0, "batch_size": 4, "progress": False, "check_images": True}

    def complete():
        return sources._complete(network, Transform(8), records, str(tmp_path), "some", **options)

    def flushing(self):
        monkeypatch.setattr(FeatureStore, "flush", flush)
        verify_damaged(folder, key)
        self.flush()

    assert complete()[1].encoded == 8
    os.utime(records[0].path, ns=(10**18, 10**18))
    monkeypatch.setattr(FeatureStore, "flush", flushing)
    store, done = complete()
    assert done.encoded == 8 and len(store) == 8


def test_old_lists_of_files_do_not_hide_what_a_process_has_written_itself(tmp_path, monkeypatch):
    """As on some network disks."""
    records = make_records(tmp_path / "images", 12)
    monkeypatch.setattr(journals.Journals, "news", lambda self: [])
    assert fill(tmp_path / "store", records)[:2] == (12, 0)


def test_images_that_are_removed_again_and_again_are_an_error(tmp_path, monkeypatch):
    records, missing = make_records(tmp_path / "images", 4), FeatureStore.missing

    def lacking(self, records, *, check_images=True):
        return missing(self, records) if check_images else records[:1]

    monkeypatch.setattr(FeatureStore, "missing", lacking)
    with pytest.raises(DataError, match=r"store: features of 1 image \(first: .*\) were removed again and again by"):
        fill(tmp_path / "store", records)


@pytest.mark.parametrize("old", [False, True])
def test_a_process_that_opened_a_store_before_it_was_created_does_not_wait_for_its_images(tmp_path, old):
    """The same holds for one of an older format, before it was converted."""
    if old:
        records = make_records(tmp_path / "images", 4)
        fill(tmp_path / "store", records)
        make_old(open_store(tmp_path / "store"), records, format=2)
    store = open_store(tmp_path / "store")

    def hold():
        open_store(store.folder).create()
        with ImageClaims(store.folder) as claims:
            assert claims.take(Ids(0, 5))
            (tmp_path / "ready").touch()
            time.sleep(60)

    holding = in_fork(hold)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    creating, deadline, ended = in_fork(store.create), time.monotonic() + 5, (0, 0)
    while ended == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
        ended = os.waitpid(creating, os.WNOHANG)
    for child in [holding] if ended != (0, 0) else [holding, creating]:
        os.kill(child, signal.SIGKILL)
        status_of(child)
    assert ended == (creating, 0)


def test_features_that_could_not_be_written_are_left_to_the_next_process(tmp_path, monkeypatch):
    """Writing fails twice, on a full disk; then another process has the claims; then there is space again."""
    records = make_records(tmp_path / "images", 8)
    write, flush, failures = store_module.write_whole, FeatureStore.flush, []

    def failing(path, content):
        if "shard" in path.name and len(failures) < 2:
            failures.append(path)
            raise ConfigError(f"cannot write {path} (No space left on device): free some space")
        return write(path, content)

    def flushing(self):
        monkeypatch.setattr(FeatureStore, "flush", flush)
        assert status_of(in_fork(lambda: fill(tmp_path / "store", records))) == 0
        self.flush()

    monkeypatch.setattr(store_module, "write_whole", failing)
    monkeypatch.setattr(FeatureStore, "flush", flushing)
    with pytest.raises(ConfigError, match="No space left"):
        fill(tmp_path / "store", records)
    assert len(failures) == 2 and rows_and_images(tmp_path / "store") == (8, 8)


def test_features_that_another_process_has_stored_are_not_written_again(tmp_path, wanted):
    """Without claims, as by a store that is used directly."""
    records, features = wanted[0][:4], wanted[1]
    store = open_store(tmp_path / "store")
    for record in records:
        store.append(record.image_id, store_module.stamp_picture(record.path), features[record.image_id])
    assert status_of(in_fork(lambda: fill(store.folder, records[:3]))) == 0
    store.flush()
    assert rows_and_images(store.folder) == (4, 4)


def test_ctrl_c_after_the_line_of_a_shard_does_not_write_it_again(tmp_path, monkeypatch):
    records = make_records(tmp_path / "images", 8)
    append, lines = journals.append_line, []

    def appending(path, line):
        append(path, line)
        if not lines:
            lines.append(line)
            raise KeyboardInterrupt

    monkeypatch.setattr(journals, "append_line", appending)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "store", records)
    assert rows_and_images(tmp_path / "store") == (8, 8)


def test_a_record_that_is_there_twice_is_encoded_once(tmp_path):
    """As with splits=[train,train]."""
    records = make_records(tmp_path / "images", 12)
    assert fill(tmp_path / "store", records[:6] * 2)[:2] == (6, 0)
    assert fill(tmp_path / "store", records * 2)[:2] == (6, 6)
    assert rows_and_images(tmp_path / "store") == (12, 12)


def test_claims_are_given_back_when_large_features_make_small_shards(tmp_path, monkeypatch):
    """Of 12 images, where the number of images per shard alone would allow 32."""
    records = make_records(tmp_path / "images", 96)
    monkeypatch.setattr(store_module, "SHARD_BYTES", 12 * 60)
    finish, held = extraction._Portions.finish_batch, []

    def finishing(self):
        finish(self)
        held.append(len(self._held))

    monkeypatch.setattr(extraction._Portions, "finish_batch", finishing)
    store = FeatureStore(tmp_path / "store", KEY, shard_pictures=32)
    extract(encoder(), Transform(8), records, store, workers=0, batch_size=8, progress=False)
    assert held == [0] * 12


def test_a_process_that_waits_says_so_once(tmp_path, monkeypatch, capsys):
    records = make_records(tmp_path / "images", 4)
    store = open_store(tmp_path / "store")
    store.create()
    monkeypatch.setattr(extraction, "NOTICE_SECONDS", 0.1)

    def hold():
        with ImageClaims(store.folder) as claims:
            assert claims.take(Ids(0, 5))
            (tmp_path / "ready").touch()
            time.sleep(0.7)

    holding = in_fork(hold)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    fill(store.folder, records)
    assert status_of(holding) == 0
    said = f"{store.folder}: waits for another process that works on the last 4 images"
    assert capsys.readouterr().err.splitlines().count(said) == 1


def test_every_process_reports_its_part(tmp_path, wanted):
    records, _ = wanted
    done = fill(tmp_path / "store", records[:10])
    assert done[:2] == (10, 0)
    done = fill(tmp_path / "store", records, rank=Rank(1, 2, 1, 2))
    assert done[:2] == (30, 10)
    shards = open_store(tmp_path / "store")._shards
    assert sum(shard.images for shard in shards) == 40


def test_an_image_that_changes_counts_as_its_latest_shard_says(tmp_path, wanted):
    """Whichever process encoded it, and after the next index."""
    folder = tmp_path / "images"
    records = make_records(folder, 12)
    fill(tmp_path / "store", records)
    Image.new("RGB", (8, 8), "red").save(records[3].path)
    child = in_fork(lambda: fill(tmp_path / "store", records))
    assert status_of(child) == 0
    fill(tmp_path / "alone", records)
    store, alone = open_store(tmp_path / "store"), open_store(tmp_path / "alone")
    store.check(records)
    assert np.array_equal(store[records[3].image_id], alone[records[3].image_id])
    assert store.locations([records[3].image_id])[0, 0] == len(store._shards) - 1


def test_a_new_time_of_an_image_counts_only_for_the_row_it_was_found_for(tmp_path):
    """An image is touched, and then changed, by another process and by the one that has noticed the touch."""
    for mine in (False, True):
        records = make_records(tmp_path / f"images{mine}", 4)
        folder, path = tmp_path / f"store{mine}", records[0].path
        fill(folder, records)
        before = path.read_bytes()
        os.utime(path, ns=(10**18, 10**18))
        store = open_store(folder)
        assert store.missing(records) == [] and store.unmerged
        Image.new("RGB", (8, 8), "red").save(path)
        if mine:
            done = extract(encoder(), Transform(8), records, store, workers=0, batch_size=4, progress=False)
            assert done[:2] == (1, 3)
        else:
            assert status_of(in_fork(lambda folder=folder, records=records: fill(folder, records))) == 0
        store.flush()
        assert open_store(folder).missing(records) == []
        path.write_bytes(before)
        os.utime(path, ns=(10**18, 10**18))  # restored with its time, as rsync -t does
        assert open_store(folder).missing(records) == [records[0]]


def test_a_changed_image_is_not_looked_for_without_check_images(tmp_path):
    records = make_records(tmp_path / "images", 4)
    fill(tmp_path / "store", records)
    Image.new("RGB", (8, 8), "red").save(records[3].path)
    assert fill(tmp_path / "store", records, check_images=False)[:2] == (0, 4)
    assert fill(tmp_path / "store", records)[:2] == (1, 3)


@pytest.mark.parametrize("platform", [sys.platform, "win32"])
def test_claims_exclude_other_processes_only_where_they_overlap(tmp_path, monkeypatch, platform):
    """On Windows, each claim is one on everything."""
    monkeypatch.setattr(locks.sys, "platform", platform)
    asked = [Ids(10, 19), Ids(19, 30), Ids(0, 10), Ids(0, 9), Ids(20, 2**61), ALL]

    def ask():
        with ImageClaims(tmp_path) as claims:
            answers = [claims.take(ids) and not claims.drop(ids) for ids in asked]
        (tmp_path / "answers").write_text(str(answers))

    def answers() -> str:
        assert status_of(in_fork(ask)) == 0
        return (tmp_path / "answers").read_text()

    apart = platform != "win32"
    with ImageClaims(tmp_path) as claims:
        assert claims.take(Ids(10, 19)) and claims.take(Ids(40, 40))
        assert answers() == str([False, False, False, apart, False, False])
        claims.drop(Ids(40, 40))
        assert answers() == str([False, False, False, apart, apart, False])
        claims.drop(Ids(10, 19))
        assert answers() == str([True] * 6)
        assert claims.take(ALL) and claims.take(ALL)
        claims.drop(ALL)
        assert answers() == str([False] * 6)
    assert answers() == str([True] * 6)


@pytest.mark.parametrize(
    "mine, kept, free",
    [
        (Ids(-9, -3), Ids(-2, 5), Ids(6, 6)),
        (Ids(2**62 - 5, 2**62), Ids(2**62 + 1, 2**63 - 1), Ids(2**62 - 9, 2**62 - 1)),
        (ALL, Ids(7, 9), Ids(-(2**63), 6)),
        (ALL, Ids(2**63 - 2, 2**63 - 1), Ids(-1, 2**63 - 3)),
    ],
)
def test_a_claim_on_any_ids_stays_when_another_one_is_dropped(tmp_path, mine, kept, free):
    def ask():
        with ImageClaims(tmp_path) as claims:
            assert not claims.take(Ids(kept.first, kept.first)) and not claims.take(Ids(kept.last, kept.last))
            assert not claims.take(ALL) and claims.take(free)

    with ImageClaims(tmp_path) as claims:
        for first, second in ((mine, kept), (kept, mine)):
            assert claims.take(first) and claims.take(second)
            claims.drop(mine)
            assert status_of(in_fork(ask)) == 0
            claims.drop(kept)


@pytest.mark.parametrize("first", [-40, 2**62 - 60, 2**63 - 100])
def test_negative_and_large_ids_are_encoded_once(tmp_path, wanted, first):
    records = [Record(first + 2 * number, each.path, "train", ()) for number, each in enumerate(wanted[0])]
    jobs = [lambda n=n: fill(tmp_path / "store", records, seconds=0.01, rank=Rank(n, 4, n, 4)) for n in range(4)]
    assert [status_of(child) for child in map(in_fork, jobs)] == [0] * 4
    assert rows_and_images(tmp_path / "store") == (40, 40)


def denied(*_, **__):
    raise PermissionError(13, "Permission denied")


def test_journals_that_cannot_be_created_read_or_deleted_are_named(tmp_path, wanted, monkeypatch):
    records, _ = wanted
    store = open_store(tmp_path / "store")
    store.create()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", lambda path, **_: denied() if path.name == "journals" else None)
        with pytest.raises(ConfigError, match=r"cannot create the folder '.*journals' \(Permission denied\): check"):
            fill(store.folder, records[:8])
    with monkeypatch.context() as patched:
        patched.setattr(FeatureStore, "_merge", lambda self: None)
        fill(store.folder, records[:8])
    with monkeypatch.context() as patched:
        patched.setattr(journals, "open", denied, raising=False)
        with pytest.raises(DataError, match=r"journals/\w+\.jsonl: cannot be read \(Permission denied\): change its"):
            open_store(store.folder)
    with monkeypatch.context() as patched:
        patched.setattr(journals.os, "scandir", denied)
        with pytest.raises(DataError, match=r"journals: cannot be read \(Permission denied\): change its"):
            open_store(store.folder)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", denied)
        with pytest.raises(DataError, match=r"cannot delete .*jsonl \(Permission denied\): change the permissions"):
            open_store(store.folder).flush()
    open_store(store.folder).flush()
    assert rows_and_images(store.folder) == (8, 8)


def test_a_reader_can_be_copied_when_its_index_has_been_replaced(tmp_path, wanted):
    """To loader processes, before and after other processes have written two more."""
    records, features = wanted
    fill(tmp_path / "store", records[:8])
    store = open_store(tmp_path / "store")
    copied = pickle.dumps(store)
    for stop in (16, 24):
        assert status_of(in_fork(lambda stop=stop: fill(tmp_path / "store", records[:stop]))) == 0
    assert not store._index.file.exists()
    for copy in (pickle.loads(copied), pickle.loads(pickle.dumps(store))):
        assert len(copy) == 24
        assert np.array_equal(copy[records[0].image_id], features[records[0].image_id])


def test_a_folder_without_locks_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(locks.fcntl, "lockf", lambda *_: (_ for _ in ()).throw(OSError(37, "No locks available")))
    with pytest.raises(DataError, match=r"cannot lock .*claims\.lock \(No locks available\): .* set features\.root"):
        fill(tmp_path / "store", make_records(tmp_path / "images", 1))


def test_a_failed_line_of_a_journal_hides_no_later_ones(tmp_path, wanted, monkeypatch):
    """As on a full disk: half a line, and later more lines."""
    records, features = wanted[0][:16], wanted[1]
    whole, lines = journals.append_line, []

    def failing(path, line):
        lines.append(path)
        if len(lines) == 2:
            with path.open("ab") as file:
                file.write(line[:20])
            raise DataError(f"{path} is full: free some space")
        whole(path, line)

    monkeypatch.setattr(journals, "append_line", failing)
    with pytest.raises(DataError, match="is full"):
        fill(tmp_path / "store", records)
    assert len(lines) == 3 and lines[0] == lines[1] != lines[2]
    assert_whole(tmp_path / "store", records, features)


def test_a_reader_follows_an_index_that_is_replaced_while_it_opens(tmp_path, wanted, monkeypatch):
    """Here two changes come between the manifest and the index that it names, so that this index is gone."""
    records, features = wanted
    fill(tmp_path / "store", records[:8])
    real, changes = manifest.map_columns, []

    def mapping(file):
        if not changes:
            changes.append(1)
            for stop in (16, 24):
                assert status_of(in_fork(lambda stop=stop: fill(tmp_path / "store", records[:stop]))) == 0
        return real(file)

    monkeypatch.setattr(manifest, "map_columns", mapping)
    store = open_store(tmp_path / "store")
    assert changes and len(store) == 24
    for record in records[:24]:
        assert np.array_equal(store[record.image_id], features[record.image_id])


def test_prepare_reports_each_rank_and_the_result_once(data, tmp_path, monkeypatch, capsys):
    settings = [item for item in data if not item.startswith("features.root")]
    settings += [f"features.root={tmp_path}/features", "encoder.image_size=64"]
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    threads = torch.get_num_threads()
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        run("prepare", *settings)
    torch.set_num_threads(threads)
    first, second, result = capsys.readouterr().out.splitlines()
    assert first.startswith("rank 1 of 2: encoded ") and second.startswith("rank 0 of 2: encoded 0 images in ")
    assert result.startswith("csv: features of ")
    with pytest.raises(ConfigError, match="download=true is for one process: run captioning-prepare once with it"):
        run("prepare", *settings, "download=true")


@pytest.mark.parametrize(
    "variables, rank",
    [
        ({}, ONLY),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}, Rank(5, 8, 1, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "6"}, ONLY),  # in a batch script, without srun
        (
            {
                "SLURM_PROCID": "3",
                "SLURM_STEP_NUM_TASKS": "6",
                "SLURM_LOCALID": "1",
                "SLURM_STEP_TASKS_PER_NODE": "2(x3)",
            },
            Rank(3, 6, 1, 2),
        ),
        (
            {"SLURM_ARRAY_TASK_ID": "14", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "10"}
            | {"SLURM_ARRAY_TASK_STEP": "2"},
            Rank(2, 3, 0, 1),
        ),
        (
            {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "0"}
            | {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
            Rank(5, 12, 1, 4),
        ),
        ({"RANK": "8", "WORLD_SIZE": "8"}, ONLY),
    ],
)
def test_the_place_of_a_process_is_what_its_launcher_says(variables, rank):
    assert launched_rank(variables) == rank
