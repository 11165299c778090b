"""Readers: what comes out of each file format, and the one message for each way it can be wrong."""

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
from collections import Counter

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from captioning.data import Record, read_coco, read_csv, read_karpathy, select
from captioning.data.readers import read_coco_files
from captioning.errors import ConfigError, DataError


def touch(*files):
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def coco_content(captions):
    """{image id: captions} in COCO format; pictures are called ID.jpg."""
    texts = [(number, text) for number, group in captions.items() for text in group]
    return {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in captions],
        "annotations": [{"id": i, "image_id": number, "caption": text} for i, (number, text) in enumerate(texts)],
    }


def write_coco(root, year="", **splits):
    """write_coco(root, 2017, train={3: ["a cat"]}) -> the official folders, with empty files for pictures."""
    for split, captions in splits.items():
        write_json(root / f"annotations/captions_{split}{year}.json", coco_content(captions))
        touch(*(root / f"{split}{year}/{number}.jpg" for number in captions))


def karpathy_image(number, split, *captions, **more):
    sentences = [{"raw": text, "tokens": text.split()} for text in captions]
    return {"imgid": number, "filename": f"{number}.jpg", "split": split, "sentences": sentences} | more


def write_karpathy(root, *images, folder="images", name="dataset_flickr8k.json"):
    write_json(root / name, {"images": images, "dataset": "toy"})
    touch(*(root / folder / image["filename"] for image in images))


def write_csv(root, *lines, pictures=(), encoding="utf-8"):
    root.mkdir(exist_ok=True)
    (root / "captions.csv").write_text("\n".join(lines), encoding=encoding, newline="")
    touch(*(root / picture for picture in pictures))


