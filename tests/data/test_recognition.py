"""`data=auto` on a miniature of every layout: it finds the right one or refuses, and never chooses a wrong one."""

import re
import shutil
import sys
from collections import Counter

import pytest
from miniatures import MINIATURES, csv_table, flickr8k, json_lines, multi30k, put, stair
from PIL import Image
from small_world import COMMANDS

from captioning.config import AuditConfig, build, check, compose, entry_point, with_recognized
from captioning.data import read_auto, recognize_data
from captioning.errors import CaptioningError, ConfigError, DataError
from captioning.io import file_exists

NAMED = {miniature.draw.__name__: miniature for miniature in MINIATURES}
# Pairs that are one layout together: with the lists of the official split, or with one folder more.
TOGETHER = {
    frozenset(("token_table", "flickr8k_text")): "flickr8k_text",
    frozenset(("folder", "img2dataset")): "folder",
    frozenset(("img2dataset", "img2dataset_tars")): "folder",  # an archive beside its unpacked files
    frozenset(("flickr30k_kaggle", "kaggle_flickr30k")): "flickr30k",
    frozenset(("flickr30k_kaggle", "flickr30k_and_table")): "flickr30k",
    frozenset(("kaggle_flickr30k", "flickr30k_and_table")): "flickr30k",
    frozenset(("kaggle_flickr30k", "flickr30k_text")): "flickr30k_text",
}


def composed(*overrides):
    return check(compose("audit", with_recognized(overrides)), AuditConfig)["data"]


