"""List the trained models that come with the package: NAME.safetensors, NAME.json and NAME.md in this folder.

`captioning-export` writes these files. Load a model with `captioning.load(NAME)`, or with `checkpoint=NAME` in every
command.
"""

from pathlib import Path

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Return the names of the models that come with the package, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))
