"""The audit: each planted fault is found and nothing else; close hashes against all pairs; a clean set stays clean."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from captioning.audit import audit
from captioning.config import AuditConfig, check, compose
from captioning.data import Faults, draw_scene, read_coco, read_csv, read_karpathy
from captioning.data.checks import caption_fault
from captioning.data.duplicates import Appearance, appearance, close_pairs, near_duplicates, perceptual_hash, same_files
from captioning.errors import ConfigError, DataError
from captioning.text import tokenize

LIMITS = ("data.min_count=1", "data.max_length=20")


def run(output, *overrides) -> dict:
    audit(check(compose("audit", [*overrides, f"output={output}", "workers=1"]), AuditConfig))
    return json.loads((output / "audit.json").read_text())


def scenery(seed: int, size=(120, 90)) -> Image.Image:
    """A smooth random picture: a few coloured waves."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def found(report: dict) -> dict[str, list]:
    """Only the findings that are there."""
    return {kind: items for kind, items in report["findings"].items() if items}


def names(items) -> list[str]:
    return [item["file"].rpartition("/")[2] for item in items]


CLEAN = [(f"{split}{n}.png", split, f"a {c} dog runs on grass") for split in ("train", "val", "test") for n, c in
         enumerate(("red", "blue"))]  # fmt: skip


@pytest.fixture
def clean(tmp_path):
    """Six pictures, two a split; root and its table's rows."""
    for seed, (name, _, _) in enumerate(CLEAN):
        scenery(seed).save(tmp_path / name)
    rows = [f"{name},{caption},{split}" for name, split, caption in CLEAN]
    return tmp_path, rows


def write_table(root, rows, **options):
    (root / "captions.csv").write_text("\n".join(["image,caption,split", *rows]), **options)
    return ["data=csv", f"data.root={root}", "data.min_count=1"]


def test_a_clean_set_has_no_findings_and_right_numbers(clean, tmp_path, capsys):
    root, rows = clean
    report = run(tmp_path / "out", *write_table(root, [*rows, "val0.png,A green dog runs.,val"]))
    assert found(report) == {}
    assert report["vocabulary"] == {"words": 7, "min_count": 1}  # a red blue dog runs on grass
    val = report["splits"]["val"]
    assert (val["pictures"], val["captions"], val["words"], val["distinct words"]) == (2, 3, 16, 8)
    assert val["length"] == {"min": 4, "mean": 16 / 3, "median": 6.0, "95 %": 6.0, "max": 6}
    assert val["unknown share"] == pytest.approx(1 / 16) and val["unknown distinct words"] == 1
    assert val["longer than max_length"] == 0
    printed = capsys.readouterr().out
    assert "0  near-duplicates across splits" in printed and "6.25" in printed and str(tmp_path / "out") in printed


def test_each_planted_fault_is_found_and_nothing_else(clean, tmp_path):
    root, rows = clean
    (root / "copy.png").write_bytes((root / "train0.png").read_bytes())
    (root / "copy2.png").write_bytes((root / "train0.png").read_bytes())
    scenery(1).resize((60, 45)).save(root / "smaller.jpg", quality=60)  # train1 again
    scenery(4).save(root / "again.jpg", quality=50)  # test0 again
    (root / "cut.png").write_bytes((root / "val1.png").read_bytes()[:500])
    scenery(20).save(root / "unlisted.png")
    scenery(21).save(root / "silent.png")
    planted = [
        "copy.png,a dog,train",
        "copy2.png,a dog,val",
        "smaller.jpg,a dog,val",
        "again.jpg,a dog,test",
        "cut.png,a dog,train",
        "gone.png,a dog,train",
        "silent.png,   ,train",
        "train0.png,...,train",
        "train0.png,a dog on the,train",
        "train0.png,http://example.org/a.jpg,train",
        "val0.png,N/A,val",
        "val0.png,a caf\u00c3\u00a9 with dogs,val",
        "val0.png,a dog,vall",
        "val0.png,a dog, with a comma,3,val",
        "../up.png,a dog,val",
        'val0.png,"a dog "of sorts",val',
        "train1.png,a " + "very " * 20 + "old dog,train",
    ]
    table = write_table(root, rows[:3] + planted + rows[3:], encoding="utf-8")
    report = run(tmp_path / "out", *table, "data.max_length=20")
    kinds = found(report)
    assert len(kinds.pop("broken entries")) == 4
    assert names(kinds["unreadable images"]) == ["cut.png", "gone.png"]
    assert "cut short" in kinds["unreadable images"][0]["reason"]
    assert "there is no such image" in kinds.pop("unreadable images")[1]["reason"]
    assert names(kinds.pop("images without captions")) == ["silent.png"]
    assert names(kinds.pop("image files without an entry")) == ["unlisted.png"]
    empty = kinds.pop("empty captions")
    assert [(item["caption"], item["reason"]) for item in empty] == [
        ("...", "nothing but punctuation"),
        ("", "blank"),
    ]
    assert [item["caption"] for item in kinds.pop("unfinished captions")] == ["a dog on the"]
    assert [item["reason"] for item in kinds.pop("captions that are not text")] == [
        "an address or a file name",
        "a placeholder",
        "wrongly decoded characters",
    ]
    (same,) = kinds.pop("same files across splits")
    assert [(p["file"].rpartition("/")[2], p["split"]) for p in same["pictures"]] == [
        ("train0.png", "train"),
        ("copy.png", "train"),
        ("copy2.png", "val"),
    ]
    (near,) = kinds.pop("near-duplicates across splits")
    assert names(near["pictures"]) == ["train1.png", "smaller.jpg"]
    (near,) = kinds.pop("near-duplicates within a split")
    assert sorted(names(near["pictures"])) == ["again.jpg", "test0.png"] and near["bits"] <= 4
    assert [item["reason"] for item in kinds.pop("captions longer than max_length")] == ["23 words, cut to 20"]
    assert kinds == {}
    assert report["splits"]["train"]["longer than max_length"] == 1
    with pytest.raises(DataError):
        read_csv(root)  # the same reader, for training, stops


