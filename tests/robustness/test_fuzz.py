"""Every reader under damaged and odd input, in short; and what longer runs of fuzzing.py found, one plain test each."""

import csv
import io
import json
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzzing import CAPTIONS, TARGETS, bomb, damage, fuzz, mutate, small_checkpoint
from omegaconf import OmegaConf
from PIL import ExifTags, Image
from pycocotools import mask

import captioning.config
from captioning.config import EvaluateConfig, build, check, compose
from captioning.config.schemas import TrainConfig
from captioning.data import PARTS, Record, open_picture, read_instances
from captioning.data.pictures import MOST_PIXELS
from captioning.errors import CheckpointError, ConfigError, DataError
from captioning.features import RegionFolder
from captioning.features.store import FeatureStore
from captioning.inference import load
from captioning.metrics import from_csv
from captioning.metrics.regions import mask_region


@pytest.mark.parametrize("name", TARGETS)
def test_any_input_ends_in_a_result_or_a_refusal(tmp_path, name):
    outcomes = fuzz(name, 25, seed=1, folder=tmp_path)
    assert sum(outcomes.values()) >= 20 and set(outcomes) <= {"result", "refused"}


def test_every_reader_of_the_registry_has_a_target():
    """A new reader needs a miniature in tests/helpers/miniatures.py, which becomes its target."""
    readers = {f"captioning.data.{name}" for name in PARTS["readers"]}
    readers.remove("captioning.data.read_auto")  # it only refuses
    found = {}
    for file in (Path(captioning.config.__file__).parents[2] / "conf" / "data").glob("*.yaml"):
        reader = compose("audit", [f"data={file.stem}"])["data"].get("reader", {})
        found[file.stem] = reader.get("_target_")
    names = {name for name, target in found.items() if target in readers}
    assert {found[name] for name in names} == readers  # every reader has settings
    assert sorted(names) == sorted(name.removeprefix("data=") for name in TARGETS if name.startswith("data="))


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many_inputs_end_in_a_result_or_a_refusal(tmp_path, name):
    outcomes = fuzz(name, 250, seed=2, folder=tmp_path)
    assert sum(outcomes.values()) >= 200 and {"result", "refused"} == set(outcomes)


