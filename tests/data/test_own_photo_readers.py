"""Readers of one's own photos: a folder with text files, JSON Lines, and Parquet; and what each refuses."""

import importlib.util
import json
import shutil
import tarfile
from collections import Counter

import pyarrow
import pytest
from miniatures import PHOTO, folder, img2dataset, img2dataset_tars, json_lines, parquet, photo, put
from pyarrow import parquet as files
from reader_results import captions, error_of

from captioning.data import Faults, read_csv, read_folder, read_json_lines, read_karpathy, read_parquet, recognize_data
from captioning.errors import ConfigError
from captioning.evaluation import read_references


def splits(records, root):
    return {record.path.relative_to(root).as_posix(): record.split for record in records}


# A folder of photos


def test_split_folders_and_one_caption_per_line(tmp_path):
    folder(tmp_path)
    records = read_folder(tmp_path)
    assert [record.image_id for record in records] == [0, 1, 2, 3]
    assert splits(records, tmp_path) == {
        f"{split}/{name}": split for split in ("train", "val") for name in ("a.jpg", "b.png")
    }
    assert {record.captions for record in records} == {("a dog", "one dog")}


def test_other_names_of_validation_and_case(tmp_path):
    put(tmp_path, {"Train/A.JPG": None, "Train/a.TXT": "a dog", "validation/b.jpg": None, "validation/b.txt": "a cat"})
    assert splits(read_folder(tmp_path), tmp_path) == {"Train/A.JPG": "train", "validation/b.jpg": "val"}
    put(tmp_path, {"val/c.jpg": None, "val/c.txt": "a cat"})
    assert "the folders val and validation are the same split: keep one" in error_of(read_folder, tmp_path)


