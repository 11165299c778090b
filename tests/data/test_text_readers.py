"""Readers of Conceptual Captions, Multi30k, and the text files of Flickr8k and Flickr30k; Kaggle's forms of these."""

import gzip
import hashlib
import re
import shutil
import zlib
from collections import Counter
from pathlib import Path

import pytest
from miniatures import (
    FLICKR_LISTS,
    THREE,
    URLS,
    cc12m,
    conceptual,
    conceptual_table,
    flickr8k_ar,
    flickr8k_cn,
    flickr8k_text,
    flickr30k_and_table,
    flickr30k_cn,
    flickr30k_text,
    kaggle_flickr8k,
    kaggle_flickr30k,
    multi30k,
    put,
)

from captioning.config import AuditConfig, build, check, compose
from captioning.data import (
    Faults,
    read_conceptual,
    read_csv,
    read_flickr_text,
    read_json,
    read_multi30k,
    recognize_data,
)
from captioning.errors import ConfigError, DataError


def error_of(reader, *arguments, kind=DataError, **keywords):
    with pytest.raises(kind) as caught:
        reader(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read(root, data, *overrides):
    """The records with the settings of conf/data."""
    given = [f"data={data}", f"data.root={root}", *overrides]
    return build(check(compose("audit", given), AuditConfig)["data"]["reader"])


# Conceptual Captions

TRAIN = "Train_GCC-training.tsv"


def cc3m(root, names, urls=URLS, header="", content=None):
    """Write a training table, and files with these names."""
    put(root, {TRAIN: conceptual_table(urls, header)} | {f"training/{name}": content for name in names})


def numbers(root, **options):
    """The rows whose image was found, by their captions: {file: row}."""
    settings = {"files": {"train": TRAIN}, "images": {"train": ["training", "train"]}} | options
    records = read_conceptual(root, **settings)
    return {record.path.name: [int(text.removeprefix("words ")) for text in record.captions] for record in records}


def test_conceptual_rows_without_a_local_image_are_counted(tmp_path, capsys):
    conceptual(tmp_path)
    records = read(tmp_path, "conceptual")
    found = [(record.image_id, record.split, record.captions) for record in records]
    assert found == [(0, "train", ("words 0",)), (3, "train", ("words 3",)), (4, "val", ("words 0",))]
    assert f"{tmp_path / TRAIN}: 2 of 4 rows left out, with no local image" in capsys.readouterr().err
    faults = Faults()
    settings = {"files": {"train": TRAIN}, "images": {"train": "training"}}
    assert len(read_conceptual(tmp_path, **settings, faults=faults)) == 2 and not faults.messages
    assert faults.noted["images left out"][0]["reason"] == "2 rows with no local image"


CRC = [str(zlib.crc32(url.encode())) for url in URLS]
MD5 = [hashlib.md5(url.encode()).hexdigest() for url in URLS]


@pytest.mark.parametrize(
    "names",
    [
        ["0.jpg", "2.png", "3.jpg"],
        ["000000000.jpg", "000000002.png", "000000003.webp"],
        ["00000/000000000.jpg", "00000/000000002.jpg", "00001/000000003.jpg"],
        ["1.jpg", "3.jpg", "4.jpg"],
        [f"{n}_{CRC[n]}.jpg" for n in (0, 2, 3)],
        [f"{CRC[n]}.jpg" for n in (0, 2, 3)],
        [f"{MD5[n]}.jpg" for n in (0, 2, 3)],
        [f"{MD5[n]}" for n in (0, 2, 3)],
    ],
    ids=["index", "zeros", "shards", "from 1", "index_crc32", "crc32", "md5", "no suffix"],
)
@pytest.mark.parametrize("header", ["", "caption\turl\n"])
def test_every_way_to_name_the_files(tmp_path, names, header):
    cc3m(tmp_path, names, header=header)
    put(tmp_path, {"training/00000/notes.txt": "x", "training/stats.json": {}})
    assert list(numbers(tmp_path).values()) == [[0], [2], [3]]
    assert list(numbers(tmp_path, images={"train": "training"}).values()) == [[0], [2], [3]]


def test_a_number_is_not_guessed(tmp_path):
    cc3m(tmp_path, ["1.jpg", "2.jpg"])
    told = error_of(numbers, tmp_path)
    assert "count the rows from 0 or from 1" in told and "set data.reader.first=0 or data.reader.first=1" in told
    assert numbers(tmp_path, first=0) == {"1.jpg": [1], "2.jpg": [2]}
    assert numbers(tmp_path, first=1) == {"1.jpg": [0], "2.jpg": [1]}
    put(tmp_path, {"training/5.jpg": None})
    assert "has only 4 rows, counted from 1" in error_of(numbers, tmp_path, first=1)
    assert "5.jpg" in error_of(numbers, tmp_path, first=1)
    put(tmp_path, {"training/001.jpg": None})
    assert "1.jpg are the same number: keep one of them" in error_of(numbers, tmp_path, first=0)


def test_the_addresses_that_img2dataset_stores_are_compared(tmp_path):
    cc3m(tmp_path, ["00000/000000001.jpg", "00000/000000002.jpg"])
    put(tmp_path, {f"training/00000/00000000{n}.json": {"url": URLS[n]} for n in (1, 2)})
    assert numbers(tmp_path) == {"000000001.jpg": [1], "000000002.jpg": [2]}
    assert "its image is not of row 0 of" in error_of(numbers, tmp_path, first=1)
    put(tmp_path, {"training/00000/000000002.json": {"url": "http://other"}})
    assert "000000002.json: its image is not of row 2 of" in error_of(numbers, tmp_path)


def test_a_column_of_file_names(tmp_path):
    rows = "caption\turl\tfile\nwords 0\thttp://a\ta.jpg\nwords 1\thttp://b\t\nwords 2\thttp://c\tgone.jpg\n"
    put(tmp_path, {TRAIN: rows, "training/a.jpg": None})
    assert numbers(tmp_path) == numbers(tmp_path, names="column") == {"a.jpg": [0]}
    put(tmp_path, {TRAIN: rows.replace("gone.jpg", "../a.jpg")})
    assert "leads out of" in error_of(numbers, tmp_path)
    cc3m(tmp_path, ["0.jpg"])
    assert "has no column of file names" in error_of(numbers, tmp_path, names="column")


def test_the_order_of_columns_and_rows_of_one_address(tmp_path):
    cc12m(tmp_path)
    records = read(tmp_path, "conceptual", "data.reader.files.train=cc12m.tsv")
    assert [record.captions for record in records] == [(f"words {n}",) for n in range(4)]
    cc3m(tmp_path / "twice", [f"{MD5[0]}.jpg"], urls=[URLS[0], URLS[1], URLS[0]])
    assert numbers(tmp_path / "twice") == {f"{MD5[0]}.jpg": [0, 2]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a dog\n", "the first line must be a caption, a tab and a web address"),
        ("http://a\thttp://b\n", "the first line must be a caption, a tab and a web address"),
        ("a dog\thttp://a\t7\n", "the first line must be a caption, a tab and a web address"),
        (f"a dog\t{URLS[0]}\na cat\n", "line 2: must be a caption, a tab and a web address, not 'a cat'"),
        (f"a dog\t{URLS[0]}\nhttp://b\ta cat\n", "line 2: must be a caption, a tab and a web address"),
    ],
)
def test_what_a_table_of_addresses_has_wrong(tmp_path, text, told):
    put(tmp_path, {TRAIN: text, "training/0.jpg": None})
    assert told in error_of(numbers, tmp_path)