def test_a_table_that_is_not_utf_8_is_read_all_the_same(clean, tmp_path):
    root, rows = clean
    arguments = write_table(root, [*rows, "val0.png,un caf\u00e9,val"], encoding="latin-1")
    kinds = found(run(tmp_path / "out", *arguments))
    assert list(kinds) == ["broken entries", "captions that are not text"]
    assert "is not UTF-8" in kinds["broken entries"][0]


def test_an_open_quote_at_the_end_and_a_missing_table(clean, tmp_path):
    root, rows = clean
    kinds = found(run(tmp_path / "out", *write_table(root, [*rows, 'val0.png,"a dog,val'])))
    assert len(kinds["broken entries"]) == 1 and "line 8" in kinds["broken entries"][0]
    with pytest.raises(DataError, match=r"nowhere/captions\.csv"):
        run(tmp_path / "out", "data=csv", f"data.root={tmp_path / 'nowhere'}")


def test_coco_with_faults_in_one_file(tmp_path):
    for split in ("train", "val"):
        (tmp_path / f"{split}2017").mkdir()
    for number in range(1, 5):
        scenery(number).save(tmp_path / "train2017" / f"{number}.png")
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(1, 5)] + [{"id": 1, "file_name": "2.png"}, {"id": "x"}]
    annotations = [{"image_id": n, "caption": f"dog number {n}"} for n in (1, 2, 3)]
    annotations += [{"image_id": 9, "caption": "a"}, {"image_id": 3, "caption": ""}, {"image_id": 3, "caption": 7}]
    annotations += ["nonsense"]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "captions_train2017.json").write_text(
        json.dumps({"images": images, "annotations": annotations})
    )
    (tmp_path / "annotations" / "captions_val2017.json").write_text("{")
    report = run(
        tmp_path / "out",
        "data=coco",
        "data.layout=2017",
        f"data.root={tmp_path}",
        "data.min_count=1",
        "data.max_length=20",
    )
    kinds = found(report)
    entries = kinds.pop("broken entries")
    for wanted in (
        "annotations[5]: 'caption' must be text",
        "annotations[6]",
        "images[5]: 'id'",
        "does not list: 9",
        "image ids of more than one image: 1",
        "captions_val2017.json as JSON",
    ):
        assert sum(wanted in entry for entry in entries) == 1, wanted
    assert [item["caption"] for item in kinds.pop("empty captions")] == [""]
    assert names(kinds.pop("images without captions")) == ["4.png"]
    (same,) = kinds.pop("same files within a split")  # one file under two ids
    assert [picture["image_id"] for picture in same["pictures"]] == [2, 1]
    assert kinds == {}
    with pytest.raises(DataError, match=r"annotations\[5\]"):
        read_coco(tmp_path, layout=2017)