@pytest.mark.parametrize("name", NAMED)
def test_every_miniature_is_read_right_or_refused(name, tmp_path, capsys):
    _, data, counts, settings = NAMED[name]
    NAMED[name].draw(tmp_path)
    if not data:
        with pytest.raises(CaptioningError):
            recognize_data(tmp_path)
        return
    found = recognize_data(tmp_path)
    assert {"data": data, **settings}.items() <= found.settings.items()
    assert f"has the layout of data={data} (" in found.line() and "\n" not in found.line()
    config = composed("data=auto", f"data.root={tmp_path}")
    assert found.line() in capsys.readouterr().err
    records = build(config["reader"])
    assert Counter(record.split for record in records) == counts
    assert all(file_exists(record.path) and record.captions for record in records)
    explicit = found.line().partition("The same settings: ")[2].split()
    assert check(compose("audit", [*explicit, f"data.root={tmp_path}"]), AuditConfig)["data"] == config


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder of every miniature."""
    folder = tmp_path_factory.mktemp("miniatures")
    for name, miniature in NAMED.items():
        miniature.draw(folder / name)
    return folder


@pytest.mark.parametrize("first", NAMED)
def test_two_layouts_in_one_folder_are_refused(first, drawn, tmp_path):
    for second in [name for name in NAMED if name > first]:
        root = tmp_path / second
        for name in (first, second):
            shutil.copytree(drawn / name, root, dirs_exist_ok=True)
        data = [NAMED[name].data for name in (first, second)]
        if together := TOGETHER.get(frozenset((first, second))):
            assert recognize_data(root).settings["data"] == together
        elif "photos_only" in (first, second) and any(data):
            assert recognize_data(root).settings["data"] in data
        else:
            with pytest.raises(CaptioningError) as caught:
                recognize_data(root)
            told = str(caught.value)
            assert "has several layouts: instead of data=auto, type one of: " in told
            if (first, second) != ("flickr8k_ar", "token_table"):  # the table, with the lists of the official split
                assert all(f"data={name} " in told for name in data if name)


def test_the_names_of_two_folders_differ_and_those_of_one_do_not(tmp_path, monkeypatch):
    for name in ("a", "b"):
        csv_table(tmp_path / name)
    monkeypatch.chdir(tmp_path / "a")
    names = [recognize_data(root).settings["data.name"] for root in (".", tmp_path / "a", tmp_path / "b")]
    assert names[0] == names[1] != names[2] and all(name.startswith("csv-") for name in names)


def test_typed_settings_change_the_recognized_ones(tmp_path, capsys):
    json_lines(tmp_path)
    config = composed("data.name=mine", "data.reader.val_share=0.3", "data=auto", f"data.root={tmp_path}")
    assert config["name"] == "mine" and config["reader"]["val_share"] == 0.3
    assert config["reader"]["file"] == "captions.jsonl"


def test_folders_and_files_with_any_name(tmp_path, monkeypatch, capsys):
    root = tmp_path / "it's, [my] $data"
    put(root, {"my, 'captions' {x}=1.csv": "image,caption,split\na.jpg,a dog,train\n", "a.jpg": None})
    seen = []
    monkeypatch.setattr(sys, "argv", ["audit", "data=auto", f"data.root={root}"])
    entry_point("audit", AuditConfig, lambda config: seen.append(config["data"]))()
    assert seen[0]["reader"]["file"] == "my, 'captions' {x}=1.csv" and len(build(seen[0]["reader"])) == 1


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"a.jpg": None}, "has no known layout of a data set: add a table captions.csv"),
        ({"set/captions.csv": "image,caption\na.jpg,a dog\n"}, r"its folder set has: set data\.root=.*set$"),
        ({"results.json": [{"image_id": 1, "caption": "a dog"}]}, "has no known layout"),
        ({"captions.json": [{"image": "a.jpg", "caption": "a dog", "log_prob": -1}]}, "has no known layout"),
        ({"captions.json": [{"image_id": 1, "caption": "a dog", "file_name": "a.jpg"}]}, "has no known layout"),
        ({"a.csv": "name,price\n", "b.txt": "image\n", "c.tsv": "x\ty\n"}, "has no known layout"),
        ({"annotations/train.json": {"images": [], "annotations": []}, "train/a.jpg": None}, "has no known layout"),
        ({"annotations/captions_train.json": {"images": []}}, "has no known layout"),
    ],
)
def test_a_folder_with_nothing_known_is_refused(files, told, tmp_path):
    put(tmp_path, files)
    with pytest.raises(DataError, match=told):
        recognize_data(tmp_path)


def test_candidates_are_named_with_what_to_type(tmp_path):
    multi30k(tmp_path, ("de", "fr"))
    with pytest.raises(ConfigError) as caught:
        recognize_data(tmp_path)
    for language in ("de", "fr"):
        wanted = f"data=multi30k data.reader.language={language} data.reader.task=1 (data/task1/raw/train.{language}.gz"
        assert wanted in str(caught.value)


def test_what_cannot_be_combined_with_auto(tmp_path):
    csv_table(tmp_path)
    with pytest.raises(ConfigError, match=r"data=auto needs data\.root=DIR"):
        with_recognized(["data=auto"])
    with pytest.raises(ConfigError, match=r"cannot be combined with a sweep over data\.root"):
        with_recognized(["data=auto", f"data.root={tmp_path},b"])
    with pytest.raises(DataError, match=r"there is no such folder: check data\.root"):
        recognize_data(tmp_path / "nowhere")
    assert with_recognized(["data=csv", "x=1"]) == ["data=csv", "x=1"]
    with pytest.raises(
        ConfigError, match=r"works only on the command line of a command: write data=csv data\.reader\.file"
    ):
        read_auto(tmp_path)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_scenes_are_recognized_with_their_numbers(language, tmp_path, capsys):
    scenes = ["data=scenes", *SMALL, f"data.reader.language={language}", f"data.root={tmp_path / 's'}"]
    wanted = check(compose("audit", scenes), AuditConfig)["data"]["reader"]
    build(wanted)
    config = composed("data=auto", f"data.root={tmp_path / 's'}")
    assert config["reader"] == wanted and len(build(config["reader"])) == 6
    assert config["tokenizer"] == {"en": "ptb", "zh": "unicode"}[language]


SMALL = ["data.reader.train=3", "data.reader.val=2", "data.reader.test=1", "data.reader.seed=4"]


def test_a_command_holds_the_settings_of_the_data_set_itself(tmp_path, monkeypatch, capsys):
    flickr8k(tmp_path)
    seen = []
    for name, given in (("train", ["run_dir=x"]), ("evaluate", ["checkpoint=x"]), ("prepare", []), ("audit", [])):
        schema = AuditConfig if name == "audit" else COMMANDS[name][1]
        monkeypatch.setattr(sys, "argv", [name, *given, "--data", "auto", f"data.root={tmp_path}"])
        entry_point(name, schema, lambda config: seen.append(config["data"]))()
        assert (
            f"data=auto: {tmp_path} has the layout of data=flickr8k (dataset_flickr8k.json)" in capsys.readouterr().err
        )
    assert {data["reader"]["_target_"] for data in seen} == {"captioning.data.read_karpathy"}
    assert len({data["name"] for data in seen}) == 1 and seen[0]["name"].startswith("flickr8k-")
    monkeypatch.setattr(sys, "argv", ["audit", "data=auto", f"data.root={tmp_path / 'no'}"])
    with pytest.raises(SystemExit, match=r"^error: data\.root=.* there is no such folder"):
        entry_point("audit", AuditConfig, seen.append)()


@pytest.mark.parametrize(
    ("name", "line", "data"),
    [
        ("Flickr8k.arabic.full.txt", "1.jpg#0\tكلب يركض\n", "flickr8k_ar"),
        ("imageid.human-written-caption.bosonseg.txt", "1.jpg#0\t一 只 狗\n", "coco_cn"),
        ("flickr8kzhc.caption.txt", "1.jpg#zhc#0\t一只狗\n", "flickr8k_cn"),
    ],
)
def test_a_part_of_a_published_data_set_is_no_table(tmp_path, name, line, data):
    (tmp_path / name).write_text(line, encoding="utf-8")
    Image.new("RGB", (8, 8)).save(tmp_path / "1.jpg")
    with pytest.raises(DataError, match=rf"has {re.escape(name)} of data={data}, but not all files.*type data={data}"):
        recognize_data(tmp_path)


def test_settings_that_a_checkpoint_decides_are_neither_set_nor_proposed(tmp_path, capsys):
    stair(tmp_path)
    for split in ("train", "val"):
        (tmp_path / f"stair_captions_v1.2_{split}.json").unlink()
    assert "data.tokenizer=whitespace" in recognize_data(tmp_path).line()
    given = with_recognized(["data=auto", f"data.root={tmp_path}"], decided=["data.tokenizer"])
    assert "data.tokenizer" not in " ".join(given) + capsys.readouterr().err
    assert "data.reader.tokenized=true" in given
