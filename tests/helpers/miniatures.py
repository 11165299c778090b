"""Draw miniatures of the official layouts of data sets: two or three images per split, every file with its real name.

`MINIATURES` lists all of them with what `data=auto` should make of each.
"""

import gzip
import hashlib
import json
import tarfile
import zlib
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image


def photo(shade: int = 0) -> bytes:
    """Return a JPEG of one color."""
    content = BytesIO()
    Image.new("RGB", (8, 8), (shade % 256, 80, 160)).save(content, "JPEG")
    return content.getvalue()


PHOTO = photo()


def put(root: Path, files: dict[str, Any]) -> Path:
    """Write files: bytes as they are, text in UTF-8, everything else as JSON; None is a photo."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.write_bytes(PHOTO)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            path.write_bytes(text.encode())
    return root


def coco_json(images: dict[int, str], captions: dict[int, list[str]], **marks: Any) -> dict[str, Any]:
    """Return a captions file in COCO's format."""
    listed = [{"image_id": number, "caption": text} | marks for number, texts in captions.items() for text in texts]
    return {
        "images": [{"id": number, "file_name": name} for number, name in images.items()],
        "annotations": [{"id": index} | each for index, each in enumerate(listed)],
    }


def karpathy_json(splits: dict[str, str], **keys: Any) -> dict[str, Any]:
    """Return Karpathy's JSON: {file name: split}, with one caption per image."""
    return {
        "images": [
            {"imgid": n, "filename": name, "split": split, "sentences": [{"raw": f"caption {n}"}]} | keys
            for n, (name, split) in enumerate(splits.items())
        ]
    }


THREE = {"a.jpg": "train", "b.jpg": "val", "c.jpg": "test"}


def flickr8k(root: Path) -> None:
    put(root, {"dataset_flickr8k.json": karpathy_json(THREE)} | {f"images/{name}": None for name in THREE})


def flickr30k_kaggle(root: Path) -> None:
    """The images one folder deeper, as Kaggle's archive has them."""
    nested = {f"flickr30k_images/flickr30k_images/{name}": None for name in THREE}
    put(root, {"dataset_flickr30k.json": karpathy_json(THREE)} | nested)


def coco_karpathy(root: Path) -> None:
    names = {f"COCO_val2014_{n:012d}.jpg": split for n, split in enumerate(("restval", "val", "test"))}
    content = karpathy_json(names, filepath="val2014")
    for number, image in enumerate(content["images"]):
        image["cocoid"] = number
    put(root, {"dataset_coco.json": content} | {f"val2014/{name}": None for name in names})


def coco_2017(root: Path) -> None:
    for split, number in (("train", 1), ("val", 2)):
        name = f"{number:012d}.jpg"
        content = coco_json({number: name}, {number: ["a dog runs", "a dog"]})
        put(root, {f"annotations/captions_{split}2017.json": content, f"{split}2017/{name}": None})


def vizwiz(root: Path) -> None:
    for split, number in (("train", 0), ("val", 1)):
        name = f"VizWiz_{split}_{number:08d}.jpg"
        content = coco_json({number: name}, {number: ["a can", "a tin"]}, is_rejected=False, is_precanned=False)
        put(root, {f"annotations/{split}.json": content, f"{split}/{name}": None})


def textcaps(root: Path) -> None:
    for split, name in (("train", "011e7e629fb9ae7b"), ("val", "fedcba9876543210")):
        texts = ["a shop", "a sign that says stop"]
        data = [{"image_id": name, "caption_str": text, "reference_strs": texts} for text in texts]
        put(root, {f"TextCaps_0.1_{split}.json": {"data": data}, f"train_images/{name}.jpg": None})


def nocaps(root: Path) -> None:
    content = coco_json({0: "0013ea2087020901.jpg"}, {0: ["a dog", "one dog"]})
    content["images"][0] |= {"open_images_id": "0013ea2087020901", "domain": "in-domain"}
    put(root, {"nocaps_val_4500_captions.json": content, "val/0013ea2087020901.jpg": None})


def stair(root: Path) -> None:
    for split, number in (("train", 9), ("val", 42)):
        name = f"COCO_{split}2014_{number:012d}.jpg"
        content = coco_json({number: name}, {number: ["犬が走る"]}, tokenized_caption="犬 が 走る")
        put(root, {f"stair_captions_v1.2_{split}{edition}.json": content for edition in ("", "_tokenized")})
        put(root, {f"{split}2014/{name}": None})


