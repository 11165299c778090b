"""Find the images among files and folders by the files' content, not by their names."""

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from PIL import features

from captioning.errors import DataError
from captioning.io import described, file_exists, read_file

HEAD = 1024  # bytes read from the start of a file
# A file with such a suffix is meant to be an image. If it is not, that is an error, not a file to leave out.
SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff"]
    + [".avif", ".heic", ".heif", ".hif"]
)
UNFINISHED_SUFFIXES = (".part", ".partial", ".crdownload", ".download", ".opdownload", ".aria2", ".tmp")
RAW = frozenset(
    [".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"]
)
SHOWN = 5  # number of left-out files that an error lists
RESULTS = "captions.json"  # results file of captioning-caption, in the folder of its figures
_AVIF, _HEIC = (b"avif", b"avis"), (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"miaf")
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes
_OTHERS = (  # image formats that cannot be read: (first bytes, name)
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
    """Images to open, in order, and (file, reason) for each file that is left out."""

    paths: list[Path]
    left_out: list[tuple[Path, str]]


def find_images(paths: Sequence[Path | str], *, exclude: Collection[Path] = ()) -> FoundImages:
    """List images: given files as they are, and for each folder the images in it and its subfolders, sorted by path.

    The content of a file decides, not its suffix. These are left out of folders, each with a reason: files that are not
    images, image formats that cannot be read, unfinished downloads, hidden files and folders, links to folders (which
    may form cycles), and folders that captioning-caption has written. Damaged images, and files that only have an
    image's suffix, are kept: opening them raises an error that names them.

    Args:
        paths: files (also inside tar archives: `00000.tar/000000001.jpg`) and folders.
        exclude: subfolders to leave out, such as the output folder. Folders in `paths` are never left out.

    Raises:
        DataError: `paths` is empty, a path does not exist, or a folder has no images.
    """
    if not paths:
        raise DataError("no images given: name at least one file or folder, such as images=[photo.jpg]")
    found, left_out = [], []
    excluded = {folder.resolve() for folder in exclude}
    for path in map(Path, paths):
        if not path.exists() and not file_exists(path):
            with suppress(OSError):
                read_file(path)  # tells what is wrong with an archive
            raise DataError(f"{path}: there is no such image or folder: check the path")
        if not path.is_dir():
            found.append(path)
            continue
        inside = _walk(path, excluded)
        if not inside.paths:
            there = _what_is_there(path, inside.left_out)
            raise DataError(f"{path}: no images in this folder{there}: add images, or choose another folder")
        found += inside.paths
        left_out += inside.left_out
    return FoundImages(found, left_out)


def list_pictures(paths: Sequence[Path | str]) -> list[Path]:
    """Return the images that `find_images` finds, without the files that are left out."""
    return find_images(paths).paths


def image_kind(head: bytes) -> str:
    """Return the image format of a file's first bytes, as Pillow names it; "" if it is not one that can be decoded."""
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
    """Return what must be installed to read images of a format; "" if they can be read."""
    if kind == "HEIF" and find_spec("pillow_heif") is None:
        return "HEIC, which needs one more package: pip install 'captioning[heic]'"
    if kind == "AVIF" and not features.check("avif"):
        return "AVIF, which this Pillow cannot read: pip install --upgrade 'pillow>=11.3'"
    return ""


def unreadable_format(head: bytes) -> str:
    """Return why an image format cannot be read and what to do; "" if it can be read or is not an image format."""
    if needed := needed_for(image_kind(head)):
        return needed
    if head[257:262] == b"ustar":
        return "a tar archive, not an image: name an image in it, such as archive.tar/photo.jpg"
    for start, name in _OTHERS:
        if head.startswith(start):
            return f"{name}, which cannot be read: save it as JPEG or PNG"
    if b"<svg" in head.lower() and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "a vector drawing (SVG), which cannot be read: save it as PNG"
    return ""


def holds_image(path: Path) -> bool:
    """Return whether a file has the content of an image or an image's suffix."""
    if not path.is_file():
        return False
    try:
        head = _head(path)
    except OSError:
        head = b""
    return bool(image_kind(head)) or path.suffix.lower() in SUFFIXES


def _walk(folder: Path, excluded: Collection[Path]) -> FoundImages:
    """Find the images of a folder and its subfolders, without following links to folders."""
    found: list[Path] = []
    left_out: list[tuple[Path, str]] = []
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
        return "the output folder"
    try:
        with (folder / RESULTS).open("rb") as file:
            return "results of captioning-caption" if b'"log_prob"' in file.read(4 * HEAD) else ""
    except OSError:
        return ""


def _not_an_image(path: Path) -> str:
    """Return why a folder's file is left out; "" for an image."""
    if path.is_symlink() and not path.exists():
        return "a broken link"
    if not path.is_file():
        return "not a regular file"  # opening a pipe would wait forever
    named = path.suffix.lower() in SUFFIXES
    try:
        head = _head(path)
    except OSError as error:
        return "" if named else f"it cannot be read ({error.strerror})"
    if path.suffix.lower() in UNFINISHED_SUFFIXES and (image_kind(head) or not described(head)):
        return f"an unfinished download ({path.suffix})"
    if path.suffix.lower() in RAW:  # many begin like a TIFF, with a tiny preview image
        return f"a camera's raw file ({path.suffix}), which cannot be read: save it as JPEG"
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
        return " (it is empty)"
    shown = [f"{os.path.relpath(path, folder)} ({reason})" for path, reason in left_out[:SHOWN]]
    more = [f"{len(left_out) - SHOWN} more"] if len(left_out) > SHOWN else []
    return f", only {', '.join([*shown, *more])}"