def test_images_of_another_table_and_missing_files(tmp_path):
    cc3m(tmp_path, ["cat.jpg"])
    assert "has no image that belongs to a row of Train_GCC-training.tsv (cat)" in error_of(numbers, tmp_path)
    cc3m(tmp_path, [f"{MD5[1]}.jpg", f"{CRC[1]}.jpg"])
    assert "named in several ways: choose data.reader.names=crc32|md5" in error_of(numbers, tmp_path)
    put(tmp_path, {f"training/x/{MD5[1]}.png": None})
    assert "have the same name: keep one" in error_of(numbers, tmp_path)
    shutil.rmtree(tmp_path / "training")
    assert f"it needs {TRAIN} with the images in training or train" in error_of(numbers, tmp_path)
    assert "data.reader.names must be one of auto, index" in error_of(numbers, tmp_path, names="sha", kind=ConfigError)
    assert "data.reader.first must be null, 0 or 1, not 2" in error_of(numbers, tmp_path, first=2, kind=ConfigError)
    assert "the split 'dev' must be" in error_of(numbers, tmp_path, images={"dev": "x"}, kind=ConfigError)


# Multi30k


def test_multi30k_in_every_language_and_task(tmp_path):
    multi30k(tmp_path, ("en", "de"), (1, 2))
    english, german, five = (
        read(tmp_path, "multi30k"),
        read_multi30k(tmp_path, language="de"),
        read_multi30k(tmp_path, task=2),
    )
    assert [record[:3] for record in english] == [record[:3] for record in german] == [record[:3] for record in five]
    assert Counter(record.split for record in english) == {"train": 2, "val": 1, "test": 2}
    assert [record.image_id for record in english] == [0, 1, 1_000_000, 2_000_000, 2_000_001]
    assert german[1].captions == ("de train 2.jpg",) and german[1].path.name == "2.jpg"
    assert five[4].captions == tuple(f"en test_2016.{n} 5.jpg" for n in range(1, 6))