def error_of(reader, *arguments, kind=DataError, **keywords):
    """The reader's one message."""
    with pytest.raises(kind) as caught:
        reader(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read_toy_karpathy(root):
    return read_karpathy(root, annotations="dataset_flickr8k.json")


# COCO


@pytest.mark.parametrize("year", ["2014", "2017"])
def test_official_folders(tmp_path, year):
    write_coco(tmp_path, year, train={30: ["a cat", "two cats"], 4: ["a dog"]}, val={5: ["an egg\n"]})
    expected = [
        Record(30, tmp_path / f"train{year}/30.jpg", "train", ("a cat", "two cats")),
        Record(4, tmp_path / f"train{year}/4.jpg", "train", ("a dog",)),
        Record(5, tmp_path / f"val{year}/5.jpg", "val", ("an egg\n",)),
    ]
    assert read_coco(tmp_path) == read_coco(tmp_path, layout=year) == read_coco(tmp_path, layout=int(year)) == expected


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_split_is_enough(tmp_path, split):
    write_coco(tmp_path, 2017, train={1: ["a"]}, val={2: ["b"]})
    shutil.rmtree(tmp_path / f"{({'train', 'val'} - {split}).pop()}2017")  # as when only one archive was fetched
    assert {record.split for record in read_coco(tmp_path)} == {split}


def test_two_years_are_not_guessed_between(tmp_path):
    write_coco(tmp_path, 2014, train={1: ["old"]})
    write_coco(tmp_path, 2017, train={1: ["new"]})
    assert "data.layout=2014" in error_of(read_coco, tmp_path, kind=ConfigError)
    assert read_coco(tmp_path, layout="2017")[0].captions == ("new",)


def test_karpathys_split_of_coco_comes_first(tmp_path):
    write_coco(tmp_path, 2014, train={1: ["a"]}, val={2: ["b"], 3: ["c"], 4: ["d"]})
    write_coco(tmp_path, 2017, val={2: ["b"]})
    splits = {1: "train", 2: "restval", 3: "val", 4: "test"}
    images = [
        karpathy_image(10 * number, split, f"text {number}", filepath="train2014" if number == 1 else "val2014")
        | {"cocoid": number, "filename": f"{number}.jpg"}
        for number, split in splits.items()
    ]
    write_json(tmp_path / "dataset_coco.json", {"images": images})
    records = read_coco(tmp_path)
    assert [(record.image_id, record.split) for record in records] == [
        (1, "train"),
        (2, "train"),
        (3, "val"),
        (4, "test"),
    ]
    assert records[1] == Record(2, tmp_path / "val2014/2.jpg", "train", ("text 2",))


def test_an_unknown_layout(tmp_path):
    assert "'2015'" in error_of(read_coco, tmp_path, layout="2015", kind=ConfigError)


@pytest.mark.parametrize("layout", ["auto", "karpathy", "2014", "2017"])
def test_no_coco_at_all_says_what_is_wanted_and_how_to_get_it(tmp_path, layout):
    message = error_of(read_coco, tmp_path / "nowhere", layout=layout)
    year = "2014" if layout in ("auto", "karpathy") else layout
    assert f"train{year}/" in message and "captioning-prepare data=coco download=true" in message
    assert "docs/data.md" in message


def test_own_data_in_coco_format(tmp_path):
    write_json(tmp_path / "train.json", coco_content({1: ["a"], 2: ["b"]}))
    write_json(tmp_path / "test.json", coco_content({7: ["c"]}))
    touch(*(tmp_path / f"all/{number}.jpg" for number in (1, 2, 7)))
    records = read_coco_files(tmp_path, annotations="{split}.json", images="all")
    assert [(record.image_id, record.split) for record in records] == [(1, "train"), (2, "train"), (7, "test")]
    assert "{split}.json" in error_of(read_coco_files, tmp_path / "no", annotations="{split}.json", images="all")


def test_pictures_without_captions_are_left_out_even_when_not_on_disk(tmp_path):
    write_coco(tmp_path, train={1: ["a"], 2: [], 3: [" \n"], 4: ["", "d"]})
    (tmp_path / "train/2.jpg").unlink()
    assert [(record.image_id, record.captions) for record in read_coco_files(tmp_path)] == [(1, ("a",)), (4, ("d",))]


def test_no_captions_at_all(tmp_path):
    write_coco(tmp_path, train={1: []})
    assert "captions_train.json: no images with captions" in error_of(read_coco_files, tmp_path)


def test_same_as_pycocotools(shared_dir):
    root = shared_dir / "coco-sample"
    records = read_coco(root)
    for split in ("train", "val"):
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(root / f"annotations/captions_{split}2017.json")
        theirs = [
            (number, image["file_name"], [annotation["caption"] for annotation in coco.imgToAnns[number]])
            for number, image in coco.imgs.items()
        ]
        ours = [(record.image_id, record.path.name, list(record.captions)) for record in select(records, split)]
        assert ours == theirs
    assert Counter(record.split for record in records) == {"train": 80, "val": 79}
    assert all(record.path.is_file() for record in records)


# What every JSON can get wrong


def test_a_caption_without_its_picture_in_the_list(tmp_path):
    content = coco_content({1: ["a"]})
    content["annotations"] += [{"image_id": number, "caption": "lost"} for number in (77, 78, 78)]
    write_json(tmp_path / "annotations/captions_val.json", content)
    touch(tmp_path / "val/1.jpg")
    message = error_of(read_coco_files, tmp_path)
    assert "captions_val.json" in message and "77 and 1 more" in message


def test_pictures_that_are_not_on_disk(tmp_path):
    write_coco(tmp_path, 2017, val={number: ["a"] for number in range(5)})
    for number in (1, 3, 4):
        (tmp_path / f"val2017/{number}.jpg").unlink()
    message = error_of(read_coco, tmp_path)
    assert "captions_val2017.json" in message and f"{tmp_path / 'val2017/1.jpg'} and 2 more" in message


def test_a_folder_or_a_dead_link_is_no_picture(tmp_path):
    write_coco(tmp_path, train={1: ["a"], 2: ["b"]})
    for number in (1, 2):
        (tmp_path / f"train/{number}.jpg").unlink()
    (tmp_path / "train/1.jpg").mkdir()
    (tmp_path / "train/2.jpg").symlink_to(tmp_path / "gone.jpg")
    assert "1.jpg and 1 more" in error_of(read_coco_files, tmp_path)


def test_each_folder_is_scanned_once(tmp_path, monkeypatch):
    write_coco(tmp_path, train={number: ["a"] for number in range(50)}, val={99: ["b"]})
    scanned, scan = [], os.scandir
    monkeypatch.setattr("captioning.data.places.os.scandir", lambda path: scanned.append(path) or scan(path))
    assert len(read_coco_files(tmp_path)) == 51
    assert scanned == [tmp_path / "train", tmp_path / "val"]


def test_an_image_id_twice_in_a_file(tmp_path):
    content = coco_content({1: ["a"], 2: ["b"]})
    content["images"] += [{"id": 2, "file_name": "1.jpg"}]
    write_json(tmp_path / "annotations/captions_train.json", content)
    touch(tmp_path / "train/1.jpg", tmp_path / "train/2.jpg")
    message = error_of(read_coco_files, tmp_path)
    assert "captions_train.json" in message and "more than one image: 2;" in message


def test_an_image_id_in_two_splits(tmp_path):
    write_coco(tmp_path, train={1: ["a"], 2: ["b"]}, val={2: ["c"], 1: ["d"]})
    message = error_of(read_coco_files, tmp_path)
    assert "captions_val.json" in message and "2 and 1 more" in message


@pytest.mark.parametrize("text", ["{", "", "\x00", "[" * 100_000, '{"images": [1, }'])
def test_malformed_json(tmp_path, text):
    touch(tmp_path / "train/1.jpg", tmp_path / "annotations/captions_train.json")
    (tmp_path / "annotations/captions_train.json").write_text(text)
    assert "captions_train.json as JSON" in error_of(read_coco_files, tmp_path)


def test_json_that_is_not_text(tmp_path):
    touch(tmp_path / "train/1.jpg", tmp_path / "annotations/captions_train.json")
    (tmp_path / "annotations/captions_train.json").write_bytes(b'{"images": "\xff\xfe\xfa"}')
    assert "captions_train.json" in error_of(read_coco_files, tmp_path)


def test_json_with_a_byte_order_mark(tmp_path):
    write_coco(tmp_path, train={1: ["a caf\u00e9"]})
    file = tmp_path / "annotations/captions_train.json"
    file.write_text(json.dumps(json.loads(file.read_text()), ensure_ascii=False), encoding="utf-8-sig")
    assert read_coco_files(tmp_path)[0].captions == ("a caf\u00e9",)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda c: c.pop("images"), "'images'"),
        (lambda c: c.pop("annotations"), "'annotations'"),
        (lambda c: c.update(images={}), "'images' must be a list"),
        (lambda c: c["images"].append(3), "images[1]: the key 'id'"),
        (lambda c: c["images"][0].pop("file_name"), "images[0]: the key 'file_name'"),
        (lambda c: c["images"][0].update(file_name=None), "images[0]: 'file_name' must be text"),
        (lambda c: c["images"][0].update(id="1"), "images[0]: 'id' must be a whole number"),
        (lambda c: c["images"][0].update(id=True), "images[0]: 'id' must be a whole number"),
        (lambda c: c["images"][0].update(id=2**63), "images[0]: 'id' must be from 0"),
        (lambda c: c["images"][0].update(id=-1), "images[0]: 'id' must be from 0"),
        (lambda c: c["annotations"][1].pop("image_id"), "annotations[1]: the key 'image_id'"),
        (lambda c: c["annotations"][1].pop("caption"), "annotations[1]: the key 'caption'"),
        (lambda c: c["annotations"][1].update(caption=5), "annotations[1]: 'caption' must be text"),
    ],
)
def test_missing_and_wrong_keys_in_coco(tmp_path, change, wanted):
    content = coco_content({1: ["a", "b"]})
    change(content)
    write_json(tmp_path / "annotations/captions_train.json", content)
    touch(tmp_path / "train/1.jpg")
    message = error_of(read_coco_files, tmp_path)
    assert "captions_train.json" in message and wanted in message


