"""Find out which layouts a folder has, from the names and beginnings of its files (for `recognize`).

A published data set has files with names of its own. Tables, JSON Lines and Parquet files may have any name, so their
first line or their suffix decides; files of a published data set do not count as such.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from captioning.data import SUFFIXES, caseless, is_table, parse_json
from captioning.data.readers.flickr_text import LISTS_BELOW
from captioning.data.readers.json_lines import CAPTION_KEYS, IMAGE_KEYS
from captioning.data.readers.multi30k import multi30k_editions
from captioning.data.readers.parquet import parquet_files
from captioning.data.readers.shards import packed_shard
from captioning.errors import DataError

_HEAD = 2**18  # bytes of a file that are read to find its kind
_STAIR = "stair_captions_v1.2_{split}{edition}.json"
_FLICKR_LISTS = ("Flickr_8k.trainImages.txt", "Flickr_8k.devImages.txt", "Flickr_8k.testImages.txt")
_30K_TABLES = ("results_20130124.token", "results.csv")
_30K_LISTS = ("train.txt", "val.txt", "test.txt")
_CN_LISTS = ("flickr8ktrain.txt", "flickr8kval.txt", "flickr8ktest.txt")


# Files of published data sets that look like a table, and the `data=` of each. (Flickr8k.token.txt may be read as one.)
_TABLES_OF = {
    "Flickr8k.arabic.full.txt": "flickr8k_ar",
    "flickr8kzh*.txt": "flickr8k_cn",
    "*flickr30kzh*.txt": "flickr30k_cn",
    "imageid.*.txt": "coco_cn",
    "*GCC*.tsv": "conceptual",
}
# Published tables -> the file that has the split of their images.
_SPLITS_OF = {
    "Flickr8k.token.txt": "dataset_flickr8k.json",
    **dict.fromkeys(_30K_TABLES, "dataset_flickr30k.json"),
}


class FoundLayout(NamedTuple):
    """A layout that a folder has.

    Attributes:
        data: the value of `data=`.
        files: the files that show it, relative to the folder.
        settings: the settings that it needs besides: key below `data.` -> value.
    """

    data: str
    files: tuple[str, ...]
    settings: Mapping[str, Any] = {}


def layouts_of(root: Path) -> list[FoundLayout]:
    """Return every layout that the folder has; [] if none is known."""
    published = [layout for find in _PUBLISHED for layout in find(root)]
    claimed = {file for layout in published for file in layout.files}
    own = [layout for find in _OWN for layout in find(root) if not claimed.intersection(layout.files)]
    return [*published, *own]


def published_part(layout: FoundLayout) -> str | None:
    """Return the published data set whose file a table is, by its name; None for any other table."""
    if layout.data != "csv":
        return None
    return next((data for pattern, data in _TABLES_OF.items() if fnmatch(layout.files[0], pattern)), None)


def lacks_split(layout: FoundLayout) -> str:
    """Return what a published table lacks for the split that papers use; "" for any other layout."""
    file = _SPLITS_OF.get(layout.files[0]) if layout.data == "csv" else None
    return f", without the split that papers use: for that, add {file}" if file else ""


def _there(root: Path, names: Iterable[str], below: Iterable[str] = ("",)) -> tuple[str, ...]:
    """Return those of the files that exist, each in the first of the folders `below` that has it."""
    folders = list(below)
    paths = [[f"{folder}/{name}".lstrip("/") for folder in folders] for name in names]
    found = [next((path for path in options if (root / path).is_file()), None) for options in paths]
    return tuple(path for path in found if path)


def _marked(data: str, *names: str, below: Iterable[str] = ("",)) -> Callable[[Path], Iterator[FoundLayout]]:
    """Return a function that finds a layout by the names of its files. One of them is enough."""

    def find(root: Path) -> Iterator[FoundLayout]:
        if files := _there(root, names, below):
            yield FoundLayout(data, files)

    return find


def _coco(root: Path) -> Iterator[FoundLayout]:
    karpathy = _there(root, ["dataset_coco.json"])
    if karpathy:
        yield FoundLayout("coco", karpathy, {"layout": "karpathy"})
    for year in (2017,) if karpathy else (2014, 2017):  # Karpathy's split is usually beside the official files of 2014
        if files := _there(root, [f"annotations/captions_{split}{year}.json" for split in ("train", "val")]):
            yield FoundLayout("coco", files, {"layout": year})


def _scenes(root: Path) -> Iterator[FoundLayout]:
    name = "annotations/captions_train.json"
    if _there(root, [name, "annotations/instances_train.json"]) and (content := _json(root / name)):
        info = content.get("info") if isinstance(content, dict) else None
        if isinstance(info, dict) and info.get("description") == "drawn scenes" and isinstance(info["pictures"], dict):
            settings = {key: info[key] for key in ("seed", "language") if key in info} | info["pictures"]
            tokenizer = {} if info.get("language", "en") == "en" else {"tokenizer": "unicode"}
            found = {f"reader.{key}": value for key, value in settings.items()} | tokenizer
            yield FoundLayout("scenes", (name,), found)


def _vizwiz(root: Path) -> Iterator[FoundLayout]:
    names = [f"annotations/{name}{split}.json" for split in ("train", "val") for name in ("", "VizWiz_Captions_v1_")]
    files = tuple(name for name in _there(root, names) if b'"is_rejected"' in (root / name).read_bytes())
    if files:
        yield FoundLayout("vizwiz", files)


def _stair(root: Path) -> Iterator[FoundLayout]:
    for edition, settings in (("", {}), ("_tokenized", {"reader.tokenized": True, "tokenizer": "whitespace"})):
        names = [_STAIR.format(split=split, edition=edition) for split in ("train", "val")]
        if files := _there(root, names, ("", "stair_captions_v1.2")):
            yield FoundLayout("stair", files, settings)
            return  # the archive has both editions


def _flickr30k(root: Path) -> Iterator[FoundLayout]:
    """Find Karpathy's file. The tables of Flickr30k beside it have the same captions, without a split."""
    if files := _there(root, ["dataset_flickr30k.json"]):
        yield FoundLayout("flickr30k", (*files, *_there(root, _30K_TABLES)))