def coco_cn(root: Path) -> None:
    names = ["COCO_train2014_000000000009", "COCO_val2014_000000000042", "COCO_val2014_000000000043"]
    lists = dict(zip(("train", "val", "test"), names, strict=True))
    put(root, {f"coco-cn_{split}.txt": f"{name}\n" for split, name in lists.items()})
    put(root, {"imageid.human-written-caption.txt": "".join(f"{name}#0\t一只狗\n" for name in names)})
    put(root, {f"{name.split('_')[1]}/{name}.jpg": None for name in names})


def csv_table(root: Path) -> None:
    put(
        root,
        {"captions.csv": "image,caption,split\na.jpg,a dog,train\nb.jpg,a cat,val\n", "a.jpg": None, "b.jpg": None},
    )


def kaggle_flickr8k(root: Path) -> None:
    rows = "".join(f"{name},caption {n} .\n" for name in THREE for n in range(5))
    put(root, {"captions.txt": f"image,caption\n{rows}"} | {f"Images/{name}": None for name in THREE})


def kaggle_flickr30k(root: Path) -> None:
    """One row lacks its second bar, as one of the published file does."""
    rows = "".join(f"{name}| {n}| caption {n} .\n" for name in THREE for n in range(5))
    rows = rows.replace("b.jpg| 4| caption", "b.jpg| 4   caption")
    put(root, {"results.csv": f"image_name| comment_number| comment\n{rows}"})
    put(root, {f"flickr30k_images/{name}": None for name in THREE})


def flickr30k_and_table(root: Path) -> None:
    """Kaggle's table with Karpathy's file beside it."""
    kaggle_flickr30k(root)
    put(root, {"dataset_flickr30k.json": karpathy_json(THREE)})


def flickr30k_text(root: Path) -> None:
    """Kaggle's table with the lists of Flickr30k Entities, which have no suffixes."""
    kaggle_flickr30k(root)
    put(root, {f"{split}.txt": name.removesuffix(".jpg") + "\n" for name, split in THREE.items()})


def token_table(root: Path) -> None:
    """Flickr8k.token.txt alone, without the lists of the official split."""
    rows = "".join(f"{name}#{n}\tcaption {n} .\n" for name in THREE for n in range(5))
    put(root, {"Flickr8k.token.txt": rows} | {f"Flicker8k_Dataset/{name}": None for name in THREE})


FLICKR_LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}


def _lists(root: Path, lists: dict[str, str], suffix: str = ".jpg", folder: str = "") -> None:
    splits = {split: name.removesuffix(".jpg") for name, split in THREE.items()}
    put(root, {f"{folder}{lists[split]}": f"{name}{suffix}\n" for split, name in splits.items()})
    put(root, {f"Flicker8k_Dataset/{name}": None for name in THREE})


def flickr8k_text(root: Path) -> None:
    token_table(root)
    _lists(root, FLICKR_LISTS)


def flickr8k_ar(root: Path) -> None:
    """The repository's folders, and a caption of an image that is in no list."""
    rows = "".join(f"{name}#{n}\tكلب {n}\n" for name in (*THREE, "x.jpg") for n in range(3))
    put(root, {"data/Flickr8k_text/Flickr8k.arabic.full.txt": rows})
    _lists(root, FLICKR_LISTS, folder="data/Flickr8k_text/")


def flickr8k_cn(root: Path) -> None:
    """The repository's folder, with captions by people and translations by machines."""
    for kind, text in (("c", "一只狗。"), ("b", "狗。"), ("g", "犬。")):
        rows = "".join(f"{name}#zh{kind}#{n} {text}\n" for name in THREE for n in range(5))
        put(root, {f"data/flickr8kzh{kind}.caption.txt": rows})
    _lists(root, {split: f"data/flickr8k{split}.txt" for split in ("train", "val", "test")}, suffix="")


def flickr30k_cn(root: Path) -> None:
    for (name, split), kind in zip(THREE.items(), ("zhb", "zhb", "zhm"), strict=True):
        folder = f"flickr30k{kind}boson{split}"
        words = "一:m 只:q 狗:n" if kind == "zhm" else "一 只 狗"
        rows = "".join(f"{name.removesuffix('.jpg')}#{kind}#{n} {words}\n" for n in range(5))
        put(root, {f"{folder}/TextData/seg.{folder}.caption.txt": rows})
        put(root, {f"{folder}/ImageSets/{folder}.txt": name.removesuffix(".jpg") + "\n"})
    put(root, {f"flickr30k-images/{name}": None for name in THREE})