def test_multi30k_unpacked_in_one_folder(tmp_path):
    put(tmp_path, {"train.fr": "un chien\nun chat\n", "train.txt": "1.jpg\n2.jpg\n", "1.jpg": None, "2.jpg": None})
    records = read_multi30k(tmp_path, language="fr")
    assert [(record.split, record.captions) for record in records] == [
        ("train", ("un chien",)),
        ("train", ("un chat",)),
    ]


def test_only_a_line_feed_ends_a_caption(tmp_path):
    text = "ein Hund\x0bbellt\r\neine Katze\u2028schl\u00e4ft\x85\n"
    put(tmp_path, {"train.de": text, "train.txt": "1.jpg\n2.jpg\n", "1.jpg": None, "2.jpg": None})
    assert [record.captions for record in read_multi30k(tmp_path, language="de")] == [
        ("ein Hund\x0bbellt",),
        ("eine Katze\u2028schl\u00e4ft\x85",),
    ]


def test_the_test_images_of_2017_and_those_of_coco(tmp_path):
    multi30k(tmp_path, ("de",))
    raw, lists = "data/task1/raw/test_2017_mscoco.de.gz", "data/task1/image_splits/test_2017_mscoco.txt"
    name = "COCO_train2014_000000117071.jpg"
    put(tmp_path, {raw: gzip.compress(b"ein Hund\nein Pferd\n"), lists: f"{name}#367178\n{name}#657409\n"})
    put(tmp_path, {f"flickr30k-images/{name}": None})
    records = read_multi30k(tmp_path, language="de", test="test_2017_mscoco")
    tested = [(record.image_id, record.captions) for record in records if record.split == "test"]
    assert tested == [(4_000_000, ("ein Hund", "ein Pferd"))]
    told = error_of(read_multi30k, tmp_path, language="de", test="test_2017_mcsoco")
    assert (
        "for data.reader.test=test_2017_mcsoco. Choose one of those that are there: test_2016_flickr, test_2017_mscoco"
        in told
    )
    for file in ("raw/train.de.gz", "image_splits/train.txt"):  # ids do not depend on the other files
        (tmp_path / "data/task1" / file).unlink()
    assert [record.image_id for record in read_multi30k(tmp_path, language="de")] == [1_000_000, 2_000_000, 2_000_001]