def test_a_fault_would_be_seen(tmp_path, monkeypatch):
    """An error of another kind, a hang, memory beyond the bound, and a refusal that names no file."""
    import fuzzing

    wrongs = {
        "kind": (lambda *_: 1 / 0, ZeroDivisionError),
        "memory": (lambda *_: np.ones(fuzzing.MEMORY // 4), MemoryError),
        "hang": (lambda *_: [0 for _ in iter(int, 1)], fuzzing.Hang),
        "silence": (lambda *_: (_ for _ in ()).throw(DataError("something is wrong")), AssertionError),
    }
    monkeypatch.setattr(fuzzing, "SECONDS", 0.2)
    for number, (call, error) in enumerate(wrongs.values()):
        (tmp_path / str(number)).mkdir()
        monkeypatch.setattr(fuzzing.Scores, "__call__", call)
        with pytest.raises(error):
            fuzz("scores", 3, seed=0, folder=tmp_path / str(number))


def test_damage_and_mutations_leave_the_original_alone():
    before = json.dumps(CAPTIONS)
    changed = mutate(CAPTIONS, [("set", 0.5, [[]]), ("drop", 0.1, None), ("double", 0.9, 0), ("rename", 0.2, 0)])
    assert json.dumps(CAPTIONS) == before != json.dumps(changed)
    assert damage(b"12345", [("cut", 0.5, b"x"), ("insert", 0.0, b"ab"), ("flip", 0.0, b"\x00")]) == b"`b12"


# What it found


def store(folder) -> FeatureStore:
    return TARGETS["manifest"](folder) and FeatureStore(folder / "store", {"name": "x"})


def test_a_shards_header_may_stumble_in_any_way(tmp_path):
    """NumPy told of an open bracket by tokenize.TokenError."""
    shard = store(tmp_path).folder / "shard-00000.npy"
    content = shard.read_bytes()
    place = content.index(b"}")
    shard.write_bytes(content[:place] + b"(" + content[place + 1 :])
    with pytest.raises(DataError, match=r"shard-00000\.npy: cannot be read"):
        FeatureStore(tmp_path / "store", {"name": "x"})[0]


def test_regions_that_end_within_an_array(tmp_path):
    """NumPy told of it by EOFError."""
    with zipfile.ZipFile(tmp_path / "7.npz", "w") as bundle:
        bundle.writestr("x.npy", b"")
        bundle.writestr("bbox.npy", b"")
    with pytest.raises(DataError, match=r"7\.npz: cannot read region features"):
        RegionFolder(tmp_path, size=2)[Record(7, tmp_path / "a.jpg", "train", ())]


def test_a_field_too_long_in_a_table_of_scores(tmp_path):
    """The csv module's own error is no ValueError."""
    (tmp_path / "per_image.csv").write_text("image_id,caption,BLEU-1\n7," + "a" * (csv.field_size_limit() + 1) + ",0\n")
    with pytest.raises(DataError, match=r"cannot read .*as a table of scores"):
        from_csv(tmp_path / "per_image.csv")


def test_an_archive_with_a_name_that_is_no_text(tmp_path):
    """A UnicodeDecodeError reached the user, and the archive stayed to do it again."""
    from captioning.io.download import Archive, download

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as bundle:
        bundle.writestr("val/é.txt", "a dog")
    (tmp_path / "a.zip").write_bytes(file.getvalue().replace("é".encode(), b"\xe9\xe9"))
    with pytest.raises(DataError, match=r"a\.zip was damaged"):
        download([Archive("http://nowhere/a.zip", None, ("val",))], tmp_path, progress=False)
    assert not (tmp_path / "a.zip").exists()


def masked(tmp_path, segmentation):
    """What a reader makes of a segmentation of a picture of 6 × 5 pixels."""
    (tmp_path / "annotations").mkdir(exist_ok=True)
    entry = {"image_id": 7, "category_id": 1, "bbox": [0, 0, 5, 5], "segmentation": segmentation}
    images = [{"id": 7, "width": 6, "height": 5}]
    content = {"images": images, "annotations": [entry], "categories": [{"id": 1, "name": "dog"}]}
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    record = Record(7, tmp_path / "train" / "a.jpg", "train", ())
    return read_instances(tmp_path, [record], words={"dog": ["dog"]}).pictures[7].instances[0].segmentation


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [5, 6], "counts": "PPPP"},  # a compressed number without an end: read beyond the text
        {"size": [5, 6], "counts": "é"},
        {"size": [5, 6], "counts": [3, 4]},
        {"size": [5, 6], "counts": [-3, 33]},
        {"size": [5000, 6000], "counts": [30_000_000]},
        {"size": [5, 6], "counts": [10**30]},
        {"size": [5, 6], "counts": None},
        {"size": None, "counts": [30]},
        [[0, 0, 9e9, 0, 9, 9]],  # rows of pixels by the billion
        [[0, 0, float("nan"), 0, 9, 9]],
        [[0, 0, 4, 0, 4, 4, 1]],
        [[0, 0, 4, "0", 4, 4]],
        [7],
        "polygons",
    ],
    ids=str,
)
def test_segmentations_are_checked_before_c_code_follows_them(tmp_path, segmentation):
    """pycocotools ended the process, or wrote beyond its memory."""
    with pytest.raises(DataError, match=r"instances_train\.json: annotations\[0\]:.*'segmentation'"):
        masked(tmp_path, segmentation)


def test_compressed_run_lengths_are_those_of_pycocotools(tmp_path):
    random = np.random.default_rng(0)
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        pixels = np.asfortranarray((random.random((5, 6)) < share).astype(np.uint8))
        counts = mask.encode(pixels)["counts"].decode()
        found = masked(tmp_path, {"size": [5, 6], "counts": counts})
        assert np.array_equal(mask_region([found], (6, 5)).inside, pixels.astype(bool))


def test_long_run_lengths_are_those_of_pycocotools():
    from captioning.data.instances import _run_lengths

    random = np.random.default_rng(1)
    for _ in range(50):
        pixels = np.kron(random.integers(0, 2, (7, 9)), np.ones(random.integers(1, 90, 2), int)).astype(np.uint8)
        pixels[random.integers(0, 7), 0] ^= 1
        counts = _run_lengths(mask.encode(np.asfortranarray(pixels))["counts"].decode())
        again = np.repeat(np.arange(len(counts)) % 2, counts).reshape(pixels.shape[::-1]).T
        assert np.array_equal(again, pixels)


@pytest.mark.parametrize("size", [{"width": 0}, {"height": -1}, {"width": 10**9}])
def test_sizes_of_pictures_that_cannot_be(tmp_path, size):
    (tmp_path / "annotations").mkdir()
    images = [{"id": 7, "width": 6, "height": 5} | size]
    content = {"images": images, "annotations": [], "categories": []}
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"images\[0\]: '(width|height)' must be from 1 to 65535 pixels"):
        read_instances(tmp_path, [Record(7, tmp_path / "train" / "a.jpg", "train", ())], words={})


def test_metadata_without_one_of_its_parts(tmp_path):
    """A KeyError and an AttributeError reached the user."""
    for change in ("encoder", "vocabulary", "features", "fingerprint", "config"):
        document = small_checkpoint()
        del document["captioning"][change]
        torch.save(document, tmp_path / "x.ckpt")
        with pytest.raises(CheckpointError, match=rf"x\.ckpt: its metadata has no valid {change}"):
            load(tmp_path / "x.ckpt")
    torch.save(small_checkpoint() | {"captioning": None}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"x\.ckpt has no format number"):
        load(tmp_path / "x.ckpt")


