"""Read the files of the web pages, and encode images and colors so that a page can contain them."""

import base64
import io
from importlib import resources

import numpy as np
from PIL import Image

from captioning.visualise import BRIGHTEST, COLORS, FAINTEST

STEPS = 256  # number of colors in the palette


def read_asset(name: str) -> str:
    """Read a file of the folder `static`, such as "demo.html" or "page.css"."""
    return (resources.files("captioning.web") / "static" / name).read_text(encoding="utf-8")


def palette() -> np.ndarray:
    """Return the colors of attention maps from weak to strong, as in the figures: [STEPS, 3] uint8."""
    ramp = FAINTEST + (BRIGHTEST - FAINTEST) * np.linspace(0, 1, STEPS)
    return (255 * COLORS(ramp)[:, :3] + 0.5).astype(np.uint8)


def shrink(picture: Image.Image, side: int) -> Image.Image:
    """Shrink an image so that its longer side has at most `side` pixels and each side at least one; never enlarge."""
    scale = min(1.0, side / max(picture.size))
    width, height = (max(1, round(scale * length)) for length in picture.size)
    if (width, height) == picture.size:
        return picture
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def as_jpeg(picture: Image.Image, *, quality: int = 88) -> bytes:
    """Encode an image as a JPEG file, without any metadata."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def as_address(picture: Image.Image, *, quality: int = 88) -> str:
    """Encode an image as a `data:` address, so that a page needs no further file."""
    return "data:image/jpeg;base64," + base64.b64encode(as_jpeg(picture, quality=quality)).decode("ascii")
