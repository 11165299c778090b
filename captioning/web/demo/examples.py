"""Choose the demo's own examples: photographs or drawn scenes, as the models were trained on."""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

from PIL import Image

from captioning.data import draw_scene, read_picture

SCENES = 6  # drawn; no checkpoint has seen any of them
DRAWN, READER = "scenes", "captioning.data.read_scenes"  # the data set of drawn scenes
_MOST_PIXELS = 1_000_000
_FOLDER = "photos"  # of this package, with photos.json and LICENSES.md


class Credit(NamedTuple):
    """Where a photograph is from: its license's name and address, and the page that names the photographer."""

    license: str
    license_url: str
    source: str


class DemoExample(NamedTuple):
    """An image to pick on the page. credit: of a photograph that comes with the package; None for others."""

    picture: Image.Image
    credit: Credit | None = None


def built_in_examples(metadata: Sequence[Mapping[str, Any]]) -> list[DemoExample]:
    """Examples for checkpoints with these metadata: drawn scenes for models of scenes, photographs for all others."""
    drawn = [_is_drawn(each) for each in metadata]
    photographs = [] if drawn and all(drawn) else photograph_examples()
    scenes = [DemoExample(draw_scene(0, "demo", index)[0]) for index in range(SCENES)] if any(drawn) else []
    return photographs + scenes


def photograph_examples() -> list[DemoExample]:
    """The photographs that come with the package, with their credits."""
    folder = resources.files("captioning.web.demo") / _FOLDER
    found = []
    for each in json.loads((folder / "photos.json").read_text(encoding="utf-8")):
        picture = read_picture((folder / each["file"]).read_bytes(), name=each["file"], max_pixels=_MOST_PIXELS)
        found.append(DemoExample(picture, Credit(each["license"], each["license_url"], each["source"])))
    return found


def _is_drawn(metadata: Mapping[str, Any]) -> bool:
    """Whether the model was trained on drawn scenes, under whatever name."""
    data = metadata["config"].get("data")
    data = data if isinstance(data, dict) else {}
    reader = data.get("reader")  # an exported checkpoint has the name alone
    read_by = reader.get("_target_") if isinstance(reader, dict) else None
    return data.get("name") == DRAWN or read_by == READER
