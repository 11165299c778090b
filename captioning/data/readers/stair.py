"""Read STAIR Captions (Yoshikawa et al. 2017): Japanese captions of the images of COCO 2014.

Layout, from http://captions.stair.center/download/ and https://github.com/STAIR-Lab-CIT/STAIR-captions: the archive
stair_captions_v1.2.tar.gz has stair_captions_v1.2_train.json and stair_captions_v1.2_val.json in COCO's format, and a
"_tokenized" edition of both. An annotation of that edition also has "tokenized_caption": the caption's words as MeCab
split them, with spaces between them.

The official split has no images for test. `split="karpathy"` applies Karpathy's split of the same images, with 5,000
each for validation and test.
"""

from pathlib import Path

from captioning.data import STRICT, CocoPictures, Disk, Handling, Record, entries, field, id_of, read_json, split_named
from captioning.data.readers.checks import CaptionFile, checked, refuse
from captioning.data.readers.coco_json import CocoKeys, coco_records
from captioning.data.readers.published import first_file, nothing_found
from captioning.errors import ConfigError, DataError
from captioning.io import KARPATHY_URL

_PARTS = ("train", "val")
_NAMES = ("stair_captions_v1.2_{split}{edition}.json", "stair_captions_v1.2/stair_captions_v1.2_{split}{edition}.json")


def read_stair(
    root: str | Path,
    *,
    coco: str | Path | None = None,
    tokenized: bool = False,
    split: str = "official",
    faults: Handling = STRICT,
) -> list[Record]:
    """Read STAIR Captions. A split is read if both its captions and COCO's images are there.

    Args:
        root: folder of the data set.
        coco: folder of COCO, with train2014/ and val2014/; None: root.
        tokenized: whether to read the words of the tokenized edition, with spaces between them, instead of the text.
        split: "official" for COCO's train and val, or "karpathy" for the split in dataset_coco.json, which must be in
            root or in the folder of COCO. Its "restval" images are in train.
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        ConfigError: there is no such split.
        DataError: no split is there, or a file is inconsistent.
    """
    if split not in ("official", "karpathy"):
        raise ConfigError(f"data.reader.split must be official or karpathy, not {split!r}")
    root, home, disk = Path(root), Path(root if coco is None else coco), Disk()
    keys = CocoKeys(caption="tokenized_caption") if tokenized else CocoKeys()
    edition, sources = "_tokenized" if tokenized else "", []
    own = [part for part in _PARTS if (home / f"{part}2014").is_dir()]
    for part in own or _PARTS:  # without folders of 2014: those of 2017, or one folder with all images
        file = first_file(root, [name.format(split=part, edition=edition) for name in _NAMES])
        pictures = CocoPictures(home, disk)
        if file and pictures.present:
            folder = home / f"{part}2014"
            records = coco_records(file, folder, disk, split=part, faults=faults, keys=keys, pictures=pictures)
            sources.append(CaptionFile(file, records, folder))
    if not sources:
        where = "" if coco is None else f" of data.reader.coco={coco}"
        captions = [name.format(split="{train,val}", edition=edition) for name in _NAMES[:1]]
        raise nothing_found(
            root, "STAIR captions", [f"{captions[0]} with the images in train2014/ and val2014/{where}"]
        )
    if split == "karpathy":
        sources = _split_again(sources, root, home, faults)
    return checked(sources, disk, faults)


def _split_again(sources: list[CaptionFile], root: Path, home: Path, faults: Handling) -> list[CaptionFile]:
    """Return the same records in the splits of Karpathy's file."""
    file = first_file(root, ["dataset_coco.json"]) or first_file(home, ["dataset_coco.json"])
    if file is None:
        raise DataError(
            f"data.reader.split=karpathy needs dataset_coco.json (from {KARPATHY_URL}) in {root}: add it, or set "
            "data.reader.split=official"
        )
    splits: dict[int, str] = {}
    listed: set[int] = set()  # also the ids of entries with another fault
    for where, image in entries(read_json(file), "images", file):
        with faults:
            number = id_of(image, "cocoid", where)
            listed.add(number)
            splits[number] = split_named(field(image, "split", str, where), where)
    again = []
    for source in sources:
        unknown = [record.image_id for record in source.records if record.image_id not in listed]
        advice = f"add them to {file}, or set data.reader.split=official"
        refuse(source.file, f"image ids that {file.name} does not list", unknown, advice=advice, faults=faults)
        known = [record for record in source.records if record.image_id in splits]
        again.append(source._replace(records=[each._replace(split=splits[each.image_id]) for each in known]))
    return again