HOSTILE = ["../secret.jpg", "a/../../secret.jpg", "/etc/hostname", "..", "a\0.jpg"]


@pytest.mark.parametrize("name", HOSTILE)
def test_paths_that_leave_the_root(tmp_path, name):
    root = tmp_path / "root"
    touch(tmp_path / "secret.jpg", root / "images/1.jpg", root / "train/1.jpg")
    coco = coco_content({1: ["a"]})
    coco["images"][0]["file_name"] = name
    write_json(root / "annotations/captions_train.json", coco)
    assert "captions_train.json: images[0]: the path" in error_of(read_coco_files, root)

    write_json(root / "dataset_flickr8k.json", {"images": [karpathy_image(1, "train", "a") | {"filename": name}]})
    assert "dataset_flickr8k.json: images[0]: the path" in error_of(read_toy_karpathy, root)

    image = karpathy_image(1, "train", "a", cocoid=1, filepath="val2014") | {"filename": name}
    write_json(root / "dataset_coco.json", {"images": [image]})
    assert "dataset_coco.json: images[0]: the path" in error_of(read_coco, root)
    write_json(root / "dataset_coco.json", {"images": [image | {"filename": "secret.jpg", "filepath": ".."}]})
    assert "dataset_coco.json: images[0]: the path" in error_of(read_coco, root)

    write_csv(root, "image,caption", f'"{name}",a')
    assert "captions.csv, line 2: the path" in error_of(read_csv, root)