def test_the_audit_of_multi30k_lists_every_fault(tmp_path):
    multi30k(tmp_path, ("de",))
    for name in ("train", "val"):
        put(tmp_path, {f"data/task1/raw/{name}.de.gz": gzip.compress(b"ein Hund\n" * 7)})
    faults = Faults()
    records = read_multi30k(tmp_path, language="de", faults=faults)
    assert [record.split for record in records] == ["test", "test"]
    assert len(faults.messages) == 2 and all("has 7 lines, but" in message for message in faults.messages)


@pytest.mark.parametrize(
    ("task", "removed", "told"),
    [
        (1, "image_splits/val.txt", "the captions val.de, but no list of their images: add data/task1/image_splits/"),
        (1, "raw/val.de.gz", "the list val.txt, but no captions in 'de' for it: add data/task1/raw/val.de.gz from"),
        (1, "raw/test_2016_flickr.de.gz", "the list test_2016_flickr.txt, but no captions in 'de' for it: add data/"),
        (2, "image_splits/val_images.txt", "the captions val.1.de, but no list of their images: add data/task2/image_"),
        (2, "raw/val.?.de.gz", "no captions in 'de' for it: add data/task2/raw/val.1.de.gz … val.5.de.gz from github"),
    ],
)
def test_half_of_a_split_of_multi30k_is_refused(tmp_path, task, removed, told):
    multi30k(tmp_path, tasks=(task,))
    for file in list((tmp_path / f"data/task{task}").glob(removed)):
        file.unlink()
    found = error_of(read_multi30k, tmp_path, language="de", task=task)
    assert found.startswith(f"data.root={tmp_path} has the ") and told in found and "out of data.root" in found
    faults = Faults()
    assert len(read_multi30k(tmp_path, language="de", task=task, faults=faults)) in (3, 4)
    assert faults.messages == [found]


def test_what_multi30k_can_have_wrong(tmp_path):
    assert "add data/task1/raw/train.en.gz and data/task1/image_splits/" in error_of(read_multi30k, tmp_path)
    multi30k(tmp_path, ("de",), (2,))
    told = error_of(read_multi30k, tmp_path)
    assert "or use what is there: data.reader.language=de data.reader.task=2 (" in told
    assert (
        "data.reader.language=fr is not a language of data.reader.task=2. Choose data.reader.task=1: en, de, fr, cs"
        in (error_of(read_multi30k, tmp_path, language="fr", task=2, kind=ConfigError))
    )
    (tmp_path / "data/task2/raw/train.3.de.gz").unlink()
    assert "has no train.3.de, but other files of its split" in error_of(read_multi30k, tmp_path, language="de", task=2)
    multi30k(tmp_path, ("de",))
    put(tmp_path, {"data/task1/raw/val.de.gz": gzip.compress(b"eins\nzwei\n")})
    told = error_of(read_multi30k, tmp_path, language="de")
    assert "val.de.gz has 2 lines, but" in told and "val.txt lists 1 images" in told
    packed = gzip.compress(b"eins\n" * 9)
    for damaged in (b"no gzip", packed[:-9], packed[:12] + b"\xff" + packed[13:]):
        put(tmp_path, {"data/task1/raw/val.de.gz": damaged})
        assert "cannot read" in error_of(read_multi30k, tmp_path, language="de")
    put(tmp_path, {"data/task1/raw/val.de.gz": gzip.compress(b"eins\n")})
    (tmp_path / "flickr30k-images/3.jpg").unlink()
    assert "images that are not on disk" in error_of(read_multi30k, tmp_path, language="de")


# Text files of Flickr8k and Flickr30k


