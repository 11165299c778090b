"""Write result files for evaluation servers: those of COCO, nocaps, TextCaps and VizWiz.

All of them accept a JSON list [{"image_id": 1, "caption": "…"}, …] with one caption for every image of a split. COCO's
server also requires the file's name. The others use EvalAI: https://eval.ai/web/challenges/challenge-page/355 for
nocaps, https://eval.ai/web/challenges/challenge-page/573 for TextCaps, and the link on
https://vizwiz.org/tasks-and-datasets/image-captioning/ for VizWiz. TextCaps' image ids are text: those of Open Images,
as in its own files (`TextCapsDataset.postprocess_evalai_entry` of https://github.com/facebookresearch/mmf).
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from captioning.errors import ConfigError, DataError
from captioning.io import counted, make_folder, write_json
from captioning.metrics import name_ids
from captioning.text import tokenize

# split=… of captioning-score -> the server, and the prefix of the file's name.
_SERVERS = {
    "val2014": ("COCO", "captions_"),
    "test2014": ("COCO", "captions_"),
    "nocaps_val": ("nocaps", ""),
    "nocaps_test": ("nocaps", ""),
    "textcaps_val": ("TextCaps", ""),
    "textcaps_test": ("TextCaps", ""),
    "vizwiz_test": ("VizWiz", ""),
}
_DATA = {server.lower() for server, _ in _SERVERS.values()}


def server_of(split: str, images: Path | None = None) -> str:
    """Return the name of the server that accepts results of a split.

    Args:
        split: a split of a server.
        images: the file that lists the split's images. Its name may show that it is of another split or data set.

    Raises:
        ConfigError: there is no server for the split, or the file is of another one.
    """
    if split not in _SERVERS:
        known: dict[str, list[str]] = {}
        for name, (server, _) in _SERVERS.items():
            known.setdefault(server, []).append(f"split={name}")
        options = ", ".join(f"the {server} server {' or '.join(splits)}" for server, splits in known.items())
        raise ConfigError(f"split={split}: no server accepts it. {options[0].upper()}{options[1:]}: choose one of them")
    server = _SERVERS[split][0]
    told = _hints(images.stem) if images else {}
    for kind, value in _hints(f"{server}_{split}").items():
        if told.get(kind, value) != value:
            raise ConfigError(
                f"split={split} is of {value}, but {images} is of {told[kind]} by its name: give the file that lists "
                "the images of the split, rename the file if its name is wrong, or correct split"
            )
    return server


def _hints(name: str) -> dict[str, str]:
    """Return the data set, split and year that a name contains: "data", "split", "year" -> the only one of them."""
    words = re.findall("[a-z]+|[0-9]+", name.lower())
    kinds = {"data": _DATA, "split": ("train", "val", "test"), "year": ("2014", "2015", "2017")}
    found = {kind: {word for word in words if word in known} for kind, known in kinds.items()}
    if found["year"] and not found["data"]:
        found["data"] = {"coco"}  # only COCO's files have years
    return {kind: values.pop() for kind, values in found.items() if len(values) == 1}


def write_server_file(folder: Path, captions: Mapping[Any, str], *, name: str, split: str, wanted: Collection) -> Path:
    """Write the file that an evaluation server accepts: for COCO, `captions_{split}_{name}_results.json`.

    Args:
        folder: the folder to write to; it is created.
        captions: {image id: caption}.
        name: the name of the method: letters, digits and hyphens.
        split: "val2014" or "test2014" of COCO, "nocaps_val", "nocaps_test", "textcaps_val", "textcaps_test" or
            "vizwiz_test".
        wanted: ids of all images of the split; each needs a caption, and no other image may have one.

    Returns:
        The file.

    Raises:
        ConfigError: the server would refuse the name or the split.
        DataError: captions are missing, superfluous or empty, the split has no images, or its ids are of another kind.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise ConfigError(f"server={name}: only letters, digits and hyphens are allowed. Use another name")
    server = server_of(split)
    if not (wanted := set(wanted)):
        raise DataError("server=… needs the images of the split, but the list of images is empty. Give another file")
    if server == "TextCaps" and (odd := [image_id for image_id in wanted if not isinstance(image_id, str)]):
        raise DataError(
            f"split={split}: the TextCaps server needs the ids of Open Images, which are text, not {name_ids(odd)}. "
            f"Give TextCaps_0.1_{split.removeprefix('textcaps_')}.json as the file of the images"
        )
    blank = [image_id for image_id, text in captions.items() if not tokenize(text)]
    faults = {"missing": wanted - captions.keys(), "not of the split": captions.keys() - wanted, "without words": blank}
    wrong = {fault: ids for fault, ids in faults.items() if ids}
    found = [f"{counted(len(ids), 'caption')} {fault}: image ids {name_ids(ids)}" for fault, ids in wrong.items()]
    file = f"{_SERVERS[split][1]}{split}_{name}_results.json"
    if found:
        raise DataError(
            f"the {server} server would refuse {file}: {'; '.join(found)}. Write one caption per image of {split}"
        )
    path = make_folder(folder) / file
    # The servers' tokenizer reads one caption per line: a line end inside a caption would shift all later captions.
    write_json(path, [{"image_id": key, "caption": " ".join(text.split())} for key, text in captions.items()])
    return path