# Karpathy's JSON alone


def test_karpathys_json(tmp_path):
    images = [karpathy_image(8, "val", "a", "b"), karpathy_image(0, "train", "c"), karpathy_image(3, "restval", "d")]
    write_karpathy(tmp_path, *images)
    assert read_toy_karpathy(tmp_path) == [
        Record(8, tmp_path / "images/8.jpg", "val", ("a", "b")),
        Record(0, tmp_path / "images/0.jpg", "train", ("c",)),
        Record(3, tmp_path / "images/3.jpg", "train", ("d",)),
    ]


def test_the_first_picture_folder_that_exists(tmp_path):
    write_karpathy(tmp_path, karpathy_image(1, "train", "a"), folder="Flicker8k_Dataset")
    assert read_toy_karpathy(tmp_path)[0].path == tmp_path / "Flicker8k_Dataset/1.jpg"
    touch(tmp_path / "own/1.jpg")
    for images in ("own", ["none", "own", "Flicker8k_Dataset"]):
        records = read_karpathy(tmp_path, annotations="dataset_flickr8k.json", images=images)
        assert records[0].path == tmp_path / "own/1.jpg"


def test_a_split_that_karpathys_json_lacks(tmp_path):
    write_karpathy(tmp_path, karpathy_image(1, "train", "a"), karpathy_image(2, "val", "b"))
    write_json(tmp_path / "captions_val.json", coco_content({2: ["not read: the split is there"]}))
    write_json(tmp_path / "captions_test.json", coco_content({9: ["c"]}))
    touch(tmp_path / "images/9.jpg")
    records = read_toy_karpathy(tmp_path)
    assert [(record.image_id, record.split) for record in records] == [(1, "train"), (2, "val"), (9, "test")]
    write_json(tmp_path / "captions_test.json", coco_content({1: ["leaked"]}))
    assert "captions_test.json" in error_of(read_toy_karpathy, tmp_path)


@pytest.mark.parametrize("lacking", ["images", "dataset_flickr8k.json"])
def test_no_flickr_says_what_is_wanted_and_where_to_get_it(tmp_path, lacking):
    write_karpathy(tmp_path, karpathy_image(1, "train", "a"))
    os.rename(tmp_path / lacking, tmp_path / "elsewhere")
    message = error_of(read_toy_karpathy, tmp_path)
    for wanted in ("dataset_flickr8k.json", "Flicker8k_Dataset", "caption_datasets.zip", "docs/data.md"):
        assert wanted in message


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda image: image.pop("imgid"), "'imgid'"),
        (lambda image: image.pop("filename"), "'filename'"),
        (lambda image: image.pop("split"), "'split'"),
        (lambda image: image.update(split="dev2"), "not 'dev2'"),
        (lambda image: image.pop("sentences"), "'sentences'"),
        (lambda image: image.update(sentences=["a"]), "'raw'"),
        (lambda image: image["sentences"][0].pop("raw"), "'raw'"),
        (lambda image: image.update(filepath=1), "'filepath' must be text"),
    ],
)
def test_missing_and_wrong_keys_in_karpathys_json(tmp_path, change, wanted):
    images = [karpathy_image(1, "train", "a"), karpathy_image(2, "train", "b")]
    write_karpathy(tmp_path, *images)
    change(images[1])
    write_json(tmp_path / "dataset_flickr8k.json", {"images": images})
    message = error_of(read_toy_karpathy, tmp_path)
    assert "dataset_flickr8k.json: images[1]: " in message and wanted in message


