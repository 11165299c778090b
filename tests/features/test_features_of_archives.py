"""Features, batches, captions and reports of images in tar archives are those of the unpacked folder."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small_world import SMALL, run
from tars import write_tar
from torch import nn

from captioning.config import AuditConfig, build, check, compose
from captioning.data import Transform, read_folder, read_webdataset
from captioning.errors import DataError
from captioning.evaluation.image_folder import find_scored_images
from captioning.features import store as module
from captioning.features.extraction import extract
from captioning.features.store import FeatureStore, stamp_picture
from captioning.metrics.image_scores import check_images
from captioning.tasks import illustrations
from captioning.tasks.caption_files import caption_files

ROOT = Path(__file__).parents[2]


def draw(number):
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(content, "PNG")
    return content.getvalue()


def members(shard, count=6, offset=0):
    found = {}
    for n in range(count):
        found |= {f"{n:04d}.png": draw(100 * shard + n + offset), f"{n:04d}.json": "{}", f"{n:04d}.txt": f"a dog {n}\n"}
    return found


@pytest.fixture
def both(tmp_path):
    """The same twelve images as archives and as an unpacked folder."""
    for shard in range(2):
        path = write_tar(tmp_path / f"tars/{shard:05d}.tar", members(shard))
        with tarfile.open(path) as archive:
            archive.extractall(tmp_path / f"folder/{shard:05d}", filter="data")
    return tmp_path


class Pooled(nn.Module):
    def forward(self, images):
        return nn.functional.avg_pool2d(images.float() / 255, 4).flatten(2).transpose(1, 2)


def fill(folder, records):
    store = FeatureStore(folder, {"name": "pooled"}, shard_pictures=4)
    done = extract(Pooled(), Transform(8), records, store, workers=0, batch_size=4, progress=False)
    return store, done


def features(store, records, root):
    return {
        record.path.relative_to(root).as_posix().replace(".tar/", "/"): store[record.image_id].tobytes()
        for record in records
    }


def test_the_features_are_those_of_the_unpacked_folder(both):
    found, wanted = read_webdataset(both / "tars"), read_folder(both / "folder")
    packed, done = fill(both / "a", found)
    plain, _ = fill(both / "b", wanted)
    assert features(packed, found, both / "tars") == features(plain, wanted, both / "folder") and done.encoded == 12
    assert fill(both / "a", found)[1].encoded == 0
    packed.check(found)


def test_an_unchanged_archive_needs_neither_an_index_nor_a_digest(both, monkeypatch):
    found = read_webdataset(both / "tars")
    store, _ = fill(both / "a", found)
    monkeypatch.setattr(module, "stamp_picture", lambda path: pytest.fail("an image was read"))
    assert store.missing(found) == []


def test_only_changed_members_of_a_changed_archive_are_encoded_again(both, monkeypatch):
    found = read_webdataset(both / "tars")
    store, _ = fill(both / "a", found)
    path, digested = both / "tars/00001.tar", []
    monkeypatch.setattr(module, "stamp_picture", lambda path: digested.append(path) or stamp_picture(path))
    write_tar(path, {"0009.png": draw(9), "0009.txt": "a new dog"}, mode="a")
    more = read_webdataset(both / "tars")
    assert len(more) == 13 and [each.path for each in store.missing(more)] == [path / "0009.png"]
    assert sorted(digested) == [each.path for each in found[6:]]  # the other archive has not changed
    digested.clear()
    assert len(store.missing(more)) == 1 and not digested
    assert fill(both / "a", more)[1].encoded == 1
    changed = members(1) | {"0002.png": draw(999), "0003.png": draw(998)}
    del changed["0004.png"]
    write_tar(path, {"first.txt": "moves everything"} | changed)  # downloaded again
    now = FeatureStore(both / "a", {"name": "pooled"})
    assert [each.path.name for each in now.missing(found)] == ["0002.png", "0003.png", "0004.png"]
    os.truncate(path, 2000)
    now = FeatureStore(both / "a", {"name": "pooled"})
    assert [each.path.parent for each in now.missing(found)] == [path] * 6
    path.unlink()
    assert len(FeatureStore(both / "a", {"name": "pooled"}).missing(found)) == 6


@pytest.mark.parametrize("same", ["size", "time"])
def test_an_archive_of_the_same_size_or_time_is_not_taken_for_the_old_one(both, same):
    path, found = both / "tars/00000.tar", read_webdataset(both / "tars")
    before, store = path.stat(), fill(both / "a", found)[0]
    other = draw(500).ljust(len(draw(0)), b"\0")[: len(draw(0))] if same == "size" else draw(500)
    write_tar(path, members(0) | {"0000.png": other} | ({} if same == "size" else {"x.txt": "x" * 20_000}))
    at = before.st_mtime_ns if same == "time" else before.st_mtime_ns + 1
    os.utime(path, ns=(at, at))
    assert (path.stat().st_size == before.st_size) == (same == "size")
    assert [each.path for each in store.missing(found)] == [path / "0000.png"]


def settings(folder, data, root):
    config = ["encoder.image_size=64", f"features.root={folder}", f"data={data}", f"data.root={root}", "data.name=own"]
    return [*config, "data.reader.val_share=0.3", "data.min_count=1"]


def test_captions_are_read_again_when_an_archive_changes(both):
    def captions():
        config = check(compose("audit", [f"data.root={both / 'tars'}", "data=webdataset"]), AuditConfig)
        features = {"_target_": "captioning.features.stored", "root": str(both / "features")}
        return [record.captions for record in caption_files({"data": config["data"], "features": features})[0]]

    for path in (both / "tars", *(both / "tars").iterdir()):
        os.utime(path, (1e9, 1e9))
    assert len(captions()) == 12
    file = next((both / "features/captions").glob("*.records"))
    written = file.stat().st_mtime_ns
    assert len(captions()) == 12 and file.stat().st_mtime_ns == written
    write_tar(both / "tars/00001.tar", {"0009.png": draw(9), "0009.txt": "a new dog"}, mode="a")
    assert ("a new dog",) in captions()


def test_the_current_folder_is_no_part_of_the_data(both):
    (both / "here").mkdir()
    code = """