MULTI = {"train": ["1.jpg", "2.jpg"], "val": ["3.jpg"], "test_2016_flickr": ["4.jpg", "5.jpg"]}


def multi30k(root: Path, languages: tuple[str, ...] = ("de",), tasks: tuple[int, ...] = (1,)) -> None:
    """The repository's folders, with packed captions."""
    for split, names in MULTI.items():
        put(root, {f"flickr30k-images/{name}": None for name in names})
        other = split.removesuffix("_flickr")
        stems = {1: [split], 2: [f"{other}.{n}" for n in range(1, 6)]}
        lists = {1: f"{split}.txt", 2: f"{other}_images.txt"}
        for task in tasks:
            put(root, {f"data/task{task}/image_splits/{lists[task]}": "".join(f"{name}\n" for name in names)})
            for language in languages:
                for stem in stems[task]:
                    lines = "".join(f"{language} {stem} {name}\n" for name in names)
                    put(root, {f"data/task{task}/raw/{stem}.{language}.gz": gzip.compress(lines.encode())})


def multi30k_task2(root: Path) -> None:
    multi30k(root, tasks=(2,))


def every_multi30k(root: Path) -> None:
    multi30k(root, ("en", "de"), (1, 2))


URLS = [f"http://example.org/{n}.jpg" for n in range(4)]


def conceptual_table(urls: list[str], header: str = "") -> str:
    """Return a table of CC3M with the caption "words N" in row N."""
    return header + "".join(f"words {n}\t{url}\n" for n, url in enumerate(urls))


def conceptual(root: Path) -> None:
    """Files as DownloadConceptualCaptions names them; row 1 is missing, and row 2 is an error page."""
    names = [f"{n}_{zlib.crc32(url.encode())}" for n, url in enumerate(URLS)]
    put(root, {"Train_GCC-training.tsv": conceptual_table(URLS)})
    put(root, {f"training/{names[0]}": None, f"training/{names[2]}": "<html>404</html>", f"training/{names[3]}": None})
    put(root, {"Validation_GCC-1.1.0-Validation.tsv": conceptual_table(URLS[:1]), f"validation/{names[0]}": None})


def cc12m(root: Path) -> None:
    """The address first, and files named by its MD5."""
    rows = "".join(f"{url}\twords {n}\n" for n, url in enumerate(URLS))
    names = [hashlib.md5(url.encode()).hexdigest() for url in URLS]
    put(root, {"cc12m.tsv": rows} | {f"training/{name}.jpg": None for name in names})


def folder(root: Path) -> None:
    put(root, {f"{split}/{name}": None for split in ("train", "val") for name in ("a.jpg", "b.png")})
    put(root, {f"{split}/{name}": "a dog\none dog\n" for split in ("train", "val") for name in ("a.txt", "b.txt")})


def img2dataset(root: Path) -> None:
    """The output of img2dataset in the format files, with its tables of addresses and statistics."""
    for n in range(2):
        name = f"00000/{n:09d}"
        put(root, {f"{name}.jpg": None, f"{name}.txt": f"words {n}", f"{name}.json": {"url": URLS[n], "key": str(n)}})
    put(root, {"00000_stats.json": {"count": 2}, "00000.parquet": b"PAR1"})


def img2dataset_tars(root: Path) -> None:
    """The output of img2dataset in the format webdataset: the files of `img2dataset` in an archive."""
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / "00000.tar", "w") as archive:
        for n in range(2):
            for suffix, content in (("jpg", PHOTO), ("json", b"{}"), ("txt", f"words {n}".encode())):
                member = tarfile.TarInfo(f"{n:09d}.{suffix}")
                member.size = len(content)
                archive.addfile(member, BytesIO(content))
    put(root, {"00000_stats.json": {"count": 2}, "00000.parquet": b"PAR1"})


def json_lines(root: Path) -> None:
    entries = [
        {"image": f"images/{name}", "captions": ["a dog", "one dog"], "split": split} for name, split in THREE.items()
    ]
    put(root, {"captions.jsonl": "".join(f"{json.dumps(entry)}\n" for entry in entries)})
    put(root, {f"images/{name}": None for name in THREE})