def test_a_hash_chooses_the_split_as_in_a_table(tmp_path):
    names = [f"{kind}/{n}.jpg" for kind in ("cats", "dogs") for n in range(20)]
    put(tmp_path, dict.fromkeys(names) | {name.replace(".jpg", ".txt"): "a pet" for name in names})
    put(tmp_path, {"captions.csv": "image,caption\n" + "".join(f"{name},a pet\n" for name in names)})
    (tmp_path / "captions.txt").unlink(missing_ok=True)
    shares = {"val_share": 0.2, "test_share": 0.1}
    found = splits(read_folder(tmp_path, **shares), tmp_path)
    assert found == splits(read_csv(tmp_path, **shares), tmp_path) and set(found.values()) == {"train", "val", "test"}
    put(tmp_path, {"ants/1.jpg": None, "ants/1.txt": "a pet"})
    more = splits(read_folder(tmp_path, **shares), tmp_path)
    assert {name: more[name] for name in found} == found
    assert "val_share (0.5) and test_share (0.5)" in error_of(
        read_folder, tmp_path, val_share=0.5, test_share=0.5, kind=ConfigError
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_of_any_system(tmp_path, encoding):
    text = "  a caf\u00e9 \r\n\r\n\u4e00\u53ea\u72d7\u2028next\r\n"
    put(tmp_path, {"a.jpg": None, "a.txt": text.encode(encoding)})
    assert captions(read_folder(tmp_path), tmp_path) == {"a.jpg": ("a caf\u00e9", "\u4e00\u53ea\u72d7\u2028next")}


def test_the_output_of_img2dataset(tmp_path):
    img2dataset(tmp_path)
    assert captions(read_folder(tmp_path), tmp_path) == {f"00000/{n:09d}.jpg": (f"words {n}",) for n in range(2)}


def test_photos_of_img2dataset_with_an_empty_text_are_left_out(tmp_path, capsys):
    img2dataset(tmp_path)
    put(tmp_path, {"00000/000000001.txt": ""})
    assert captions(read_folder(tmp_path), tmp_path) == {"00000/000000000.jpg": ("words 0",)}
    photo_left = tmp_path / "00000/000000001.jpg"
    told = f"{tmp_path}: 1 photo left out, with an empty text file from img2dataset (first: {photo_left})\n"
    assert capsys.readouterr().err == told
    faults = Faults()
    assert len(read_folder(tmp_path, faults=faults)) == 1 and not faults.messages
    assert [item["file"] for item in faults.noted["images left out"]] == [str(photo_left)]


def test_archives_that_are_not_unpacked_are_refused_by_data_folder(tmp_path):
    img2dataset_tars(tmp_path)
    shutil.copy(tmp_path / "00000.tar", tmp_path / "00001.tar")
    told = error_of(read_folder, tmp_path)
    assert told.startswith(
        f"{tmp_path / '00000.tar'} has photos and captions, but data=folder does not read archives: "
    )
    assert "use data=webdataset, which reads them without unpacking" in told
    (tmp_path / "00000").mkdir()
    with tarfile.open(tmp_path / "00000.tar") as archive:
        archive.extractall(tmp_path / "00000", filter="data")
    assert f"{tmp_path / '00001.tar'} has photos" in error_of(read_folder, tmp_path)  # never a part in silence
    faults = Faults()
    assert len(read_folder(tmp_path, faults=faults)) == 2 and "00001.tar" in faults.messages[0]
    told = error_of(recognize_data, tmp_path, kind=ConfigError)
    assert "data=folder (00000/000000000.jpg); data=webdataset (00001.tar)" in told
    (tmp_path / "00001").mkdir()
    with tarfile.open(tmp_path / "00001.tar") as archive:
        archive.extractall(tmp_path / "00001", filter="data")
    wanted = {f"{shard:05d}/{n:09d}.jpg": (f"words {n}",) for shard in range(2) for n in range(2)}
    assert captions(read_folder(tmp_path), tmp_path) == wanted
    assert recognize_data(tmp_path).settings["data"] == "folder"


def test_other_archives_beside_photos_do_not_matter(tmp_path):
    folder(tmp_path)
    put(tmp_path, {"broken.tar": b"x" * 2000, ".hidden.tar": b""})
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:  # no captions in it
        archive.add(tmp_path / "train/a.jpg", "a.jpg")
    with tarfile.open(tmp_path / "train.tar", "w") as archive:  # unpacked already, with its own folder
        archive.add(tmp_path / "train", "train")
    assert len(read_folder(tmp_path)) == 4


def test_photos_without_captions_are_counted(tmp_path, capsys):
    folder(tmp_path)
    put(tmp_path, {"train/c.jpg": None, "val/.hidden.txt": "x", "README.txt": "about", "train/._a.jpg": b"x"})
    assert len(read_folder(tmp_path)) == 4
    assert (
        f"{tmp_path}: 1 photo left out, without a text file (first: {tmp_path / 'train/c.jpg'})"
        in capsys.readouterr().err
    )
    faults = Faults()
    assert len(read_folder(tmp_path, faults=faults)) == 4 and not faults.messages
    assert [item["file"] for item in faults.noted["images left out"]] == [str(tmp_path / "train/c.jpg")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"train/d.txt": "a dog"}, "train/d.txt: there is no photo of this name beside it: add it, or delete the file"),
        ({"train/a.png": None}, "train/a.txt belongs to a.jpg and a.png: rename one of the photos"),
        (
            {"other/a.jpg": None, "other/a.txt": "a dog"},
            "other/a.jpg is in none of the split folders train, val",
        ),
        ({"train/a.txt": " \n\n"}, "train/a.txt has no caption: write one or more, one per line, or delete the file"),
        (
            {"train/a.txt": "caf\u00e9".encode("latin-1")},
            "train/a.txt is not UTF-8 (unexpected end of data): save it as UTF-8",
        ),
        ({"train/A.txt": "a dog"}, "train/A.txt and a.txt differ by case, but only a.jpg is there: keep one of them"),
    ],
)
def test_what_a_folder_has_wrong(tmp_path, content, told):
    folder(tmp_path)
    put(tmp_path, content)
    assert told in error_of(read_folder, tmp_path)
    faults = Faults()
    assert len(read_folder(tmp_path, faults=faults)) >= 3
    assert len(faults.messages) == 1 and told in faults.messages[0]


def test_a_folder_of_another_layout(tmp_path):
    put(tmp_path, {"a.jpg": None, "captions.txt": "image,caption\na.jpg,a dog\n"})
    assert "has no photo with a text file beside it: data=folder needs photo.jpg and photo.txt" in error_of(
        read_folder, tmp_path
    )
    assert "there is no such folder: check data.root" in error_of(read_folder, tmp_path / "no")
    (tmp_path / "empty").mkdir()
    assert "no images in this folder (it is empty)" in error_of(read_folder, tmp_path / "empty")


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    folder(tmp_path / "set")
    put(tmp_path, {"secret.jpg": None})
    (tmp_path / "set/train/c.jpg").symlink_to(tmp_path / "secret.jpg")
    put(tmp_path, {"set/train/c.txt": "a dog"})
    assert "images that are links out of their folder" in error_of(read_folder, tmp_path / "set")


