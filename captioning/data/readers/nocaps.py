"""Read nocaps (Agrawal et al. 2019): Open Images with captions, in three domains. It has no training split.

Layout, from https://nocaps.org/download (image info files, COCO's format with "open_images_id") and the caption file at
https://nocaps.s3.amazonaws.com/nocaps_val_4500_captions.json, whose images also have "domain": "in-domain",
"near-domain" or "out-domain". The captions of test are not published: nocaps_test_image_info.json only lists images.
The photos are those of Open Images' validation and test sets, named by their id.
"""

from pathlib import Path

from captioning.data import STRICT, Disk, Faults, Handling, Record, entries, read_json
from captioning.data.readers.checks import CaptionFile, checked
from captioning.data.readers.coco_json import CocoKeys, coco_records
from captioning.data.readers.published import first_file, folder_with, nothing_found

DOMAINS = ("in-domain", "near-domain", "out-domain")
_CAPTIONS = "nocaps_val_4500_captions.json"
_FOLDERS = ("val", "validation", "images/val", "images/validation", "Images/validation", "val_imgs", "images", "Images")


def read_nocaps(root: str | Path, *, faults: Handling = STRICT) -> list[Record]:
    """Read the validation split of nocaps. The group of an image is its domain.

    Args:
        root: folder of the data set.
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        DataError: the captions or the photos are missing or inconsistent.
    """
    root, disk = Path(root), Disk()
    file = first_file(root, [_CAPTIONS, f"annotations/{_CAPTIONS}"])
    names: list[str] = []
    if file:
        with Faults():  # `coco_records` reports what is wrong with the file
            listed = entries(read_json(file), "images", file)
            names = [str(image.get("file_name")) for _, image in listed if isinstance(image, dict)]
    folder = folder_with(root, _FOLDERS, names, disk)
    if not (file and folder):
        raise nothing_found(root, "nocaps captions", [f"{_CAPTIONS} with the photos of its validation set in val/"])
    keys = CocoKeys(group="domain", groups=DOMAINS)
    records = coco_records(file, folder, disk, split="val", faults=faults, keys=keys)
    return checked([CaptionFile(file, records, folder)], disk, faults)