def json_array(root: Path) -> None:
    put(root, {"data.json": [{"image": name, "caption": f"a {name}"} for name in THREE]} | dict.fromkeys(THREE))


def parquet(root: Path) -> None:
    """Two files as the library `datasets` writes them, with the images inside."""
    import pyarrow
    from pyarrow import parquet as files

    for number, split in enumerate(("train", "validation")):
        images = [{"bytes": photo(10 * number + n), "path": f"{n}.jpg"} for n in range(2)]
        table = pyarrow.table({"image": images, "caption": [[f"caption {n}", "a dog"] for n in range(2)]})
        (root / "data").mkdir(parents=True, exist_ok=True)
        files.write_table(table, root / "data" / f"{split}-00000-of-00001.parquet")


def photos_only(root: Path) -> None:
    put(root, {"a.jpg": None, "b.jpg": None, "notes.txt": "buy milk\n"})


class Miniature(NamedTuple):
    """A miniature, and what `data=auto` should make of it.

    Attributes:
        draw: writes it into a folder.
        data: the value of `data=`; "" if data=auto should refuse it.
        counts: images per split.
        settings: further settings that data=auto should find.
    """

    draw: Callable[[Path], None]
    data: str
    counts: dict[str, int]
    settings: Mapping[str, Any] = {}


_ONE_EACH = {"train": 1, "val": 1, "test": 1}
MINIATURES = [
    Miniature(flickr8k, "flickr8k", _ONE_EACH),
    Miniature(flickr30k_kaggle, "flickr30k", _ONE_EACH),
    Miniature(coco_karpathy, "coco", _ONE_EACH, {"data.layout": "karpathy"}),
    Miniature(coco_2017, "coco", {"train": 1, "val": 1}, {"data.layout": 2017}),
    Miniature(vizwiz, "vizwiz", {"train": 1, "val": 1}),
    Miniature(textcaps, "textcaps", {"train": 1, "val": 1}),
    Miniature(nocaps, "nocaps", {"val": 1}),
    Miniature(stair, "stair", {"train": 1, "val": 1}),
    Miniature(coco_cn, "coco_cn", _ONE_EACH),
    Miniature(csv_table, "csv", {"train": 1, "val": 1}, {"data.reader.file": "captions.csv"}),
    Miniature(kaggle_flickr8k, "csv", {"train": 2, "val": 1}, {"data.reader.file": "captions.txt"}),
    Miniature(kaggle_flickr30k, "csv", {"train": 2, "val": 1}, {"data.reader.file": "results.csv"}),
    Miniature(flickr30k_and_table, "flickr30k", _ONE_EACH),
    Miniature(flickr30k_text, "flickr30k_text", _ONE_EACH),
    Miniature(token_table, "csv", {"train": 2, "val": 1}, {"data.reader.file": "Flickr8k.token.txt"}),
    Miniature(flickr8k_text, "flickr8k_text", _ONE_EACH),
    Miniature(flickr8k_ar, "flickr8k_ar", _ONE_EACH),
    Miniature(flickr8k_cn, "flickr8k_cn", _ONE_EACH, {"data.reader.captions": "flickr8kzhc.caption.txt"}),
    Miniature(flickr30k_cn, "flickr30k_cn", _ONE_EACH),
    Miniature(
        multi30k,
        "multi30k",
        {"train": 2, "val": 1, "test": 2},
        {"data.reader.language": "de", "data.reader.task": 1},
    ),
    Miniature(
        multi30k_task2,
        "multi30k",
        {"train": 2, "val": 1, "test": 2},
        {"data.reader.language": "de", "data.reader.task": 2},
    ),
    Miniature(every_multi30k, "", {}),
    Miniature(conceptual, "conceptual", {"train": 2, "val": 1}),
    Miniature(cc12m, "conceptual", {"train": 4}, {"data.reader.files.train": "cc12m.tsv"}),
    Miniature(folder, "folder", {"train": 2, "val": 2}),
    Miniature(img2dataset, "folder", {"train": 1, "val": 1}),
    Miniature(img2dataset_tars, "webdataset", {"train": 1, "val": 1}),
    Miniature(json_lines, "json_lines", _ONE_EACH, {"data.reader.file": "captions.jsonl"}),
    Miniature(json_array, "json_lines", {"train": 2, "val": 1}, {"data.reader.file": "data.json"}),
    Miniature(parquet, "parquet", {"train": 2, "val": 2}),
    Miniature(photos_only, "", {}),
]
