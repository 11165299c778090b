"""Read MS-COCO captions in the official folders of 2014 or 2017, or with Karpathy's split."""

from pathlib import Path
from typing import Any

from captioning.data import STRICT, Disk, Handling, Record
from captioning.data.readers.checks import CaptionFile, checked
from captioning.data.readers.coco_json import present_splits, read_coco_files
from captioning.data.readers.karpathy import karpathy_records
from captioning.errors import ConfigError, DataError

COCO_LAYOUTS = {
    "karpathy": "dataset_coco.json with train2014/ and val2014/",
    "2014": "annotations/captions_{train,val}2014.json with train2014/ and val2014/",
    "2017": "annotations/captions_{train,val}2017.json with train2017/ and val2017/",
}


def read_coco(root: str | Path, *, layout: str | int = "auto", faults: Handling = STRICT) -> list[Record]:
    """Read MS-COCO captions in the official folders of 2014 or 2017, or in the folders of 2014 with Karpathy's split.

    Args:
        root: folder of the data set.
        layout: "karpathy" (its "restval" images are in train), "2014", "2017", or "auto" for the layout on disk. In the
            official layouts, a split is read if both its captions and its images are there.
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        DataError: the layout's files are missing or inconsistent.
        ConfigError: the layout is unknown, or it is "auto" and the folder has both 2014 and 2017, but not Karpathy's
            file.
    """
    root, layout = Path(root), str(layout)
    if layout not in ("auto", *COCO_LAYOUTS):
        raise ConfigError(f"data.layout must be auto, {', '.join(COCO_LAYOUTS)}, not {layout!r}")
    wanted = list(COCO_LAYOUTS) if layout == "auto" else [layout]
    found = [name for name in wanted if _has_layout(root, name)]
    if not found:
        raise DataError(
            f"data.root={root} has no COCO captions: it needs {', or '.join(COCO_LAYOUTS[name] for name in wanted)}. "
            f"Run: captioning-prepare data=coco download=true data.root={root} (see docs/data.md in the repository)"
        )
    if found == ["2014", "2017"]:
        raise ConfigError(f"{root} has both COCO 2014 and COCO 2017: choose data.layout=2014 or data.layout=2017")
    if found[0] == "karpathy":
        file, disk = root / "dataset_coco.json", Disk()
        records = karpathy_records(file, root, disk, id_key="cocoid", faults=faults)
        return checked([CaptionFile(file, records, root)], disk, faults)
    return read_coco_files(root, **_official(found[0]), faults=faults)


def _official(year: str) -> dict[str, Any]:
    """Return the arguments of `read_coco_files` for the official COCO archives of a year."""
    annotations, images = f"annotations/captions_{{split}}{year}.json", f"{{split}}{year}"
    return {"annotations": annotations, "images": images, "splits": ("train", "val")}


def _has_layout(root: Path, name: str) -> bool:
    return (
        (root / "dataset_coco.json").is_file() if name == "karpathy" else bool(present_splits(root, **_official(name)))
    )