def test_flickr8k_with_its_own_lists(tmp_path, capsys):
    flickr8k_text(tmp_path)
    put(tmp_path, {"Flickr8k.token.txt": "x.jpg.1#0\tno list\n" + (tmp_path / "Flickr8k.token.txt").read_text()})
    records = read(tmp_path, "flickr8k_text")
    assert [(record.image_id, record.path.name, record.split) for record in records] == [
        (0, "a.jpg", "train"),
        (1, "b.jpg", "val"),
        (2, "c.jpg", "test"),
    ]
    assert records[0].captions == tuple(f"caption {n} ." for n in range(5))
    assert "1 image left out, in no list of a split (first: x.jpg.1)" in capsys.readouterr().err


def test_arabic_and_chinese_have_the_same_ids(tmp_path, capsys):
    for data, draw in (("flickr8k_ar", flickr8k_ar), ("flickr8k_cn", flickr8k_cn), ("flickr8k_text", flickr8k_text)):
        draw(tmp_path / data)
        assert [(r.image_id, r.path.name, r.split) for r in read(tmp_path / data, data)] == [
            (n, name, split) for n, (name, split) in enumerate(THREE.items())
        ]
    assert read(tmp_path / "flickr8k_ar", "flickr8k_ar")[0].captions == ("كلب 0", "كلب 1", "كلب 2")
    assert read(tmp_path / "flickr8k_cn", "flickr8k_cn")[1].captions == ("一只狗。",) * 5
    machine = read(tmp_path / "flickr8k_cn", "flickr8k_cn", "data.reader.captions=flickr8kzhb.caption.txt")
    assert machine[2].captions == ("狗。",) * 5


def test_a_split_without_images_can_be_left_out(tmp_path, capsys):
    flickr8k_text(tmp_path)
    (tmp_path / "Flicker8k_Dataset/c.jpg").unlink()
    assert "images that are not on disk" in error_of(read, tmp_path, "flickr8k_text")
    records = read(tmp_path, "flickr8k_text", "data.reader.lists.test=null")
    assert [record.split for record in records] == ["train", "val"]


def test_the_broken_line_of_the_arabic_file_is_joined(tmp_path, capsys):
    flickr8k_ar(tmp_path)
    file = tmp_path / "data/Flickr8k_text/Flickr8k.arabic.full.txt"
    put(tmp_path, {str(file): "a.jpg#0\tحقيبة ب\nعيدا في المنطقة المشجرة\nb.jpg#0\tكلب\n"})
    records = read(tmp_path, "flickr8k_ar")
    assert [record.captions for record in records] == [("حقيبة بعيدا في المنطقة المشجرة",), ("كلب",)]
    assert "line 2 was joined to line 1" in capsys.readouterr().err


def test_flickr30k_cn_loses_its_tags_and_keeps_its_words(tmp_path):
    flickr30k_cn(tmp_path)
    assert [(record.split, set(record.captions)) for record in read(tmp_path, "flickr30k_cn")] == [
        ("train", {"一 只 狗"}),
        ("val", {"一 只 狗"}),
        ("test", {"一 只 狗"}),
    ]
    name = "flickr30kzhmbosontest/TextData/seg.flickr30kzhmbosontest.caption.txt"
    put(tmp_path, {name: "c#zhm#0 现在:t 是:v 12:30\n"})  # not every word has a tag
    assert read(tmp_path, "flickr30k_cn")[2].captions == ("现在 是 12:30",)
    put(tmp_path, {name: "c#zhm#0 现在 是 12:30 a:b\n"})  # a file without tags keeps its words
    assert read(tmp_path, "flickr30k_cn")[2].captions == ("现在 是 12:30 a:b",)


@pytest.mark.parametrize("text", ["现在:t 是 早上 了", "现在:t 是:v 早上 了", "现在:t"])
def test_flickr30k_cn_with_tags_on_some_words_is_refused(tmp_path, text):
    flickr30k_cn(tmp_path)
    name = "flickr30kzhmbosontest/TextData/seg.flickr30kzhmbosontest.caption.txt"
    put(tmp_path, {name: f"c#zhm#0 一 只 狗\nc#zhm#1 {text}\n"})
    told = error_of(read, tmp_path, "flickr30k_cn")
    assert f"{name}, line 2: '现在:t' is a word with its part of speech, but most words of the file have none" in told


