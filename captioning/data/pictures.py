"""Open images, transform them for an encoder, and compute the region of the image that the encoder sees.

Coordinates are pixels of the upright image: x to the right, y down. (0, 0) is the outer corner of the first pixel, so
pixel (column, row) covers column…column + 1 and row…row + 1.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from captioning.data.image_files import HEAD, SUFFIXES, image_kind, needed_for, unreadable_format
from captioning.data.pixel_range import (
    NEGATIVE,
    STATED,
    UnknownRange,
    eight_bits,
    has_unknown_channels,
    is_deep,
    is_negative,
    mend_tiles,
    stated_bits,
    whole_channels,
)
from captioning.errors import ConfigError, DataError, two_sides
from captioning.io import described, read_file, split_archive

if TYPE_CHECKING:
    from torch import Tensor

# Only these formats are decoded, for safety: for example, Pillow would pass an untrusted EPS file to Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "HEIF")  # the last two if their decoders are installed
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")  # and gray of more bits
FITS = ("squash", "crop", "pad")
INTERPOLATIONS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
CORNERS = ("top left", "top right", "bottom left", "bottom right")
_GRAY = (127, 127, 127)
# Without a limit, a file of a few kilobytes could fill the memory: decoding, rotating and removing transparency take
# up to 20 bytes per pixel. The limit is enough for cameras of 100 megapixels, and for a strip of 30 000 by 3 600.
MOST_PIXELS = 110_000_000
# EXIF orientation -> the operation that makes the image upright. ImageOps.exif_transpose is not used: it also encodes
# all other EXIF tags again, and fails on those of some cameras.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Box(NamedTuple):
    """A region of an image in pixels; it may extend beyond the image."""

    left: float
    top: float
    right: float
    bottom: float


class Transform:
    """Transform from an image to the input of an encoder, S × S or H × W pixels, by interpolation with antialiasing.

    Args:
        size: side of a square input, or [H, W], in pixels; sides are 1 to 4096.
        fit: "squash" scales the entire image to the input's size without keeping its aspect ratio. "crop" scales the
            image until it covers the input, enlarged to a short side of `resize`, and cuts out the center. "pad" scales
            the image until it fits into the input, and pads with mid gray.
        resize: for "crop" only, in pixels; None for the input's short side.
        mirror: whether to mirror the input left to right. `box` does not depend on it.
        interpolation: "bicubic", "bilinear" or "lanczos"; most networks were trained with the first.

    Raises:
        ConfigError: `fit` or `interpolation` is unknown, `size` is out of range, or `resize` is below the input's
            short side or given without "crop".
    """

    def __init__(
        self,
        size: int | list[int] = 224,
        *,
        fit: str = "squash",
        resize: int | None = None,
        mirror: bool = False,
        interpolation: str = "bicubic",
    ):
        if fit not in FITS:
            raise ConfigError(f"transform.fit must be one of {', '.join(FITS)}, not {fit}")
        if interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise ConfigError(f"transform.interpolation must be one of {known}, not {interpolation}")
        self.height, self.width = two_sides("transform.size", size)
        short = min(self.height, self.width)
        if resize is not None and fit != "crop":
            raise ConfigError(f"transform.resize={resize} needs transform.fit=crop: with fit={fit}, set resize to null")
        if resize is not None and resize < short:
            raise ConfigError(f"transform.resize={resize} must be at least {short}, the short side of transform.size")
        self.size: int | list[int] = short if self.height == self.width else [self.height, self.width]
        self.fit, self.mirror = fit, mirror
        self.resize, self.interpolation = resize or short, interpolation
        self.corner: tuple[float, str] | None = None

    def __call__(self, picture: Image.Image) -> "Tensor":
        """Return the encoder's input for an image, uint8 [3, H, W]."""
        import torch  # not at the top, so that opening and checking images needs no torch

        picture, size = to_rgb(picture), (self.width, self.height)
        method = INTERPOLATIONS[self.interpolation]
        if self.corner:
            picture = picture.crop(_corner(*picture.size, *self.corner))
        if self.fit == "pad":
            inner, offset = self._padded(*picture.size)
            seen = Image.new("RGB", size, _GRAY)
            seen.paste(picture.resize(inner, method), offset)
        else:
            # In one step from the exact region, without an intermediate image of sides rounded to whole pixels.
            seen = picture.resize(size, method, box=self._box(*picture.size))
        pixels = torch.from_numpy(np.array(seen)).permute(2, 0, 1).contiguous()  # [H, W, 3] -> [3, H, W]
        return pixels.flip(2) if self.mirror else pixels

    def mirrored(self) -> "Transform":
        """Return a copy of this transform that mirrors left to right (or no longer does)."""
        turned = copy(self)
        turned.mirror = not self.mirror
        return turned

    def cropped(self, share: float, corner: str) -> "Transform":
        """Return a copy of this transform that takes one corner of an image instead of the entire image.

        Args:
            share: size of the corner as a share of both sides of the image, rounded to whole pixels.
            corner: one of CORNERS.
        """
        closer = copy(self)
        closer.corner = (share, corner)
        return closer

    def box(self, width: int, height: int) -> Box:
        """Return the region that the input shows of an image of this size.

        Input pixel (i, j), in column i and row j, shows i / W … (i + 1) / W of the box's width and j / H … (j + 1) / H
        of its height. For "pad" the box extends beyond the image.

        Args:
            width: width of the image in pixels.
            height: height of the image in pixels.
        """
        if self.corner:
            left, top, right, bottom = _corner(width, height, *self.corner)
            return _moved(self._box(right - left, bottom - top), left, top)
        return self._box(width, height)

    def _box(self, width: int, height: int) -> Box:
        if self.fit == "squash":
            return Box(0, 0, width, height)
        if self.fit == "crop":
            short = min(self.width, self.height)
            covered = min(width * short / self.width, height * short / self.height)  # image pixels: `resize` of them
            across, down = self.width * covered / self.resize, self.height * covered / self.resize
            return Box((width - across) / 2, (height - down) / 2, (width + across) / 2, (height + down) / 2)
        (inner_width, inner_height), (x, y) = self._padded(width, height)
        across, down = width / inner_width, height / inner_height  # image pixels per input pixel
        return Box(-x * across, -y * down, (self.width - x) * across, (self.height - y) * down)

    def describe(self) -> dict[str, Any]:
        """Return everything that the input depends on, except the image, as plain values."""
        described: dict[str, Any] = {"size": self.size, "fit": self.fit}
        described |= {"resize": self.resize, "interpolation": self.interpolation}
        described |= {"mirror": True} if self.mirror else {}
        return described | {"corner": list(self.corner)} if self.corner else described

    def _padded(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return for "pad" (width, height) of the image within the input, and (x, y) of its corner, in whole pixels."""
        scale = min(self.width / width, self.height / height)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        return inner, ((self.width - inner[0]) // 2, (self.height - inner[1]) // 2)


def _corner(width: int, height: int, share: float, corner: str) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of an image's corner in whole pixels, at least one pixel wide and high."""
    kept = (max(1, round(share * width)), max(1, round(share * height)))
    left = width - kept[0] if "right" in corner else 0
    top = height - kept[1] if "bottom" in corner else 0
    return left, top, left + kept[0], top + kept[1]


def _moved(box: Box, x: float, y: float) -> Box:
    return Box(box.left + x, box.top + y, box.right + x, box.bottom + y)


def open_picture(path: Path | str) -> Image.Image:
    """Open an image in RGB, upright (EXIF orientation); of an animation, the first frame.

    The path may be that of a file inside a tar archive, such as `00000.tar/000000001.jpg`.

    Raises:
        DataError: the file is missing, empty, damaged, cut short, too large, or not an image of a known format.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder: name an image file")
        file = _source(path)
        if not (path.stat().st_size if isinstance(file, Path) else len(file.getbuffer())):
            raise DataError(f"{path}: the file is empty: download it again or remove it")
        with _opened(file) as picture:
            return upright(picture, name=str(path))
    except DataError:
        raise
    except UnknownRange as error:
        raise DataError(f"{path}: {error}") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path}: there is no such image: check the path") from error
    except PermissionError as error:
        raise DataError(f"{path}: permission denied: change the file's permissions") from error
    except UnidentifiedImageError as error:
        named_so = path.suffix.lower() in SUFFIXES  # then it may be a server's error page
        advice = "download it again or remove it" if named_so else "give an image instead"
        file = _source(path)
        fault = _no_picture(_first_bytes(file), file, advice=advice)
        raise DataError(f"{path}: {fault}") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: too large ({error}): shrink it or remove it") from error
    except Exception as error:  # for damaged bytes, decoders raise any error from OSError to struct.error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: damaged or cut short ({reason}): download it again or remove it") from error


@contextmanager
def _opened(file: Path | BinaryIO, *, most_pixels: float = MOST_PIXELS) -> Iterator[Image.Image]:
    """Decode an image, unless its header states too many pixels. Pillow's warnings about tags are not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file, formats=_formats()) as picture:
            if picture.width * picture.height > most_pixels:
                raise Image.DecompressionBombError(f"{picture.width} × {picture.height} pixels")
            mend_tiles(picture)
            found: dict[Any, Any] = {STATED: stated_bits(picture, file), NEGATIVE: is_negative(picture)}
            deep = is_deep(picture)
            picture.load()
            picture.info |= found
            yield whole_channels(picture, file) if deep else picture


@cache
def _formats() -> tuple[str, ...]:
    """Return those of FORMATS that this installation can decode."""
    readable = tuple(kind for kind in FORMATS if not needed_for(kind))
    if "HEIF" in readable:
        import pillow_heif

        pillow_heif.register_heif_opener()
    return readable


def upright(picture: Image.Image, *, name: str = "") -> Image.Image:
    """Convert an image to RGB and rotate it by its EXIF orientation. The result has no tags that could rotate it again.

    Args:
        picture: the image.
        name: its file, for the notice about a guessed range of values.

    Raises:
        UnknownRange: the range of the pixel values is unknown; a ValueError.
    """
    picture.load()  # while decoding a TIFF, Pillow rotates it and removes the tag
    converted = to_rgb(_upright(picture), name=name)
    converted = converted.copy() if converted is picture else converted
    converted.info = {}
    return converted


def read_picture(content: bytes, *, name: str, max_pixels: int) -> Image.Image:
    """Open an image like `open_picture`, from a file's content in memory, for example an upload.

    Args:
        content: the file's content.
        name: what to call it in errors.
        max_pixels: larger images are refused before they are decoded.

    Raises:
        DataError: as for `open_picture`; the message is for the user who sent the image.
    """
    if not content:
        raise DataError(f"{name} is empty: choose another file")
    try:
        with _opened(io.BytesIO(content), most_pixels=max_pixels) as picture:
            return upright(picture, name=name)
    except UnknownRange as error:
        raise DataError(f"{name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} has more than {max_pixels / 1e6:g} million pixels: shrink it") from error
    except UnidentifiedImageError as error:
        fault = _no_picture(content[:HEAD], io.BytesIO(content), advice="choose another file")
        raise DataError(f"{name} is {fault}") from error
    except Exception as error:  # as in `open_picture`
        raise DataError(f"{name} is damaged or cut short: choose another file") from error


def _source(path: Path) -> Path | io.BytesIO:
    """Return the file to decode: the path, or the content of a file inside an archive."""
    if split_archive(path) is None:
        return path
    file = io.BytesIO(read_file(path))
    file.name = str(path)  # for the notice about a guessed range of values
    return file


def _first_bytes(source: Path | io.BytesIO) -> bytes:
    if isinstance(source, io.BytesIO):
        return source.getvalue()[:HEAD]
    with source.open("rb") as file:
        return file.read(HEAD)


def _no_picture(head: bytes, file: Path | BinaryIO, *, advice: str) -> str:
    """Describe a file that no decoder accepts, and what to do."""
    if reason := unreadable_format(head):
        return reason
    kind = image_kind(head)
    if kind == "TIFF" and has_unknown_channels(file):
        return "a TIFF whose channels cannot be decoded (such as colors of 32 bits): save it with 8 bits per channel"
    if kind:
        return f"damaged (it begins like a {kind} image, but cannot be decoded): {advice}"
    if found := described(head):
        return f"not an image (it looks like {found}): {advice}"
    return f"not an image, or damaged: it must be one of {', '.join(_formats())}"


def to_rgb(picture: Image.Image, *, name: str = "") -> Image.Image:
    """Convert an image of any mode to 8-bit RGB: transparent parts over white, deeper gray scaled (`pixel_range`).

    Args:
        picture: the image.
        name: its file, for the notice about a guessed range of values.

    Raises:
        UnknownRange: the range of the pixel values is unknown, or the colors cannot be converted.
    """
    if picture.mode == "F" or picture.mode.startswith("I"):
        picture = eight_bits(picture, name=name)
    elif picture.mode not in MODES:
        raise UnknownRange(f"colors of mode {picture.mode} cannot be read: save it as RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _upright(picture: Image.Image) -> Image.Image:
    try:
        turn = UPRIGHT.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # SyntaxError, struct.error, …: damaged EXIF tags are no reason to refuse intact pixels
        turn = None
    return picture if turn is None else picture.transpose(turn)