# JSON Lines


def lines(root, *entries, name="captions.jsonl"):
    put(root, {name: "".join(f"{entry if isinstance(entry, str) else json.dumps(entry)}\n" for entry in entries)})


def test_json_lines_with_splits(tmp_path):
    json_lines(tmp_path)
    records = read_json_lines(tmp_path)
    assert splits(records, tmp_path) == {"images/a.jpg": "train", "images/b.jpg": "val", "images/c.jpg": "test"}
    assert {record.captions for record in records} == {("a dog", "one dog")}


def test_every_key_and_a_photo_in_several_lines(tmp_path):
    put(tmp_path, {"images/a.jpg": None, "images/b.jpg": None, "images/c.jpg": None})
    own = [{"image": "a.jpg", "caption": "one", "width": 8}, {"file_name": "b.jpg", "text": "two"}]
    own += [{"image_path": "images\\c.jpg", "captions": "three"}, {"img": "a.jpg", "caption": ["four", "five"]}]
    wanted = {"images/a.jpg": ("one", "four", "five"), "images/b.jpg": ("two",), "images/c.jpg": ("three",)}
    own[2]["image_path"] = "C.JPG"
    lines(tmp_path, *own, "", "  ")
    assert captions(read_json_lines(tmp_path), tmp_path) == wanted
    put(tmp_path, {"array.json": own})
    assert captions(read_json_lines(tmp_path, file="array.json"), tmp_path) == wanted
    (tmp_path / "wide.jsonl").write_bytes("\n".join(json.dumps(entry) for entry in own).encode("utf-16"))
    assert captions(read_json_lines(tmp_path, file="wide.jsonl", images="images"), tmp_path) == wanted


GOOD = {"image": "a.jpg", "caption": "a dog"}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{oops", "line 2 is not JSON ("),
        ("[1]", "line 2: must be an object such as"),
        ({"image": "a.jpg"}, "line 2: the key 'captions' is missing: add it"),
        ({"caption": "x"}, "line 2: the key 'image' is missing: add it"),
        ({"image": 3, "caption": "x"}, "line 2: 'image' must be the name of an image file, not 3"),
        ({"image": "a.jpg", "captions": []}, "line 2: 'captions' must be a text or a list of texts, not []"),
        (
            {"image": "a.jpg", "captions": ["x", None]},
            "line 2: 'captions'[1] is null: write a caption there, or remove it",
        ),
        ({"image": "a.jpg", "captions": ["x", ""]}, "line 2: 'captions'[1] is blank: write a caption there, or remove"),
        ({"image": "a.jpg", "captions": [1]}, "line 2: 'captions' must be a text or a list of texts"),
        ({"image": "a.jpg", "caption": "x", "captions": ["y"]}, "line 2: the keys captions and caption mean the same"),
        ({"image": "a.jpg", "caption": " "}, "line 2: the caption of a.jpg is blank"),
        ({"image": "a.jpg", "caption": "x", "split": "train"}, "line 2: some lines have 'split' and others do not"),
        ({"image": "../a.jpg", "caption": "x"}, "leads out of"),
        ({"image": "no.jpg", "caption": "x"}, "images that are not on disk: "),
        ('{"image": "a.jpg", "caption": "x", "image": "b.jpg"}', "an object has the key 'image' twice"),
    ],
)
def test_what_json_lines_have_wrong(tmp_path, entry, told):
    put(tmp_path, {"a.jpg": None})
    lines(tmp_path, GOOD, entry)
    assert told in error_of(read_json_lines, tmp_path)
    faults = Faults()
    assert read_json_lines(tmp_path, faults=faults)[0].captions[0] == "a dog"
    assert not faults.messages or told in faults.messages[0]


def test_splits_of_json_lines_are_checked(tmp_path):
    put(tmp_path, {"a.jpg": None})
    lines(tmp_path, GOOD | {"split": "dev2"})
    assert "line 1: 'split' must be one of train (or training, restval)" in error_of(read_json_lines, tmp_path)
    lines(tmp_path, GOOD | {"split": None})
    assert "test (or testing), not null: correct it" in error_of(read_json_lines, tmp_path)
    lines(tmp_path, GOOD | {"split": "train"}, GOOD | {"split": "val"})
    assert "a.jpg is in split val here, but in train in an earlier row" in error_of(read_json_lines, tmp_path)


