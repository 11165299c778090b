"""VizWiz, TextCaps, nocaps, STAIR and COCO-CN: miniatures of their official layouts, and what each can have wrong."""

import json

import pytest
from PIL import Image

from captioning.audit import audit
from captioning.config import AuditConfig, build, check, compose
from captioning.data import (
    Faults,
    read_coco_cn,
    read_nocaps,
    read_stair,
    read_textcaps,
    read_vizwiz,
    select,
)
from captioning.errors import ConfigError, DataError

NINE, FORTY = "COCO_train2014_000000000009", "COCO_val2014_000000000042"
READERS = {
    "vizwiz": read_vizwiz,
    "textcaps": read_textcaps,
    "nocaps": read_nocaps,
    "stair": read_stair,
    "coco_cn": read_coco_cn,
}


def touch(*files):
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def write_lines(file, *lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def content_of(names, annotations, **more):
    """COCO's format: `names` is {id: file name}, `annotations` a list of (image id, caption, further keys)."""
    images = [{"id": number, "file_name": name} | more.get(name, {}) for number, name in names.items()]
    listed = [
        {"id": index, "image_id": number, "caption": text} | keys
        for index, (number, text, keys) in enumerate(annotations)
    ]
    return {"images": images, "annotations": listed}


def error_of(reader, *arguments, kind=DataError, **keywords):
    """The reader's one message."""
    with pytest.raises(kind) as caught:
        reader(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def captions_of(records):
    return {(record.split, record.image_id): record.captions for record in records}


def marked(rejected=False, precanned=False):
    return {"is_rejected": rejected, "is_precanned": precanned, "text_detected": False}


@pytest.fixture
def vizwiz(tmp_path):
    names = {0: "VizWiz_train_00000000.jpg", 1: "VizWiz_train_00000001.jpg"}
    train = [
        (0, "a can", marked()),
        (0, "spam", marked(rejected=True)),
        (0, "Quality issues are too severe to recognize visual content.", marked(precanned=True)),
        (1, "Quality issues …", marked(rejected=True, precanned=True)),
    ]
    write_json(tmp_path / "annotations/train.json", content_of(names, train))
    val = {23431: "VizWiz_val_00000000.jpg"}
    write_json(tmp_path / "annotations/val.json", content_of(val, [(23431, "a dog", marked())]))
    write_json(tmp_path / "annotations/test.json", {"images": [{"id": 31181, "file_name": "VizWiz_test_00000000.jpg"}]})
    touch(*(tmp_path / "train" / name for name in names.values()), tmp_path / "val/VizWiz_val_00000000.jpg")
    touch(tmp_path / "test/VizWiz_test_00000000.jpg")
    return tmp_path


@pytest.fixture
def textcaps(tmp_path):
    def rows(name, *texts):
        extra = {"image_path": f"train/{name}.jpg", "image_name": name, "reference_strs": list(texts)}
        return [
            {"image_id": name, "caption_id": index, "caption_str": text} | extra for index, text in enumerate(texts)
        ]

    write_json(tmp_path / "TextCaps_0.1_train.json", {"data": rows("011e7e629fb9ae7b", "a shop", "listerine", "zero")})
    write_json(tmp_path / "TextCaps_0.1_val.json", {"data": rows("fedcba9876543210", "a sign", "stop")})
    test = [{"image_id": "aaaaaaaaaaaaaaaa", "image_name": "aaaaaaaaaaaaaaaa"}]
    write_json(tmp_path / "TextCaps_0.1_test.json", {"data": test})
    touch(tmp_path / "train_images/011e7e629fb9ae7b.jpg", tmp_path / "train_images/fedcba9876543210.jpg")
    touch(tmp_path / "test_images/aaaaaaaaaaaaaaaa.jpg")
    return tmp_path


@pytest.fixture
def nocaps(tmp_path):
    names = {0: "0013ea2087020901.jpg", 1: "00a159a661a2f5aa.jpg", 2: "00af34785ee5e9ba.jpg"}
    domains = dict(zip(names.values(), ("in-domain", "near-domain", "out-domain"), strict=True))
    more = {name: {"open_images_id": name[:-4], "domain": domain} for name, domain in domains.items()}
    texts = [(number, f"caption {index}", {}) for number in names for index in range(2)]
    write_json(tmp_path / "nocaps_val_4500_captions.json", content_of(names, texts, **more))
    test = {"images": [{"id": 0, "open_images_id": "ff", "file_name": "ff.jpg"}], "licenses": [], "info": {}}
    write_json(tmp_path / "nocaps_test_image_info.json", test)
    touch(*(tmp_path / "val" / name for name in names.values()))
    return tmp_path


@pytest.fixture
def stair(tmp_path):
    texts = {9: ("犬がいる", "犬 が いる"), 42: ("猫がいる", "猫 が いる")}
    for split, number, name in (("train", 9, NINE), ("val", 42, FORTY)):
        text, words = texts[number]
        names = {number: f"{name}.jpg"}
        write_json(tmp_path / f"stair_captions_v1.2_{split}.json", content_of(names, [(number, text, {})]))
        both = content_of(names, [(number, text, {"tokenized_caption": words})])
        write_json(tmp_path / f"stair_captions_v1.2_{split}_tokenized.json", both)
        touch(tmp_path / f"{split}2014/{name}.jpg")
    return tmp_path


@pytest.fixture
def coco_cn(tmp_path):
    write_lines(
        tmp_path / "imageid.human-written-caption.txt", f"{NINE}#0\t一只 狗", f"{FORTY}#0\t两只猫", f"{FORTY}#1\t猫"
    )
    segmented = [f"{NINE}#0 一:m 只:q 狗:n", f"{FORTY}#0 两:m 只:q 猫:n", f"{FORTY}#1 猫:n"]
    write_lines(tmp_path / "imageid.human-written-caption.bosonseg.txt", *segmented)
    write_lines(tmp_path / "imageid.manually-translated-caption.txt", f"{FORTY}#0\t有两只猫")
    write_lines(
        tmp_path / "imageid.machine-translated-caption.bosonseg.txt",
        f"{NINE}#zhbDec#0 狗:n 在:p 12:30:t",
        f"{FORTY}#zhbDec#0 猫:n ::w 红:a",
    )
    for split, names in {"train": [NINE], "val": [], "test": [FORTY]}.items():
        write_lines(tmp_path / f"coco-cn_{split}.txt", *names)
    touch(tmp_path / f"train2014/{NINE}.jpg", tmp_path / f"val2014/{FORTY}.jpg")
    return tmp_path


# All


@pytest.mark.parametrize("name", READERS)
def test_a_folder_without_the_layout_is_one_error_that_says_what_is_missing(name, tmp_path):
    message = error_of(READERS[name], tmp_path)
    assert message.startswith(f"data.root={tmp_path} has no ")
    assert ": it needs " in message and message.endswith("(see docs/data.md in the repository)")


@pytest.mark.parametrize("name", READERS)
def test_the_settings_build_the_reader_and_the_audit_reads_the_same(name, request, capsys):
    root = request.getfixturevalue(name)
    config = check(compose("audit", [f"data={name}", f"data.root={root}"]), AuditConfig)
    records = build(config["data"]["reader"])
    assert records == READERS[name](root)
    faults = Faults()
    lenient = READERS[name](root, faults=faults)
    assert [record for record in lenient if record.captions] == records
    assert faults.messages == []


@pytest.mark.parametrize("name", READERS)
def test_an_image_that_is_missing_on_disk_is_an_error_that_names_it(name, request):
    root = request.getfixturevalue(name)
    (gone := READERS[name](root)[0].path).unlink()
    assert f"images that are not on disk: {gone}" in error_of(READERS[name], root)


@pytest.mark.parametrize("name", READERS)
def test_the_audit_reports_a_damaged_file_once_and_continues(name, request, capsys):
    root = request.getfixturevalue(name)
    if name == "coco_cn":
        write_lines(root / "imageid.human-written-caption.txt", "damaged", f"{NINE}#0\t狗")
    else:
        file = next(file for file in sorted(root.rglob("*.json")) if "test" not in file.name)
        file.write_text('{"images": [')
    faults = Faults()
    READERS[name](root, faults=faults)
    assert len(faults.messages) == 1


# VizWiz


def test_vizwiz_leaves_out_both_marks_and_prints_how_many(vizwiz, capsys):
    assert captions_of(read_vizwiz(vizwiz)) == {("train", 0): ("a can",), ("val", 23431): ("a dog",)}
    assert capsys.readouterr().err == (
        f"{vizwiz}/annotations/train.json: 3 of 4 annotations are left out, as the VizWiz API does: 2 rejected "
        "('is_rejected') and 1 precanned ('is_precanned'); also left out, because of no other caption: 1 image\n"
    )


def test_vizwiz_keeps_what_the_settings_ask_for(vizwiz, capsys):
    kept = captions_of(read_vizwiz(vizwiz, keep_rejected=True))
    assert kept[("train", 0)] == ("a can", "spam")
    assert ("train", 1) not in kept  # its caption is precanned too
    assert "2 of 4 annotations are left out, as the VizWiz API does: 2 precanned ('is_precanned')" in (
        capsys.readouterr().err
    )
    assert len(captions_of(read_vizwiz(vizwiz, keep_precanned=True))[("train", 0)]) == 2
    everything = read_vizwiz(vizwiz, keep_rejected=True, keep_precanned=True)
    assert [len(record.captions) for record in everything] == [3, 1, 1]


def test_vizwiz_counts_photos_without_a_caption_only_if_there_are_any(vizwiz, capsys):
    file = vizwiz / "annotations/train.json"
    content = json.loads(file.read_text())
    write_json(file, content | {"annotations": content["annotations"][:3]})
    read_vizwiz(vizwiz)
    assert capsys.readouterr().err.endswith("1 rejected ('is_rejected') and 1 precanned ('is_precanned')\n")


def test_vizwiz_with_everything_kept_prints_nothing(vizwiz, capsys):
    read_vizwiz(vizwiz, keep_rejected=True, keep_precanned=True)
    assert capsys.readouterr().err == ""


def test_vizwiz_reads_the_split_that_is_there_and_never_test(vizwiz):
    (vizwiz / "annotations/train.json").unlink()
    assert [record.split for record in read_vizwiz(vizwiz)] == ["val"]
    (vizwiz / "annotations/val.json").unlink()
    assert "annotations/train.json with the photos in train/" in error_of(read_vizwiz, vizwiz)


def test_vizwiz_of_a_case(shared_dir, capsys):
    root = shared_dir / "cases/04-vizwiz"
    records = read_vizwiz(root)
    marks = [
        entry
        for split in ("train", "val")
        for entry in json.loads((root / f"annotations/{split}.json").read_text())["annotations"]
    ]
    good = [entry for entry in marks if not (entry["is_rejected"] or entry["is_precanned"])]
    assert 0 < len(good) < len(marks)
    assert sum(len(record.captions) for record in records) == len(good)
    assert capsys.readouterr().err.count("annotations are left out") == 2


# TextCaps


def test_textcaps_has_each_caption_of_an_image_once(textcaps):
    records = read_textcaps(textcaps)
    assert [(record.split, record.path.name, record.captions) for record in records] == [
        ("train", "011e7e629fb9ae7b.jpg", ("a shop", "listerine", "zero")),
        ("val", "fedcba9876543210.jpg", ("a sign", "stop")),
    ]
    assert [record.image_id for record in records] == [0x011E7E629FB9AE7, 0xFEDCBA987654321]
    assert {record.path.parent.name for record in records} == {"train_images"}  # those of val too


@pytest.mark.parametrize("left", ["reference_strs", "caption_str"])
def test_textcaps_with_one_of_the_two_keys(textcaps, left):
    file = textcaps / "TextCaps_0.1_train.json"
    content = json.loads(file.read_text())
    write_json(file, {"data": [{"image_id": row["image_id"], left: row[left]} for row in content["data"]]})
    assert read_textcaps(textcaps)[0].captions == ("a shop", "listerine", "zero")


def test_textcaps_of_one_entry_per_image(textcaps):
    file = textcaps / "TextCaps_0.1_train.json"
    write_json(file, {"data": json.loads(file.read_text())["data"][1:2]})
    assert read_textcaps(textcaps)[0].captions == ("a shop", "listerine", "zero")


def test_textcaps_with_a_reference_twice_in_one_entry(textcaps):
    rows = [{"image_id": "011e7e629fb9ae7b", "caption_str": "b", "reference_strs": ["a", "a", "b"]}]
    write_json(textcaps / "TextCaps_0.1_train.json", {"data": rows})
    assert read_textcaps(textcaps)[0].captions == ("a", "b")


@pytest.mark.parametrize("name", ["7", "011E7E629FB9AE7B", "011e7e629fb9ae7b.jpg", "../../../../../a"])
def test_textcaps_with_an_id_of_another_kind(textcaps, name):
    write_json(textcaps / "TextCaps_0.1_train.json", {"data": [{"image_id": name, "caption_str": "a"}]})
    assert "'image_id' must be an Open Images id of 16 hexadecimal digits, not " in error_of(read_textcaps, textcaps)


def test_textcaps_with_two_ids_that_become_one_number(textcaps):
    rows = [{"image_id": f"011e7e629fb9ae7{end}", "caption_str": "a"} for end in "bc"]
    write_json(textcaps / "TextCaps_0.1_train.json", {"data": rows})
    touch(textcaps / "train_images/011e7e629fb9ae7c.jpg")
    assert "image ids of more than one image" in error_of(read_textcaps, textcaps)


def test_textcaps_with_references_that_are_no_texts(textcaps):
    rows = [{"image_id": "011e7e629fb9ae7b", "reference_strs": ["a", None]}]
    write_json(textcaps / "TextCaps_0.1_train.json", {"data": rows})
    assert "data[0]: 'reference_strs' must be a list of texts" in error_of(read_textcaps, textcaps)


def test_textcaps_without_its_photos(textcaps):
    (textcaps / "train_images").rename(textcaps / "elsewhere")
    assert "TextCaps_0.1_val.json with the photos in train_images/" in error_of(read_textcaps, textcaps)


# nocaps


def test_nocaps_groups_images_by_domain(nocaps):
    records = read_nocaps(nocaps)
    assert [(record.image_id, record.split, record.group, record.captions) for record in records] == [
        (0, "val", "in-domain", ("caption 0", "caption 1")),
        (1, "val", "near-domain", ("caption 0", "caption 1")),
        (2, "val", "out-domain", ("caption 0", "caption 1")),
    ]


@pytest.mark.parametrize("folder", ["validation", "images/val", "images"])
def test_nocaps_in_the_other_usual_folders(nocaps, folder):
    (nocaps / "images").mkdir(exist_ok=True)  # an empty folder is passed over
    (nocaps / folder).parent.mkdir(exist_ok=True)
    if (nocaps / folder).exists():
        (nocaps / folder).rmdir()
    (nocaps / "val").rename(nocaps / folder)
    (nocaps / "val").mkdir()
    (nocaps / "annotations").mkdir()
    (nocaps / "nocaps_val_4500_captions.json").rename(nocaps / "annotations/nocaps_val_4500_captions.json")
    assert {record.path.parent for record in read_nocaps(nocaps)} == {nocaps / folder}


def test_nocaps_with_an_unknown_or_missing_domain(nocaps):
    file = nocaps / "nocaps_val_4500_captions.json"
    content = json.loads(file.read_text())
    content["images"][1]["domain"] = "out-of-domain"
    write_json(file, content)
    assert error_of(read_nocaps, nocaps) == (
        f"{file}: images[1]: 'domain' must be in-domain or near-domain or out-domain, not 'out-of-domain'"
    )
    del content["images"][1]["domain"]
    write_json(file, content)
    message = f"{file}: images[1]: the key 'domain' is missing: add it"
    assert error_of(read_nocaps, nocaps) == message
    faults = Faults()
    assert [record.group for record in read_nocaps(nocaps, faults=faults)] == ["in-domain", None, "out-domain"]
    assert faults.messages == [message]  # nothing else: its captions and its photo have an entry
    for number, name in enumerate(("0013ea2087020901", "00a159a661a2f5aa", "00af34785ee5e9ba")):
        Image.new("RGB", (9 + number, 8), (90 * number, 9, 9)).save(nocaps / f"val/{name}.jpg")
    audit(check(compose("audit", ["data=nocaps", f"data.root={nocaps}", f"output={nocaps}", "workers=1"]), AuditConfig))
    report = json.loads((nocaps / "audit.json").read_text())
    assert report["findings"]["broken entries"] == [message]
    assert report["findings"]["image files without an entry"] == []


def test_the_audit_reports_a_broken_image_entry_once(vizwiz):
    file = vizwiz / "annotations/val.json"
    content = json.loads(file.read_text())
    del content["images"][0]["file_name"]
    write_json(file, content)
    faults = Faults()
    read_vizwiz(vizwiz, faults=faults)
    assert faults.messages == [f"{file}: images[0]: the key 'file_name' is missing: add it"]


def test_the_audit_reports_a_broken_entry_of_karpathys_split_once(stair):
    images = [{"cocoid": 9, "split": "train"}, {"cocoid": 42, "split": "dev2"}]
    write_json(stair / "dataset_coco.json", {"images": images})
    faults = Faults()
    assert [record.image_id for record in read_stair(stair, split="karpathy", faults=faults)] == [9]
    (message,) = faults.messages
    assert "images[1]: 'split' must be one of train" in message


def test_coco_cn_refuses_tags_in_the_file_of_text(coco_cn):
    file = coco_cn / "imageid.human-written-caption.txt"
    write_lines(file, f"{FORTY}#0\t牌子写着:stop", f"{NINE}#0\t一:m 只:q 狗")  # one alone can be text
    assert f"{file}, line 2: '一:m' is a word with its part of speech" in error_of(read_coco_cn, coco_cn)
    write_lines(file, f"{FORTY}#0\t牌子写着:stop", f"{NINE}#0\t狗")
    assert captions_of(read_coco_cn(coco_cn))["test", 42] == ("牌子写着:stop",)


def test_nocaps_needs_the_captions_and_not_the_image_info(nocaps):
    (nocaps / "nocaps_val_4500_captions.json").rename(nocaps / "nocaps_val_image_info.json")
    assert "it needs nocaps_val_4500_captions.json with the photos of its validation set in val/" in (
        error_of(read_nocaps, nocaps)
    )


def test_nocaps_has_no_training_split(nocaps):
    assert "no images with captions in split 'train'; images per split: val 3" in error_of(
        select, read_nocaps(nocaps), "train"
    )


# STAIR


def test_stair_reads_text_or_the_words_of_the_tokenized_edition(stair):
    assert captions_of(read_stair(stair)) == {("train", 9): ("犬がいる",), ("val", 42): ("猫がいる",)}
    assert captions_of(read_stair(stair, tokenized=True)) == {
        ("train", 9): ("犬 が いる",),
        ("val", 42): ("猫 が いる",),
    }


def test_stair_without_the_edition_that_is_asked_for(stair):
    for split in ("train", "val"):
        (stair / f"stair_captions_v1.2_{split}_tokenized.json").unlink()
    message = error_of(read_stair, stair, tokenized=True)
    assert (
        "it needs stair_captions_v1.2_{train,val}_tokenized.json with the images in train2014/ and val2014/" in message
    )


def test_stair_whose_tokenized_file_has_no_words(stair):
    file = stair / "stair_captions_v1.2_train_tokenized.json"
    write_json(file, json.loads((stair / "stair_captions_v1.2_train.json").read_text()))
    assert "annotations[0]: the key 'tokenized_caption' is missing" in error_of(read_stair, stair, tokenized=True)


def test_stair_with_cocos_images_elsewhere(stair, tmp_path_factory):
    home = tmp_path_factory.mktemp("coco")
    for folder in ("train2014", "val2014"):
        (stair / folder).rename(home / folder)
    assert "train2014/ and val2014/. Add them" in error_of(read_stair, stair)
    assert [record.path.parent for record in read_stair(stair, coco=home)] == [home / "train2014", home / "val2014"]
    empty = tmp_path_factory.mktemp("empty")
    assert f"val2014/ of data.reader.coco={empty}" in error_of(read_stair, stair, coco=empty)


def test_stair_with_the_images_of_2017(stair, capsys):
    for folder, name in (("train2014", NINE), ("val2014", FORTY)):
        touch(stair / f"train2017/{name[-12:]}.jpg")
        (stair / f"{folder}/{name}.jpg").unlink()
        (stair / folder).rmdir()
    assert [record.path.name for record in read_stair(stair)] == ["000000000009.jpg", "000000000042.jpg"]
    assert "images found by name in other folders" in capsys.readouterr().err


def test_stair_reads_only_the_split_whose_images_are_there(stair):
    (stair / f"train2014/{NINE}.jpg").unlink()
    (stair / "train2014").rmdir()
    assert [record.split for record in read_stair(stair)] == ["val"]


def test_stair_in_karpathys_split(stair):
    images = [{"cocoid": 9, "split": "restval"}, {"cocoid": 42, "split": "test"}, {"cocoid": 7, "split": "val"}]
    assert "needs dataset_coco.json" in error_of(read_stair, stair, split="karpathy")
    write_json(stair / "dataset_coco.json", {"images": images})
    assert captions_of(read_stair(stair, split="karpathy")) == {
        ("train", 9): ("犬がいる",),
        ("test", 42): ("猫がいる",),
    }
    write_json(stair / "dataset_coco.json", {"images": images[:1]})
    assert "image ids that dataset_coco.json does not list: 42" in error_of(read_stair, stair, split="karpathy")
    write_json(stair / "dataset_coco.json", {"images": [{"cocoid": 9, "split": "dev2"}]})
    assert "images[0]: 'split' must be one of train (or training, restval)" in (
        error_of(read_stair, stair, split="karpathy")
    )
    assert "must be official or karpathy, not 'random'" in error_of(read_stair, stair, split="random", kind=ConfigError)


# COCO-CN


def test_coco_cn_reads_lines_and_splits(coco_cn):
    assert captions_of(read_coco_cn(coco_cn)) == {("train", 9): ("一只 狗",), ("test", 42): ("两只猫", "猫")}


def test_coco_cn_drops_the_tags_of_the_segmented_edition(coco_cn):
    expected = {("train", 9): ("一 只 狗",), ("test", 42): ("两 只 猫", "猫")}
    assert captions_of(read_coco_cn(coco_cn, segmented=True)) == expected
    expected = {("train", 9): ("狗 在 12:30",), ("test", 42): ("猫 : 红",)}
    assert captions_of(read_coco_cn(coco_cn, captions="machine-translated")) == expected


def test_coco_cn_keeps_the_words_of_a_segmented_edition_without_tags(coco_cn):
    lines = [f"{NINE}#0\t一 只 狗 12:30", f"{FORTY}#0\t两 只 猫"]
    write_lines(coco_cn / "imageid.human-written-caption.bosonseg.txt", *lines)
    expected = {("train", 9): ("一 只 狗 12:30",), ("test", 42): ("两 只 猫",)}
    assert captions_of(read_coco_cn(coco_cn, segmented=True)) == expected
    lines[0] = f"{NINE}#0\t狗:n 12:30"  # not all words have a tag
    write_lines(coco_cn / "imageid.human-written-caption.bosonseg.txt", *lines)
    expected[("train", 9)] = ("狗 12:30",)
    assert captions_of(read_coco_cn(coco_cn, segmented=True)) == expected


def test_coco_cn_joins_several_kinds_of_captions(coco_cn):
    records = read_coco_cn(coco_cn, captions=["human-written", "manually-translated"])
    assert captions_of(records) == {("train", 9): ("一只 狗",), ("test", 42): ("两只猫", "猫", "有两只猫")}


@pytest.mark.parametrize("captions", [[], "boson", ["human-written", "boson"]])
def test_coco_cn_refuses_unknown_kinds(coco_cn, captions):
    message = error_of(read_coco_cn, coco_cn, captions=captions, kind=ConfigError)
    assert "one or more of human-written, manually-translated, machine-translated, not " in message


def test_coco_cn_names_every_missing_file(coco_cn):
    (coco_cn / "coco-cn_val.txt").unlink()
    (coco_cn / "imageid.human-written-caption.txt").unlink()
    assert "it needs imageid.human-written-caption.txt and coco-cn_val.txt. Add them" in error_of(read_coco_cn, coco_cn)


def test_coco_cn_inside_the_folder_of_its_archive(coco_cn):
    inner = coco_cn / "coco-cn-version1805v1.1"
    inner.mkdir()
    for file in coco_cn.glob("*.txt"):
        file.rename(inner / file.name)
    assert len(read_coco_cn(coco_cn)) == 2


def test_coco_cn_with_an_image_in_two_splits_or_in_none(coco_cn):
    write_lines(coco_cn / "coco-cn_val.txt", NINE)
    assert error_of(read_coco_cn, coco_cn) == (
        f"{coco_cn}/coco-cn_val.txt, line 1: {NINE} is in split train too: keep it in one split"
    )
    write_lines(coco_cn / "coco-cn_val.txt")
    write_lines(coco_cn / "coco-cn_test.txt")
    message = error_of(read_coco_cn, coco_cn)
    assert f"captions of images that no coco-cn_*.txt lists: {FORTY}; add them" in message


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"{NINE}\t狗", "must be an image name with #, a number, a tab and a caption"),
        ("000000000009.jpg#0\t狗", "'000000000009.jpg' is not a name of COCO 2014"),
        ("COCO_test2014_000000000009#0\t狗", "is not a name of COCO 2014"),
    ],
)
def test_coco_cn_with_a_line_of_another_kind(coco_cn, line, expected):
    write_lines(coco_cn / "imageid.human-written-caption.txt", f"{NINE}#0\t狗", line)
    message = error_of(read_coco_cn, coco_cn)
    assert message.startswith(f"{coco_cn}/imageid.human-written-caption.txt, line 2: ")
    assert expected in message
