"""Extract the images in a Parquet file once, into the folder NAME.images beside NAME.parquet.

The folder is written under a temporary name and renamed when it is complete. It contains extracted.json, with the size
and time of the Parquet file, so a changed file is extracted again.
"""

import json
import os
import shutil
from pathlib import Path, PurePath
from typing import Any

from filelock import FileLock
from tqdm import tqdm

from captioning.data import SUFFIXES, image_kind
from captioning.errors import DataError
from captioning.io import write_json

_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp"}
_SUFFIXES |= {"AVIF": ".avif", "HEIF": ".heic"}
_LISTED = "extracted.json"
_UNKNOWN = ".image"  # suffix of a file whose format is not known
_ROWS = 64  # rows in memory


def extracted_images(file: Path, column: str, root: Path) -> list[str | None]:
    """Return the image file of each row, relative to root; None for rows without one. Extract them if necessary.

    Args:
        file: the Parquet file.
        column: its image column: bytes, or structures with "bytes" and "path".
        root: folder of the data set.

    Raises:
        DataError: the images cannot be extracted, or the column holds something else.
    """
    folder = file.with_suffix(".images")
    try:
        names = _listed(folder, file, column)
        if names is None:
            with FileLock(folder.with_name(f".{folder.name}.lock")):
                names = _listed(folder, file, column) or _extract(file, column, folder)
    except OSError as error:
        raise DataError(
            f"cannot extract the images of {file} into {folder} ({error.strerror or error}): check the free space and "
            "the permissions, or copy the data set into a folder of your own"
        ) from error
    below = folder.relative_to(root).as_posix()
    return [name and (name if "/" in name else f"{below}/{name}") for name in names]


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _stamp(file: Path, column: str) -> dict[str, Any]:
    status = file.stat()
    return {"file": file.name, "column": column, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _listed(folder: Path, file: Path, column: str) -> list[str | None] | None:
    """Return the names of the extracted images; None if they are missing or of another file."""
    try:
        content = json.loads((folder / _LISTED).read_bytes())
        names = content.pop("names")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return names if content == _stamp(file, column) and isinstance(names, list) else None


def _extract(file: Path, column: str, folder: Path) -> list[str | None]:
    """Write the images of all rows, and return their names. The folder is complete as soon as it has its name."""
    from pyarrow import ArrowException, parquet

    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process
    temporary.mkdir()
    names: list[str | None] = []
    stamp = _stamp(file, column)
    try:
        with (
            parquet.ParquetFile(file) as opened,
            tqdm(total=opened.metadata.num_rows, desc=f"extracting {file.name}", unit="images", disable=None) as bar,
        ):
            for batch in opened.iter_batches(_ROWS, columns=[column]):
                for value in batch.column(0).to_pylist():
                    names.append(_write(value, temporary, len(names), f"{file}, row {len(names)}"))
                    bar.update()
                _refuse_without_images(names, file, column)
        write_json(temporary / _LISTED, stamp | {"names": names})
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    except ArrowException as error:
        raise DataError(f"cannot read {file} as Parquet ({first_line(error)}): download it again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return names


def _refuse_without_images(names: list[str | None], file: Path, column: str) -> None:
    """Refuse a column of which no value in bytes begins as an image does, such as numbers in bytes."""
    written = [name for name in names if name and "/" not in name]
    if written and all(name.endswith(_UNKNOWN) for name in written):
        raise DataError(
            f"{file}: the column '{column}' holds no images: no image signature in its first {len(names)} rows. Set "
            "data.reader.image to the column of images, or store file names as text"
        )


def _write(value: Any, folder: Path, number: int, where: str) -> str | None:
    """Write one image, and return its name; None for a row without one.

    A structure without bytes names a file, relative to the data set's folder.
    """
    path = value.get("path") if isinstance(value, dict) else None
    content = value.get("bytes") if isinstance(value, dict) else value
    if content is None:
        return path if path is None or "/" in path else f"./{path}"
    if not isinstance(content, bytes):
        raise DataError(f"{where}: the image must be bytes, or have the key bytes: choose another data.reader.image")
    if _is_name(content):
        raise DataError(
            f"{where}: the image column has the file name {content[:60]!r} as bytes: store names as text, or choose "
            "another data.reader.image"
        )
    name = f"{number:06d}{_SUFFIXES.get(image_kind(content[:1024]), _UNKNOWN)}"
    (folder / name).write_bytes(content)
    return name


def _is_name(content: bytes) -> bool:
    """Return whether bytes are the name of an image file instead of an image."""
    try:
        return len(content) < 1024 and PurePath(content.decode()).suffix.lower() in SUFFIXES
    except ValueError:
        return False
