"""Captioners that come with the package: NAME.safetensors, NAME.json and NAME.md, as captioning-export writes them.

`captioning.load(NAME)` takes them, and `checkpoint=NAME` of every command. The files here are all that says which there
are.
"""

from pathlib import Path

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Of the captioners that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))
