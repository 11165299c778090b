"""Choose the demo's examples: photographs or drawn scenes, whichever the models were trained on."""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

from PIL import Image

from captioning.data import draw_scene, read_picture

SCENES = 6  # number of drawn scenes; no checkpoint was trained on them
DRAWN, READER = "scenes", "captioning.data.read_scenes"  # name and reader of the data set of drawn scenes
_MOST_PIXELS = 1_000_000
_FOLDER = "photos"  # in this package; it has photos.json and LICENSES.md, too


class Credit(NamedTuple):
    """The credit of a photograph.

    Attributes:
        license: the license's name.
        license_url: the license's address.
        source: the page that names the photographer.
    """

    license: str
    license_url: str
    source: str


class DemoExample(NamedTuple):
    """An example image on the page.

    Attributes:
        picture: the image.
        credit: the credit of a photograph that comes with the package; None for other images.
    """

    picture: Image.Image
    credit: Credit | None = None


def built_in_examples(metadata: Sequence[Mapping[str, Any]]) -> list[DemoExample]:
    """Return drawn scenes for models of scenes, and photographs for all other models.

    Args:
        metadata: the metadata of the checkpoints.
    """
    drawn = [_is_drawn(each) for each in metadata]
    photographs = [] if drawn and all(drawn) else photograph_examples()
    scenes = [DemoExample(draw_scene(0, "demo", index)[0]) for index in range(SCENES)] if any(drawn) else []
    return photographs + scenes


def photograph_examples() -> list[DemoExample]:
    """Return the photographs that come with the package, with their credits."""
    folder = resources.files("captioning.web.demo") / _FOLDER
    found = []
    for each in json.loads((folder / "photos.json").read_text(encoding="utf-8")):
        picture = read_picture((folder / each["file"]).read_bytes(), name=each["file"], max_pixels=_MOST_PIXELS)
        found.append(DemoExample(picture, Credit(each["license"], each["license_url"], each["source"])))
    return found


def _is_drawn(metadata: Mapping[str, Any]) -> bool:
    """Return whether a model was trained on drawn scenes, judged by its data set's name or reader."""
    data = metadata["config"].get("data")
    data = data if isinstance(data, dict) else {}
    reader = data.get("reader")  # an exported checkpoint has only the name
    read_by = reader.get("_target_") if isinstance(reader, dict) else None
    return data.get("name") == DRAWN or read_by == READER
