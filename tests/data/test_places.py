"""Names as other systems write them are found where one file answers to them; nothing leads out of the folder."""

import json
import unicodedata

import pytest

from captioning.data import read_coco, read_csv, read_karpathy
from captioning.data.readers import read_coco_files
from captioning.errors import DataError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def by_table(root, *names, **options):
    """Paths relative to root of what a table of these names is read as."""
    (root / "captions.csv").write_text("image,caption,split\n" + "".join(f'"{name}",a dog,train\n' for name in names))
    return [str(record.path.relative_to(root)) for record in read_csv(root, **options)]


def by_coco(root, *names):
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [{"image_id": number, "caption": "a dog"} for number in range(len(names))],
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations/captions_train.json").write_text(json.dumps(content))
    return [str(record.path.relative_to(root)) for record in read_coco_files(root)]


def error(reader, *arguments, **options):
    with pytest.raises(DataError) as caught:
        reader(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


DECOMPOSED = unicodedata.normalize("NFD", "images/caf\u00e9.jpg")


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("images\\caf\u00e9.jpg", "backslashes"),
        (".\\images\\caf\u00e9.jpg", "backslashes"),
        ("./images/caf\u00e9.jpg", None),
        ("images//caf\u00e9.jpg", None),
        ("IMAGES/CAF\u00c9.JPG", "different case"),
        ("Images\\caf\u00e9.JPG", "backslashes and different case"),
        (DECOMPOSED, "different composition of accents"),
        (DECOMPOSED.upper(), "different case"),
        ("/home/me/data/images/caf\u00e9.jpg", "an absolute path"),
        ("C:\\Users\\me\\images\\caf\u00e9.jpg", "an absolute path"),
        ("\\\\server\\share\\images\\caf\u00e9.jpg", "an absolute path"),
        ("/images/caf\u00e9.jpg", "an absolute path"),
    ],
)
def test_one_file_answers_to_the_name(tmp_path, capsys, name, differs):
    touch(tmp_path, "images/caf\u00e9.jpg", "images/other.jpg")
    assert by_table(tmp_path, name) == ["images/caf\u00e9.jpg"]
    printed = capsys.readouterr().err
    assert bool(printed) == bool(differs)
    if differs:
        assert f"1 image files have a different spelling on disk: {name} is images/caf\u00e9.jpg ({differs})" in printed
    touch(tmp_path, "train/images/caf\u00e9.jpg")
    assert by_coco(tmp_path, name) == ["train/images/caf\u00e9.jpg"]


def test_a_decomposed_name_on_disk(tmp_path):
    touch(tmp_path, DECOMPOSED)
    assert by_table(tmp_path, "images/caf\u00e9.jpg") == [DECOMPOSED]


def test_a_split_by_hash_is_that_of_the_name_on_disk(tmp_path):
    touch(tmp_path, "images/1.jpg", "images/2.jpg")
    (tmp_path / "a.csv").write_text("image,caption\n" + "".join(f"images/{n}.jpg,a dog\n" for n in (1, 2)))
    (tmp_path / "b.csv").write_text("image,caption\n" + "".join(f"IMAGES\\{n}.JPG,a dog\n" for n in (1, 2)))
    assert read_csv(tmp_path, file="a.csv") == read_csv(tmp_path, file="b.csv")


def test_an_exact_name_comes_before_a_like_one(tmp_path, capsys):
    touch(tmp_path, "a.jpg", "A.jpg", "x\\y.jpg", "x/y.jpg")
    assert by_table(tmp_path, "A.jpg", "a.jpg", "x\\y.jpg") == ["A.jpg", "a.jpg", "x\\y.jpg"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("disk", "name", "wanted"),
    [
        (
            ["images/000.jpg", "images/000.Jpg"],
            "images/000.JPG",
            "images/000.Jpg and images/000.jpg are there (different case)",
        ),
        (
            ["images/000.png"],
            "images/000.jpg",
            "images/000.jpg is missing, but images/000.png is there (another suffix)",
        ),
        (["images/000.jpg"], "images/000", "images/000 is missing, but images/000.jpg is there (another suffix)"),
        (["photos/000.jpg"], "000.jpg", "000.jpg is missing, but photos/000.jpg is there (another folder)"),
        (["other.jpg"], "000.jpg", "images that are not on disk: "),
    ],
)
def test_what_differs_is_told_where_it_is_not_certain(tmp_path, disk, name, wanted):
    touch(tmp_path, *disk)
    assert wanted in error(by_table, tmp_path, name)


def test_two_names_that_differ_by_case_for_one_file(tmp_path):
    touch(tmp_path, "a.jpg")
    wanted = "captions.csv: A.jpg and a.jpg differ by case, but only a.jpg is on disk"
    assert wanted in error(by_table, tmp_path, "a.jpg", "A.jpg")


