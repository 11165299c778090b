"""Open images, transform them for an encoder, and compute the region of the image that the encoder sees.

Coordinates are pixels of the upright picture: x to the right, y down, (0, 0) is the outer corner of the first pixel, so
that pixel (column, row) covers column…column + 1 and row…row + 1.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from captioning.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

# Only these are decoded: Pillow would, for one, hand a stranger's EPS file to Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
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
            return upright(picture)
    except DataError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path}: there is no such picture") from error
    except PermissionError as error:
        raise DataError(f"{path}: no permission to read it") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not a picture, or damaged, or of a format other than {', '.join(FORMATS)}") from error
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
        with Image.open(file, formats=FORMATS) as picture:
            if picture.width * picture.height > most_pixels:
                raise Image.DecompressionBombError(f"{picture.width} × {picture.height} pixels")
            picture.load()
            yield picture


def upright(picture: Image.Image) -> Image.Image:
    """A picture in RGB, turned by its EXIF orientation; none of its tags are left, to turn it once more.

    Raises:
        ValueError: pixels of 32 bits whose range is unknown.
    """
    picture.load()  # Pillow turns a TIFF by itself as it is decoded, and takes its tag away
    made = to_rgb(_upright(picture))
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
            return upright(picture)
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} has more than {max_pixels / 1e6:g} million pixels: shrink it first") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name} is not a picture, or damaged; {', '.join(FORMATS)} can be read") from error
    except Exception as error:  # as in `open_picture`
        raise DataError(f"{name} is damaged or cut short") from error


def list_pictures(paths: Sequence[Path | str]) -> list[Path]:
    """Files as they are given; in place of a folder the pictures in it, by name. Sub-folders and hidden files are left.

    Raises:
        DataError: nothing is given, a path does not exist, or a folder has no pictures.
    """
    if not paths:
        raise DataError("no pictures given: name at least one file or folder")
    found = []
    for path in map(Path, paths):
        if not path.exists():
            raise DataError(f"{path}: there is no such picture or folder")
        found += _pictures_in(path) if path.is_dir() else [path]
    return found


def to_rgb(picture: Image.Image) -> Image.Image:
    """8-bit RGB from any mode: transparent parts over white, 16-bit greys scaled to 8 bits.

    Raises:
        ValueError: pixels of 32 bits whose range is unknown.
    """
    if picture.mode.startswith("I"):
        picture = _eight_bits(picture)
    elif picture.mode == "F":
        raise ValueError("floating-point pixels of unknown range: save it with 8 bits a channel")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture).astype(np.int32)  # Pillow's own conversion would clip at 255
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("32-bit pixels of unknown range: save it with 8 or 16 bits a channel")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _upright(picture: Image.Image) -> Image.Image:
    try:
        turn = UPRIGHT.get(picture.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # SyntaxError, struct.error, …: damaged EXIF tags are no reason to refuse sound pixels
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _pictures_in(folder: Path) -> list[Path]:
    pictures = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.is_dir()]
    pictures = [path for path in pictures if not path.name.startswith(".")]  # such as macOS's "._photo.jpg"
    if not pictures:
        raise DataError(f"{folder}: no pictures in this folder ({', '.join(SUFFIXES)})")
    return sorted(pictures, key=lambda path: path.name)
