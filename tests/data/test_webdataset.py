"""`data=webdataset`: samples in tar archives are the records of the unpacked folder; and what archives have wrong."""

import json
import os
import shutil
import tarfile
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from miniatures import PHOTO, put
from reader_results import captions, error_of
from tars import link, write_tar

from captioning.data import Faults, open_picture, read_folder, read_webdataset, recognize_data, watch_reads
from captioning.data.readers import webdataset as module
from captioning.data.readers.webdataset import archives_below
from captioning.errors import ConfigError, DataError

refusal = partial(error_of, read_webdataset)


def sample(key, text="a dog", about=None, suffix="jpg"):
    """The members of a sample, as img2dataset writes them: in the order of their suffixes."""
    about = {} if about is None else {f"{key}.json": json.dumps(about)}
    return {f"{key}.{suffix}": PHOTO} | about | ({} if text is None else {f"{key}.txt": text})


def archive(root, name="00000.tar", *samples, **options):
    return write_tar(root / name, [item for each in samples for item in each.items()], **options)


def test_the_records_are_those_of_the_unpacked_folder(tmp_path):
    order = [7, 3, 5, 0, 9, 1, 8, 2, 6, 4]  # img2dataset writes samples in the order of their downloads
    for shard in range(3):
        rows = [sample(f"{shard}{n:08d}", f"words {n}\n\n  more {n} \r\n", {"key": str(n)}) for n in order]
        archive(tmp_path / "tars", f"sub/{shard:05d}.tar", *rows)
        with tarfile.open(tmp_path / f"tars/sub/{shard:05d}.tar") as packed:
            packed.extractall(tmp_path / f"folder/sub/{shard:05d}", filter="data")
    shares = {"val_share": 0.3, "test_share": 0.2}
    found, wanted = read_webdataset(tmp_path / "tars", **shares), read_folder(tmp_path / "folder", **shares)
    unpacked = [Path(str(each.path).replace(".tar/", "/").replace("/tars/", "/folder/")) for each in found]
    assert unpacked == [each.path for each in wanted] and len(found) == 30
    assert [each[2:] for each in found] == [each[2:] for each in wanted]
    assert {each.split for each in found} == {"train", "val", "test"}
    assert all(open_picture(each.path) == open_picture(path) for each, path in zip(found, unpacked, strict=True))
    for share in (0.0, 1e-9):  # a validation split that would be empty gets one image, the same one
        pair = [
            read(tmp_path / name, val_share=share)
            for read, name in ((read_webdataset, "tars"), (read_folder, "folder"))
        ]
        assert [each.split for each in pair[0]] == [each.split for each in pair[1]]
        assert Counter(each.split for each in pair[0])["val"] == bool(share)


def test_ids_stay_when_archives_or_samples_are_added(tmp_path):
    rows = [sample(f"{n:09d}") for n in (4, 2, 0)]
    archive(tmp_path, "b.tar", *rows)
    archive(tmp_path, "c.tar", *rows)  # the same keys in another archive are other images
    before = {each.path: each.image_id for each in read_webdataset(tmp_path)}
    assert len(set(before.values())) == 6 and all(0 <= number < 2**53 for number in before.values())
    archive(tmp_path, "a.tar", *rows)
    archive(tmp_path, "b.tar", sample("000000001"), mode="a")
    after = {each.path: each.image_id for each in read_webdataset(tmp_path)}
    assert len(set(after.values())) == 10 and before.items() <= after.items()
    own = [after[tmp_path / f"b.tar/{n:09d}.jpg"] for n in (4, 2, 0, 1)]
    assert own == list(range(own[0], own[0] + 4))  # in the order of the archive, so that it is read from start to end
    shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("copy"))
    copied = {each.path.relative_to(tmp_path / "copy"): each.image_id for each in read_webdataset(tmp_path / "copy")}
    assert copied == {path.relative_to(tmp_path): number for path, number in after.items()}


