"""Scale pixels of more than 8 bits to 8 bits, and decide which value is white.

A 16-bit file often contains 10-, 12- or 14-bit values of a camera or a scanner. Divided by 65535 they would be nearly
black. The rules for whole numbers, in this order:

1. The file states b bits (TIFF: BitsPerSample below 16, or MaxSampleValue; PNG: a chunk sBIT), and all samples are
   below 2^b: white is 2^b - 1. But white is 65535 if the samples are scaled to 16 bits as the standard of PNG requires
   (shifted up, with the low bits empty or repeated).
2. All samples are multiples of 257 or of 256 (8 bits stored as 16): white is 65535. Smaller shifts are no evidence: 8
   bits shifted up to 10 or 12 are as common as 12 bits shifted up to 16.
3. Otherwise white is the largest value of 8, 10, 12, 14 or 16 bits: the smallest of these depths whose range includes
   the image's maximum. This is a guess: a true 16-bit image whose brightest pixel has less than a quarter of the full
   value is brightened. So a notice names the first such file. Save files with 8 bits if their brightness matters.

The alpha channel has the same white as the colors, unless its values exceed it. In a TIFF in which zero is white, the
result is inverted.

Floating-point pixels are 0 … 1, or 0 … 255 if the maximum is above 1. Whole numbers above 255 follow the rules above.
"""

import struct
import sys
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin

STATED = "captioning:bits"  # key in an image's info: bits per sample that the file states, or None
NEGATIVE = "captioning:negative"  # key in an image's info: whether zero is white and the decoder has not inverted it
DEPTHS = (8, 10, 12, 14, 16)
FULL = 65535
TOLERANCE = 1e-3  # for floats that should be in 0 … 1, because interpolation overshoots
BITS_PER_SAMPLE, PHOTOMETRIC, MAX_SAMPLE_VALUE, PLANAR, EXTRA_SAMPLES = 258, 262, 281, 284, 338  # TIFF tags
# Of 16-bit channels, Pillow's decoders keep the high byte. The second name makes them keep the low byte.
LOW_BYTE = {"RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B", "RGBA;16B": "RGBA;16L", "RGBA;16L": "RGBA;16B"}
LOW_BYTE |= {"RGBX;16B": "RGBX;16L", "RGBX;16L": "RGBX;16B", "CMYK;16B": "CMYK;16L", "CMYK;16L": "CMYK;16B"}
_OPPOSITE = {"little": "B", "big": "L"}[sys.byteorder]
LOW_BYTE |= {f"{mode};16N": f"{mode};16{_OPPOSITE}" for mode in ("RGB", "RGBA", "RGBX", "CMYK")}
LOW_BYTE |= {f"{band};16{a}": f"{band};16{b}" for band in "RGBA" for a, b in ("LB", "BL")}  # planes
# libtiff's output has the machine's byte order.
NATIVE = {"F;32BF": "F;32NF", "I;32BS": "I;32NS", "I;32B": "I;32N", "I;16BS": "I;16NS"}
# Gray formats that Pillow can decode but does not list: some of big-endian TIFFs, and most in which zero is white.
TiffImagePlugin.OPEN_INFO.setdefault((b"MM", 1, (1,), 1, (12,), ()), ("I;16", "I;12"))
TiffImagePlugin.OPEN_INFO.setdefault((b"MM", 1, (1,), 1, (32,), ()), ("I", "I;32B"))
for _key, _modes in list(TiffImagePlugin.OPEN_INFO.items()):
    if _key[1] == 1 and _modes[0] in ("I", "I;16", "I;16B", "F"):
        TiffImagePlugin.OPEN_INFO.setdefault((_key[0], 0, *_key[2:]), _modes)
_shown: set[str] = set()  # notices that this process has printed


PLANES = "16-bit TIFF with separate planes for its channels: save it interleaved (chunky) or with 8 bits per channel"


class UnknownRange(ValueError):
    """Pixels whose white value is unknown."""


