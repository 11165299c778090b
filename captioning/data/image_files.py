"""Find the images among files and folders: by what the files hold, not by their names."""

import os
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from PIL import features

from captioning.errors import DataError
from captioning.io import described

HEAD = 1024  # bytes of a file that are read to decide
# A file of such a name in a folder is meant as an image: where it holds none, that is a fault, not a file to leave out.
SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff"]
    + [".avif", ".heic", ".heif", ".hif"]
)
UNFINISHED_SUFFIXES = (".part", ".partial", ".crdownload", ".download", ".opdownload", ".aria2", ".tmp")
RAW = frozenset(
    [".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"]
)
SHOWN = 5  # left-out files in an error
RESULTS = "captions.json"  # of captioning-caption, beside its figures
_AVIF, _HEIC = (b"avif", b"avis"), (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"miaf")
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes
_OTHERS = (  # image formats that are not read: how the file begins, and its name
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\x01\0", "an icon (ICO)"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"SIMPLE  =", "FITS"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"gimp xcf", "GIMP's XCF"),
)


class FoundImages(NamedTuple):
    """Images to open, in order, and (file, reason) for each file in the folders that is left out."""

    paths: list[Path]
    left_out: list[tuple[Path, str]]


def find_images(paths: Sequence[Path | str], *, exclude: Collection[Path] = ()) -> FoundImages:
    """Files as they are given; in place of a folder the images in it and its sub-folders, by path.

    Content decides, not the suffix. Left out, each with a reason: files that are no images, image formats that cannot
    be read here, unfinished downloads, hidden files and folders, links to folders (so that no cycle of links is
    followed), and folders that captioning-caption has written. A damaged image, or a file that is only called one, is
    kept: opening it is an error that names it.

    Args:
        exclude: folders that are left out, such as the one that is written to; a folder of `paths` is not.

    Raises:
        DataError: nothing is given, a path does not exist, or a folder has no images: the message says what it has.
    """
    if not paths:
        raise DataError("no pictures given: name at least one file or folder")
    found, left_out = [], []
    excluded = {folder.resolve() for folder in exclude}
    for path in map(Path, paths):
        if not path.exists():
            raise DataError(f"{path}: there is no such picture or folder")
        if not path.is_dir():
            found.append(path)
            continue
        inside = _walk(path, excluded)
        if not inside.paths:
            raise DataError(f"{path}: no images in this folder{_what_is_there(path, inside.left_out)}")
        found += inside.paths
        left_out += inside.left_out
    return FoundImages(found, left_out)


def list_pictures(paths: Sequence[Path | str]) -> list[Path]:
    """The images of `find_images` alone."""
    return find_images(paths).paths


def image_kind(head: bytes) -> str:
    """The format that a file's first bytes show, in Pillow's words; "" where it is none that can be decoded."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, min(int.from_bytes(head[:4], "big"), 64), 4))]
        if any(brand in _AVIF for brand in brands):
            return "AVIF"
        if any(brand in _HEIC for brand in brands):
            return "HEIF"
    return ""


def needed_for(kind: str) -> str:
    """What must be installed before images of a format can be read; "" where they can."""
    if kind == "HEIF" and find_spec("pillow_heif") is None:
        return "HEIC, which needs one more package: pip install 'captioning[heic]'"
    if kind == "AVIF" and not features.check("avif"):
        return "AVIF, which this Pillow cannot read: pip install --upgrade 'pillow>=11.3'"
    return ""


def unreadable_format(head: bytes) -> str:
    """Why an image format cannot be read here, and what to do; "" where it can, or where it is no image's."""
    if needed := needed_for(image_kind(head)):
        return needed
    for start, name in _OTHERS:
        if head.startswith(start):
            return f"{name}, which is not read: save it as JPEG or PNG"
    if b"<svg" in head.lower() and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "a vector drawing (SVG), which is not read: save it as PNG"
    return ""


def holds_image(path: Path) -> bool:
    """Whether a file's content is that of an image, or its name promises one."""
    if not path.is_file():
        return False
    try:
        head = _head(path)
    except OSError:
        head = b""
    return bool(image_kind(head)) or path.suffix.lower() in SUFFIXES


def _walk(folder: Path, excluded: Collection[Path]) -> FoundImages:
    """The images of a folder and of its sub-folders. No link to a folder is followed."""
    found, left_out = [], []
    try:
        inside = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        return FoundImages([], [(folder, f"a folder that cannot be read ({error.strerror})")])
    for path in inside:
        if path.is_symlink() and path.is_dir():
            left_out.append((path, "a link to a folder; name that folder to include it"))
        elif path.name.startswith("."):  # such as macOS's "._photo.jpg"
            left_out.append((path, "hidden"))
        elif path.is_dir():
            if reason := _not_entered(path, excluded):
                left_out.append((path, reason))
            else:
                deeper = _walk(path, excluded)
                found += deeper.paths
                left_out += deeper.left_out
        elif reason := _not_an_image(path):
            left_out.append((path, reason))
        else:
            found.append(path)
    return FoundImages(found, left_out)


def _not_entered(folder: Path, excluded: Collection[Path]) -> str:
    if folder.resolve() in excluded:
        return "the folder that is written to"
    try:
        with (folder / RESULTS).open("rb") as file:
            return "a folder of captioning-caption's results" if b'"log_prob"' in file.read(4 * HEAD) else ""
    except OSError:
        return ""


def _not_an_image(path: Path) -> str:
    """Why a folder's file is left out; "" of one to open."""
    if path.is_symlink() and not path.exists():
        return "a link to nothing"
    if not path.is_file():
        return "not a regular file"  # opening a pipe would wait for ever
    named = path.suffix.lower() in SUFFIXES
    try:
        head = _head(path)
    except OSError as error:
        return "" if named else f"it cannot be read ({error.strerror})"
    if path.suffix.lower() in UNFINISHED_SUFFIXES and (image_kind(head) or not described(head)):
        return f"an unfinished download ({path.suffix})"
    if path.suffix.lower() in RAW:  # many are a TIFF by their first bytes, of a tiny preview
        return f"a camera's raw file ({path.suffix}), which is not read: save it as JPEG"
    if reason := unreadable_format(head):
        return reason
    if image_kind(head) or named:
        return ""
    found = described(head)
    return f"not an image: {found}" if found else "not an image"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _what_is_there(folder: Path, left_out: Sequence[tuple[Path, str]]) -> str:
    if not left_out:
        return ": it is empty"
    told = [f"{os.path.relpath(path, folder)} ({reason})" for path, reason in left_out[:SHOWN]]
    more = [f"{len(left_out) - SHOWN} more"] if len(left_out) > SHOWN else []
    return f". It has {', '.join([*told, *more])}"