def test_lists_of_unknown_splits_are_refused(tmp_path):
    flickr8k_text(tmp_path)
    told = error_of(read, tmp_path, "flickr8k_text", "+data.reader.lists.dev=x.txt", kind=ConfigError)
    assert "the split 'dev' must be one of train, val, test" in told


def test_what_text_files_have_wrong(tmp_path):
    needs = error_of(read, tmp_path, "flickr8k_cn")
    assert "needs flickr8kzhc.caption.txt, flickr8ktrain.txt, flickr8kval.txt, flickr8ktest.txt, and a folder" in needs
    flickr8k_text(tmp_path)
    put(tmp_path, {FLICKR_LISTS["val"]: "a.jpg\n"})
    told = error_of(read, tmp_path, "flickr8k_text")
    assert "a.jpg is also in Flickr_8k.trainImages.txt: remove it from one of them" in told
    put(tmp_path, {FLICKR_LISTS["val"]: "b.jpg\n", "Flickr8k.token.txt": "a.jpg#0\ta dog\nb.jpg a cat\n"})
    assert "line 2: must be NAME#NUMBER and a caption, not 'b.jpg a cat'" in error_of(read, tmp_path, "flickr8k_text")
    put(tmp_path, {"Flickr8k.token.txt": "../a.jpg#0\ta dog\n", FLICKR_LISTS["train"]: "../a.jpg\n"})
    assert "leads out of" in error_of(read, tmp_path, "flickr8k_text")
    put(tmp_path, {"Flickr8k.token.txt": "d.jpg#0\ta dog\n", FLICKR_LISTS["train"]: "d.jpg\n"})
    assert "images that are not on disk" in error_of(read, tmp_path, "flickr8k_text")
    faults = Faults()
    put(tmp_path, {"Flickr8k.token.txt": "oops\nc.jpg#0\ta dog\n"})
    lists = {"test": FLICKR_LISTS["test"]}
    assert len(read_flickr_text(tmp_path, captions="Flickr8k.token.txt", lists=lists, faults=faults)) == 1
    assert len(faults.messages) == 1 and "line 1: must be NAME#NUMBER" in faults.messages[0]


# Kaggle's forms, and the cases that users sent


def test_kaggle_flickr30k_beside_and_inside_its_nested_folder(tmp_path):
    kaggle_flickr30k(tmp_path)
    wanted = {name: tuple(f"caption {n} ." for n in range(5)) for name in THREE}
    assert {record.path.name: record.captions for record in read_csv(tmp_path, file="results.csv")} == wanted
    nested = tmp_path / "kaggle/flickr30k_images"
    put(nested, {f"flickr30k_images/{name}": None for name in THREE})
    shutil.move(tmp_path / "results.csv", nested / "results.csv")
    for root, file in ((nested, "results.csv"), (nested.parent, "flickr30k_images/results.csv")):
        assert {record.path.name: record.captions for record in read_csv(root, file=file)} == wanted


FIVE = tuple(f"caption {n} ." for n in range(5))


def test_flickr30k_with_its_own_lists(tmp_path, capsys):
    flickr30k_text(tmp_path)
    wanted = [(0, "a.jpg", "train", FIVE), (1, "b.jpg", "val", FIVE), (2, "c.jpg", "test", FIVE)]
    found = [(r.image_id, r.path.name, r.split, r.captions) for r in read(tmp_path, "flickr30k_text")]
    assert found == wanted
    told = capsys.readouterr().err
    assert told == (
        f"{tmp_path / 'results.csv'}, line 11: the bar after the number is missing, as in one row of the published "
        "file: 'b.jpg| 4   caption 4 .' was read as the caption 'caption 4 .'\n"
    )
    rows = "".join(f"{name}#{n}\tanother {n} .\n" for name in THREE for n in range(5))
    put(tmp_path, {"results_20130124.token": rows})
    assert read(tmp_path, "flickr30k_text")[0].captions == tuple(f"another {n} ." for n in range(5))
    (tmp_path / "results.csv").unlink()
    (tmp_path / "results_20130124.token").unlink()
    needed = "needs results_20130124.token or results.csv, train.txt, val.txt, test.txt, and a folder of the images"
    assert needed in error_of(read, tmp_path, "flickr30k_text")