def test_two_archives_with_the_same_hash_have_different_ids(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_ARCHIVE_BITS", 1)
    for name in ("a.tar", "b.tar"):
        archive(tmp_path, name, sample("1"), sample("2"))
    assert len({each.image_id for each in read_webdataset(tmp_path)}) == 4
    monkeypatch.setattr(module, "_NUMBER_BITS", 1)
    archive(tmp_path, "b.tar", *(sample(str(n)) for n in range(3)))
    assert "b.tar has more than 2 images: split it into several archives" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train-00000.tar", "validation-00000.tar", "test/0.tar"], ["train", "val", "test"]),
        (["train/0.tar", "VAL/0.tar", "dev/deep/0.tar"], ["train", "val", "val"]),
        (["cc3m-train-0000.tar", "cc3m_validation_0000.tar", "x.test.0.tar"], ["train", "val", "test"]),
    ],
)
def test_the_names_of_archives_and_folders_are_splits(tmp_path, names, splits):
    for name in names:
        archive(tmp_path, name, sample("1"), sample("2"))
    found = {each.path.parent.relative_to(tmp_path).as_posix(): each.split for each in read_webdataset(tmp_path)}
    assert found == dict(zip(names, splits, strict=True))
    write_tar(tmp_path / "other.tar", {"readme.md": "x"})  # has no images, so it needs no split
    assert len(read_webdataset(tmp_path)) == 6
    archive(tmp_path, "more.tar", sample("1"))
    assert "names a split and" in error_of(
        read_webdataset, tmp_path
    ) and "more.tar does not: rename the archives" in refusal(tmp_path)


def test_captions_in_json(tmp_path, capsys):
    about = {"caption": "a cat", "status": "success", "blip": ["one", " two "], "width": 3}
    archive(tmp_path, "a.tar", sample("1", None, about), sample("2", "a dog", about))
    assert captions(read_webdataset(tmp_path), tmp_path) == {"a.tar/1.jpg": ("a cat",), "a.tar/2.jpg": ("a dog",)}
    found = read_webdataset(tmp_path, captions="blip")
    assert captions(found, tmp_path) == dict.fromkeys(("a.tar/1.jpg", "a.tar/2.jpg"), ("one", "two"))
    told = refusal(tmp_path, captions="blib", kind=ConfigError)
    assert told == (
        f"data.reader.captions=blib is not a key of the JSON files in data.root={tmp_path}: choose one of blip, "
        "caption, status, width"
    )
    for wrong, told in [
        (
            {"caption": "a", "text": "b"},
            "the keys caption and text may be the caption: set data.reader.captions to one",
        ),
        ({"caption": 3}, "'caption' must be a text or a list of texts, not 3"),
        ({"captions": ["a", ""]}, "'captions'[1] is blank"),
        ([1], "it must be a JSON object with the key caption, not [1]: correct it"),
    ]:
        archive(tmp_path, "a.tar", sample("1", None, wrong), sample("2"))
        assert refusal(tmp_path).startswith(f"{tmp_path}/a.tar/1.json: ") and told in error_of(
            read_webdataset, tmp_path
        )
        faults = Faults()
        found = read_webdataset(tmp_path, faults=faults)
        if "blank" in told:  # the audit lists it among the captions
            assert found[0].captions == ("a", "") and not faults.messages
        else:
            assert len(found) == 1 and told in faults.messages[0]
    for content, reason in [
        (b"{cut", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b'{"caption": "a", "caption": "b"}', "an object has the key 'caption' twice; keep one of them"),
        (b"", "Expecting value: line 1 column 1 (char 0)"),
    ]:
        write_tar(tmp_path / "a.tar", sample("1", None) | {"1.json": content} | sample("2"))
        told = f"a.tar/1.json: it must be a JSON object with the key caption ({reason}): correct it"
        assert refusal(tmp_path).endswith(told)
    archive(tmp_path, "a.tar", sample("1", None, {"caption": None}), sample("2", None, {"caption": " "}), sample("3"))
    assert list(captions(read_webdataset(tmp_path), tmp_path)) == ["a.tar/3.jpg"]
    assert "2 samples left out, without a caption" in capsys.readouterr().err


