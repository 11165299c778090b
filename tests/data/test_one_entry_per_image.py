"""No reader takes one image twice. In two splits, a model would be validated on what it was trained on."""

import json

import pytest
from miniatures import coco_json, put

from captioning.config import AuditConfig, build, check, compose
from captioning.errors import DataError

FLICKR30K_CN = {
    "train": "flickr30kzhbbosontrain/TextData/seg.flickr30kzhbbosontrain.caption.txt",
    "val": "flickr30kzhbbosonval/TextData/seg.flickr30kzhbbosonval.caption.txt",
}


def multi30k_twice(root):
    put(root, {f"flickr30k-images/{name}.jpg": None for name in (1, 2)})
    for split, names in {"train": (1, 2), "val": (1,)}.items():
        put(root, {f"data/task1/image_splits/{split}.txt": "".join(f"{name}.jpg\n" for name in names)})
        put(root, {f"data/task1/raw/{split}.de": "".join(f"ein Hund {name}\n" for name in names)})
    return "multi30k", ["data.reader.language=de"]


def flickr30k_cn_twice(root):
    put(root, {f"flickr30k-images/{name}.jpg": None for name in (1, 2)})
    put(root, {FLICKR30K_CN["train"]: "1#zhb#0 a dog\n2#zhb#0 a cat\n", FLICKR30K_CN["val"]: "1#zhb#0 a dog\n"})
    return "flickr30k_cn", ["data.reader.captions.test=null"]


def karpathy_twice(root):
    put(root, {"images/1.jpg": None})
    sentences = [{"raw": "a dog", "tokens": ["a", "dog"]}]
    entries = [
        {"filename": "1.jpg", "imgid": at, "split": split, "sentences": sentences}
        for at, split in enumerate(("train", "val"))
    ]
    put(root, {"dataset_flickr8k.json": {"images": entries, "dataset": "flickr8k"}})
    return "flickr8k", []


def vizwiz_twice(root):
    marks = {"is_rejected": False, "is_precanned": False, "text_detected": False}
    name = "VizWiz_train_00000001.jpg"
    put(root, {f"train/{name}": None})
    content = coco_json({1: name, 2: name}, {1: ["a dog"], 2: ["a cat"]}, **marks)
    put(root, {"annotations/train.json": json.dumps(content)})
    return "vizwiz", []


@pytest.mark.parametrize(
    ("draw", "told"),
    [
        (multi30k_twice, r"images with two entries: 1\.jpg \(in train and in val\); keep one entry per image"),
        (flickr30k_cn_twice, r"images with two entries: 1\.jpg \(in train and in val\)"),
        (karpathy_twice, r"dataset_flickr8k\.json: images with two entries: 1\.jpg \(in train and in val\)"),
        (vizwiz_twice, r"train\.json: images with two entries: VizWiz_\S+ \(image ids 1 and 2\)"),
    ],
)
def test_an_image_with_two_entries_is_refused(draw, told, tmp_path):
    data, settings = draw(tmp_path)
    config = check(compose("audit", [f"data={data}", f"data.root={tmp_path}", *settings]), AuditConfig)
    with pytest.raises(DataError, match=told):
        build(config["data"]["reader"])