def test_flickr30k_has_the_split_of_karpathys_file_beside_the_table(tmp_path):
    flickr30k_and_table(tmp_path)
    assert {record.path.name: record.split for record in read(tmp_path, "flickr30k")} == THREE
    (tmp_path / "dataset_flickr30k.json").unlink()
    told = error_of(read, tmp_path, "flickr30k")
    assert "has results.csv, but not dataset_flickr30k.json, which has the usual split: add it from https" in told
    assert "data=flickr30k_text; or use data=csv data.reader.file=results.csv, which splits by a hash" in told
    (tmp_path / "results.csv").unlink()
    assert "needs dataset_flickr30k.json (from " in error_of(read, tmp_path, "flickr30k")


@pytest.mark.parametrize(
    ("draw", "lacks"), [(kaggle_flickr30k, "dataset_flickr30k.json"), (flickr30k_text, ""), (kaggle_flickr8k, "")]
)
def test_a_table_without_the_split_of_papers_says_so(draw, lacks, tmp_path):
    draw(tmp_path)
    line = recognize_data(tmp_path).line()
    assert ("without the split" in line) is bool(lacks) and f"for that, add {lacks})" * bool(lacks) in line


def cases(request, name):
    folder = Path(request.config.getoption("--shared")) / "cases" / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


TABLES = ("results.csv", "Flickr8k.token.txt", "captions.txt", "captions_unquoted.txt", "captions_semicolon.csv")


@pytest.mark.parametrize("file", TABLES)
def test_published_tables(request, file):
    root = cases(request, "05-flickr-tables")
    first, found = read_csv(root, file=TABLES[0]), read_csv(root, file=file)
    assert found == first and Counter(len(record.captions) for record in found) == {5: 40}


@pytest.mark.parametrize(
    "file",
    ["windows.csv", "case.csv", "nfd.csv", "dotslash.csv", "semicolon.csv", "tabs.tsv", "utf16.csv", "cp1252.csv"],
)
def test_names_as_another_system_writes_them(request, file):
    root = cases(request, "19-paths-in-tables")
    assert read_csv(root, file=file)


def test_kaggle_flickr30k_with_karpathys_file(request):
    records = read(cases(request, "14c-flickr30k-kaggle"), "flickr30k")
    assert {record.path.parent.name for record in records} == {"flickr30k_images"}


@pytest.mark.parametrize("data", ["flickr8k_text", "flickr8k_cn"])
def test_a_list_that_is_not_there_is_named(tmp_path, data):
    {"flickr8k_text": flickr8k_text, "flickr8k_cn": flickr8k_cn}[data](tmp_path)
    for split in ("val", "test"):
        told = error_of(read, tmp_path, data, f"data.reader.lists.{split}=typo.txt")
        setting = f"data.reader.lists.{split}"
        assert told == f"data.root={tmp_path} has no typo.txt: add it, correct {setting}, or set {setting}=null"


def test_a_caption_file_of_a_split_that_is_not_there_is_named(tmp_path):
    flickr30k_cn(tmp_path)
    told = error_of(read, tmp_path, "flickr30k_cn", "data.reader.captions.test=typo.txt")
    setting = "data.reader.captions.test"
    assert told == f"data.root={tmp_path} has no typo.txt: add it, correct {setting}, or set {setting}=null"
    left = read(tmp_path, "flickr30k_cn", f"{setting}=null")
    assert [record.split for record in left] == ["train", "val"]