def test_what_is_left_out_is_counted(tmp_path, capsys):
    failed = {"status": "failed_to_download", "error_message": "404", "caption": "a cat"}
    rows = [sample(str(n)) for n in range(3)]
    rows += [{"5.json": json.dumps(failed)}, {"6.json": json.dumps(failed)}]
    rows += [{"7.txt": "no image"}, {"8.json": json.dumps({"caption": "no image"})}, sample("9", None)]
    rows += [sample("10", " \n", {"status": "success", "caption": None}), {"__meta__.json": "{}"}, {"11.cls": "3"}]
    archive(tmp_path, "00000.tar", *rows)
    assert len(read_webdataset(tmp_path)) == 3
    where = tmp_path / "00000.tar"
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}: 2 samples left out, a failed download (first: {where}/5.json)",
        f"{tmp_path}: 2 samples left out, without an image (first: {where}/7.txt)",
        f"{tmp_path}: 2 samples left out, without a caption (first: {where}/9.jpg)",
    ]
    faults = Faults()
    assert len(read_webdataset(tmp_path, faults=faults)) == 3 and not faults.messages
    assert Counter(item["reason"] for item in faults.noted["images left out"]) == {
        "a failed download": 2,
        "without an image": 2,
        "without a caption": 2,
    }


@pytest.mark.parametrize("faults", [None, Faults()])
def test_the_first_sample_may_have_no_image(tmp_path, faults):
    failed = {"0.json": json.dumps({"status": "failed_to_download"})}
    archive(tmp_path, "a.tar", failed, sample("1"), sample("2"))
    archive(tmp_path, "b.tar", failed)
    found = read_webdataset(tmp_path, **({"faults": faults} if faults else {}))
    assert [each.path.name for each in found] == ["1.jpg", "2.jpg"] and not (faults and faults.messages)
    (tmp_path / "a.tar").unlink()
    assert "has no archive with images and captions (1 sample a failed download)" in refusal(tmp_path)


def test_a_key_ends_at_the_first_dot_and_has_its_folder(tmp_path):
    members = {"./x/a.jpg": PHOTO, "./x/a.txt": "one", "y/a.JPG": PHOTO, "y/a.Txt": "two"}
    members |= {"y/a.seg.png": PHOTO, "y/a.txt.bak": "no", "z.d/b.webp": PHOTO, "z.d/b.txt": "three"}
    write_tar(tmp_path / "0.tar", members)
    wanted = {"0.tar/x/a.jpg": ("one",), "0.tar/y/a.JPG": ("two",), "0.tar/z.d/b.webp": ("three",)}
    assert captions(read_webdataset(tmp_path), tmp_path) == wanted


def test_images_that_only_differ_after_a_dot_are_not_left_out_in_silence(tmp_path, capsys):
    extra = {"1.seg.png": PHOTO, "1.depth.tif": PHOTO, "1.seg.txt.bak": "x", "1.cls": "3", "2.note.txt": "no image"}
    archive(tmp_path, "0.tar", sample("1") | extra)
    assert len(read_webdataset(tmp_path)) == 1 and capsys.readouterr().err == ""
    names = [sample("2024.05.01"), {"v1.5.jpg": PHOTO, "v1.5.json": "{}"}, {"3.image.jpg": PHOTO, "3.caption.txt": "a"}]
    archive(tmp_path, "0.tar", sample("1") | extra, *names)
    assert len(read_webdataset(tmp_path)) == 1
    assert capsys.readouterr().err == (
        f"{tmp_path}: 3 samples left out, with a second dot in its name, as if it were another file of a sample: write "
        f"_ instead (first: {tmp_path}/0.tar/2024.05.01.jpg)\n"
    )
    archive(tmp_path, "0.tar", *names)
    assert "has no archive with images and captions (3 samples with a second dot in its name" in error_of(
        read_webdataset, tmp_path
    )