def test_absolute_names_share_one_beginning(tmp_path):
    touch(tmp_path, "cats/1.jpg", "dogs/1.jpg")
    assert by_table(tmp_path, "/d/cats/1.jpg", "/d/dogs/1.jpg") == ["cats/1.jpg", "dogs/1.jpg"]
    touch(tmp_path, "1.jpg")
    assert "images that are not on disk" not in error(by_table, tmp_path, "/e/cats/1.jpg", "/d/birds/1.jpg")


@pytest.mark.parametrize(
    "name",
    [
        *["../secret.jpg", "..\\secret.jpg", "images\\..\\..\\secret.jpg", "/etc/hostname", "a\0b"],
        *["C:\\x\\..\\..\\secret.jpg", "/images/../../secret.jpg"],
    ],
)
def test_nothing_leads_out_of_the_folder(tmp_path, name):
    root = tmp_path / "root"
    touch(tmp_path, "secret.jpg", "root/images/1.jpg", "root/train/1.jpg")
    for reader in (by_table, by_coco):
        said = error(reader, root, name)
        assert "leads out of" in said or "not on disk" in said


def test_a_link_out_of_the_folder_is_refused_under_another_spelling_too(tmp_path):
    root = tmp_path / "root"
    touch(tmp_path, "secret.jpg", "root/images/1.jpg")
    (root / "images/2.jpg").symlink_to(tmp_path / "secret.jpg")
    assert "links out of their folder" in error(by_table, root, "IMAGES/2.JPG")


# Karpathy's COCO beside other folders


def karpathy(root, *numbers, split="val2014", name="dataset_coco.json"):
    names = [f"COCO_{split}_{number:012d}.jpg" for number in numbers]
    images = [
        {"filepath": split, "filename": name, "cocoid": number, "imgid": 0, "split": "train"}
        | {"sentences": [{"raw": "a dog"}]}
        for number, name in zip(numbers, names, strict=True)
    ]
    (root / name).write_text(json.dumps({"images": images}))
    return names


@pytest.mark.parametrize(
    "folder", ["train2017", "val2017", "images/train2017", "images", "", "train2014", "images/val2014"]
)
def test_karpathys_split_beside_other_folders(tmp_path, capsys, folder):
    (name,) = karpathy(tmp_path, 42)
    file = f"{folder}/000000000042.jpg" if "2017" in folder else f"{folder}/{name}"
    touch(tmp_path, file.lstrip("/"))
    assert [record.path for record in read_coco(tmp_path)] == [tmp_path / file.lstrip("/")]
    assert "images found by name in other folders than those in the file: 1 in " in capsys.readouterr().err


def test_the_usual_folder_comes_first_and_another_number_is_another_picture(tmp_path):
    (name,) = karpathy(tmp_path, 42)
    touch(tmp_path, f"val2014/{name}", "train2017/000000000042.jpg")
    assert read_coco(tmp_path)[0].path == tmp_path / "val2014" / name
    (tmp_path / "val2014" / name).unlink()
    content = json.loads((tmp_path / "dataset_coco.json").read_text())
    content["images"][0]["cocoid"] = 43
    (tmp_path / "dataset_coco.json").write_text(json.dumps(content))
    assert "images that are not on disk" in error(read_coco, tmp_path)


# A folder once more in itself


def flickr(root, *names):
    images = [{"filename": name, "imgid": number, "split": "train", "sentences": [{"raw": "a dog"}]}
              for number, name in enumerate(names)]  # fmt: skip
    (root / "dataset_flickr30k.json").write_text(json.dumps({"images": images}))
    return [str(r.path.relative_to(root)) for r in read_karpathy(root, annotations="dataset_flickr30k.json")]


@pytest.mark.parametrize(
    "folder", ["flickr30k_images/flickr30k_images", "Flickr8k_Dataset/Flicker8k_Dataset", "images/images"]
)
def test_a_folder_that_an_archive_put_into_itself(tmp_path, folder):
    touch(tmp_path, f"{folder}/1.jpg")
    assert flickr(tmp_path, "1.jpg") == [f"{folder}/1.jpg"]
    first, second = folder.split("/")
    if first == second:
        assert by_table(tmp_path, "1.jpg", images=first) == [f"{folder}/1.jpg"]
    assert by_table(tmp_path, "1.jpg") == [f"{folder}/1.jpg"]


def test_the_outer_folder_where_it_has_the_pictures(tmp_path):
    touch(tmp_path, "images/1.jpg", "images/images/2.jpg")
    assert flickr(tmp_path, "1.jpg", "images/2.jpg") == ["images/1.jpg", "images/images/2.jpg"]


def test_official_folders_once_more_in_themselves(tmp_path):
    touch(tmp_path, "train/train/1.jpg")
    assert by_coco(tmp_path, "1.jpg") == ["train/train/1.jpg"]