def _flickr_text(
    data: str, captions: Iterable[str], lists: Iterable[str], **settings: str
) -> Callable[[Path], list[FoundLayout]]:
    """Return a function that finds one of the caption files with a list of images."""

    def find(root: Path) -> list[FoundLayout]:
        file, listed = _there(root, captions, LISTS_BELOW), _there(root, lists, LISTS_BELOW)
        return [FoundLayout(data, (*file, *listed), settings)] if file and listed else []

    return find


def _flickr8k_cn(root: Path) -> list[FoundLayout]:
    """Find the captions written by people, which the archive has beside translations; otherwise the translations."""
    names = [f"flickr8kzh{kind}.caption.txt" for kind in "cbg"]
    found = [_flickr_text("flickr8k_cn", [name], _CN_LISTS, **{"reader.captions": name})(root) for name in names]
    return found[0] or [layout for layouts in found for layout in layouts]


def _multi30k(root: Path) -> Iterator[FoundLayout]:
    for (task, language), files in multi30k_editions(root).items():
        names = tuple(file.relative_to(root).as_posix() for file in files)
        yield FoundLayout("multi30k", names, {"reader.language": language, "reader.task": task})


def _conceptual(root: Path) -> Iterator[FoundLayout]:
    """Find the official tables, or any other table of captions and addresses that has a folder of images beside it."""
    if files := _there(root, ["Train_GCC-training.tsv", "Validation_GCC-1.1.0-Validation.tsv"]):
        yield FoundLayout("conceptual", files)
    if any((root / name).is_dir() for name in ("training", "train")):
        for file in sorted(root.glob("*.tsv")):
            cells = _head(file).partition("\n")[0].lower().split("\t")
            urls = [cell for cell in cells if "://" in cell or cell.strip() == "url"]
            if len(cells) > 1 and len(urls) == 1 and file.name not in files:
                yield FoundLayout("conceptual", (file.name,), {"reader.files.train": file.name})