def test_files_of_a_sample_may_be_apart(tmp_path):
    members = [("1.txt", "one"), ("2.txt", "two"), ("2.jpg", PHOTO), ("1.jpg", PHOTO)]
    write_tar(tmp_path / "0.tar", members)
    assert captions(read_webdataset(tmp_path), tmp_path) == {"0.tar/1.jpg": ("one",), "0.tar/2.jpg": ("two",)}


def test_long_names_of_every_format(tmp_path):
    key = "d" * 120 + "/" + "狗" * 70
    for name, form in (("gnu.tar", tarfile.GNU_FORMAT), ("pax.tar", tarfile.PAX_FORMAT)):
        archive(tmp_path, name, sample(key), form=form)
    records = read_webdataset(tmp_path)
    assert list(captions(records, tmp_path)) == [f"gnu.tar/{key}.jpg", f"pax.tar/{key}.jpg"]
    assert all(open_picture(record.path) for record in records)


def test_hidden_files_links_and_names_that_lead_out_are_left_out(tmp_path, capsys):
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "secret.jpg").write_bytes(PHOTO)
    members = list((sample("1") | {"._1.jpg": b"macOS", "._1.txt": b"macOS", "__MACOSX/._1.jpg": b"x"}).items())
    members += [(".hidden/2.jpg", PHOTO), (".hidden/2.txt", "hidden")]
    members += [("3.jpg", PHOTO), link("3.txt", "../secret.txt"), link("4.jpg", "secret.jpg"), ("4.txt", "no image")]
    members += [("../secret.jpg", PHOTO), ("../secret.txt", "out"), (f"{tmp_path}/secret.jpg", PHOTO)]
    write_tar(tmp_path / "0.tar", members)
    write_tar(tmp_path / ".1.tar", sample("1"))
    write_tar(tmp_path / ".trash/1.tar", sample("1"))
    assert captions(read_webdataset(tmp_path), tmp_path) == {"0.tar/1.jpg": ("a dog",)}
    told = capsys.readouterr().err
    assert f"2 samples left out, with a link (first: {tmp_path}/0.tar/3.txt)" in told
    assert (
        f"3 samples left out, with a name that leads out of the archive (first: {tmp_path}/0.tar/../secret.jpg)" in told
    )
    assert "1 sample left out, without a caption" in told and "1 sample left out, without an image" in told


def test_the_last_of_two_files_of_one_name_counts(tmp_path, capsys):
    new = bytes(PHOTO)[:-2] + b"\xff\xd9"
    write_tar(tmp_path / "0.tar", [*sample("1", "old").items(), ("1.txt", "new"), ("1.jpg", new)])
    (record,) = read_webdataset(tmp_path)
    assert record.captions == ("new",)
    told = f"{tmp_path}: 2 files in an archive twice; the last one counts, as in tar (first: {tmp_path}/0.tar/1.txt)\n"
    assert capsys.readouterr().err == told


def test_two_images_of_one_sample_are_refused(tmp_path):
    archive(tmp_path, "0.tar", sample("1") | {"1.png": PHOTO}, sample("2"))
    told = f"{tmp_path}/0.tar: one sample has the images 1.jpg and 1.png: remove one of them from the archive"
    assert refusal(tmp_path) == told
    faults = Faults()
    assert len(read_webdataset(tmp_path, faults=faults)) == 1 and faults.messages == [told]


