"""Open images, transform them for an encoder, and compute the region of the image that the encoder sees.

Coordinates are pixels of the upright picture: x to the right, y down, (0, 0) is the outer corner of the first pixel, so
that pixel (column, row) covers column…column + 1 and row…row + 1.
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

from captioning.data.image_files import HEAD, image_kind, needed_for, unreadable_format
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
from captioning.errors import ConfigError, DataError
from captioning.io import described

if TYPE_CHECKING:
    from torch import Tensor

# Only these are decoded: Pillow would, for one, hand a stranger's EPS file to Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "HEIF")  # the last two where they are installed
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")  # besides greys of more bits
FITS = ("squash", "crop", "pad")
CORNERS = ("top left", "top right", "bottom left", "bottom right")
_GRAY = (127, 127, 127)
LARGEST_INPUT = 4096  # side of an encoder's input in pixels
# Beyond, a file of a few kilobytes could fill the memory: decoded, turned upright and freed of transparency, a picture
# takes up to 20 bytes a pixel. Enough for cameras of 100 megapixels, and for a strip of 30 000 by 3 600.
MOST_PIXELS = 110_000_000
# EXIF orientation -> what turns the stored pixels upright. ImageOps.exif_transpose does it too, but also encodes all
# other EXIF tags again, and fails on those that some cameras write; here they say nothing.
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
    """A region in pixels of a picture; it may reach beyond the picture."""

    left: float
    top: float
    right: float
    bottom: float


class Transform:
    """Picture -> the square input of an encoder, by bicubic interpolation with antialias.

    Args:
        size: S, side of the input in pixels.
        fit: "squash" takes the whole picture, aspect ratio not kept. "crop" scales the short side to `resize` and takes
            the centre. "pad" scales the long side to S and fills up with mid grey.
        resize: for "crop" only; S where it is None.
        mirror: the input is turned left to right; `box` is that of the picture, not turned.

    Raises:
        ConfigError: an unknown fit, a size below 1, a resize below size or without "crop".
    """

    def __init__(self, size: int = 224, *, fit: str = "squash", resize: int | None = None, mirror: bool = False):
        if fit not in FITS:
            raise ConfigError(f"transform.fit={fit}: not one of {', '.join(FITS)}")
        if not 1 <= size <= LARGEST_INPUT:
            raise ConfigError(f"transform.size ({size}) must be at least 1 and at most {LARGEST_INPUT}")
        if resize is not None and fit != "crop":
            raise ConfigError(f"transform.resize ({resize}) is for fit=crop only: with fit={fit} set it to null")
        if resize is not None and resize < size:
            raise ConfigError(f"transform.resize ({resize}) must be at least transform.size ({size})")
        self.size, self.fit, self.mirror = size, fit, mirror
        self.resize = resize or size
        self.corner: tuple[float, str] | None = None

    def __call__(self, picture: Image.Image) -> "Tensor":
        """Picture -> uint8 [3, S, S]."""
        import torch  # here, as opening and checking pictures needs no torch

        picture, square = to_rgb(picture), (self.size, self.size)
        if self.corner:
            picture = picture.crop(_corner(*picture.size, *self.corner))
        if self.fit == "pad":
            inner, offset = self._place(*picture.size)
            seen = Image.new("RGB", square, _GRAY)
            seen.paste(picture.resize(inner, Image.Resampling.BICUBIC), offset)
        else:
            # One step from the exact region: no intermediate picture whose sides are rounded to whole pixels.
            seen = picture.resize(square, Image.Resampling.BICUBIC, box=self._box(*picture.size))
        seen = torch.from_numpy(np.array(seen)).permute(2, 0, 1).contiguous()  # [S, S, 3] -> [3, S, S]
        return seen.flip(2) if self.mirror else seen

    def mirrored(self) -> "Transform":
        """The same, turned left to right."""
        turned = copy(self)
        turned.mirror = not self.mirror
        return turned

    def cropped(self, share: float, corner: str) -> "Transform":
        """The same, of one corner of a picture instead of all of it.

        Args:
            share: of both the picture's sides, in whole pixels.
            corner: one of CORNERS.
        """
        closer = copy(self)
        closer.corner = (share, corner)
        return closer

    def box(self, width: int, height: int) -> Box:
        """The region of a picture of that size that the input shows.

        Input pixel (i, j), in column i and row j, shows i / S … (i + 1) / S of the box's width and j / S … (j + 1) / S
        of its height. For "pad" the box reaches beyond the picture.
        """
        if self.corner:
            left, top, right, bottom = _corner(width, height, *self.corner)
            return _moved(self._box(right - left, bottom - top), left, top)
        return self._box(width, height)

    def _box(self, width: int, height: int) -> Box:
        if self.fit == "squash":
            return Box(0, 0, width, height)
        if self.fit == "crop":
            side = self.size * min(width, height) / self.resize
            return Box((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
        (inner_width, inner_height), (x, y) = self._place(width, height)
        across, down = width / inner_width, height / inner_height  # picture pixels an input pixel
        return Box(-x * across, -y * down, (self.size - x) * across, (self.size - y) * down)

    def describe(self) -> dict[str, Any]:
        """All that the input depends on beside the picture, as plain values."""
        described = {"size": self.size, "fit": self.fit, "resize": self.resize, "interpolation": "bicubic"}
        described |= {"mirror": True} if self.mirror else {}
        return described | {"corner": list(self.corner)} if self.corner else described

    def _place(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """For "pad": (width, height) of the picture within the input, and (x, y) of its corner; whole pixels."""
        scale = self.size / max(width, height)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        return inner, ((self.size - inner[0]) // 2, (self.size - inner[1]) // 2)


def _corner(width: int, height: int, share: float, corner: str) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a picture's corner, whole pixels, at least one."""
    kept = (max(1, round(share * width)), max(1, round(share * height)))
    left = width - kept[0] if "right" in corner else 0
    top = height - kept[1] if "bottom" in corner else 0
    return left, top, left + kept[0], top + kept[1]