def eight_bits(picture: Image.Image, *, name: str = "") -> Image.Image:
    """Scale a gray image to 8 bits, 0 … 255.

    Args:
        picture: the decoded image; its `info` has STATED and NEGATIVE.
        name: its file, for the notice about a guessed range.

    Raises:
        UnknownRange: values are negative, not finite, or above 16 bits.
    """
    values = np.asarray(picture)  # Pillow's own conversion would clip at 255
    if picture.mode == "F":
        scaled = _of_floats(values.astype(np.float64), name)
    else:
        scaled = _scaled(values.astype(np.int64), picture.info.get(STATED), name)
    scaled = 255 - scaled if picture.info.get(NEGATIVE) else scaled
    key = picture.info.get("transparency")
    if isinstance(key, int):
        scaled = np.where(values == key, np.uint8(255), scaled)
    return Image.fromarray(scaled)


def white_value(values: np.ndarray, stated: int | None) -> tuple[int, bool]:
    """Return the value of white by the rules of this file, and whether it is a guess below 16 bits.

    Args:
        values: whole numbers of up to 16 bits.
        stated: bits per sample that the file states; None if it states none.
    """
    highest = int(values.max(initial=0))
    if stated and highest < 2**stated:
        low = 16 - stated
        if stated == 16 or not (highest and _fills_sixteen_bits(values, low)):
            return 2**stated - 1, False
        return FULL, False
    if highest >= 2 ** DEPTHS[-2] or not highest:
        return FULL, False
    if not (values % 257).any() or not (values % 256).any():
        return FULL, False
    return 2 ** next(bits for bits in DEPTHS if highest < 2**bits) - 1, True


def stated_bits(picture: Image.Image, file: Path | BinaryIO) -> int | None:
    """Return the bits per sample that the header of a PNG or TIFF states, if more than 8. Call it before decoding."""
    if picture.format == "TIFF":
        bits, most = _tag(picture, BITS_PER_SAMPLE), _tag(picture, MAX_SAMPLE_VALUE)
        if 8 < bits < 16:
            return bits
        return most.bit_length() if 255 < most < FULL else None
    if picture.format == "PNG":
        return _png_bits(_start_of(file))
    return None


def is_negative(picture: Image.Image) -> bool:
    """Return whether zero is white in a one-channel TIFF of more than 8 bits; Pillow inverts the others itself."""
    return picture.format == "TIFF" and _photometric(picture) == 0 and (picture.mode == "F" or picture.mode[0] == "I")


def _photometric(picture: Any) -> Any:
    return picture.tag_v2.get(PHOTOMETRIC)


def mend_tiles(picture: Any) -> None:
    """Correct the decoding of two kinds of TIFF, which Pillow decodes wrongly. Call it before decoding.

    Pillow reads uncompressed 16-bit channels in separate planes as if they had 8 bits. It swaps the bytes of compressed
    big-endian TIFFs with signed or 32-bit gray twice.

    Args:
        picture: an opened `Image`; of its class, only TIFFs have all attributes that are used.

    Raises:
        UnknownRange: the channels cannot be decoded.
    """
    if picture.format != "TIFF" or not picture.tile:
        return
    if not _has_planes(picture):
        if picture.tile[0][0] == "libtiff" and (native := NATIVE.get(_raw_mode(picture))):
            picture.tile = [_with_raw_mode(tile, native) for tile in picture.tile]
        return
    if picture.mode not in ("RGB", "RGBA") or any("a" in _first(tile[3]) for tile in picture.tile):
        raise UnknownRange(PLANES)
    if picture.tile[0][0] == "libtiff":
        return
    order = {b"II": "L", b"MM": "B"}[picture.tag_v2.prefix]
    wanted = [(tile, _first(tile[3])) for tile in picture.tile]
    picture.tile = [_with_raw_mode(tile, f"{band};16{order}") for tile, band in wanted if band in tuple(picture.mode)]