def test_archives_that_are_cut_short_damaged_or_compressed(tmp_path):
    whole = archive(tmp_path, "0.tar", *(sample(str(n)) for n in range(5)))
    shutil.copy(whole, tmp_path / "1.tar")
    os.truncate(tmp_path / "1.tar", whole.stat().st_size // 3)
    told = f"{tmp_path}/1.tar is cut short after {whole.stat().st_size // 3:,} bytes: download it again"
    assert refusal(tmp_path) == told
    faults = Faults()
    assert len(read_webdataset(tmp_path, faults=faults)) == 5 and faults.messages == [told]
    (tmp_path / "1.tar").unlink()
    with tarfile.open(tmp_path / "2.tar.gz", "w:gz") as packed:
        packed.add(whole, "x.jpg")
    assert refusal(tmp_path) == (
        f"{tmp_path}/2.tar.gz is compressed, so its images cannot be read one by one. Run: gunzip {tmp_path}/*.tar.gz"
    )
    shutil.copy(whole, tmp_path / "2.tar")  # gunzip --keep
    assert len(read_webdataset(tmp_path)) == 10
    shutil.move(tmp_path / "2.tar.gz", tmp_path / "2.tar")
    name = f"{tmp_path}/2.tar"
    assert refusal(tmp_path).endswith(f"Run: mv {name} {name}.gz && gunzip {name}.gz")


def test_links_are_followed_and_no_archive_is_read_twice(tmp_path):
    root, away = tmp_path / "root", tmp_path / "away"
    for path in (root / "0.tar", root / "sub/1.tar", away / "2.tar", away / "deep/3.tar", tmp_path / "blob"):
        write_tar(path, sample("1"))
    (root / "train").symlink_to(away)
    for name in ("again", "train-again"):  # read under the first of two names outside of the folder
        (root / name).symlink_to(away / "deep")
    (root / "a.tar").symlink_to(root / "sub/1.tar")
    (root / "b.tar").symlink_to(tmp_path / "blob")  # as in a cache of Hugging Face
    for name, target in (("self", root), ("up", tmp_path), ("within", root / "sub")):
        (root / name).symlink_to(target)
    (away / "cycle").symlink_to(away)
    plain, _ = archives_below(root)
    found = [path.relative_to(root).as_posix() for path in plain]
    assert found == ["0.tar", "again/3.tar", "b.tar", "sub/1.tar", "train/2.tar"]
    assert len({os.path.realpath(path) for path in plain}) == 5
    within = [path.relative_to(root).as_posix() for path in archives_below(root, within=True)[0]]
    assert within == ["0.tar", "b.tar", "sub/1.tar"]
    put(tmp_path / "photos", {"7.jpg": PHOTO, "7.txt": "a dog"})
    (tmp_path / "photos/away").symlink_to(away)  # data=folder does not look into links either
    assert len(read_folder(tmp_path / "photos")) == 1
    assert recognize_data(tmp_path / "photos").settings["data"] == "folder"
    (root / "c.tar").symlink_to(tmp_path / "nothing.tar")
    assert f"{root}/c.tar is a link to a file that does not exist: correct or delete it" in error_of(
        read_webdataset, root
    )


def test_a_subfolder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    archive(tmp_path, "0.tar", sample("1"))
    for name in ("sub", "lost+found"):
        archive(tmp_path, f"{name}/1.tar", sample("1"))
    listed = os.scandir

    def scandir(path="."):
        if Path(path).name in ("sub", "lost+found"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    told = f"cannot list {tmp_path}/sub (Permission denied): check the folder and its permissions"
    assert refusal(tmp_path) == told
    assert recognize_data(tmp_path).settings["data"] == "webdataset"


def test_endings_in_capitals(tmp_path):
    archive(tmp_path, "0.TAR", sample("1"))
    archive(tmp_path, "1.Tar", sample("1"))
    records = read_webdataset(tmp_path)
    assert list(captions(records, tmp_path)) == ["0.TAR/1.jpg", "1.Tar/1.jpg"]
    assert all(open_picture(record.path).size for record in records)
    assert recognize_data(tmp_path).settings["data"] == "webdataset"
    with tarfile.open(tmp_path / "0.TAR") as packed:
        packed.extractall(tmp_path / "folder/0", filter="data")
    splits = [
        read(tmp_path / name, val_share=0.5)[0].split
        for read, name in ((read_webdataset, "."), (read_folder, "folder"))
    ]
    assert splits[0] == splits[1]
    archive(tmp_path, "2.TAR.GZ", sample("1"), mode="w:gz")
    assert f"Run: gunzip {tmp_path}/*.TAR.GZ" in refusal(tmp_path)
    (tmp_path / "2.TAR.GZ").rename(tmp_path / "2.TAR")
    name = f"{tmp_path}/2.TAR"
    assert refusal(tmp_path).endswith(f"Run: mv {name} {tmp_path}/2.tar.gz && gunzip {tmp_path}/2.tar.gz")


def test_a_folder_without_such_archives(tmp_path):
    assert "there is no such folder: check data.root" in refusal(tmp_path / "no")
    file = archive(tmp_path / "other", "0.tar", sample("1"))
    assert refusal(file) == f"data.root={file}: this is a file: set data.root to its folder"
    file.unlink()
    assert "has no tar archive: add NAME.tar with photo.jpg and photo.txt" in refusal(tmp_path)
    archive(tmp_path, "0.tar", sample("1", None), {"2.txt": "x"})
    told = "has no archive with images and captions (1 sample without a caption; 1 sample without an image)"
    assert told in refusal(tmp_path)
    assert read_webdataset(tmp_path, faults=Faults()) == []
    assert "val_share (1)" in refusal(tmp_path, val_share=1, kind=ConfigError)


def test_the_archives_are_files_that_were_read(tmp_path):
    paths = [archive(tmp_path, name, sample("1")) for name in ("0.tar", "sub/1.tar")]
    with watch_reads() as reads:
        read_webdataset(tmp_path)
    assert all(reads[str(path)] == [path.stat().st_size, path.stat().st_mtime_ns] for path in paths)
    assert {str(tmp_path), str(tmp_path / "sub")} <= set(reads)


@pytest.mark.parametrize("about", [None, {"caption": "a dog"}])
def test_archives_are_recognized(tmp_path, about):
    archive(tmp_path, "sub/00001.tar", sample("1", None if about else "a dog", about))
    put(tmp_path, {"sub/00001_stats.json": {"count": 1}, "sub/00001.parquet": b"PAR1"})
    found = recognize_data(tmp_path)
    assert found.settings["data"] == "webdataset" and "(sub/00001.tar)" in found.line()
    archive(tmp_path, "sub/00001.tar", sample("1", None, {"label": 3}))
    with pytest.raises(DataError, match="has no known layout"):
        recognize_data(tmp_path)


@pytest.mark.parametrize("first", ["photos", "texts"])
def test_archives_are_recognized_by_photos_and_texts_that_are_far_apart(tmp_path, first):
    photos, texts = ({f"{n}.{end}": PHOTO if end == "jpg" else "a dog" for n in range(50)} for end in ("jpg", "txt"))
    path = write_tar(tmp_path / "0.tar", photos | texts if first == "photos" else texts | photos)
    assert recognize_data(tmp_path).settings["data"] == "webdataset"
    put(tmp_path, {"91.jpg": PHOTO, "91.txt": "a dog"})
    with pytest.raises(DataError, match="data=folder does not read archives"):
        read_folder(tmp_path)
    with tarfile.open(path) as packed:
        packed.extractall(tmp_path, filter="data")
    assert len(read_folder(tmp_path)) == 51


def test_compressed_archives_are_recognized_and_refused(tmp_path):
    archive(tmp_path, "0.tar.gz", sample("1"), mode="w:gz")
    assert recognize_data(tmp_path).settings["data"] == "webdataset"
    assert f"Run: gunzip {tmp_path}/*.tar.gz" in refusal(tmp_path)