def test_karpathy_with_faults(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(3):
        scenery(number).save(tmp_path / "images" / f"{number}.jpg")

    def image(number, split="train", sentences=("a dog runs",)):
        sentences = [{"raw": text} for text in sentences]
        return {"imgid": number, "filename": f"{number}.jpg", "split": split, "sentences": sentences}

    images = [image(0), image(1, "val", ["a dog runs", None]), image(2, "dev2"), {"imgid": 5}, image(2, "test", [])]
    (tmp_path / "dataset_flickr8k.json").write_text(json.dumps({"images": images}))
    kinds = found(run(tmp_path / "out", "data=flickr8k", f"data.root={tmp_path}", "data.min_count=1"))
    assert len(kinds.pop("broken entries")) == 3 and names(kinds.pop("images without captions")) == ["2.jpg"]
    assert kinds == {}


def test_lenient_readers_give_what_strict_ones_give_where_nothing_is_wrong(clean, shared_dir):
    root, rows = clean
    write_table(root, rows)
    for reader, where, options in (
        (read_csv, root, {}),
        (read_coco, shared_dir / "coco-sample", {"layout": 2017}),
        (read_karpathy, shared_dir / "flickr8k", {"annotations": "dataset_flickr8k.json"}),
    ):
        faults = Faults()
        assert reader(where, **options) == reader(where, **options, faults=faults) and not faults.messages


@pytest.mark.parametrize(
    ("caption", "kind"),
    [
        ("A group of", "cut"),
        ("Two men play basketball ,", "cut"),
        ("a dog and \u2026", "cut"),
        ("<b>dog</b> runs", "not text"),
        ("salt &amp; pepper", "not text"),
        ("IMG_0012.JPG", "not text"),
        ("12 34 5 %%%", "not text"),
        ("a\x00dog runs", "not text"),
        ("nan", "not text"),
        ("it\u00e2\u20ac\u2122s a dog", "not text"),
        ("\n", "empty"),
        ("...", "empty"),
        ("?!", "not text"),
        ("A dog runs on a field with a number ( # 7 ) .", None),
        ("Her dog jumps in", None),
        ("None of the dogs run", None),
        ("\u72ac\u304c\u8d70\u308b", None),
        ("un caf\u00e9 \u00e0 Paris", None),
        ("\u0915\u0941\u0924\u094d\u0924\u093e \u0926\u094c\u0921\u093c\u0924\u093e \u0939\u0948", None),
        ("a sign that says a.b.c", None),
    ],
)
def test_captions_one_by_one(caption, kind):
    fault = caption_fault(caption, tokenize(caption))
    assert (fault and fault[0]) == kind


# Hashes


@pytest.mark.parametrize("distance", [0, 1, 3, 6, 12])
def test_close_pairs_are_all_and_only_those(distance):
    random = np.random.default_rng(0)
    seeds = random.integers(0, 2**64, 40, dtype=np.uint64)
    flips = (np.uint64(1) << random.integers(0, 64, (40, 8, 6), dtype=np.uint64)).astype(np.uint64)
    family = np.bitwise_xor.reduce(flips[..., : max(1, distance)], axis=-1) ^ seeds[:, None]
    codes = np.unique(np.concatenate([seeds, family.ravel(), np.arange(50, dtype=np.uint64)]))
    pairs, bits = close_pairs(codes, distance=distance)
    values = codes.tolist()
    expected = {
        (i, j): apart
        for i in range(len(values))
        for j in range(i + 1, len(values))
        if (apart := (values[i] ^ values[j]).bit_count()) <= distance
    }
    assert {tuple(pair): apart for pair, apart in zip(pairs.tolist(), bits.tolist(), strict=True)} == expected
    assert (len(expected) > 50) == (distance > 0)


def test_groups_are_chains_of_close_files_of_like_colours():
    waves = np.random.default_rng(0).integers(0, 200, 192).astype(np.uint8).tobytes()
    other = np.random.default_rng(1).integers(0, 200, 192).astype(np.uint8).tobytes()
    files = [
        (b"a", 0b0, waves),
        (b"b", 0b11, waves),
        (b"c", 0b1111, waves),
        (b"d", 2**64 - 2**50, waves),
        (b"a", 0b0, waves),
        (b"e", 2**40 - 1, waves),
        (b"e", 2**40 - 1, waves),
        (b"", 0, b""),
        (b"f", 0b1, other),
        (b"g", 2**30, bytes(192)),  # two of one colour
        (b"h", 2**30, bytes([1] * 192)),
    ]
    looks = [Appearance(digest, code, colors, None) for digest, code, colors in files]
    assert [group.members for group in same_files([each.digest for each in looks])] == [(0, 4), (5, 6)]
    assert [tuple(group) for group in near_duplicates(looks, distance=2)] == [((0, 1, 2, 4), 2), ((9, 10), 0)]
    assert [tuple(group) for group in near_duplicates(looks, distance=1)] == [((9, 10), 0)]
    assert near_duplicates([], distance=4) == []


def test_drawn_scenes_are_no_duplicates_of_one_another(tmp_path):
    pictures = [draw_scene(0, "train", index)[0] for index in range(300)]
    for number, picture in enumerate([*pictures, pictures[7].resize((150, 150))]):
        picture.save(tmp_path / f"{number}.png")
    looks = [appearance(tmp_path / f"{number}.png") for number in range(301)]
    codes = np.array([each.code for each in looks], dtype=np.uint64)
    assert len(close_pairs(codes, distance=6)[0]) > 1  # the hashes alone would say so
    assert [group.members for group in near_duplicates(looks, distance=6)] == [(7, 300)]


def test_the_hash_is_the_sign_of_the_cosine_sums():
    picture = scenery(3)
    grey = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BICUBIC), dtype=float)
    y, x = np.mgrid[:32, :32]
    order = sorted((u + v, u, v) for u in range(12) for v in range(12) if u + v)[:64]
    sums = [
        (grey * np.cos(np.pi * u * (2 * y + 1) / 64) * np.cos(np.pi * v * (2 * x + 1) / 64)).sum() for _, u, v in order
    ]
    assert f"{perceptual_hash(picture):064b}" == "".join("1" if total / 256 > 0.05 else "0" for total in sums)


