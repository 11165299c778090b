"""Region features of a detector: what is taken of a file, and every file that is refused."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from captioning.data import Record
from captioning.errors import ConfigError, DataError
from captioning.features import RegionFolder
from captioning.features.sources import detector_regions

RECORD = Record(7, Path("dog.jpg"), "train", ())
FEATURES = np.arange(12.0).reshape(4, 3)
BOXES = np.arange(16.0).reshape(4, 4)


def write(folder, name="7", **arrays):
    np.savez(folder / f"{name}.npz", **arrays)


def regions(folder, **options):
    return RegionFolder(folder, **{"size": 3} | options)[RECORD]


@pytest.mark.parametrize("features", ["x", "features", "feat"])
@pytest.mark.parametrize("boxes", ["bbox", "boxes"])
def test_the_names_of_several_extractors(tmp_path, features, boxes):
    write(tmp_path, **{features: FEATURES, boxes: BOXES, "image_w": 3})
    found = regions(tmp_path)
    assert found.features.tolist() == FEATURES.tolist() and found.features.dtype == np.float16
    assert found.boxes.tolist() == BOXES.tolist() and found.boxes.dtype == np.float32


@pytest.mark.parametrize(
    ("told", "most", "count"), [(None, 100, 4), (None, 4, 4), (None, 3, 3), (2, 100, 2), (2, 1, 1), (9, 100, 4)]
)
def test_as_many_as_there_are_as_are_told_and_as_are_wanted(tmp_path, told, most, count):
    write(tmp_path, x=FEATURES, bbox=BOXES, **({} if told is None else {"num_bbox": told}))
    found = regions(tmp_path, max_regions=most)
    assert found.features.tolist() == FEATURES[:count].tolist() and found.boxes.tolist() == BOXES[:count].tolist()


def test_one_hundred_by_default_and_at_least_one(tmp_path):
    write(tmp_path, x=np.ones((101, 3)), bbox=np.ones((101, 4)))
    assert len(regions(tmp_path).features) == 100
    assert len(regions(tmp_path, max_regions=1).features) == 1
    with pytest.raises(ConfigError, match=r"features\.max_regions must be at least 1, not 0"):
        regions(tmp_path, max_regions=0)


def test_what_was_filled_up_may_hold_anything(tmp_path):
    features = FEATURES.copy()
    features[2:] = np.nan
    write(tmp_path, x=features, bbox=BOXES[:2], num_bbox=2)
    assert regions(tmp_path).features.tolist() == FEATURES[:2].tolist()
    with pytest.raises(DataError, match="features are not finite, or beyond float16's 65504: run the detector again"):
        write(tmp_path, x=features, bbox=BOXES, num_bbox=3)
        regions(tmp_path)
    with pytest.raises(DataError, match="features are not finite"):
        write(tmp_path, x=FEATURES * 1e5, bbox=BOXES)
        regions(tmp_path)


@pytest.mark.parametrize(
    ("features", "boxes", "told"),
    [
        (FEATURES[:, :2], BOXES, r"features have shape \[4, 2\], not \[regions, 3\]: set encoder\.size"),
        (FEATURES[0], BOXES, r"features have shape \[3\], not \[regions, 3\]"),
        (FEATURES[None], BOXES, r"features have shape \[1, 4, 3\], not \[regions, 3\]"),
        (FEATURES[:0], BOXES, r"features have shape \[0, 3\], not \[regions, 3\]"),
        (FEATURES, BOXES[:3], r"boxes have shape \[3, 4\], but must be \[regions, 4\] for 4 regions"),
        (FEATURES, BOXES[:, :3], r"boxes have shape \[4, 3\], but must be \[regions, 4\] for 4 regions"),
        (FEATURES, BOXES.ravel(), r"boxes have shape \[16\], but must be \[regions, 4\] for 4 regions"),
    ],
)
def test_other_shapes_are_refused(tmp_path, features, boxes, told):
    write(tmp_path, x=features, bbox=boxes)
    with pytest.raises(DataError, match=told):
        regions(tmp_path)


def test_no_region_at_all_is_refused(tmp_path):
    write(tmp_path, x=FEATURES, bbox=BOXES, num_bbox=0)
    with pytest.raises(DataError, match=r"set encoder\.size to their last dimension"):
        regions(tmp_path)


def test_missing_arrays_files_and_folders_are_named(tmp_path):
    with pytest.raises(
        DataError, match=r"features\.root=.* is not a folder: set it to a folder with a file IMAGE_ID\.npz"
    ):
        RegionFolder(tmp_path / "none", size=3)
    with pytest.raises(DataError, match=r"dog\.npz: cannot read region features"):
        regions(tmp_path)
    write(tmp_path, bbox=BOXES, other=1)
    with pytest.raises(DataError, match=r"has the arrays bbox, other: it needs one of x, features, feat$"):
        regions(tmp_path)
    write(tmp_path)
    with pytest.raises(DataError, match=r"has the arrays .none.: it needs one of"):
        regions(tmp_path)
    (tmp_path / "7.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"7\.npz: cannot read region features .*: run the detector again"):
        regions(tmp_path)
    np.savez(tmp_path / "7.npz", x=np.array([{}], dtype=object), bbox=BOXES)
    with pytest.raises(DataError, match=r"cannot read region features .*allow_pickle"):
        regions(tmp_path)


def test_the_file_is_found_by_id_before_the_images_name(tmp_path):
    folder = RegionFolder(tmp_path, size=3)
    assert folder.missing([RECORD]) == [RECORD] and folder.path(RECORD) == tmp_path / "dog.npz"
    write(tmp_path, name="dog", x=FEATURES, bbox=BOXES)
    assert folder.missing([RECORD]) == [] and folder[RECORD].features[0, 1] == 1
    write(tmp_path, x=FEATURES + 1, bbox=BOXES)
    assert folder.path(RECORD) == tmp_path / "7.npz" and folder[RECORD].features[0, 1] == 2


def test_two_images_never_have_the_same_file(tmp_path):
    write(tmp_path, "1", x=np.zeros((1, 4)), bbox=np.zeros((1, 4)))
    named = [Record(number, Path(f"0000{number}.tar", "1.jpg"), "train", ()) for number in (5, 6)]
    told = r"1\.npz would be the region features of 00005\.tar/1\.jpg and of 00006\.tar/1\.jpg: .* 5\.npz and 6\.npz"
    with pytest.raises(DataError, match=told):
        RegionFolder(tmp_path, size=4).check_own(named)
    with pytest.raises(DataError, match=told):
        detector_regions(SimpleNamespace(output="regions", size=4), None, named, name="x", root=str(tmp_path))
    with pytest.raises(DataError, match=r"features of 0/1\.jpg and of 0/2\.jpg"):  # by name, and by id
        RegionFolder(tmp_path, size=4).check_own(
            [Record(0, Path("0/1.jpg"), "train", ()), Record(1, Path("0/2.jpg"), "train", ())]
        )
    write(tmp_path, "6", x=np.zeros((1, 4)), bbox=np.zeros((1, 4)))
    RegionFolder(tmp_path, size=4).check_own([*named, named[0]])  # a second record of an image: two questions about it
    RegionFolder(tmp_path, size=4).check_own([each._replace(path=Path(f"{each.image_id}/no.jpg")) for each in named])