def _moved(box: Box, x: float, y: float) -> Box:
    return Box(box.left + x, box.top + y, box.right + x, box.bottom + y)


def open_picture(path: Path | str) -> Image.Image:
    """The picture in RGB, upright (EXIF orientation), of an animation the first frame.

    Raises:
        DataError: the file is missing, empty, damaged, cut short, too large, or not a picture of a known format.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise DataError(f"{path}: a folder, where one picture is wanted")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty; fetch it again or leave it out")
        with _opened(path) as picture:
            return upright(picture, name=str(path))
    except DataError:
        raise
    except UnknownRange as error:
        raise DataError(f"{path}: {error}") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path}: there is no such picture") from error
    except PermissionError as error:
        raise DataError(f"{path}: no permission to read it") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: {_no_picture(_first_bytes(path), path)}") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: too large ({error}); shrink it first or leave it out") from error
    except Exception as error:  # a decoder that meets damaged bytes raises anything, from OSError to struct.error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: damaged or cut short ({reason}); fetch it again or leave it out") from error


@contextmanager
def _opened(file: Path | BinaryIO, *, most_pixels: float = MOST_PIXELS) -> Iterator[Image.Image]:
    """The decoded picture, refused by its header where it is too large. Pillow's remarks on odd tags are not told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file, formats=_formats()) as picture:
            if picture.width * picture.height > most_pixels:
                raise Image.DecompressionBombError(f"{picture.width} × {picture.height} pixels")
            mend_tiles(picture)
            found, deep = {STATED: stated_bits(picture, file), NEGATIVE: is_negative(picture)}, is_deep(picture)
            picture.load()
            picture.info |= found
            yield whole_channels(picture, file) if deep else picture


@cache
def _formats() -> tuple[str, ...]:
    """FORMATS that this installation decodes."""
    readable = tuple(kind for kind in FORMATS if not needed_for(kind))
    if "HEIF" in readable:
        import pillow_heif

        pillow_heif.register_heif_opener()
    return readable


def upright(picture: Image.Image, *, name: str = "") -> Image.Image:
    """A picture in RGB, turned by its EXIF orientation; none of its tags are left, to turn it once more.

    Raises:
        UnknownRange: pixels whose range is unknown; a ValueError.
    """
    picture.load()  # Pillow turns a TIFF by itself as it is decoded, and takes its tag away
    made = to_rgb(_upright(picture), name=name)
    made = made.copy() if made is picture else made
    made.info = {}
    return made


def read_picture(content: bytes, *, name: str, max_pixels: int) -> Image.Image:
    """As `open_picture`, of a file's content in memory; a picture of more pixels is refused before it is decoded.

    Raises:
        DataError: as `open_picture`, in words for whoever sent it.
    """
    if not content:
        raise DataError(f"{name} is empty")
    try:
        with _opened(io.BytesIO(content), most_pixels=max_pixels) as picture:
            return upright(picture, name=name)
    except UnknownRange as error:
        raise DataError(f"{name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} has more than {max_pixels / 1e6:g} million pixels: shrink it first") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name} is {_no_picture(content[:HEAD], io.BytesIO(content))}") from error
    except Exception as error:  # as in `open_picture`
        raise DataError(f"{name} is damaged or cut short") from error


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _no_picture(head: bytes, file: Path | BinaryIO) -> str:
    """What a file is that no decoder takes."""
    if reason := unreadable_format(head):
        return reason
    kind = image_kind(head)
    if kind == "TIFF" and has_unknown_channels(file):
        return "a TIFF whose channels cannot be decoded (such as colors of 32 bits): save it with 8 bits a channel"
    if kind:
        return f"damaged: it begins as a {kind} image, but cannot be decoded"
    if found := described(head):
        return f"not a picture: it looks like {found}"
    return f"not a picture, or damaged, or of a format other than {', '.join(_formats())}"


def to_rgb(picture: Image.Image, *, name: str = "") -> Image.Image:
    """8-bit RGB from any mode: transparent parts over white, deeper greys scaled to 8 bits (`pixel_range`).

    Args:
        name: of the file, for the remark on a guessed range.

    Raises:
        UnknownRange: pixels whose range is unknown, or colors that cannot be converted.
    """
    if picture.mode == "F" or picture.mode.startswith("I"):
        picture = eight_bits(picture, name=name)
    elif picture.mode not in MODES:
        raise UnknownRange(f"colors of mode {picture.mode}: save it as RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _upright(picture: Image.Image) -> Image.Image:
    try:
        turn = UPRIGHT.get(picture.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # SyntaxError, struct.error, …: damaged EXIF tags are no reason to refuse sound pixels
        turn = None
    return picture if turn is None else picture.transpose(turn)
