"""Read the pages' own files, and encode images and colors so that a page can contain them."""

import base64
import io
from importlib import resources

import numpy as np
from PIL import Image

from captioning.visualise import BRIGHTEST, COLORS, FAINTEST

STEPS = 256  # of the palette


def read_asset(name: str) -> str:
    """A file of this package: "demo.html", "page.css" …"""
    return (resources.files("captioning.web") / "static" / name).read_text(encoding="utf-8")


def palette() -> np.ndarray:
    """The colours of attention from faint to strong, those of the figures: [STEPS, 3] uint8."""
    ramp = FAINTEST + (BRIGHTEST - FAINTEST) * np.linspace(0, 1, STEPS)
    return (255 * COLORS(ramp)[:, :3] + 0.5).astype(np.uint8)


def shrink(picture: Image.Image, side: int) -> Image.Image:
    """The picture with its longer side at most `side` pixels; never larger, never without pixels."""
    scale = min(1.0, side / max(picture.size))
    size = tuple(max(1, round(scale * length)) for length in picture.size)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)


def as_jpeg(picture: Image.Image, *, quality: int = 88) -> bytes:
    """The picture as a JPEG file, with nothing but its pixels."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def as_address(picture: Image.Image, *, quality: int = 88) -> str:
    """The picture as a data: address, which needs no file beside the page."""
    return "data:image/jpeg;base64," + base64.b64encode(as_jpeg(picture, quality=quality)).decode("ascii")