def test_another_file_instead_of_json_lines(tmp_path):
    put(tmp_path, {"a.jpg": None, "dataset_flickr8k.json": {"images": []}, "notes.jsonl": "{}\n"})
    assert "or choose one of dataset_flickr8k.json, notes.jsonl with data.reader.file=NAME" in error_of(
        read_json_lines, tmp_path
    )
    told = error_of(read_json_lines, tmp_path, file="dataset_flickr8k.json")
    assert "this is COCO's or Karpathy's JSON, not JSON Lines: use data=coco or data=flickr8k" in told
    (tmp_path / "coco.json").write_text(json.dumps({"images": []}, indent=1))
    assert "use data=coco or data=flickr8k" in error_of(read_json_lines, tmp_path, file="coco.json")
    (tmp_path / "bad.json").write_text("[{]")
    assert "as a JSON array" in error_of(read_json_lines, tmp_path, file="bad.json")
    (tmp_path / "latin.jsonl").write_bytes('{"image": "a.jpg", "caption": "caf\u00e9"}'.encode("latin-1"))
    assert "latin.jsonl is not UTF-8" in error_of(read_json_lines, tmp_path, file="latin.jsonl")
    assert "there is no folder" in error_of(read_json_lines, tmp_path / "no")


# Parquet


def table(root, name="train.parquet", **columns):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    files.write_table(pyarrow.table(columns), root / name)


SPELLED = {"train": ["train", "Train", "TRAIN", "training", "restval", " train "],
           "val": ["val", "Val", "dev", "DEV", "valid", "validation", "Validation", "development"],
           "test": ["test", "Test", "testing"]}  # fmt: skip


@pytest.mark.parametrize(("name", "split"), [(name, split) for split, names in SPELLED.items() for name in names])
def test_every_reader_knows_the_same_names_of_splits(tmp_path, name, split):
    where = name.strip()
    row = f"image,caption,split\n{where}/a.jpg,x,{name}\n"
    put(tmp_path, {f"{where}/a.jpg": None, f"{where}/a.txt": "a dog", "captions.csv": row})
    lines(tmp_path, {"image": f"{where}/a.jpg", "caption": "a dog", "split": name})
    table(tmp_path, "x.parquet", path=[f"{where}/a.jpg"], caption=["a dog"], split=[name])
    image = {"imgid": 0, "cocoid": 9, "filename": "a.jpg", "split": name, "sentences": [{"raw": "a dog"}]}
    put(tmp_path, {"k.json": {"images": [image]}})
    found = [read_csv(tmp_path), read_json_lines(tmp_path), read_parquet(tmp_path), read_folder(tmp_path),
             read_karpathy(tmp_path, annotations="k.json", images=where)]  # fmt: skip
    assert [[record.split for record in records] for records in found] == [[split]] * 5
    references = read_references(tmp_path / "k.json", split=split)
    assert [each.texts for each in references.images] == [["a dog"]]
    table(tmp_path / "other", f"{where}-00000-of-00001.parquet", image=[PHOTO], caption=["a dog"])
    assert read_parquet(tmp_path / "other")[0].split == split


def test_images_in_a_parquet_file_are_extracted_once(tmp_path):
    parquet(tmp_path)
    records = read_parquet(tmp_path)
    wanted = {
        f"data/{s}-00000-of-00001.images/00000{n}.jpg": k
        for s, k in (("train", "train"), ("validation", "val"))
        for n in (0, 1)
    }
    assert splits(records, tmp_path) == wanted
    assert [record.path.read_bytes() for record in records] == [photo(0), photo(1), photo(10), photo(11)]
    assert records[0].captions == ("caption 0", "a dog")
    before = [record.path.stat().st_mtime_ns for record in records]
    assert read_parquet(tmp_path) == records
    assert [record.path.stat().st_mtime_ns for record in records] == before


def test_a_changed_file_is_extracted_again(tmp_path):
    table(tmp_path, image=[photo(1)], caption=["a dog"])
    assert read_parquet(tmp_path)[0].path.read_bytes() == photo(1)
    table(tmp_path, image=[photo(2), photo(3)], caption=["a dog", "a cat"])
    assert [record.path.read_bytes() for record in read_parquet(tmp_path)] == [photo(2), photo(3)]