def has_unknown_channels(file: Path | BinaryIO) -> bool:
    """Return whether a file that Pillow cannot open is an intact TIFF with channels that Pillow cannot decode."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with TiffImagePlugin.TiffImageFile(file):
                return False
    except SyntaxError as error:
        return "unknown pixel mode" in str(error)
    except Exception:  # damaged tags raise any error
        return False


def _has_planes(picture: Any) -> bool:
    if picture.format != "TIFF" or picture.mode in ("L", "P", "1", "F") or picture.mode[0] == "I":
        return False
    return _tag(picture, PLANAR) == 2 and _tag(picture, BITS_PER_SAMPLE) > 8


def _tag(picture: Any, number: int) -> int:
    """Return the largest whole number of a TIFF's tag; 0 if it has none."""
    found = picture.tag_v2.get(number)
    found = found if isinstance(found, tuple) else (found,)
    return max((value for value in found if isinstance(value, int)), default=0)


def is_deep(picture: Image.Image) -> bool:
    """Return whether a PNG or TIFF has several channels of 16 bits each. Call it before decoding."""
    raw = _raw_mode(picture)
    return picture.format in ("PNG", "TIFF") and (raw in (*LOW_BYTE, "LA;16B") or raw.startswith("RGBa;16"))


def _raw_mode(picture: Any) -> str:
    return _first(picture.tile[0][3]) if picture.tile else ""


def _first(given: Any) -> str:
    """Return the raw mode from the arguments of a tile."""
    given = given[0] if isinstance(given, tuple) and given else given
    return given if isinstance(given, str) else ""


def whole_channels(picture: Image.Image, file: Path | BinaryIO) -> Image.Image:
    """Return a decoded image that `is_deep`, scaled like gray images if the high bytes of all its colors are small.

    Pillow keeps only the high byte of 16-bit channels, which is 4 bits of a 12-bit value. Such images are decoded a
    second time for the low bytes. So are images with one transparent color: Pillow would compare its low byte with the
    high bytes.

    Args:
        picture: the decoded image.
        file: its file, to decode it again.

    Raises:
        UnknownRange: the low bytes are needed, but cannot be decoded.
    """
    if picture.mode not in ("RGB", "RGBA", "LA", "CMYK"):
        return picture
    colors = {"LA": 1, "CMYK": 4}.get(picture.mode, 3)
    high = np.asarray(picture)
    if picture.format == "TIFF" and picture.mode == "RGBA" and _tag(picture, EXTRA_SAMPLES) == 1:
        if 0 < high[..., 3].max(initial=0) <= 63:
            raise UnknownRange("premultiplied alpha below a quarter of the 16-bit range: save it with 8 bits")
        return picture
    key = picture.info.get("transparency") if picture.mode == "RGB" else None
    bright = not high.size or high[..., :colors].max() > 63  # white is 65535
    if bright and not isinstance(key, tuple):
        return picture
    if _has_planes(picture) and picture.info.get("compression") != "raw":
        raise UnknownRange(PLANES)  # no decoder keeps the low bytes
    values = high.astype(np.int64) * 256 + _low_bytes(file, picture.mode)
    few = high.max() <= 63  # with alpha: in an opaque dark image, it shows the white value better than the colors
    white, guessed = white_value(values if few else values[..., :colors], picture.info.get(STATED))
    if guessed:
        _notice(white, str(file) if isinstance(file, Path) else getattr(file, "name", ""))
    pixels = high.copy()
    scaled_too = high.shape[-1] if values.max() <= white < FULL else colors
    if not bright:
        pixels[..., :scaled_too] = _to_eight(values[..., :scaled_too], white)
    scaled = Image.frombytes(picture.mode, picture.size, pixels.tobytes())
    scaled.info = dict(picture.info)
    if isinstance(key, tuple):
        scaled.putalpha(Image.fromarray(np.where((values == key).all(-1), 0, 255).astype(np.uint8)))
        scaled.info.pop("transparency", None)
    scaled.getexif().update(picture.getexif())
    return scaled