def test_a_missing_default_list_is_a_fault_of_the_audit(tmp_path):
    flickr8k_text(tmp_path)
    (tmp_path / FLICKR_LISTS["test"]).unlink()
    faults = Faults()
    read_flickr_text(tmp_path, captions="Flickr8k.token.txt", lists=FLICKR_LISTS, faults=faults)
    assert [FLICKR_LISTS["test"] in message for message in faults.messages] == [True]


def test_repeated_numbers_and_images_without_captions_are_reported(tmp_path, capsys):
    flickr8k_text(tmp_path)
    put(
        tmp_path, {"Flickr8k.token.txt": "a.jpg#0\ta dog\na.jpg#0\ta cat\na.jpg#0\ta cow\nb.jpg#0\ta dog\nc.jpg#0\t \n"}
    )
    records = read(tmp_path, "flickr8k_text")
    assert records[0].captions == ("a dog", "a cat", "a cow") and len(records) == 2
    file, printed = tmp_path / "Flickr8k.token.txt", capsys.readouterr().err.splitlines()
    assert printed == [
        f"{file}: 1 number of a caption in more than one line (first: a.jpg#0, 3 lines); all lines are used",
        f"{file}: 1 image without captions left out (c.jpg, …)",
    ]
    faults = Faults()
    read_flickr_text(tmp_path, captions="Flickr8k.token.txt", lists=FLICKR_LISTS, faults=faults)
    assert faults.noted == {
        "captions with the same number": [{"file": "a.jpg#0", "reason": "3 lines of Flickr8k.token.txt"}]
    }


def test_lines_that_end_in_carriage_returns_are_named(tmp_path):
    flickr8k_text(tmp_path)
    file = tmp_path / "Flickr8k.token.txt"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r"))
    assert error_of(read, tmp_path, "flickr8k_text") == (
        f"{file}: its lines end in a carriage return (CR) alone: save it with line feeds (LF)"
    )


def test_repeated_numbers_of_the_table_of_flickr30k_are_reported(tmp_path, capsys):
    flickr30k_text(tmp_path)
    file = tmp_path / "results.csv"
    read(tmp_path, "flickr30k_text")
    assert "more than one line" not in capsys.readouterr().err
    put(tmp_path, {"results.csv": file.read_text() + "a.jpg| 0| caption again .\nc.jpg| 2| caption 2 .\n"})
    assert read(tmp_path, "flickr30k_text")[0].captions == (*FIVE, "caption again .")
    line = f"{file}: 2 numbers of a caption in more than one line (first: a.jpg#0, 2 lines); all lines are used"
    assert line in capsys.readouterr().err.splitlines()
    faults = Faults()
    lists = {split: f"{split}.txt" for split in FLICKR_LISTS}
    read_flickr_text(tmp_path, captions="results.csv", lists=lists, faults=faults)
    assert [item["file"] for item in faults.noted["captions with the same number"]] == ["a.jpg#0", "c.jpg#2"]


@pytest.mark.parametrize(("before", "number"), [(b"", 1), (b"b.jpg#0\ta cat\r\n", 2)])
def test_a_carriage_return_between_other_line_ends_is_named(tmp_path, before, number):
    flickr8k_text(tmp_path)
    file = tmp_path / "Flickr8k.token.txt"
    file.write_bytes(before + file.read_bytes().replace(b"\n", b"\r", 2))
    told = error_of(read, tmp_path, "flickr8k_text")
    assert told.startswith(f"{file}, line {number}: a carriage return (CR) alone is in the line")
    assert told.endswith("save the file with line feeds (LF)")


@pytest.mark.parametrize("encoding", ["gbk", "shift_jis"])
def test_json_in_another_encoding(tmp_path, encoding):
    file = tmp_path / "captions.json"
    file.write_bytes('{"caption": "犬が走る"}'.encode(encoding))
    assert re.fullmatch(rf"{re.escape(str(file))} is not UTF-8 \(.*\): save it as UTF-8", error_of(read_json, file))