def test_an_interrupted_extraction_starts_again(tmp_path, monkeypatch):
    table(tmp_path, image=[photo(1), photo(2)], caption=["a dog", "a cat"])
    from captioning.data.readers import parquet_images

    write = parquet_images._write

    def killed(value, folder, number, where):
        if number:
            raise KeyboardInterrupt
        return write(value, folder, number, where)

    monkeypatch.setattr(parquet_images, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        read_parquet(tmp_path)
    assert not (tmp_path / "train.images").exists()
    monkeypatch.undo()
    assert len(read_parquet(tmp_path)) == 2 and not list(tmp_path.glob(".*.tmp"))


def test_columns_of_texts_and_of_file_names(tmp_path):
    put(tmp_path, {"images/a.jpg": None, "images/b.jpg": None})
    table(tmp_path, image_path=["a.jpg", "b.jpg"], caption_0=["one", "two"], caption_1=["three", "four"])
    assert captions(read_parquet(tmp_path), tmp_path) == {
        "images/a.jpg": ("one", "three"),
        "images/b.jpg": ("two", "four"),
    }
    assert not (tmp_path / "train.images").exists()


@pytest.mark.parametrize("kind", [pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), "string_view", "large_string"])
def test_file_names_in_every_type_of_text(tmp_path, kind):
    if kind == "string_view" and not hasattr(pyarrow, "string_view"):
        pytest.skip("this pyarrow has no string_view")
    put(tmp_path, {"a.jpg": None, "b.jpg": None})
    kind = getattr(pyarrow, kind)() if isinstance(kind, str) else kind
    texts = [pyarrow.array(texts).cast(kind) for texts in (["a.jpg", "b.jpg"], ["one", "two"])]
    table(tmp_path, image=texts[0], caption=texts[1])
    assert captions(read_parquet(tmp_path), tmp_path) == {"a.jpg": ("one",), "b.jpg": ("two",)}


def test_a_column_of_bytes_without_images_is_refused(tmp_path):
    table(tmp_path, image=[b"a.jpg", b"b.jpg"], caption=["one", "two"])
    told = "row 0: the image column has the file name b'a.jpg' as bytes: store names as text, or choose another data.re"
    assert told in error_of(read_parquet, tmp_path)
    table(tmp_path, image=[b"1017", b"1018"], caption=["one", "two"])
    assert error_of(read_parquet, tmp_path) == (
        f"{tmp_path}/train.parquet: the column 'image' holds no images: no image signature in its first 2 rows. Set "
        "data.reader.image to the column of images, or store file names as text"
    )
    assert not list(tmp_path.glob("*train.images*/*"))
    table(tmp_path, image=[b"damaged", PHOTO, None], caption=["one", "two", "three"])
    assert [record.path.name for record in read_parquet(tmp_path)] == ["000000.image", "000001.jpg"]
    table(
        tmp_path, image=[b"\0\0\0\x14ftypavif\0\0\0\0avif", b"\0\0\0\x14ftypheic\0\0\0\0heic"], caption=["one", "two"]
    )
    assert [record.path.name for record in read_parquet(tmp_path)] == ["000000.avif", "000001.heic"]


def test_a_column_of_splits_and_of_sentences(tmp_path):
    sentences = [[{"raw": f"caption {n}", "tokens": ["a"]}] for n in range(3)]
    table(tmp_path, "TEST-00000-of-00001.parquet", image=[PHOTO] * 3, sentences=sentences, filename=["a", "b", "c"],
          split=["restval", "val", "test"])  # fmt: skip
    records = read_parquet(tmp_path)
    assert [(record.split, record.captions) for record in records] == [
        ("train", ("caption 0",)),
        ("val", ("caption 1",)),
        ("test", ("caption 2",)),
    ]


def test_rows_without_an_image_are_counted_and_paths_are_followed(tmp_path, capsys):
    put(tmp_path, {"b.jpg": None, "sub/c.jpg": None})
    images = [{"bytes": None, "path": None}, {"bytes": None, "path": "b.jpg"}, {"bytes": None, "path": "sub/c.jpg"}]
    table(tmp_path, image=images, caption=["one", "two", "three"])
    assert captions(read_parquet(tmp_path), tmp_path) == {"b.jpg": ("two",), "sub/c.jpg": ("three",)}
    assert "train.parquet: 1 of 3 rows left out, without an image" in capsys.readouterr().err