def test_flickr8k_in_both_formats(shared_dir):
    root = shared_dir / "flickr8k"
    karpathy = read_toy_karpathy(root)
    coco = read_coco_files(root, annotations="captions_{split}.json", images="images")
    assert sorted(karpathy) == sorted(coco)
    assert Counter(record.split for record in karpathy) == {"train": 6000, "val": 1000}
    assert {len(record.captions) for record in karpathy} == {5}


# CSV


def test_a_table_with_splits(tmp_path):
    write_csv(
        tmp_path,
        "image,caption,split",
        'b.jpg,"A dog, ""wet"",\nruns.",train',
        "sub/a.jpg, One boat.,val",
        "",
        "./b.jpg,A wet dog. , train ",
        pictures=["b.jpg", "sub/a.jpg"],
    )
    assert read_csv(tmp_path) == [
        Record(0, tmp_path / "b.jpg", "train", ('A dog, "wet",\nruns.', "A wet dog. ")),
        Record(1, tmp_path / "sub/a.jpg", "val", ("One boat.",)),
    ]


def test_other_names_columns_in_another_order_and_a_byte_order_mark(tmp_path):
    write_csv(tmp_path, "Split,Caption, Image", "test,a caf\u00e9,1.jpg", encoding="utf-8-sig")
    os.rename(tmp_path / "captions.csv", tmp_path / "own.csv")
    touch(tmp_path / "photos/1.jpg")
    records = read_csv(tmp_path, file="own.csv", images="photos")
    assert records == [Record(0, tmp_path / "photos/1.jpg", "test", ("a caf\u00e9",))]


# The first 16 bits of `printf NAME | sha256sum`: 0a37 and 17d6 are below 0.1, 2d00 below 0.2, of 1.
PINNED = {"1001.jpg": "test", "1002.jpg": "test", "1013.jpg": "val", "1000.jpg": "train", "1003.jpg": "train"}


def test_hashed_splits_never_move_and_have_their_shares(tmp_path):
    names = [f"{number}.jpg" for number in range(2000)]
    write_csv(tmp_path, "image,caption", *(f"{name},text" for name in names[1000:]), pictures=names)
    before = {record.path: record.split for record in read_csv(tmp_path, test_share=0.1)}
    write_csv(tmp_path, "image,caption", *(f"./{name},text" for name in names))
    after = {record.path: record.split for record in read_csv(tmp_path, val_share=0.1, test_share=0.1)}
    assert {path: after[path] for path in before} == before
    counts = Counter(after.values())
    assert 160 < counts["val"] < 240 and 160 < counts["test"] < 240  # within three standard deviations of 200
    assert {name: before[tmp_path / name] for name in PINNED} == PINNED
    assert {record.split for record in read_csv(tmp_path, val_share=0, test_share=0)} == {"train"}


def test_few_images_have_one_for_validation(tmp_path):
    names = ["1000.jpg", "1003.jpg", "1004.jpg"]  # sha256 of their names: 3eb6…, d12c…, 702b…
    write_csv(tmp_path, "image,caption", *(f"{name},text" for name in names), pictures=names)
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    assert min(hashes.values()) > "1a"
    found = {record.path.name: record.split for record in read_csv(tmp_path, test_share=0)}
    assert found == dict.fromkeys(names, "train") | {min(names, key=hashes.__getitem__): "val"}
    assert {record.split for record in read_csv(tmp_path, val_share=0, test_share=0)} == {"train"}
    write_csv(tmp_path, "image,caption", f"{names[0]},text", pictures=names)
    assert [record.split for record in read_csv(tmp_path)] == ["train"]  # a single image stays in training