def test_settings_that_are_no_group():
    config = OmegaConf.to_container(compose("evaluate", ["checkpoint=x", "data=scenes"]), resolve=True)
    with pytest.raises(ConfigError, match="decoding must be dict, not 3"):
        check(OmegaConf.create(config | {"decoding": 3}), EvaluateConfig)


def test_a_part_without_its_target(tmp_path):
    """'dict' object is not callable."""
    with pytest.raises(ConfigError, match=r"model\.cell must be a group with _target_"):
        check(compose("train", ["run_dir=x", "~model.cell._target_"]), TrainConfig)
    with pytest.raises(ConfigError, match=r"model\.attention\.draw must be a group with _target_"):
        check(compose("train", ["run_dir=x", "model/attention=hard", "model.attention.draw=gumbel"]), TrainConfig)
    with pytest.raises(ConfigError, match="the part with lr has no _target_: add _target_="):
        build({"lr": 0.1})
    with pytest.raises(ConfigError, match=r"torch\.optim\.Adam: missing a required argument: 'params'"):
        build({"_target_": "torch.optim.Adam", "lr": 0.1})
    with pytest.raises(ConfigError, match="Perhaps _partial_=true is missing"):
        config = OmegaConf.to_container(compose("train", ["run_dir=x", "~model.positions._partial_"]), resolve=True)
        build(config["model"], feature_size=6, grid=True, vocabulary_size=9)
    with pytest.raises(ConfigError, match=r"optimizer\._partial_ must be bool"):
        check(compose("train", ["run_dir=x", "optimizer._partial_=7"]), TrainConfig)


# Pictures that are larger than they look


def test_a_strip_of_thirty_thousand_pixels(tmp_path):
    for width, height in ((30_000, 4), (4, 30_000)):
        Image.new("RGB", (width, height)).save(tmp_path / "strip.png")
        assert open_picture(tmp_path / "strip.png").size == (width, height)


@pytest.mark.parametrize("side", [10_600, 12_000, 40_000, 2**31 - 1])
def test_pictures_beyond_the_bound_are_refused_by_their_header(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side))
    assert path.stat().st_size < 5000
    with pytest.raises(DataError, match=r"bomb\.png: (too large|damaged)"):
        open_picture(path)


LARGEST = """
import resource, sys
from captioning.data.pictures import open_picture
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
picture = open_picture(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, *picture.size)
"""


@pytest.mark.slow
def test_the_memory_that_the_largest_picture_takes(tmp_path, pytestconfig):
    """As transparent, and as turned, as can be: the most that is decoded at all stays below 20 bytes a pixel."""
    width, height = 10_400, 10_500
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGBA", (width, height), (9, 9, 9, 9)).save(tmp_path / "x.png", exif=exif, compress_level=1)
    command = [sys.executable, "-c", LARGEST, str(tmp_path / "x.png")]
    environment = {"PYTHONPATH": str(pytestconfig.rootpath)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    kilobytes, *size = map(int, done.stdout.split())
    assert size == [height, width] and width * height <= MOST_PIXELS
    assert kilobytes * 1024 < 20.5 * width * height


def test_a_picture_is_turned_once(tmp_path):
    """By whoever opens it; its tags go, so that it is not turned again, whichever way it comes to a predictor."""
    from captioning.data import upright

    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (4, 7, 3), dtype=np.uint8)
    for suffix in ("png", "tif", "webp", "jpg"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(pixels).save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
        opened = open_picture(path)
        raw = Image.open(path)
        assert opened.size == (4, 7) and (raw.size == (7, 4) or suffix == "tif")  # which Pillow turns on its own
        for given in (opened, opened.copy(), upright(opened), raw):
            assert np.array_equal(upright(given), opened)


def test_memory_is_bounded_in_these_tests(tmp_path):
    from fuzzing import bounded

    before = resource.getrlimit(resource.RLIMIT_AS)
    with bounded():
        assert resource.getrlimit(resource.RLIMIT_AS)[0] != before[0]
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_member_in_memory_is_a_picture_too():
    """Pictures need no file: what a caller opened is turned upright as well."""
    from captioning.data import upright

    file = io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(file, "PNG", exif=exif)
    assert np.asarray(upright(Image.open(file)))[..., 0].tolist() == np.arange(11, -1, -1).reshape(3, 4).tolist()


def test_a_checkpoint_with_one_bit_changed_is_refused(tmp_path):
    """torch.load compares no checksums: the captions would be other ones."""
    path = tmp_path / "x.ckpt"
    document = small_checkpoint()
    torch.save(document, path)
    load(path, device="cpu")
    content = bytearray(path.read_bytes())
    weights = max(document["state_dict"].values(), key=torch.numel).contiguous().numpy().tobytes()
    content[content.index(weights) + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.ckpt is damaged: the checksum of .* is wrong"):
        load(path, device="cpu")