def test_splits_without_names_are_hashed(tmp_path):
    table(tmp_path, "0000.parquet", image=[photo(n) for n in range(40)], text=[f"caption {n}" for n in range(40)])
    counts = Counter(record.split for record in read_parquet(tmp_path))
    assert counts["train"] > 25 and counts["val"] > 0
    table(tmp_path, "test/0000.parquet", image=[PHOTO], text=["a dog"])
    assert "some Parquet files name a split and others do not" in error_of(read_parquet, tmp_path)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"caption": ["x"]}, "has no known column of image: set data.reader.image to one of its columns caption"),
        ({"image": [PHOTO]}, "has no known column of captions: set data.reader.captions to one of its columns image"),
        ({"image": [PHOTO], "caption": ["x"], "text": ["y"]}, "has several columns of captions (caption, text)"),
        ({"image": [PHOTO], "jpg": [PHOTO], "caption": ["x"]}, "has several columns of image (image, jpg)"),
        ({"image": [PHOTO], "caption": [3]}, "row 0: 'caption' must be a text or a list of texts, not 3"),
        ({"image": [3], "caption": ["x"]}, "row 0: the image must be bytes, or have the key bytes"),
        (
            {"image": [PHOTO], "caption": [""]},
            "row 0: 'caption' is blank: write a caption there, or null if the image has",
        ),
        ({"path": ["a.jpg"], "caption_0": ["x"], "caption_1": [" "]}, "row 0: 'caption_1' is blank: write a caption"),
        (
            {"path": ["a.jpg"], "captions": [["x", None]]},
            "row 0: 'captions'[1] is null: write a caption there, or remove",
        ),
        (
            {"path": ["a.jpg"], "captions": [["x", " "]]},
            "row 0: 'captions'[1] is blank: write a caption there, or remove",
        ),
        ({"path": ["a.jpg"], "sentences": [[{"raw": None}]]}, "row 0: 'sentences'[0] is null: write a caption there"),
        ({"image": [PHOTO], "caption": [None]}, "'caption' must be a text or a list of texts"),
        (
            {"image": [PHOTO], "caption": ["x"], "split": ["dev2"]},
            "test (or testing), not 'dev2': correct it",
        ),
        ({"path": ["../a.jpg"], "caption": ["x"]}, "leads out of"),
        ({"path": ["no.jpg"], "caption": ["x"]}, "images that are not on disk"),
    ],
)
def test_what_a_parquet_file_has_wrong(tmp_path, columns, told):
    table(tmp_path, **columns)
    if columns.get("caption") == [None]:
        columns["caption"], told = pyarrow.array([None], pyarrow.string()), "row 0: the image has no caption"
        table(tmp_path, **columns)
    assert told in error_of(read_parquet, tmp_path)


def test_given_columns(tmp_path):
    table(tmp_path, shot=[PHOTO], a=["x"], b=[["y", "z"]])
    assert read_parquet(tmp_path, image="shot", captions=["a", "b"])[0].captions == ("x", "y", "z")
    assert "data.reader.captions=c is not a column of" in error_of(
        read_parquet, tmp_path, image="shot", captions="c", kind=ConfigError
    )


def test_no_parquet_file_a_damaged_one_and_no_library(tmp_path, monkeypatch):
    assert "has no Parquet file: add NAME.parquet" in error_of(read_parquet, tmp_path)
    put(tmp_path, {"a.parquet": b"PAR1 not really"})
    assert "cannot read" in error_of(read_parquet, tmp_path) and "download it again" in error_of(read_parquet, tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("captioning.io.optional_packages.find_spec", lambda name: None)
    told = error_of(read_parquet, tmp_path, kind=ConfigError)
    assert told == "data=parquet needs the package pyarrow. Run: pip install 'captioning[parquet]'"


def test_half_a_surrogate_in_a_name_is_a_missing_file(tmp_path):
    """Names of files without a split get one by their hash, which needs bytes."""
    put(tmp_path, {"captions.jsonl": '{"image": "a\\ud83d.jpg", "caption": "x"}\n{"image": "b.jpg", "caption": "y"}\n'})
    put(tmp_path, {"b.jpg": None})
    assert "not on disk" in error_of(read_json_lines, tmp_path)
    assert [len(record.captions) for record in read_json_lines(tmp_path, faults=Faults())] == [1, 1]
