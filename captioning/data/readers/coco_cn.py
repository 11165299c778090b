"""Read COCO-CN (Li et al. 2019): Chinese captions of 20,341 images of COCO 2014.

Layout of the archive coco-cn-version1805v1.1.tar.gz, which https://github.com/li-xirong/coco-cn links (on the Hugging
Face Hub: AIMClab-RUC/COCO-CN); its own verify_data.py reads these files:

- imageid.human-written-caption.txt: a line COCO_train2014_000000000009#0, a tab and a caption, per caption;
- imageid.manually-translated-caption.txt: the same for five English captions of each test image, translated;
- for both, an edition .bosonseg.txt: after the id, words with their parts of speech (WORD:TAG), separated by spaces;
- imageid.machine-translated-caption.bosonseg.txt: only that edition, for all images;
- coco-cn_train.txt, coco-cn_val.txt, coco-cn_test.txt: the image names of each split, one per line.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from captioning.data import SPLITS, STRICT, CocoPictures, Disk, Handling, Record
from captioning.data.readers.checks import CaptionFile, checked, not_blank, refuse, report_repeated, report_silent
from captioning.data.readers.lines import text_lines
from captioning.data.readers.published import first_file, nothing_found
from captioning.data.readers.word_tags import refuse_some_tags, untagged
from captioning.errors import ConfigError, DataError

KINDS_OF_CAPTIONS = ("human-written", "manually-translated", "machine-translated")
_FOLDERS = ("", "coco-cn-version1805v1.1/")
_NAME = re.compile(r"COCO_(train|val)2014_(\d{12})")


def read_coco_cn(
    root: str | Path,
    *,
    coco: str | Path | None = None,
    captions: str | Sequence[str] = "human-written",
    segmented: bool = False,
    faults: Handling = STRICT,
) -> list[Record]:
    """Read COCO-CN. An image's id is that of COCO.

    Args:
        root: folder of the data set.
        coco: folder of COCO, with train2014/ and val2014/; None: root.
        captions: "human-written", "manually-translated" or "machine-translated", or several of them.
        segmented: whether to read the words of the edition .bosonseg.txt, with spaces between them and without tags,
            instead of the text. Machine translations have only this edition.
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        ConfigError: there are no such captions.
        DataError: a file is missing or inconsistent.
    """
    root, home, disk = Path(root), Path(root if coco is None else coco), Disk()
    kinds = [captions] if isinstance(captions, str) else list(captions)
    if not kinds or (wrong := [kind for kind in kinds if kind not in KINDS_OF_CAPTIONS]):
        raise ConfigError(
            f"data.reader.captions must be one or more of {', '.join(KINDS_OF_CAPTIONS)}, not {wrong if kinds else []}"
        )
    names = [_file_name(kind, segmented) for kind in kinds]
    needed = [*names, *(f"coco-cn_{split}.txt" for split in SPLITS)]
    found = {name: first_file(root, [f"{folder}{name}" for folder in _FOLDERS]) for name in needed}
    pictures = CocoPictures(home, disk)
    missing = [name for name, file in found.items() if file is None]
    if not pictures.present:
        of = "" if coco is None else f" of data.reader.coco={coco}"
        missing.append(f"COCO's images in train2014/ and val2014/{of}")
    if missing:
        raise nothing_found(root, "COCO-CN captions", [" and ".join(missing)])
    files = {name: file for name, file in found.items() if file}
    splits = _splits([files[f"coco-cn_{split}.txt"] for split in SPLITS], faults)
    sources = [files[name] for name in names]
    texts: dict[str, list[str]] = {name: [] for name in splits}
    for file in sources:
        unknown = _add_captions(file, texts, tagged=segmented or "machine" in file.name, faults=faults)
        advice = "add them to the file of their split, or remove their captions"
        refuse(file, "captions of images that no coco-cn_*.txt lists", unknown, advice=advice, faults=faults)
    records = [
        Record(_number(name), _path(name, home, disk, pictures), splits[name], not_blank(group, faults))
        for name, group in texts.items()
    ]
    pictures.report(sources[0], faults)
    report_silent(sources[0], texts, faults)
    return checked([CaptionFile(sources[0], records, home)], disk, faults)


def _file_name(kind: str, segmented: bool) -> str:
    """Return the name of a file of captions; machine translations exist only as words."""
    return f"imageid.{kind}-caption{'.bosonseg' if segmented or kind.startswith('machine') else ''}.txt"


def _splits(files: Sequence[Path], faults: Handling) -> dict[str, str]:
    """Return {image name: split} of the lists of the three splits."""
    splits: dict[str, str] = {}
    for split, file in zip(SPLITS, files, strict=True):
        for number, line in enumerate(text_lines(file), start=1):
            with faults:
                if not (name := line.strip().removesuffix(".jpg")):
                    continue
                _number(name, f"{file}, line {number}")
                if splits.setdefault(name, split) != split:
                    raise DataError(
                        f"{file}, line {number}: {name} is in split {splits[name]} too: keep it in one split"
                    )
    return splits


def _add_captions(file: Path, texts: dict[str, list[str]], *, tagged: bool, faults: Handling) -> list[str]:
    """Add the captions of a file to their images; return the names of unknown images."""
    unknown, plain = [], []
    numbers = Counter[str]()
    for number, line in enumerate(text_lines(file), start=1):
        with faults:
            where = f"{file}, line {number}"
            key, _, text = line.strip().replace("\t", " ", 1).partition(" ")
            name, mark, _ = key.partition("#")
            if not key:
                continue
            if not mark:
                raise DataError(f"{where}: must be an image name with #, a number, a tab and a caption: correct it")
            _number(name, where)
            numbers[key] += 1
            plain.append((number, text))
            if name in texts:
                texts[name].append(untagged(text) if tagged else text.strip())
            else:
                unknown.append(name)
    report_repeated(file, numbers, faults)
    if not tagged:
        refuse_some_tags(file, plain, faults)
    return list(dict.fromkeys(unknown))


def _number(name: str, where: str = "") -> int:
    if not (known := _NAME.fullmatch(name)):
        raise DataError(
            f"{where}: {name!r:.60} is not a name of COCO 2014, such as COCO_val2014_000000000042: correct it"
        )
    return int(known[2])


def _path(name: str, home: Path, disk: Disk, pictures: CocoPictures) -> Path:
    """Return the image's file in its folder of 2014, or where else COCO's images are."""
    path = home / name.split("_")[1] / f"{name}.jpg"
    return path if disk.has(path) else pictures.find(path.name, _number(name)) or path