import sys
from captioning.tasks import record_file
reader = {"_target_": "captioning.data.read_webdataset", "root": sys.argv[1]}
features = {"_target_": "captioning.features.stored", "root": sys.argv[2]}
print(*record_file({"data": {"name": "x", "reader": reader}, "features": features}).header["reads"], sep="\\n")
"""
    command = [sys.executable, "-c", code, str(both / "tars"), str(both / "features")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=both / "here", capture_output=True, text=True, check=True)
    names = ("tars", "tars/00000.tar", "tars/00001.tar")
    assert done.stdout.splitlines() == [str(both / name) for name in names]


def test_two_processes_prepare_from_archives_and_training_is_that_of_the_folder(both, capsys):
    data = {
        name: settings(both / f"features-{name}", name, both / root)
        for name, root in (("webdataset", "tars"), ("folder", "folder"))
    }
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "captioning.prepare", *data["webdataset"]]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    run("prepare", *data["webdataset"], "splits=[val,val]")
    assert "own: features of 2 images (0 train, 2 val)" in capsys.readouterr().out
    metrics = {}
    for name, given in data.items():
        run("train", *given, *SMALL, "schedule=constant", "trainer.max_epochs=1", f"run_dir={both / name}")
        weights = torch.load(both / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        metrics[name] = {key: value for key, value in weights.items() if not key.startswith("encoder")}
    assert all(torch.equal(value, metrics["folder"][key]) for key, value in metrics["webdataset"].items())
    (store,) = [path for path in (both / "features-webdataset").iterdir() if (path / "manifest.json").is_file()]
    assert sum(np.load(path).shape[0] for path in store.glob("shard-*.npy")) == 12  # each image once
    given = [each for each in data["webdataset"] if not each.startswith(("encoder.", "data.min_count"))]
    checkpoint = f"checkpoint={both}/webdataset/checkpoints/last.ckpt"
    run("evaluate", checkpoint, *given, "split=val", f"output={both / 'scores'}", "decoding=greedy")
    written = json.loads((both / "scores" / "captions.json").read_text())
    assert len(written) == 2 and {each["file_name"] for each in written} == {
        record.path.relative_to(both / "tars").as_posix()
        for record in read_webdataset(both / "tars", val_share=0.3)
        if record.split == "val"
    }
    for _ in range(2):  # the second time over the figures of the first
        run("caption", checkpoint, f"images=[{both / 'tars/00000.tar/0000.png'}]", f"output={both / 'c'}")
        assert (both / "c" / "0000.png").is_file()


def test_the_audit_looks_into_archives(both):
    from captioning.data import audit_records, audit_table

    records = read_webdataset(both / "tars")
    write_tar(both / "tars/00001.tar", members(1) | {"0003.png": b"damaged", "0004.png": draw(0)})
    whole = audit_records(records, [], min_count=1, max_length=None, workers=1)
    report = whole["findings"]
    (unreadable,) = report["unreadable images"]
    assert unreadable["file"] == str(both / "tars/00001.tar/0003.png")
    (group,) = report["same files within a split"] + report["same files across splits"]
    assert [Path(each["file"]).name for each in group["pictures"]] == ["0000.png", "0004.png"]
    assert not report["names that differ only by case or normalization"]
    table = audit_table(whole, title="own", examples=3, min_count=1, max_distance=4)
    assert "00001.tar/0003.png" in table and "00000.tar/0000.png (" in table and "00001.tar/0004.png (" in table


def test_scores_that_look_at_images_find_them_in_archives(both):
    score = SimpleNamespace(setting="metrics.clipscore", embedder=SimpleNamespace(prepare=lambda: None))
    images = {record.image_id: record.path for record in read_webdataset(both / "tars")}
    check_images([score], images, list(images))
    images[3] = both / "tars/00000.tar/no.png"
    with pytest.raises(DataError, match=r"1 of 13 files do not exist: .*00000\.tar/no\.png"):
        check_images([score], images, list(images))
    names = {1: "00000.tar/0000.png", 2: "00001.tar/0000.png"}
    found = SimpleNamespace(references=dict.fromkeys(names), names=names)
    wanted = {number: both / "tars" / name for number, name in names.items()}
    assert find_scored_images(found, str(both / "tars"), needed=True, files=["captions.json"]) == wanted
    names[2] = "00001.tar/no.png"
    with pytest.raises(DataError, match=r"does not have 1 of 2 images: 00001\.tar/no\.png"):
        find_scored_images(found, str(both / "tars"), needed=True, files=["captions.json"])


def test_images_for_a_tracker_are_found_in_archives(both, monkeypatch):
    records = read_webdataset(both / "tars")
    gone = records[0]._replace(path=both / "tars/00000.tar/no.png")
    asked = []

    class Items:
        def __getitem__(self, index):
            asked.append(index[0])
            raise InterruptedError

    monkeypatch.setattr(illustrations, "Predictor", lambda *given, **more: None)
    with pytest.raises(InterruptedError):
        illustrations.Illustrator([gone, *records], Items(), {}, None)(None, 2)
    assert asked == [1]


def test_the_reader_is_built_from_its_file_of_settings(both):
    config = check(compose("audit", [f"data.root={both / 'tars'}", "data=webdataset"]), AuditConfig)
    assert build(config["data"]["reader"]) == read_webdataset(both / "tars")