def test_the_hash_hardly_changes_with_scale_contrast_and_compression(tmp_path):
    for seed in range(20):
        picture = scenery(seed)
        picture.resize((80, 60)).save(tmp_path / "other.jpg", quality=40)
        for other in (Image.open(tmp_path / "other.jpg"), ImageEnhance.Contrast(picture).enhance(0.7)):
            assert (perceptual_hash(picture) ^ perceptual_hash(other)).bit_count() <= 4
        assert (perceptual_hash(picture) ^ perceptual_hash(scenery(seed + 100))).bit_count() > 12


def test_several_processes_give_the_same_and_bad_settings_are_named(clean, tmp_path):
    root, rows = clean
    arguments = [*write_table(root, rows), f"output={tmp_path / 'out'}"]
    one = run(tmp_path / "one", *arguments[:-1])
    audit(check(compose("audit", [*arguments, "workers=2"]), AuditConfig))
    assert json.loads((tmp_path / "out" / "audit.json").read_text()) == one
    for bad, wanted in (("workers=0", "workers"), ("max_distance=13", "max_distance"), ("max_distance=-1", "0 to 12")):
        with pytest.raises(ConfigError, match=wanted):
            audit(check(compose("audit", [*arguments, bad]), AuditConfig))


def test_it_needs_no_torch(clean, tmp_path):
    root, rows = clean
    code = "import sys; sys.modules['torch'] = None; from captioning.audit import main; main()"
    arguments = [*write_table(root, rows), f"output={tmp_path / 'out'}"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "captions that are not text" in done.stdout


def test_a_file_whose_name_is_no_text_is_told_and_written(clean, tmp_path_factory, capsys):
    """A name in another encoding than UTF-8, as an unpacked archive leaves it."""
    root, rows = clean
    try:
        scenery(9).save(os.fsencode(root) + b"/caf\xe9.png", format="png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    report = run(tmp_path_factory.mktemp("out"), *write_table(root, rows))
    assert names(report["findings"]["image files without an entry"]) == ["caf\udce9.png"]
    assert r"caf\udce9.png" in capsys.readouterr().out


def test_what_is_left_out_cut_or_cannot_be_split(tmp_path, capsys):
    for number in range(4):
        (tmp_path / "train2017").mkdir(exist_ok=True)
        scenery(number).save(tmp_path / f"train2017/{number}.png")
    scenery(7).save(tmp_path / "train2017/A.PNG")
    scenery(8).save(tmp_path / "train2017/a.png")
    chinese = "\u4e00\u53ea\u72d7\u5728\u8349\u5730\u4e0a\u5954\u8dd1\u3002"
    names = ["0.PNG", "1.png", "2.png", "3.png", "A.PNG", "a.png", "5.jpg", "3.jpg"]
    texts = ["a dog runs", "a " + "very " * 30 + "old dog", chinese, *["a cat sits"] * 5]
    annotations = [{"image_id": n, "caption": text} for n, text in enumerate(texts)]
    annotations += [{"image_id": 0, "caption": "quality issues", "is_rejected": True, "is_precanned": True}]
    content = {"images": [{"id": n, "file_name": name} for n, name in enumerate(names)], "annotations": annotations}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/captions_train2017.json").write_text(json.dumps(content))
    report = run(
        tmp_path / "out",
        "data=coco",
        "data.layout=2017",
        f"data.root={tmp_path}",
        "data.min_count=1",
        "data.max_length=20",
    )
    kinds = found(report)
    (rejected,) = kinds.pop("rejected annotations, left out")
    assert (rejected["caption"], rejected["reason"]) == ("quality issues", "rejected, of image 0")
    (spelled,) = kinds.pop("names that are spelled differently on disk")
    assert spelled["reason"] == "written '0.PNG' in captions_train2017.json: different case"
    assert [item["reason"] for item in kinds.pop("names that differ only by case or normalization")] == [
        "a.png differs by case only",
        "A.PNG differs by case only",
    ]
    (unsplit,) = kinds.pop("captions that the tokenizer cannot split")
    assert (unsplit["caption"], unsplit["reason"]) == (chinese, "Han script, without spaces between words")
    assert [item["reason"] for item in kinds.pop("captions longer than max_length")] == ["33 words, cut to 20"]
    reasons = [item["reason"] for item in kinds.pop("unreadable images")]
    assert "there is no such image" in reasons[0]
    assert reasons[1].endswith("; 3.jpg is missing, but 3.png is there (another suffix)")
    assert kinds == {}
    assert [line.partition(" (")[0] for line in report["advice"]] == [
        "all splits: 1 of 8 captions",
        "1 of 8 training captions are longer than data.max_length=20 words and are cut: set data.max_length=33",
    ]
    assert "note: all splits: 1 of 8 captions (12%) are written without spaces" in capsys.readouterr().out


def test_without_a_limit_it_is_that_of_training(clean, tmp_path, capsys):
    root, rows = clean
    long = "train0.png,a " + "very " * 25 + "old dog,train"
    report = run(tmp_path / "out", *write_table(root, [*rows, long], encoding="utf-8"))
    assert report["max_length"] == 28 and not found(report).get("captions longer than max_length")
    assert "over 28" in capsys.readouterr().out


OWN = """
from pathlib import Path
from captioning.data import Record
from captioning.errors import DataError


class Reader(list):
    def __init__(self, root, fault=None):
        if fault:
            raise DataError(f"{root}: {fault}")
        paths = sorted(Path(root).glob("*.png"))
        super().__init__(Record(n, path, "train", ("a dog runs",)) for n, path in enumerate(paths))


class Nothing:
    def __init__(self, root):
        pass


def function(root, *, faults):
    with faults:
        raise DataError(f"{root}: one")
    with faults:
        raise DataError(f"{root}: two")
    return Reader(root)
"""


@pytest.fixture
def own_reader(clean, tmp_path_factory, monkeypatch):
    """A function from the name of a user's own reader, and its arguments, to the settings of the audit."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_reader_of_audit.py").write_text(OWN)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "own_reader_of_audit", raising=False)
    root, _ = clean

    def audited(name, **arguments):
        config = check(
            compose("audit", ["data=csv", f"data.root={root}", f"output={folder}", "workers=1"]), AuditConfig
        )
        target = f"own_reader_of_audit.{name}"
        config["data"]["reader"] = {"_target_": target, "root": str(root)} | arguments
        audit(config)
        return json.loads((folder / "audit.json").read_text())

    monkeypatch.setattr("captioning.config.building.allowed_in_settings", lambda target: True)
    return audited


def test_an_own_reader_needs_no_argument_for_faults(own_reader, clean):
    root, _ = clean
    assert own_reader("Reader")["splits"]["train"]["pictures"] == 6
    assert own_reader("Reader", fault="is empty")["findings"]["broken entries"] == [f"{root}: is empty"]
    assert own_reader("function")["findings"]["broken entries"] == [f"{root}: one", f"{root}: two"]
    with pytest.raises(ConfigError, match=r"the reader own_reader_of_audit\.Nothing returns Nothing: it must return a"):
        own_reader("Nothing")