def _low_bytes(file: Path | BinaryIO, mode: str) -> np.ndarray:
    """Return the low bytes of the channels of an image that `is_deep`."""
    if not isinstance(file, Path):
        file.seek(0)
    again: Any
    with Image.open(file, formats=("PNG", "TIFF")) as again:
        mend_tiles(again)
        raw = _raw_mode(again)
        if raw == "LA;16B":  # no decoder keeps its low bytes: read it as 8-bit RGBA
            again._mode = "RGBA"
        again.tile = [_with_raw_mode(tile, LOW_BYTE.get(_first(tile[3]), "RGBA")) for tile in again.tile]
        again.load()
        found = np.asarray(again)
    if raw == "LA;16B":  # gray and alpha as (high, low, high, low)
        return found[..., [1, 3] if mode == "LA" else [1, 1, 1, 3]]
    return found[..., : len(mode)]


def _with_raw_mode(tile: Any, wanted: str) -> Any:
    decoder, extents, offset, given = tile
    return type(tile)(decoder, extents, offset, wanted if isinstance(given, str) else (wanted, *given[1:]))


def _of_floats(values: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(values).all():
        raise UnknownRange("floating-point pixels that are not finite: save it with 8 bits per channel")
    least, most = float(values.min(initial=0)), float(values.max(initial=0))
    if least >= -TOLERANCE and most <= 1 + TOLERANCE:
        return np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    if least >= 0 and most <= 255:
        return np.rint(values).astype(np.uint8)
    if least >= 0 and most <= FULL and (values == np.rint(values)).all():
        return _scaled(values.astype(np.int64), None, name)
    raise UnknownRange(
        f"floating-point pixels of unknown range ({least:g} … {most:g}, neither 0 … 1 nor 0 … 255): "
        "save it with 8 bits per channel"
    )


def _scaled(values: np.ndarray, stated: int | None, name: str) -> np.ndarray:
    if values.min(initial=0) < 0 or values.max(initial=0) > FULL:
        raise UnknownRange(
            f"signed or 32-bit pixels of unknown range ({values.min()} … {values.max()}, not within 0 … {FULL}): "
            "save it with 8 bits per channel"
        )
    white, guessed = white_value(values, stated)
    if guessed:
        _notice(white, name)
    return _to_eight(values, white)


def _to_eight(values: np.ndarray, white: int) -> np.ndarray:
    return ((values * 255 + white // 2) // white).astype(np.uint8)


def _fills_sixteen_bits(values: np.ndarray, low: int) -> bool:
    """Return whether samples are 16 - low bits, shifted up by `low`; the low bits are empty or repeat the high ones."""
    top = values >> low << low
    return bool((values == top).all() or (values == top | values >> (16 - low)).all())


def _notice(white: int, name: str) -> None:
    """Print one notice per process about a guessed range."""
    if "guess" not in _shown:
        _shown.add("guess")
        print(
            f"{name or 'an image'}: 16-bit pixels, but none is above {white}: read as {white.bit_length()}-bit values. "
            "If this is wrong, save it with 8 bits. Further such files are read in the same way without notice.",
            file=sys.stderr,
        )


def _start_of(file: Path | BinaryIO) -> bytes:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return opened.read(1 << 16)
    at = file.tell()
    file.seek(0)
    start = file.read(1 << 16)
    file.seek(at)
    return start


def _png_bits(start: bytes) -> int | None:
    """Return the largest number of bits that the chunk sBIT of a PNG with 16-bit samples states for a color.

    The chunk precedes the pixels.
    """
    if start[24:25] != b"\x10":
        return None
    at, colors = 8, 3 if start[25:26] in (b"\2", b"\6") else 1
    while at + 8 <= len(start):
        (length,), kind = struct.unpack(">I", start[at : at + 4]), start[at + 4 : at + 8]
        if kind == b"sBIT":
            bits = max(start[at + 8 : at + 8 + min(length, colors)], default=0)
            return bits if 8 <= bits <= 16 else None
        if kind == b"IDAT":
            return None
        at += length + 12
    return None