@pytest.mark.parametrize("shares", [{"val_share": -0.1}, {"val_share": 0.5, "test_share": 0.5}, {"test_share": 1}])
def test_impossible_shares(tmp_path, shares):
    assert "data.reader.val_share" in error_of(read_csv, tmp_path, kind=ConfigError, **shares)


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([], "the first line must be"),
        (["a.jpg,a dog"], "the first line must be"),
        (["image:caption", "a.jpg:a dog"], "not 'image:caption' (separated by commas, semicolons, tabs or bars)"),
        (["image,caption,set", "a.jpg,a,train"], "not 'image,caption,set'"),
        (["image,caption"], "no images with captions"),
        (
            ["image,caption,split", "a.jpg,x,train", "a.jpg,y,dev2"],
            "line 3: 'split' must be one of train (or training, restval), val (or valid, validation, dev, "
            "development), test (or testing), not 'dev2': correct it",
        ),
        (
            ["image,caption,split", "a.jpg,x,train", "./a.jpg,y,val"],
            "line 3: ./a.jpg is in split val here, but in train in an earlier row: choose one",
        ),
        (["image,caption", 'a.jpg,"two\nlines"', "a.jpg, "], "line 4: the caption of a.jpg is blank"),
        (["image,caption", "a.jpg,x", "b.jpg,a dog,train"], "line 3: 3 fields, not 2"),
        (["image,caption", "a.jpg"], "line 2: 1 fields, not 2"),
        (["image,caption", "a.jpg,x", 'a.jpg,"no end', "a.jpg,y"], "line 3: unexpected end of data"),
        (["image,caption", 'a.jpg,"a" dog'], "line 2: "),
        (["image,caption", "a.jpg,x", "c.jpg,y", "d.jpg,z"], "c.jpg and 1 more"),
        (["image,caption", ",x"], "not on disk"),
    ],
)
def test_bad_tables(tmp_path, lines, wanted):
    write_csv(tmp_path, *lines, pictures=["a.jpg", "b.jpg"])
    message = error_of(read_csv, tmp_path)
    assert "captions.csv" in message and wanted in message


def test_a_table_that_is_not_utf8(tmp_path):
    write_csv(tmp_path, "image,caption", "a.jpg,caf\u00e9", pictures=["a.jpg"], encoding="latin-1")
    assert "captions.csv is not UTF-8" in error_of(read_csv, tmp_path)


def test_no_table(tmp_path):
    message = error_of(read_csv, tmp_path)
    assert (
        "captions.csv" in message and "add a table whose first line is image,caption or image,caption,split" in message
    )
    assert "there is no folder" in error_of(read_csv, tmp_path / "nowhere")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1))
@example(["a\r\nb\rc"])
def test_any_caption_survives_the_table(tmp_path, captions):
    captions = [f".{caption}" for caption in captions]  # neither blank nor beginning with a space
    touch(tmp_path / "a.jpg")
    with (tmp_path / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *(("a.jpg", caption) for caption in captions)])
    assert read_csv(tmp_path, val_share=0, test_share=0)[0].captions == tuple(captions)


# Splits


def test_select(tmp_path):
    records = [Record(number, tmp_path, split, ("a",)) for number, split in enumerate(["val", "train", "val"])]
    assert [record.image_id for record in select(records, "val")] == [0, 2]
    message = error_of(select, records, "test")
    assert "'test'" in message and "val 2, train 1" in message
    assert "none" in error_of(select, [], "train")


@pytest.mark.parametrize("last", [["en", "en"], ["95%", "97%"], ["http://x/y", "http://x/z"]])
def test_a_column_that_the_first_line_does_not_name_is_no_part_of_the_captions(tmp_path, last):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    rows = [f"a.png,A dog,{last[0]}", f"b.png,A cat,{last[1]}"]
    (tmp_path / "captions.csv").write_text("\n".join(["image,caption", *rows]) + "\n")
    with pytest.raises(
        DataError, match=r"captions\.csv: every row has one more field \('.*'\) than the first line: name that column"
    ):
        read_csv(tmp_path)
    (tmp_path / "captions.csv").write_text("image,caption\na.png,A dog, wet\nb.png,A cat, black\n")
    assert [record.captions for record in read_csv(tmp_path)] == [("A dog, wet",), ("A cat, black",)]