def _tables(root: Path) -> Iterator[FoundLayout]:
    for name in _names(root, ".csv", ".tsv", ".txt", ".token"):
        if is_table(root / name):
            yield FoundLayout("csv", (name,), {"reader.file": name})


def _json_lines(root: Path) -> Iterator[FoundLayout]:
    for name in _names(root, ".jsonl", ".ndjson", ".json"):
        text = _head(root / name).lstrip().removeprefix("[").lstrip()
        try:
            first, _ = json.JSONDecoder().raw_decode(text)
        except ValueError:
            continue
        keys = set(first) if isinstance(first, dict) else set()
        results = "log_prob" in keys or ("image_id" in keys and "image" not in keys)  # generated captions
        if keys & set(IMAGE_KEYS) and keys & set(CAPTION_KEYS) and not results:
            yield FoundLayout("json_lines", (name,), {"reader.file": name})


def _parquet(root: Path) -> Iterator[FoundLayout]:
    """Find Parquet files. NAME.parquet beside a folder NAME or NAME.tar has no images: img2dataset writes both."""
    paths = [path for path in parquet_files(root) if not path.with_suffix("").is_dir()]
    files = [path.relative_to(root).as_posix() for path in paths if not path.with_suffix(".tar").is_file()]
    if files:
        yield FoundLayout("parquet", tuple(files))


def _folder(root: Path) -> Iterator[FoundLayout]:
    """Find the first photo with a text file beside it."""
    for base, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        parts = [os.path.splitext(name) for name in sorted(names) if not name.startswith(".")]
        texts = {caseless(stem) for stem, suffix in parts if suffix.lower() == ".txt"}
        for stem, suffix in parts:
            if suffix.lower() in SUFFIXES and caseless(stem) in texts:
                yield FoundLayout("folder", (Path(base, stem + suffix).relative_to(root).as_posix(),))
                return


def _webdataset(root: Path) -> Iterator[FoundLayout]:
    """Find the first archive of photos and captions that is not unpacked (unpacked, it is data=folder)."""
    if shard := packed_shard(root):
        yield FoundLayout("webdataset", (shard.relative_to(root).as_posix(),))


def _names(root: Path, *suffixes: str) -> list[str]:
    """Return the files directly in the folder with one of the suffixes, without hidden ones."""
    files = [path for path in root.iterdir() if path.suffix.lower() in suffixes and path.is_file()]
    return sorted(path.name for path in files if not path.name.startswith("."))


def _head(file: Path) -> str:
    """Return the beginning of a text file; "" if it cannot be read."""
    try:
        with file.open("rb") as opened:
            content = opened.read(_HEAD)
        return content.decode(json.detect_encoding(content), errors="replace").removeprefix("\ufeff")
    except OSError:
        return ""


def _json(file: Path) -> Any:
    try:
        return parse_json(file.read_bytes())
    except (OSError, ValueError, RecursionError, DataError):
        return None


_PUBLISHED: tuple[Callable[[Path], Iterable[FoundLayout]], ...] = (
    _coco,
    _marked("flickr8k", "dataset_flickr8k.json"),
    _flickr30k,
    _flickr_text("flickr8k_text", ["Flickr8k.token.txt"], _FLICKR_LISTS),
    _flickr_text("flickr30k_text", _30K_TABLES, _30K_LISTS),
    _flickr_text("flickr8k_ar", ["Flickr8k.arabic.full.txt"], _FLICKR_LISTS),
    _flickr8k_cn,
    _marked(
        "flickr30k_cn",
        *[
            f"flickr30k{name}/TextData/seg.flickr30k{name}.caption.txt"
            for name in ("zhbbosontrain", "zhbbosonval", "zhmbosontest")
        ],
        below=LISTS_BELOW,
    ),
    _multi30k,
    _conceptual,
    _vizwiz,
    _marked("textcaps", "TextCaps_0.1_train.json", "TextCaps_0.1_val.json"),
    _marked("nocaps", "nocaps_val_4500_captions.json", below=("", "annotations")),
    _stair,
    _marked("coco_cn", "imageid.human-written-caption.txt", below=("", "coco-cn-version1805v1.1")),
    _scenes,
)
_OWN = (_tables, _json_lines, _parquet, _folder, _webdataset)
